package aggregate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/resource"
)

func TestReachable(t *testing.T) {
	service := func(change func(*corev1.ServiceSpec)) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "api", Port: 443}}}}
		if change != nil {
			change(&s.Spec)
		}
		return s
	}
	slice := func(port string, ready *bool) []*discoveryv1.EndpointSlice {
		return []*discoveryv1.EndpointSlice{{
			Ports:     []discoveryv1.EndpointPort{{Name: &port, Port: new(int32(8443))}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}},
		}}
	}
	ref := &apiregistrationv1.ServiceReference{Namespace: "ns", Name: "svc"}
	for _, c := range []struct {
		name   string
		seen   surroundings
		status apiregistrationv1.ConditionStatus // empty: reachable
		reason string
	}{
		{"no service", surroundings{serviceErr: apierrors.NewNotFound(schema.GroupResource{}, "svc")}, "False", "ServiceNotFound"},
		{"unreadable service", surroundings{serviceErr: errors.New("x")}, "Unknown", "ServiceAccessError"},
		{"other port", surroundings{service: service(func(s *corev1.ServiceSpec) { s.Ports[0].Port = 80 })}, "False", "ServicePortError"},
		{"unreadable endpoints", surroundings{service: service(nil), slicesErr: errors.New("x")}, "Unknown", "EndpointsAccessError"},
		{"no endpoints", surroundings{service: service(nil)}, "False", "EndpointsNotFound"},
		{"none ready", surroundings{service: service(nil), slices: slice("api", new(false))}, "False", "MissingEndpoints"},
		{"port of another name", surroundings{service: service(nil), slices: slice("web", nil)}, "False", "MissingEndpoints"},
		{"ready", surroundings{service: service(nil), slices: slice("api", new(true))}, "", ""},
		{"nothing said of readiness", surroundings{service: service(nil), slices: slice("api", nil)}, "", ""},
		{"external", surroundings{service: service(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName; s.Ports = nil })}, "", ""},
	} {
		got, ok := reachable(ref, c.seen)
		if ok != (c.status == "") || got.Status != c.status || got.Reason != c.reason {
			t.Errorf("%s: %v %+v, want %s %s", c.name, ok, got, c.status, c.reason)
		}
	}
}

func TestVerdict(t *testing.T) {
	if got := verdict(nil); got.Status != "True" || got.Reason != "Passed" {
		t.Errorf("%+v", got)
	}
	if got := verdict(errors.New("it said no")); got.Status != "False" || got.Reason != "FailedDiscoveryCheck" || got.Message != "it said no" {
		t.Errorf("%+v", got)
	}
}

// TestSetCondition: the time of a transition is that of the last change of the
// status, and other conditions are left alone.
func TestSetCondition(t *testing.T) {
	at := func(hour int) metav1.Time { return metav1.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	other := apiregistrationv1.APIServiceCondition{Type: "Other", Status: "True", LastTransitionTime: at(0)}
	status := apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{other}}
	step := func(hour int, c apiregistrationv1.APIServiceCondition, want int) {
		t.Helper()
		SetCondition(&status, c, at(hour))
		c.LastTransitionTime = at(want)
		if diff := cmp.Diff([]apiregistrationv1.APIServiceCondition{other, c}, status.Conditions); diff != "" {
			t.Errorf("hour %d (-want +got):\n%s", hour, diff)
		}
	}
	step(1, verdict(errors.New("a")), 1)
	step(2, verdict(errors.New("b")), 1)
	step(3, verdict(nil), 3)
	step(4, verdict(nil), 3)
}

// TestRegister: what the server manages follows the table, what others manage
// stays as it is.
func TestRegister(t *testing.T) {
	service := func(name, label string, priority int32) *apiregistrationv1.APIService {
		s := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: apiregistrationv1.APIServiceSpec{GroupPriorityMinimum: priority}}
		if label != "" {
			s.Labels = map[string]string{AutomanagedLabel: label}
		}
		return s
	}
	stored := map[string]*apiregistrationv1.APIService{}
	for _, s := range []*apiregistrationv1.APIService{
		service("same", Always, 1), service("changed", Always, 2), service("left", Always, 1), service("theirs", "", 7),
		service("builtin", OnStart, 1), service("dropped", OnStart, 1), service("foreign", "", 1),
	} {
		stored[s.Name] = s
	}
	got := Register([]*apiregistrationv1.APIService{service("same", Always, 1), service("changed", Always, 1), service("new", Always, 1), service("theirs", Always, 1)},
		[]*apiregistrationv1.APIService{service("builtin", OnStart, 3)}, stored)
	names := func(list []*apiregistrationv1.APIService) string {
		var out []string
		for _, s := range list {
			out = append(out, s.Name)
		}
		return strings.Join(out, " ")
	}
	if names(got.Create) != "new" || names(got.Update) != "changed" || names(got.Remove) != "dropped left" {
		t.Errorf("create %s, update %s, remove %s", names(got.Create), names(got.Update), names(got.Remove))
	}
	for name, want := range map[string]bool{"builtin": true, "foreign": false} {
		if changed := Merge(stored[name].DeepCopy(), service(name, OnStart, 9)); changed != want {
			t.Errorf("%s: changed is %v", name, changed)
		}
	}
}

// TestLocalCoversTheTable: each built-in group version but the aggregator's own
// has its place in discovery, which nobody forgot to give it.
func TestLocalCoversTheTable(t *testing.T) {
	table := resource.Builtin()
	local := map[string]bool{}
	for _, s := range Local(table, false) {
		local[s.Name] = true
		if s.Spec.GroupPriorityMinimum == 15000 {
			t.Errorf("%s has no priority: give its group one in pkg/apiserver", s.Name)
		}
		if apiservices, ok := table.ByGVK(apiregistrationv1.SchemeGroupVersion.WithKind("APIService")); !ok {
			t.Fatal("the table lacks APIServices")
		} else if errs := apiservices.CheckCreate(t.Context(), s); len(errs) > 0 {
			t.Errorf("%s: %v", s.Name, errs)
		}
	}
	for _, g := range table.Groups() {
		for _, v := range g.Versions {
			if name := v + "." + g.Group; local[name] == (g.Group == apiregistrationv1.GroupName) {
				t.Errorf("%s: listed is %v", name, local[name])
			}
		}
	}
	if got := Local(table, true); len(got) > 0 {
		t.Errorf("custom resources in a table without any: %d", len(got))
	}
}

func FuzzDiscovery(f *testing.F) {
	gv := schema.GroupVersion{Group: "g", Version: "v1"}
	f.Add([]byte(`{"kind":"APIResourceList","groupVersion":"g/v1","resources":[{"name":"a/status","kind":"A"},{"name":"a","kind":"A","verbs":["get"]},{"name":"b/x","kind":"X"}]}`))
	f.Add([]byte(`{"paths":{"apis/g/v1":{"serverRelativeURL":"/openapi/v3/apis/g/v1?hash=A"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		resources, err := parseResources(body, gv)
		if err != nil && resources != nil {
			t.Error("resources beside an error")
		}
		seen := map[string]bool{}
		for _, r := range resources {
			if r.Resource == "" || strings.Contains(r.Resource, "/") || seen[r.Resource] || r.ResponseKind == nil {
				t.Errorf("a resource %+v", r)
			}
			seen[r.Resource] = true
		}
		if url := parseIndex(body, gv); url != "" && !strings.HasPrefix(url, "/openapi/v3/apis/g/v1") {
			t.Errorf("the document is at %s", url)
		}
	})
}
