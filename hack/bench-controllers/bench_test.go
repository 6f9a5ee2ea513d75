package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCountWrites(t *testing.T) {
	log := `{"verb":"create","user":{"username":"system:serviceaccount:kube-system:replicaset-controller"},"objectRef":{"resource":"pods"},"responseStatus":{"code":201}}
{"verb":"create","user":{"username":"system:serviceaccount:kube-system:replicaset-controller"},"objectRef":{"resource":"pods"},"responseStatus":{"code":409}}
{"verb":"patch","user":{"username":"admin"},"impersonatedUser":{"username":"system:node:a"},"objectRef":{"resource":"pods","subresource":"status"},"responseStatus":{"code":200}}
{"verb":"patch","user":{"username":"system:node:b"},"objectRef":{"resource":"pods","subresource":"status"},"responseStatus":{"code":200}}
`
	got, err := countWrites(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"replicaset-controller: create pods": 1, "nodes: patch pods/status": 2}
	names := map[string]int{}
	for w, n := range got {
		names[w.String()] = n
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if first := sorted(got)[0].String(); first != "nodes: patch pods/status" {
		t.Errorf("the most frequent is %q", first)
	}
	if _, err := countWrites(strings.NewReader("{")); err == nil {
		t.Error("a cut line is read")
	}
}

func TestRolloutRows(t *testing.T) {
	rows := rolloutRows("p", map[write]int{
		{replicator, "create", "pods"}: 1000, {replicator, "delete", "pods"}: 1100, {replicator, "create", "events"}: 2000,
		{deployer, "update", "deployments/status"}: 150, {replicator, "update", "replicasets/status"}: 100, {slicer, "update", "endpointslices"}: 120,
	}, 1000)
	want := []struct {
		value   float64
		verdict string
	}{{1, "met"}, {1.1, "missed"}, {0.25, "missed"}, {0.12, "met"}}
	for i, w := range want {
		if rows[i].Value != w.value || rows[i].Verdict() != w.verdict {
			t.Errorf("%s: %v %s, want %v %s", rows[i].Name, rows[i].Value, rows[i].Verdict(), w.value, w.verdict)
		}
	}
	if len(rows) != 4+6 {
		t.Errorf("%d rows, want one for each writer besides", len(rows))
	}
}
