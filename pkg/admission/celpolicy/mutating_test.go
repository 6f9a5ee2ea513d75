package celpolicy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

func mutating(name, resources, rest string) string {
	return policyOf("MutatingAdmissionPolicy", name, resources, rest)
}

func boundMutating(name, rest string) string {
	return strings.Replace(bound(name, name, rest), "Validating", "Mutating", 1)
}

func fieldOf(t *testing.T, u *unstructured.Unstructured, path ...string) any {
	t.Helper()
	v, _, err := unstructured.NestedFieldNoCopy(u.Object, path...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestApplyConfiguration(t *testing.T) {
	w := start(t)
	w.during(t, mutating("side", "deployments", `
reinvocationPolicy: Never
variables: [{name: image, expression: "object.spec.template.spec.containers[0].image + '-side'"}]
matchConditions: [{name: c, expression: "!object.metadata.name.startsWith('plain')"}]
mutations:
- patchType: ApplyConfiguration
  applyConfiguration:
    expression: >
      Object{
        metadata: Object.metadata{labels: Object.metadata.labels{made: "by-policy"}},
        spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
          containers: [Object.spec.template.spec.containers{name: "side", image: variables.image}]
        }}}
      }
- patchType: ApplyConfiguration
  applyConfiguration: {expression: "Object{spec: Object.spec{replicas: object.spec.replicas + object.spec.template.spec.containers.size()}}"}`),
		boundMutating("side", "matchResources: {namespaceSelector: {matchLabels: {env: prod}}}"))
	d := w.must(t, deployment("web", 1))
	if got := fieldOf(t, d, "metadata", "labels", "made"); got != "by-policy" {
		t.Errorf("label %v", got)
	}
	containers, _ := fieldOf(t, d, "spec", "template", "spec", "containers").([]any)
	var got []string
	for _, c := range containers {
		m := c.(map[string]any)
		got = append(got, fmt.Sprint(m["name"], " ", m["image"], " ", m["terminationMessagePolicy"]))
	}
	if diff := cmp.Diff([]string{"a a File", "side a-side File"}, got); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	if got := fieldOf(t, d, "spec", "replicas"); got != int64(3) {
		t.Errorf("%v replicas, want 3: the second mutation sees the first", got)
	}
	plain := w.must(t, deployment("plain", 1))
	if got := fieldOf(t, plain, "spec", "replicas"); got != int64(1) {
		t.Errorf("%v replicas of what the condition leaves out", got)
	}
	dry, err := client(w.objects, d).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{DryRun: []string{"All"}})
	if err != nil || fieldOf(t, dry, "spec", "replicas") != int64(7) {
		t.Errorf("dry run: %v, %v", dry, err)
	}
}

func TestJSONPatch(t *testing.T) {
	w := start(t)
	w.during(t, mutating("patch", "configmaps", `
reinvocationPolicy: Never
paramKind: {apiVersion: v1, kind: Secret}
mutations:
- patchType: JSONPatch
  jsonPatch:
    expression: >
      [JSONPatch{op: "test", path: "/data/skip", value: "yes"}, JSONPatch{op: "add", path: "/data/skipped", value: "x"}]
- patchType: JSONPatch
  jsonPatch:
    expression: >
      [
        JSONPatch{op: "add", path: "/metadata/labels", value: {"a": "b"}},
        JSONPatch{op: "add", path: "/data/" + jsonpatch.escapeKey("k/1"), value: params.metadata.name},
        JSONPatch{op: "copy", from: "/data/a", path: "/data/copy"}
      ]`),
		boundMutating("patch", "paramRef: {name: p, parameterNotFoundAction: Allow}"))
	before := w.must(t, configMap("before", "data: {a: b}"))
	if diff := cmp.Diff(map[string]any{"a": "b"}, fieldOf(t, before, "data")); diff != "" {
		t.Errorf("without a parameter (-want +got):\n%s", diff)
	}
	w.must(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: p, namespace: shop}")
	// The store refuses such a key: what policies make is validated.
	_, err := w.create(t, configMap("after", "data: {a: b}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, `data[k/1]: Invalid value: "k/1"`)
}

func TestMutatedCustomResource(t *testing.T) {
	w := start(t)
	limits(t, w)
	w.during(t, mutating("limits", "limits", `
reinvocationPolicy: Never
mutations:
- patchType: ApplyConfiguration
  applyConfiguration: {expression: "Object{max: 7, tags: ['x'], spec: Object.spec{size: 2}}"}`),
		boundMutating("limits", "matchResources: {objectSelector: {matchLabels: {ok: \"yes\"}}}"),
		mutating("atomic", "limits", `
reinvocationPolicy: Never
mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{extra: Object.spec.extra{a: 1}}}"}}]`),
		boundMutating("atomic", "matchResources: {objectSelector: {matchLabels: {ok: atomic}}}"),
		mutating("unknown", "limits", `
reinvocationPolicy: Never
mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{nothing: 1}"}}]`),
		boundMutating("unknown", "matchResources: {objectSelector: {matchLabels: {ok: unknown}}}"),
		mutating("wrong", "limits", `
reinvocationPolicy: Never
failurePolicy: Ignore
mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.wrong{a: 1}}"}}]`),
		boundMutating("wrong", "matchResources: {objectSelector: {matchLabels: {ok: wrong}}}"))
	limit := func(name, ok string) string {
		return fmt.Sprintf("apiVersion: x.io/v1\nkind: Limit\nmetadata: {name: %s, namespace: shop, labels: {ok: %q}}\nmax: 1\ntags: [b]\nspec: {size: 1}", name, ok)
	}
	u := w.must(t, limit("a", "yes"))
	if diff := cmp.Diff([]any{int64(7), []any{"b", "x"}, int64(2)}, []any{u.Object["max"], u.Object["tags"], fieldOf(t, u, "spec", "size")}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err := w.create(t, limit("b", "atomic"))
	wantRefused(t, err, http.StatusForbidden, "policy 'atomic' with binding 'atomic' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.extra")
	_, err = w.create(t, limit("c", "unknown"))
	wantRefused(t, err, http.StatusForbidden, ".nothing: field not declared in schema")
	w.must(t, limit("d", "wrong"))
}

// TestReinvocation: a policy that asks for it sees what later ones did, once,
// and one that does not runs once.
func TestReinvocation(t *testing.T) {
	w := start(t)
	counting := func(name, again string) string {
		return mutating(name, "configmaps", fmt.Sprintf(`
reinvocationPolicy: %s
mutations:
- patchType: JSONPatch
  jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/data/%s', value: object.data.?%[2]s.orValue('') + string(object.data.size())}]"}`, again, name))
	}
	w.during(t, counting("a", "IfNeeded"), boundMutating("a", ""), counting("b", "Never"), boundMutating("b", ""), counting("c", "IfNeeded"), boundMutating("c", ""))
	u := w.must(t, configMap("m", "data: {x: \"0\"}"))
	// First a (of 1), b (of 2), c (of 3 entries); then a again (of 4), and not c,
	// which had the last word.
	if diff := cmp.Diff(map[string]any{"a": "14", "b": "2", "c": "3", "x": "0"}, fieldOf(t, u, "data")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMutatedThenValidated: a ValidatingAdmissionPolicy sees what mutating ones
// made.
func TestMutatedThenValidated(t *testing.T) {
	w := start(t)
	w.during(t, mutating("scale", `"deployments/scale"`, `
reinvocationPolicy: Never
mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{replicas: object.spec.replicas * 2}}"}}]`), boundMutating("scale", ""),
		validating("max", `deployments, "deployments/scale"`, `validations: [{expression: "object.spec.replicas <= 6"}]`), bound("max", "max", "validationActions: [Deny]"))
	d := w.must(t, deployment("web", 1))
	for replicas, want := range map[int]bool{3: true, 4: false} {
		_, err := client(w.objects, d).Patch(t.Context(), "web", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{}, "scale")
		if (err == nil) != want {
			t.Errorf("scaled to %d: %v", replicas, err)
		}
	}
}

func TestMutationsThatDoNotCompile(t *testing.T) {
	w := start(t)
	for text, want := range map[string]string{
		`[{patchType: ApplyConfiguration, applyConfiguration: {expression: "1"}}]`:       "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object but got int",
		`[{patchType: JSONPatch, jsonPatch: {expression: "Object{}"}}]`:                  "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
		`[{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{"}}]`: "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object{\": compilation failed",
	} {
		_, err := w.create(t, mutating("bad", "pods", "reinvocationPolicy: Never\nmutations: "+text))
		wantRefused(t, err, http.StatusUnprocessableEntity, want)
	}
}
