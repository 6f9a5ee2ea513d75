package placement

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func waiting() *Status {
	return &Status{
		Result: Unschedulable, SchedulerName: "default-scheduler", Attempts: 2, Nodes: 4, Message: "0/4 nodes are available",
		Refusals: []Refusal{
			{Plugin: "NodeResourcesFit", Reasons: []string{"Insufficient cpu", "Insufficient memory"}, Nodes: 2, Examples: []string{"n1", "n2"},
				Preemptible: true, Lacks: []Lack{{"cpu", "200m"}}},
			{Plugin: "TaintToleration", Reasons: []string{"node(s) had untolerated taint {team: a}"}, Nodes: 1, Examples: []string{"n3"}},
			{Plugin: "NodeUnschedulable", Reasons: []string{"node(s) were unschedulable"}, Nodes: 9, Examples: []string{"n4"}},
			{Plugin: "VolumeBinding", Reasons: []string{"pod has unbound immediate PersistentVolumeClaims"}},
		},
	}
}

func TestAdvice(t *testing.T) {
	b := NewBook(Budget)
	b.Put("default", "p", "1", waiting())
	p, ok := b.Get("default", "p")
	if !ok {
		t.Fatal("the verdict is not there")
	}
	want := []string{
		"free 200m cpu on one of 2 nodes (n1, n2), or have the pod request as much less, and free memory on one of 2 nodes (n1, n2), or have the pod request less of it",
		"add a toleration of taint {team: a} to the pod, or remove the taint from node n3",
		"uncordon one of 9 nodes (n4, ...) (ctl uncordon n4)",
		"VolumeBinding refuses the pod whatever the node (pod has unbound immediate PersistentVolumeClaims): change what the pod asks for",
	}
	if got := strings.Join(p.Status.Advice, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("advice\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestEveryKnownReasonNamesTheNodes(t *testing.T) {
	for _, reason := range []string{
		"Too many pods", "node(s) were unschedulable", "node(s) didn't match Pod's node affinity/selector",
		"node(s) didn't have free ports for the requested pod ports", "node(s) didn't match pod affinity rules",
		"node(s) didn't match pod anti-affinity rules", "node(s) didn't satisfy existing pods anti-affinity rules",
		"node(s) didn't match pod topology spread constraints", "node(s) didn't match pod topology spread constraints (missing required label)",
		"a reason of tomorrow", "Insufficient example.com/gpu",
	} {
		got := advise([]Refusal{{Plugin: "X", Reasons: []string{reason}, Nodes: 3, Examples: []string{"a", "b"}}})
		if len(got) != 1 || !strings.Contains(got[0], "one of 3 nodes (a, b, ...)") {
			t.Errorf("%s: %q", reason, got)
		}
	}
}

func TestBookKeepsToItsBudget(t *testing.T) {
	const budget = 100_000
	b := NewBook(budget)
	for i := range 1000 {
		b.Put("ns", fmt.Sprint(i), types.UID(fmt.Sprint(i)), waiting())
		if b.size > budget {
			t.Fatalf("%d bytes after %d verdicts, want at most %d", b.size, i, budget)
		}
	}
	if _, ok := b.Get("ns", "999"); !ok {
		t.Error("the newest verdict is gone")
	}
	if _, ok := b.Get("ns", "0"); ok {
		t.Error("the oldest verdict is still there")
	}
	for i := range 1000 {
		b.Forget("ns", fmt.Sprint(i), "other")
	}
	if len(b.pods) == 0 {
		t.Error("verdicts about other pods of the name were forgotten")
	}
	for i := range 1000 {
		b.Forget("ns", fmt.Sprint(i), types.UID(fmt.Sprint(i)))
	}
	if len(b.pods) != 0 || b.size != 0 || b.order.Len() != 0 {
		t.Errorf("%d verdicts and %d bytes are left", len(b.pods), b.size)
	}
}

func TestHandler(t *testing.T) {
	b := NewBook(Budget)
	b.Put("default", "p", "1", waiting())
	const base = "/apis/explain.coracle.dev/v1"
	for _, test := range []struct {
		method, path, accept string
		code                 int
		want                 string
	}{
		{"GET", base, "", 200, `"name":"podplacements"`},
		{"GET", base + "/namespaces/default/podplacements/p", "", 200, `"kind":"PodPlacement"`},
		{"GET", base + "/namespaces/default/podplacements/p", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", 200, `"kind":"Table"`},
		{"GET", base + "/namespaces/default/podplacements/q", "", 404, `podplacements.explain.coracle.dev \"q\" not found`},
		{"GET", base + "/namespaces/other/podplacements/p", "", 404, "not found"},
		{"GET", base + "/namespaces/default/podplacements", "", 404, "one by one"},
		{"GET", "/apis/explain.coracle.dev/v2", "", 404, "nothing at"},
		{"DELETE", base + "/namespaces/default/podplacements/p", "", 405, "delete is not supported"},
	} {
		r, w := httptest.NewRequest(test.method, test.path, nil), httptest.NewRecorder()
		r.Header.Set("Accept", test.accept)
		Handler(b).ServeHTTP(w, r)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s %s: %d %s, want %d and %s", test.method, test.path, w.Code, w.Body, test.code, test.want)
		}
		var s metav1.TypeMeta
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Kind == "" || (w.Code >= http.StatusBadRequest) != (s.Kind == "Status") {
			t.Errorf("%s %s: answer of kind %q (%v)", test.method, test.path, s.Kind, err)
		}
	}
}
