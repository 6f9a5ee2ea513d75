package apiserver_test

import (
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/resource"
)

// checkGenerationOfEveryKind: ST-1. Generation is 1 for a new object of a kind
// that counts, else 0; labels and status leave it. Labels of an EndpointSlice
// are a part of what it says.
func checkGenerationOfEveryKind(t *testing.T) {
	s := newServer(t)
	eachKind(t, s, func(t *testing.T, res *resource.Resource, path, name, body string) {
		merge := contentType("application/merge-patch+json")
		generation := func(a *answer) int64 {
			t.Helper()
			got := &metav1.PartialObjectMetadata{}
			a.decode(t, got)
			return got.Generation
		}
		want := generation(s.must(t, 201, "POST", path, body, contentType(jsonBody)))
		if want > 1 || res.HasGeneration && want != 1 {
			t.Errorf("a new object is of generation %d", want)
		}
		if res.Plural == "endpointslices" {
			want = 2
		}
		if got := generation(s.must(t, 200, "PATCH", path+"/"+name, `{"metadata":{"labels":{"x":"1"},"generation":7}}`, merge)); got != want {
			t.Errorf("a label makes it generation %d, want %d", got, want)
		}
		if res.HasStatus {
			status := plain(t, s.must(t, 200, "GET", path+"/"+name+"/status", "").body)
			spec, err := json.Marshal(status["spec"])
			if err != nil {
				t.Fatal(err)
			}
			a := s.must(t, 200, "PATCH", path+"/"+name+"/status", `{"metadata":{"annotations":{"seen":"1"}}}`, merge)
			if got := generation(a); got != want {
				t.Errorf("a write of the status makes it generation %d, want %d", got, want)
			}
			if after, err := json.Marshal(plain(t, a.body)["spec"]); err != nil || string(after) != string(spec) {
				t.Errorf("a write of the status changed the spec from %s to %s (%v)", spec, after, err)
			}
		}
	})
}
