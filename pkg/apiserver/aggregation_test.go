package apiserver_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/apiserver/aggregate"
)

const apiServices = "/apis/apiregistration.k8s.io/v1/apiservices"

// untilAvailable waits until an APIService has the condition Available with the
// reason.
func (s *server) untilAvailable(t *testing.T, name, reason string) *apiregistrationv1.APIService {
	t.Helper()
	var got apiregistrationv1.APIService
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		a := s.do(t, http.MethodGet, apiServices+"/"+name, "")
		if a.code != http.StatusOK {
			return false, nil
		}
		got = apiregistrationv1.APIService{}
		a.decode(t, &got)
		return slices.ContainsFunc(got.Status.Conditions, func(c apiregistrationv1.APIServiceCondition) bool {
			return c.Type == apiregistrationv1.Available && c.Reason == reason
		}), nil
	})
	if err != nil {
		t.Fatalf("APIService %s did not become %s: %v, it is %+v", name, reason, err, got.Status)
	}
	return &got
}

// TestLocalAPIServices: each group version of the table has an APIService that
// says it is local; those of custom resources come and go with their versions.
func TestLocalAPIServices(t *testing.T) {
	s := newServer(t)
	table := s.Registry().Table()
	for _, g := range table.Groups() {
		for _, v := range g.Versions {
			name := v + "." + g.Group
			if g.Group == apiregistrationv1.GroupName {
				s.must(t, 404, "GET", apiServices+"/"+name, "")
				continue
			}
			got := s.untilAvailable(t, name, "Local")
			if got.Labels[aggregate.AutomanagedLabel] != aggregate.OnStart || got.Spec.Service != nil || got.Status.Conditions[0].Status != apiregistrationv1.ConditionTrue {
				t.Errorf("%s: %v %+v", name, got.Labels, got.Status)
			}
		}
	}
	s.must(t, 201, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", twoVersions, contentType("application/yaml"))
	for _, name := range []string{"v1.kit.example.com", "v1beta1.kit.example.com"} {
		if got := s.untilAvailable(t, name, "Local"); got.Labels[aggregate.AutomanagedLabel] != aggregate.Always || got.Spec.GroupPriorityMinimum != 1000 || got.Spec.VersionPriority != 100 {
			t.Errorf("%s: %v %+v", name, got.Labels, got.Spec)
		}
	}
	// One that a user deletes comes back; one of a version that is not served any
	// more goes.
	was := s.untilAvailable(t, "v1.kit.example.com", "Local")
	s.must(t, 200, "DELETE", apiServices+"/v1.kit.example.com", "")
	s.until(t, "the APIService is there again", func() bool {
		a := s.do(t, "GET", apiServices+"/v1.kit.example.com", "")
		var again apiregistrationv1.APIService
		if a.code == 200 {
			a.decode(t, &again)
		}
		return a.code == 200 && again.UID != was.UID
	})
	s.must(t, 200, "PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/kits.kit.example.com",
		`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`, contentType("application/json-patch+json"))
	s.until(t, "the APIService of the version is gone", func() bool { return s.do(t, "GET", apiServices+"/v1beta1.kit.example.com", "").code == 404 })
	s.must(t, 200, "GET", apiServices+"/v1.kit.example.com", "")
	s.must(t, 200, "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/kits.kit.example.com", "")
	s.until(t, "the APIService of the definition is gone", func() bool { return s.do(t, "GET", apiServices+"/v1.kit.example.com", "").code == 404 })
}

const twoVersions = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kits.kit.example.com}
spec:
  group: kit.example.com
  names: {kind: Kit, plural: kits}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
  - {name: v1beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}}
`

// until waits for something that has to come.
func (s *server) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil }); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// TestGroupOrder: groups come in the order of their priority, which decides for
// clients that name a resource without its group.
func TestGroupOrder(t *testing.T) {
	s := newServer(t)
	var list metav1.APIGroupList
	s.must(t, 200, "GET", "/apis", "").decode(t, &list)
	var names []string
	for _, g := range list.Groups {
		names = append(names, g.Name)
	}
	want := []string{"apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch"}
	if len(names) < len(want) || !slices.Equal(names[:len(want)], want) {
		t.Errorf("groups come as %v, want %v first", names, want)
	}
	// An APIService decides, whoever wrote it.
	s.must(t, 200, "PATCH", apiServices+"/v1.batch", `{"spec":{"groupPriorityMinimum":19000}}`, contentType("application/merge-patch+json"))
	s.until(t, "batch is second", func() bool {
		var now metav1.APIGroupList
		s.must(t, 200, "GET", "/apis", "").decode(t, &now)
		return now.Groups[1].Name == "batch"
	})
}
