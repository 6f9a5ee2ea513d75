package resource

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// elsewhere lists the kinds of stable versions that are no resource of their
// own, with where they are served.
var elsewhere = map[string]string{
	"/v1, Kind=RangeAllocation":                      "only ever stored by old servers, never served",
	"/v1, Kind=SerializedReference":                  "the value of an annotation",
	"policy/v1, Kind=Eviction":                       "pods/eviction",
	"autoscaling/v1, Kind=Scale":                     "the scale subresources",
	"authentication.k8s.io/v1, Kind=TokenRequest":    "serviceaccounts/token",
	"apiextensions.k8s.io/v1, Kind=ConversionReview": "sent to webhooks, never served",
}

var stable = regexp.MustCompile(`^v[0-9]+$`)

// everyScheme knows the kinds of k8s.io/api and of the two groups that extend
// the API, whose types are in modules of their own.
func everyScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestEveryStableKindIsServed: a kind of a stable version of the API has an
// entry in the table, or a place elsewhere.
func TestEveryStableKindIsServed(t *testing.T) {
	table := Builtin()
	unused := maps.Clone(elsewhere)
	for gvk, typ := range everyScheme(t).AllKnownTypes() {
		if !stable.MatchString(gvk.Version) || !isObject(gvk, typ) {
			continue
		}
		if _, ok := elsewhere[gvk.String()]; ok {
			delete(unused, gvk.String())
			if serves(table, gvk) {
				t.Errorf("%s is served after all: take it off the list", gvk)
			}
			continue
		}
		if !serves(table, gvk) {
			t.Errorf("%s is not served: it needs a file here and a line in Builtin", gvk)
		}
	}
	for gvk, where := range unused {
		t.Errorf("%s (%s) is no kind of the API any more", gvk, where)
	}
}

// isObject leaves out lists, options and the types that every version has.
func isObject(gvk schema.GroupVersionKind, typ reflect.Type) bool {
	if !strings.HasPrefix(typ.PkgPath(), "k8s.io/api/") && !strings.Contains(typ.PkgPath(), "/apis/apiextensions/") &&
		!strings.Contains(typ.PkgPath(), "/apis/apiregistration/") {
		return false
	}
	f, ok := typ.FieldByName("ObjectMeta")
	if ok && f.Type == reflect.TypeOf(metav1.ObjectMeta{}) {
		return true
	}
	return !strings.HasSuffix(gvk.Kind, "List") && !strings.HasSuffix(gvk.Kind, "Options")
}

func serves(table *Table, gvk schema.GroupVersionKind) bool {
	return slices.ContainsFunc(table.All(), func(r *Resource) bool {
		return r.GVK() == gvk || slices.ContainsFunc(r.Views, func(v View) bool {
			return gvk == schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}
		})
	})
}

// TestNewestVersions: a kind is stored at its newest stable version; one that
// has none is listed here, at its newest beta.
func TestNewestVersions(t *testing.T) {
	beta := map[schema.GroupVersionKind]bool{
		{Group: "scheduling.k8s.io", Version: "v1beta1", Kind: "Workload"}: true,
		{Group: "scheduling.k8s.io", Version: "v1beta1", Kind: "PodGroup"}: true,
	}
	for _, r := range Builtin().All() {
		if stable.MatchString(r.Version) == beta[r.GVK()] {
			t.Errorf("%s: neither stable nor listed here as beta", r.GVK())
		}
		if beta[r.GVK()] && clientscheme.Scheme.Recognizes(schema.GroupVersionKind{Group: r.Group, Version: "v1", Kind: r.Kind}) {
			t.Errorf("%s has a stable version now", r.GVK())
		}
	}
}

// TestComputedKinds: what is made for a request can be read and nothing else.
func TestComputedKinds(t *testing.T) {
	for _, r := range Builtin().All() {
		if !r.Computed {
			continue
		}
		for _, v := range r.Verbs {
			if v != "get" && v != "list" {
				t.Errorf("%s is computed and has the verb %s", r.GVK(), v)
			}
		}
		if r.Stored() {
			t.Errorf("%s is computed and stored", r.GVK())
		}
	}
}
