package celpolicy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// createdAs creates a ConfigMap and returns what the audit log would say.
func (w *world) createdAs(t *testing.T, user, name string, data map[string]string) (map[string]string, error) {
	t.Helper()
	res, ok := w.Registry().Table().ByGVR(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	if !ok {
		t.Fatal("no configmaps")
	}
	said := map[string]string{}
	_, err := w.Registry().Create(auth.WithUser(t.Context(), &auth.User{Name: user}), registry.Request{Resource: res, Namespace: "shop"},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data},
		registry.WriteOptions{Annotate: func(key, value string) { said[key] = value }})
	return said, err
}

func TestAuditAnnotations(t *testing.T) {
	w := start(t)
	w.during(t, validating("note", "configmaps", `
auditAnnotations:
- {key: who, valueExpression: "request.userInfo.username + ' of ' + (params == null ? 'nobody' : params.metadata.name)"}
- {key: none, valueExpression: "null"}
- {key: blank, valueExpression: "'  '"}
- {key: sure, valueExpression: "authorizer.requestResource.check('get').allowed() ? 'yes' : 'no'"}
paramKind: {apiVersion: v1, kind: ConfigMap}`),
		bound("one", "note", "validationActions: [Deny]\nparamRef: {selector: {matchLabels: {p: \"1\"}}, parameterNotFoundAction: Allow}"),
		bound("two", "note", "validationActions: [Deny]"))
	for _, name := range []string{"first", "last"} {
		w.must(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: shop, labels: {p: \"1\"}}", name))
	}
	said, err := w.createdAs(t, "amy", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"note/who": "amy of first, amy of last, amy of nobody", "note/sure": "no"}, said); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAuditAction(t *testing.T) {
	w := start(t)
	w.during(t, validating("watch", "configmaps", `
validations:
- {expression: "true"}
- {expression: "!has(object.data)", message: has data}`),
		bound("b", "watch", "validationActions: [Audit]"))
	said, err := w.createdAs(t, "amy", "a", map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal([]byte(said["validation.policy.admission.k8s.io/validation_failure"]), &got); err != nil {
		t.Fatalf("%v in %q", err, said)
	}
	want := []map[string]any{{"message": "has data", "policy": "watch", "binding": "b", "expressionIndex": 1.0, "validationActions": []any{"Audit"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if said, err := w.createdAs(t, "amy", "b", nil); err != nil || len(said) != 0 {
		t.Errorf("of what holds: %q, %v", said, err)
	}
}

// TestFailingAnnotation: an annotation that fails refuses the request, whatever
// the action, unless failures are ignored.
func TestFailingAnnotation(t *testing.T) {
	w := start(t)
	for policy, refused := range map[string]bool{"Fail": true, "Ignore": false} {
		name := strings.ToLower(policy)
		w.during(t, validating(name, "configmaps", fmt.Sprintf(`
failurePolicy: %s
matchConditions: [{name: c, expression: "object.metadata.name == '%s'"}]
auditAnnotations: [{key: k, valueExpression: string(object.data.none)}]`, policy, name)), bound(name, name, "validationActions: [Audit]"))
		_, err := w.createdAs(t, "amy", name, map[string]string{"a": "b"})
		if refused {
			wantRefused(t, err, http.StatusUnprocessableEntity, "no such key: none")
		} else if err != nil {
			t.Error(err)
		}
	}
}

// TestCostOfOthers: policies about other resources add no allocation to a
// write.
func TestCostOfOthers(t *testing.T) {
	w := start(t)
	cost := func() float64 {
		res, _ := w.Registry().Table().ByGVR(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
		ctx := auth.WithUser(context.Background(), &auth.User{Name: "amy"})
		req := registry.Request{Resource: res, Namespace: "shop", Name: "none", Subresource: "nothing"}
		obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: "shop"}}
		return testing.AllocsPerRun(200, func() {
			if err := w.Registry().Admit(ctx, "CREATE", req, obj, registry.WriteOptions{}, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	before := cost()
	for i := range 20 {
		name := fmt.Sprint("p", i)
		w.during(t, validating(name, "secrets, pods", `validations: [{expression: "true"}]`), bound(name, name, "validationActions: [Deny]"),
			mutating(name, "secrets, pods", "reinvocationPolicy: Never\nmutations: [{patchType: JSONPatch, jsonPatch: {expression: \"[JSONPatch{op: 'remove', path: '/x'}]\"}}]"), boundMutating(name, ""))
	}
	if after := cost(); after > before+0.5 {
		t.Errorf("admission takes %v allocations with policies about others, %v without", after, before)
	}
}
