package apiserver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/testcluster"
)

// TestComponentStatuses: list, get, selectors and tables of what is computed,
// with the warning that it is deprecated.
func TestComponentStatuses(t *testing.T) {
	s := newServer(t, testcluster.WithRoles())
	list := &corev1.ComponentStatusList{}
	a := s.must(t, 200, "GET", "/api/v1/componentstatuses", "")
	a.decode(t, list)
	if got := a.header.Values("Warning"); len(got) != 1 || !strings.Contains(got[0], "v1 ComponentStatus is deprecated in v1.19+") {
		t.Errorf("warnings %q, want the one of deprecation", got)
	}
	if list.ResourceVersion != "" || len(list.Items) != 3 {
		t.Errorf("list of %d at resourceVersion %q, want 3 at none", len(list.Items), list.ResourceVersion)
	}
	for _, item := range list.Items {
		if len(item.Conditions) != 1 || item.Conditions[0].Status != corev1.ConditionTrue || item.Conditions[0].Message != "ok" {
			t.Errorf("%s is %+v, want healthy", item.Name, item.Conditions)
		}
	}
	s.must(t, 200, "GET", "/api/v1/componentstatuses?fieldSelector=metadata.name%3Detcd-0", "").decode(t, list)
	if len(list.Items) != 1 || list.Items[0].Name != "etcd-0" {
		t.Errorf("selected %+v, want etcd-0", list.Items)
	}
	table := &metav1.Table{}
	s.must(t, 200, "GET", "/api/v1/componentstatuses/etcd-0", "", accept("application/json;as=Table;g=meta.k8s.io;v=v1")).decode(t, table)
	if len(table.Rows) != 1 || table.Rows[0].Cells[1] != "Healthy" {
		t.Errorf("table %+v, want one healthy row", table.Rows)
	}
	s.must(t, 200, "GET", "/api/v1/componentstatuses", "", accept("application/vnd.kubernetes.protobuf"))
	s.must(t, 404, "GET", "/api/v1/componentstatuses/moon", "").status(t)
	for _, method := range []string{"POST", "DELETE"} {
		s.must(t, 405, method, "/api/v1/componentstatuses", "{}", contentType("application/json")).status(t)
	}
	s.must(t, 405, "GET", "/api/v1/componentstatuses?watch=1", "").status(t)
}

// TestSickComponent: a component that fails says why.
func TestSickComponent(t *testing.T) {
	s := newServer(t)
	chain, err := admission.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	other := apiServer(t, s, chain, func(c *apiserver.Config) {
		c.Components = []apiserver.Check{{Name: "moon", Check: func(context.Context) error { return errors.New("eclipsed") }}}
	})
	sick := &server{http: other.Transport(&auth.User{Name: "ann"})}
	a := sick.must(t, 200, "GET", "/api/v1/componentstatuses/moon", "")
	if body := string(a.body); !strings.Contains(body, `"status":"False"`) || !strings.Contains(body, "eclipsed") {
		t.Errorf("%s, want unhealthy with the reason", body)
	}
}
