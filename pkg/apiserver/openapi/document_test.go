package openapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

func testCatalog(t *testing.T) *catalog {
	t.Helper()
	c, err := loadCatalog(embedded)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCatalogServesTable fails when a kind of the table, its list, a
// subresource's kind or a type that one of them refers to is not in the
// catalog: `go run ./hack/openapi` then has to be run again.
func TestCatalogServesTable(t *testing.T) {
	c := testCatalog(t)
	table := resource.Builtin()
	for _, name := range sectionNames(table) {
		s, err := c.section(table, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := c.definitions(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(s.routes) == 0 {
			t.Errorf("%s has no routes", name)
		}
	}
}

func TestCatalogIsWhole(t *testing.T) {
	c := testCatalog(t)
	for name, d := range c.byName {
		for _, r := range d.Refs {
			if c.byName[r] == nil {
				t.Errorf("%s refers to %s, which is not there", name, r)
			}
		}
		for form, text := range map[string][]byte{v2Refs: d.V2, v3Refs: d.V3} {
			if !json.Valid(text) {
				t.Errorf("%s is no JSON with %s", name, form)
			}
			refs := map[string]bool{}
			for _, part := range strings.Split(string(text), `"$ref":"`)[1:] {
				target, ok := strings.CutPrefix(part[:strings.IndexByte(part, '"')], form)
				if !ok {
					t.Errorf("%s has a reference of another form than %s: %.80s", name, form, part)
				}
				refs[target] = true
			}
			if form == v3Refs {
				if diff := cmp.Diff(slices.Sorted(maps.Keys(refs)), d.Refs, cmp.Transformer("empty", func(s []string) []string {
					return append([]string{}, s...)
				})); diff != "" {
					t.Errorf("%s: references of the schema (-) and those that are listed (+):\n%s", name, diff)
				}
			}
		}
	}
}

// TestProtobufIsJSON compares the spliced protobuf with what gnostic, which
// other API servers use for it, makes of the JSON document.
func TestProtobufIsJSON(t *testing.T) {
	c := testCatalog(t)
	table := resource.Builtin()
	sections := sectionNames(table)
	if testing.Short() {
		sections = []string{"api/v1", "apis/apps/v1"}
	}
	for _, name := range append([]string{""}, sections...) {
		d, err := c.v2(table, "v1")
		v3 := name != ""
		if v3 {
			d, err = c.v3(table, "v1", name)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var jsonText, protoText bytes.Buffer
		if err := d.encodeJSON(&jsonText, c, table, v3); err != nil {
			t.Fatal(err)
		}
		if err := d.encodeProto(&protoText, c, table, v3); err != nil {
			t.Fatal(err)
		}
		text, wire := jsonText.Bytes(), protoText.Bytes()
		var want, got proto.Message = &openapi_v2.Document{}, &openapi_v2.Document{}
		if v3 {
			got = &openapi_v3.Document{}
			want, err = openapi_v3.ParseDocument(text)
		} else {
			want, err = openapi_v2.ParseDocument(text)
		}
		if err != nil {
			t.Fatalf("%q: the JSON document is not valid: %v", name, err)
		}
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if !proto.Equal(want, got) {
			t.Errorf("%q: the JSON and the protobuf document are not the same", name)
		}
	}
}

func TestOperations(t *testing.T) {
	c := testCatalog(t)
	table := resource.Builtin()
	byID := map[string]string{} // "METHOD path action kind"
	for _, name := range sectionNames(table) {
		s, err := c.section(table, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.routes {
			for _, o := range r.ops {
				if other, twice := byID[o.id]; twice {
					t.Errorf("%s %s has the id of %s", o.method, r.path, other)
				}
				byID[o.id] = strings.Join([]string{o.method, r.path, o.action, o.kind.Kind}, " ")
				checkPathParams(t, &r, &o)
			}
		}
	}
	// The ids that generated clients of other languages are made of.
	for id, want := range map[string]string{
		"getAppsV1APIResources":                                  "get /apis/apps/v1/  ",
		"getRbacAuthorizationAPIGroup":                           "get /apis/rbac.authorization.k8s.io/  ",
		"listCoreV1PodForAllNamespaces":                          "get /api/v1/pods list Pod",
		"listCoreV1NamespacedPod":                                "get /api/v1/namespaces/{namespace}/pods list Pod",
		"createCoreV1NamespacedPod":                              "post /api/v1/namespaces/{namespace}/pods post Pod",
		"readCoreV1NamespacedPod":                                "get /api/v1/namespaces/{namespace}/pods/{name} get Pod",
		"replaceCoreV1NamespaceFinalize":                         "put /api/v1/namespaces/{name}/finalize put Namespace",
		"readCoreV1NamespacedPodLog":                             "get /api/v1/namespaces/{namespace}/pods/{name}/log get Pod",
		"connectCoreV1PostNamespacedPodExec":                     "post /api/v1/namespaces/{namespace}/pods/{name}/exec connect PodExecOptions",
		"connectCoreV1GetNodeProxyWithPath":                      "get /api/v1/nodes/{name}/proxy/{path} connect NodeProxyOptions",
		"createCoreV1NamespacedPodEviction":                      "post /api/v1/namespaces/{namespace}/pods/{name}/eviction post Eviction",
		"createCoreV1NamespacedServiceAccountToken":              "post /api/v1/namespaces/{namespace}/serviceaccounts/{name}/token post TokenRequest",
		"patchAppsV1NamespacedDeploymentScale":                   "patch /apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale patch Scale",
		"deleteRbacAuthorizationV1ClusterRole":                   "delete /apis/rbac.authorization.k8s.io/v1/clusterroles/{name} delete ClusterRole",
		"deleteRbacAuthorizationV1CollectionNamespacedRole":      "delete /apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles deletecollection Role",
		"watchEventsV1NamespacedEventList":                       "get /apis/events.k8s.io/v1/watch/namespaces/{namespace}/events watchlist Event",
		"watchCoreV1Node":                                        "get /api/v1/watch/nodes/{name} watch Node",
		"createAuthorizationV1SelfSubjectAccessReview":           "post /apis/authorization.k8s.io/v1/selfsubjectaccessreviews post SelfSubjectAccessReview",
		"replaceCertificatesV1CertificateSigningRequestApproval": "put /apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/approval put CertificateSigningRequest",
	} {
		if got := byID[id]; got != want {
			t.Errorf("operation %s is %q, want %q", id, got, want)
		}
	}
}

func checkPathParams(t *testing.T, r *route, o *operation) {
	t.Helper()
	var want, got []string
	for _, part := range strings.Split(r.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			want = append(want, strings.TrimSuffix(name, "}"))
		}
	}
	seen := map[parameter]bool{}
	for _, p := range slices.Concat(r.params, o.params) {
		if p.in == "path" {
			got = append(got, p.name)
		}
		if id := (parameter{name: p.name, in: p.in}); seen[id] {
			t.Errorf("%s %s has the parameter %s twice", o.method, r.path, p.name)
		} else {
			seen[id] = true
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%s %s has the path parameters %v", o.method, r.path, got)
	}
}

// TestQueries holds what clients decide by.
func TestQueries(t *testing.T) {
	q, err := testCatalog(t).queries()
	if err != nil {
		t.Fatal(err)
	}
	names := func(params []parameter) (out []string) {
		for _, p := range params {
			out = append(out, p.name+":"+p.typ)
		}
		slices.Sort(out)
		return out
	}
	for what, x := range map[string]struct{ got, want []string }{
		"create": {names(q.create), []string{"dryRun:string", "fieldManager:string", "fieldValidation:string"}},
		"update": {names(q.update), []string{"dryRun:string", "fieldManager:string", "fieldValidation:string"}},
		"patch":  {names(q.patch), []string{"dryRun:string", "fieldManager:string", "fieldValidation:string", "force:boolean"}},
		"list": {names(q.list), []string{
			"allowWatchBookmarks:boolean", "continue:string", "fieldSelector:string", "labelSelector:string", "limit:integer",
			"resourceVersion:string", "resourceVersionMatch:string", "sendInitialEvents:boolean", "timeoutSeconds:integer", "watch:boolean",
		}},
		"delete": {names(q.remove), []string{
			"dryRun:string", "gracePeriodSeconds:integer", "ignoreStoreReadErrorWithClusterBreakingPotential:boolean",
			"orphanDependents:boolean", "propagationPolicy:string",
		}},
	} {
		if diff := cmp.Diff(x.want, x.got); diff != "" {
			t.Errorf("query parameters of a %s (-want +got):\n%s", what, diff)
		}
	}
}

func TestSameTableSameHash(t *testing.T) {
	hash := func(table *resource.Table, v string) string {
		b, err := New(func() *resource.Table { return table }, version.Info{GitVersion: v}).body("apis/apps/v1", false)
		if err != nil {
			t.Fatal(err)
		}
		return b.hash
	}
	first := hash(resource.Builtin(), "v1")
	if again := hash(resource.Builtin(), "v1"); again != first {
		t.Errorf("the same document has the hashes %s and %s", first, again)
	}
	if other := hash(resource.Builtin(), "v2"); other == first {
		t.Error("the document of another version has the same hash")
	}
	var apps []*resource.Resource
	for _, r := range resource.Builtin().All() {
		if r.Group == "apps" && r.Kind != "DaemonSet" {
			apps = append(apps, r)
		}
	}
	if other := hash(resource.MustTable(apps...), "v1"); other == first {
		t.Error("the document without a resource has the same hash")
	}
}
