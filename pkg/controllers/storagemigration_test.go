package controllers_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gadgets is a definition whose objects are stored in one of two versions.
func gadgets(stored string) []byte {
	const schema = `{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}`
	version := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"served":true,"storage":%v,"schema":%s}`, name, name == stored, schema)
	}
	return fmt.Appendf(nil, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"gadgets.example.com"},
		"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"gadgets","singular":"gadget","kind":"Gadget"},"versions":[%s,%s]}}`,
		version("v1"), version("v2"))
}

// gadgetVersions are the resourceVersions of all gadgets.
func (c *cluster) gadgetVersions() map[string]string {
	c.t.Helper()
	data, err := c.Client.Discovery().RESTClient().Get().AbsPath("/apis/example.com/v1/gadgets").DoRaw(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(data, &list); err != nil {
		c.t.Fatal(err)
	}
	out := map[string]string{}
	for _, o := range list.Items {
		out[o.Name] = o.ResourceVersion
	}
	return out
}

func (c *cluster) migrate(name string, resource metav1.GroupResource) {
	c.t.Helper()
	_, err := c.Client.StoragemigrationV1().StorageVersionMigrations().Create(c.t.Context(), &migrationv1.StorageVersionMigration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: migrationv1.StorageVersionMigrationSpec{Resource: resource},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) wantMigration(name string, condition migrationv1.MigrationConditionType) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("migration %s has %s", name, condition), func() error {
		m, err := c.Client.StoragemigrationV1().StorageVersionMigrations().Get(c.t.Context(), name, metav1.GetOptions{})
		if err == nil && !meta.IsStatusConditionTrue(m.Status.Conditions, string(condition)) {
			err = fmt.Errorf("status %+v", m.Status)
		}
		return err
	})
}

// makeGadgets stores three gadgets as v1, and then has the definition store v2.
func makeGadgets(c *cluster) {
	raw := c.Client.Discovery().RESTClient()
	const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	if err := raw.Post().AbsPath(definitions).SetHeader("Content-Type", "application/json").Body(gadgets("v1")).Do(c.t.Context()).Error(); err != nil {
		c.t.Fatal(err)
	}
	for i := range 3 {
		c.eventually("a gadget is made", func() error {
			body := fmt.Appendf(nil, `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"g%d"}}`, i)
			return raw.Post().AbsPath("/apis/example.com/v1/namespaces/default/gadgets").SetHeader("Content-Type", "application/json").Body(body).Do(c.t.Context()).Error()
		})
	}
	if err := raw.Patch("application/merge-patch+json").AbsPath(definitions, "gadgets.example.com").Body(gadgets("v2")).Do(c.t.Context()).Error(); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(5 * time.Second) // the server takes the definition
}

// migrateGadgets wants each gadget stored anew by the first migration, and none
// by a second.
func migrateGadgets(c *cluster) {
	before := c.gadgetVersions()
	resource := metav1.GroupResource{Group: "example.com", Resource: "gadgets"}
	c.migrate("first", resource)
	c.wantMigration("first", migrationv1.MigrationSucceeded)
	between := c.gadgetVersions()
	for name, was := range before {
		if between[name] == was {
			c.t.Errorf("%s is stored as it was", name)
		}
	}
	if len(between) != 3 {
		c.t.Errorf("there are %d gadgets, want 3", len(between))
	}
	c.migrate("second", resource)
	c.wantMigration("second", migrationv1.MigrationSucceeded)
	for name, now := range c.gadgetVersions() {
		if between[name] != now {
			c.t.Errorf("%s was written though it had the new form", name)
		}
	}
}

func TestStorageIsMigrated(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		makeGadgets(c)
		migrateGadgets(c)
		c.migrate("nothing", metav1.GroupResource{Group: "example.com", Resource: "nothings"})
		c.wantMigration("nothing", migrationv1.MigrationFailed)
		c.migrate("reviews", metav1.GroupResource{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"})
		c.wantMigration("reviews", migrationv1.MigrationFailed)
	})
}
