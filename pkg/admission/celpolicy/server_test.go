package celpolicy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/testcluster"
)

// world is an API server and a client that remembers its warnings.
type world struct {
	*testcluster.Cluster
	objects dynamic.Interface

	mu       sync.Mutex
	warnings []string // guarded by mu
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{Cluster: testcluster.Start(t)}
	w.objects = w.as(t, w.Admin())
	w.must(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"env": "prod"}}}`)
	return w
}

func (w *world) as(t *testing.T, cfg *rest.Config) dynamic.Interface {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json"
	cfg.WarningHandler = w
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *world) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warnings = append(w.warnings, text)
}

func (w *world) warned(part string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.warnings, func(text string) bool { return strings.Contains(text, part) })
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	doc, err := yaml.YAMLToJSON([]byte(text))
	u := &unstructured.Unstructured{}
	if err == nil {
		err = json.Unmarshal(doc, &u.Object)
	}
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return u
}

// client is that of the resource of a kind, in the object's namespace.
func client(from dynamic.Interface, u *unstructured.Unstructured) dynamic.ResourceInterface {
	gvk := u.GroupVersionKind()
	plural := strings.ToLower(gvk.Kind) + "s"
	plural = strings.Replace(plural, "policys", "policies", 1)
	r := from.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: plural})
	if u.GetNamespace() != "" {
		return r.Namespace(u.GetNamespace())
	}
	return r
}

func (w *world) create(t *testing.T, text string) (*unstructured.Unstructured, error) {
	t.Helper()
	u := parse(t, text)
	return client(w.objects, u).Create(t.Context(), u, metav1.CreateOptions{})
}

func (w *world) must(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u, err := w.create(t, text)
	if err != nil {
		t.Fatalf("%v for\n%s", err, text)
	}
	return u
}

// remove deletes what must has made, when the test is over.
func (w *world) during(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		u := w.must(t, text)
		t.Cleanup(func() {
			if err := client(w.objects, u).Delete(context.Background(), u.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
}

// validating is a ValidatingAdmissionPolicy about resources, with the rest of
// its spec.
func validating(name, resources, rest string) string {
	return policyOf("ValidatingAdmissionPolicy", name, resources, rest)
}

func policyOf(kind, name, resources, rest string) string {
	return fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %s
metadata: {name: %s}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: [%s]}
%s`, kind, name, resources, indent(rest))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// bound is a binding of a ValidatingAdmissionPolicy.
func bound(name, policy, rest string) string {
	return fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %s}
spec:
  policyName: %s
%s`, name, policy, indent(rest))
}

func configMap(name, rest string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: shop}\n%s", name, rest)
}

func deployment(name string, replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: shop}
spec:
  replicas: %d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: a, image: a}]}`, name, replicas)
}

// wantRefused checks that a request was refused with a code and a text.
func wantRefused(t *testing.T, err error, code int32, part string) {
	t.Helper()
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		t.Errorf("got %v, want a refusal with %q", err, part)
		return
	}
	if s := status.Status(); s.Code != code || !strings.Contains(s.Message, part) {
		t.Errorf("refused with %d %s %q, want %d and %q", s.Code, s.Reason, s.Message, code, part)
	}
}

func TestDenied(t *testing.T) {
	w := start(t)
	w.during(t, validating("replicas", "deployments", `
variables:
- {name: replicas, expression: object.spec.replicas}
- {name: odd, expression: variables.replicas % 2 == 1}
validations:
- expression: variables.replicas > 1
  messageExpression: "'too few in ' + namespaceObject.metadata.labels['env'] + ': ' + string(variables.replicas)"
- {expression: "!variables.odd || variables.replicas > 10", message: an even number, reason: Forbidden}`),
		bound("replicas", "replicas", "validationActions: [Deny]"))
	_, err := w.create(t, deployment("one", 1))
	wantRefused(t, err, http.StatusUnprocessableEntity, `deployments.apps "one" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request: too few in prod: 1`)
	if !apierrors.IsInvalid(err) {
		t.Errorf("the reason is %s", apierrors.ReasonForError(err))
	}
	// What only the store refuses is refused after what policies do.
	_, err = w.create(t, strings.Replace(deployment("one", 1), "name: one", `name: one, resourceVersion: "1"`, 1))
	wantRefused(t, err, http.StatusUnprocessableEntity, "too few in prod: 1")
	_, err = w.create(t, deployment("three", 3))
	wantRefused(t, err, http.StatusForbidden, "denied request: an even number")
	d := w.must(t, deployment("two", 2))
	// Not matched: another resource, and a subresource that no rule names.
	if _, err := client(w.objects, d).Patch(t.Context(), "two", types.MergePatchType, []byte(`{"status":{"observedGeneration":1}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Error(err)
	}
	w.must(t, strings.Replace(deployment("one", 1), "Deployment", "ReplicaSet", 1))
	for _, kind := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
		_, err = client(w.objects, d).Patch(t.Context(), "two", kind, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{})
		wantRefused(t, err, http.StatusUnprocessableEntity, "too few")
	}
	_, err = client(w.objects, d).Patch(t.Context(), "two", types.MergePatchType, []byte(`{"spec":{"replicas":1}}`), metav1.PatchOptions{DryRun: []string{"All"}})
	wantRefused(t, err, http.StatusUnprocessableEntity, "too few")
}

// TestTakesEffectAtOnce: what was answered counts for the next request, also
// when it goes.
func TestTakesEffectAtOnce(t *testing.T) {
	w := start(t)
	for i := range 20 {
		w.must(t, validating("none", "configmaps", `validations: [{expression: "!object.metadata.name.startsWith('x')"}]`))
		b := w.must(t, bound("none", "none", "validationActions: [Deny]"))
		_, err := w.create(t, configMap(fmt.Sprint("x", i), ""))
		wantRefused(t, err, http.StatusUnprocessableEntity, "failed expression: !object.metadata.name.startsWith('x')")
		if i%2 == 0 {
			err = client(w.objects, b).Delete(t.Context(), "none", metav1.DeleteOptions{})
		} else {
			p := parse(t, validating("none", "x", ""))
			err = client(w.objects, p).Delete(t.Context(), "none", metav1.DeleteOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		w.must(t, configMap(fmt.Sprint("x", i), ""))
		_ = client(w.objects, b).Delete(t.Context(), "none", metav1.DeleteOptions{})
		_ = client(w.objects, parse(t, validating("none", "x", ""))).Delete(t.Context(), "none", metav1.DeleteOptions{})
	}
}

func TestDeletesAndConnects(t *testing.T) {
	w := start(t)
	w.during(t, validating("keep", `configmaps, pods/exec, "deployments/scale"`, `
validations:
- expression: "request.operation != 'DELETE' || oldObject.metadata.?labels.keep.orValue('') != 'yes'"
  message: it is kept
- {expression: "request.operation != 'CONNECT' || object.command != ['sh']", message: no shells}
- {expression: "request.?subResource.orValue('') != 'scale' || object.kind == 'Scale' && object.spec.replicas < 5", message: too many}`),
		bound("keep", "keep", "validationActions: [Deny]"))
	u := w.must(t, configMap("kept", "")+"\n")
	if _, err := client(w.objects, u).Patch(t.Context(), "kept", types.MergePatchType, []byte(`{"metadata":{"labels":{"keep":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	err := client(w.objects, u).Delete(t.Context(), "kept", metav1.DeleteOptions{})
	wantRefused(t, err, http.StatusUnprocessableEntity, "it is kept")
	err = client(w.objects, u).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "keep"})
	wantRefused(t, err, http.StatusUnprocessableEntity, "it is kept")
	pods, _ := w.Registry().Table().ByGVR(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	ctx := auth.WithUser(t.Context(), &auth.User{Name: "amy"})
	exec := registry.Request{Resource: pods, Subresource: "exec", Namespace: "shop", Name: "web"}
	if err := w.Registry().Admit(ctx, admission.Connect, exec, &corev1.PodExecOptions{Command: []string{"ls"}}, registry.WriteOptions{}, nil); err != nil {
		t.Error(err)
	}
	err = w.Registry().Admit(ctx, admission.Connect, exec, &corev1.PodExecOptions{Command: []string{"sh"}}, registry.WriteOptions{}, nil)
	wantRefused(t, err, http.StatusUnprocessableEntity, "no shells")
	d := w.must(t, deployment("web", 1))
	for replicas, code := range map[int]int32{3: 0, 7: http.StatusUnprocessableEntity} {
		_, err := client(w.objects, d).Patch(t.Context(), "web", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{}, "scale")
		if code == 0 && err != nil {
			t.Error(err)
		} else if code != 0 {
			wantRefused(t, err, code, "too many")
		}
	}
}

func TestFailurePolicyAndConditions(t *testing.T) {
	w := start(t)
	w.during(t,
		validating("strict", "configmaps", `
matchConditions: [{name: c, expression: "object.metadata.name.startsWith('strict')"}]
validations: [{expression: object.data.missing == 'x'}]`), bound("strict", "strict", "validationActions: [Deny]"),
		validating("lax", "configmaps", `
failurePolicy: Ignore
matchConditions: [{name: c, expression: "object.metadata.name.startsWith('lax')"}]
validations: [{expression: object.data.missing == 'x'}]`), bound("lax", "lax", "validationActions: [Deny]"),
		validating("costly", "configmaps", `
matchConditions: [{name: c, expression: "object.metadata.name.startsWith('costly')"}]
validations: [{expression: "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))"}]`), bound("costly", "costly", "validationActions: [Deny]"),
		validating("broken-condition", "configmaps", `
matchConditions: [{name: c, expression: "object.data.none == 'x'"}, {name: d, expression: "object.metadata.name == 'condition'"}]
validations: [{expression: "true"}]`), bound("broken-condition", "broken-condition", "validationActions: [Deny]"),
	)
	_, err := w.create(t, configMap("strict", "data: {a: b}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: missing")
	w.must(t, configMap("lax", "data: {a: b}"))
	w.must(t, configMap("other", "data: {a: b}"))
	_, err = w.create(t, configMap("condition", "data: {a: b}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "no such key: none")
	var data []string
	for i := range 100 {
		data = append(data, fmt.Sprintf("k%d: v", i))
	}
	_, err = w.create(t, configMap("costly", "data: {"+strings.Join(data, ", ")+"}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "cost limit exceeded")
}

func TestWarnings(t *testing.T) {
	w := start(t)
	w.during(t, validating("warn", "configmaps", `validations: [{expression: "false", message: hear me}]`), bound("b", "warn", "validationActions: [Warn, Audit]"))
	w.must(t, configMap("a", ""))
	if !w.warned("Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'b': hear me") {
		t.Errorf("warnings %q", w.warnings)
	}
}

func TestSelectors(t *testing.T) {
	w := start(t)
	w.must(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab", "labels": {"env": "test"}}}`)
	policy := strings.Replace(validating("select", "configmaps", `validations: [{expression: "false", message: selected}]`),
		"    resourceRules:", `    namespaceSelector: {matchLabels: {env: prod}}
    excludeResourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps], resourceNames: [excused]}
    resourceRules:`, 1)
	w.during(t, policy, bound("select", "select", `
validationActions: [Deny]
matchResources: {objectSelector: {matchLabels: {app: x}}}`))
	labelled := func(name, namespace, app string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s, labels: {app: %q}}", name, namespace, app)
	}
	_, err := w.create(t, labelled("a", "shop", "x"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "selected")
	w.must(t, labelled("excused", "shop", "x"))
	w.must(t, labelled("a", "lab", "x"))
	w.must(t, labelled("b", "shop", "y"))
}

func TestAuthorizer(t *testing.T) {
	w := start(t)
	w.during(t, validating("who", "configmaps", `
validations: [{expression: "authorizer.group('').resource('secrets').namespace('shop').check('list').allowed() || authorizer.requestResource.check('bless').allowed()", messageExpression: "'not for ' + request.userInfo.username"}]`),
		bound("who", "who", "validationActions: [Deny]"),
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]}`,
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "maps"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "amy"}]}`)
	w.must(t, configMap("of-admin", ""))
	amy := &world{objects: w.as(t, w.As("amy"))}
	deadline, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	for {
		_, err := amy.create(t, configMap("of-amy", ""))
		if apierrors.IsForbidden(err) && deadline.Err() == nil {
			continue // the role has not arrived
		}
		wantRefused(t, err, http.StatusUnprocessableEntity, "not for amy")
		return
	}
}

func TestCompileErrorsAreRefused(t *testing.T) {
	w := start(t)
	for text, want := range map[string]string{
		`validations: [{expression: "object."}]`:                                                               "spec.validations[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: Syntax error",
		`validations: [{expression: "1 + 1"}]`:                                                                 "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool",
		`validations: [{expression: "true", messageExpression: "1"}]`:                                          "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string",
		`validations: [{expression: "true", messageExpression: "authorizer.path('/').check('get').reason()"}]`: "spec.validations[0].messageExpression: Invalid value",
		`validations: [{expression: "params.x == 1"}]`:                                                         "undeclared reference to 'params'",
		"variables: [{name: a, expression: 'b.c'}]\nvalidations: [{expression: \"true\"}]":                     "spec.variables[0].expression: Invalid value: \"b.c\": compilation failed",
		"variables: [{name: a, expression: '1'}]\nvalidations: [{expression: \"variables.b == 1\"}]":           "undefined field 'b'",
		"auditAnnotations: [{key: k, valueExpression: '1'}]":                                                   "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of",
		"matchConditions: [{name: a, expression: 'x'}]\nvalidations: [{expression: \"true\"}]":                 "spec.matchConditions[0].expression: Invalid value: \"x\": compilation failed",
	} {
		_, err := w.create(t, validating("bad", "pods", text))
		wantRefused(t, err, http.StatusUnprocessableEntity, want)
	}
	w.during(t, validating("good", "pods", "paramKind: {apiVersion: v1, kind: ConfigMap}\nvalidations: [{expression: 'params == null'}]"))
}

// limits is a kind of one's own, for parameters and for objects.
func limits(t *testing.T, w *world) {
	t.Helper()
	field := apiextensionsv1.JSONSchemaProps{Type: "integer"}
	s := &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"max": field, "tags": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}, XListType: new("set")},
		"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"size": field, "extra": {Type: "object", XMapType: new("atomic"), Properties: map[string]apiextensionsv1.JSONSchemaProps{"a": field}}}},
	}}}
	crd := &apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "limits.x.io"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "x.io", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "limits", Kind: "Limit"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1", Served: true, Storage: true, Schema: s}, {Name: "v2", Served: true, Schema: s},
			},
		},
	}
	text, err := yaml.Marshal(crd)
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, string(text))
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	probe := w.objects.Resource(schema.GroupVersionResource{Group: "x.io", Version: "v1", Resource: "limits"}).Namespace("shop")
	for {
		_, err := probe.List(ctx, metav1.ListOptions{})
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the definition is not served: %v", err)
		}
	}
}

func TestParams(t *testing.T) {
	w := start(t)
	limits(t, w)
	limit := func(name, namespace string, max int) string {
		return fmt.Sprintf("apiVersion: x.io/v1\nkind: Limit\nmetadata: {name: %s, namespace: %s, labels: {use: \"yes\"}}\nmax: %d", name, namespace, max)
	}
	w.during(t, validating("sized", "configmaps", `
paramKind: {apiVersion: x.io/v1, kind: Limit}
validations: [{expression: "object.data.size() <= params.max", messageExpression: "params.metadata.name + ' allows ' + string(params.max)"}]`),
		bound("sized", "sized", "paramRef: {name: a, parameterNotFoundAction: Deny}\nvalidationActions: [Deny]"))
	_, err := w.create(t, configMap("none", "data: {a: b}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
	w.must(t, limit("a", "shop", 1)) // takes effect at once
	w.must(t, configMap("one", "data: {a: b}"))
	_, err = w.create(t, configMap("two", "data: {a: b, c: d}"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "a allows 1")

	// By selector: every one counts; in a namespace of the binding's choice.
	w.during(t, validating("all", "secrets", `
paramKind: {apiVersion: x.io/v1, kind: Limit}
validations: [{expression: "!has(object.data) || object.data.size() <= params.max", messageExpression: "params.metadata.name + ' allows ' + string(params.max)"}]`),
		bound("all", "all", "paramRef: {selector: {matchLabels: {use: \"yes\"}}, namespace: default, parameterNotFoundAction: Allow}\nvalidationActions: [Deny]"))
	secret := func(name string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: shop}\nstringData: {a: b, c: d}\n", name)
	}
	w.must(t, secret("free"))
	w.must(t, limit("p", "default", 5))
	w.must(t, secret("within"))
	w.must(t, limit("q", "default", 1))
	_, err = w.create(t, secret("beyond"))
	wantRefused(t, err, http.StatusUnprocessableEntity, "q allows 1")
}

func TestParamMistakes(t *testing.T) {
	w := start(t)
	w.during(t, validating("unknown", "secrets", `
paramKind: {apiVersion: nobody.io/v1, kind: Thing}
validations: [{expression: "true"}]`),
		bound("unknown", "unknown", "paramRef: {name: a, parameterNotFoundAction: Allow}\nvalidationActions: [Deny]"),
		validating("outside", "namespaces", `
paramKind: {apiVersion: v1, kind: ConfigMap}
matchConditions: [{name: a, expression: "true"}]
validations: [{expression: "params == null"}]`),
		bound("outside", "outside", "validationActions: [Deny]"))
	_, err := w.create(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}")
	wantRefused(t, err, http.StatusUnprocessableEntity, "failed to configure policy: failed to find resource referenced by paramKind: 'nobody.io/v1, Kind=Thing'")
	w.must(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free"}}`)
}

// TestCustomResources: rules name another version than the client writes.
func TestCustomResources(t *testing.T) {
	w := start(t)
	limits(t, w)
	policy := strings.Replace(validating("limits", "limits", `
validations: [{expression: "object.max < 10", messageExpression: "object.apiVersion + ' asked for as ' + request.requestKind.version"}]`), `apiVersions: ["*"]`, "apiVersions: [v2]", 1)
	w.during(t, policy, bound("limits", "limits", "validationActions: [Deny]"))
	for version, want := range map[string]string{"v1": "x.io/v2 asked for as v1", "v2": "x.io/v2 asked for as v2"} {
		_, err := w.create(t, fmt.Sprintf("apiVersion: x.io/%s\nkind: Limit\nmetadata: {name: a, namespace: shop}\nmax: 11", version))
		wantRefused(t, err, http.StatusUnprocessableEntity, want)
	}
	w.must(t, "apiVersion: x.io/v1\nkind: Limit\nmetadata: {name: a, namespace: shop}\nmax: 3")
}

// TestPoliciesAreExempt: one that refuses everything can still be mended.
func TestPoliciesAreExempt(t *testing.T) {
	w := start(t)
	w.during(t, validating("all", `"*"`, `validations: [{expression: "false"}]`), bound("all", "all", "validationActions: [Deny]"))
	_, err := w.create(t, configMap("a", ""))
	wantRefused(t, err, http.StatusUnprocessableEntity, "failed expression: false")
	w.must(t, `{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}`)
}

// waiting bounds what a test waits for.
const waiting = 30 * time.Second

// TestTypeChecking: the status says what is wrong about the kinds of the rules,
// of which one is a custom one and another has no such field.
func TestTypeChecking(t *testing.T) {
	w := start(t)
	limits(t, w)
	text := strings.Replace(validating("typed", "deployments", `
paramKind: {apiVersion: x.io/v1, kind: Limit}
variables: [{name: replicas, expression: object.spec.replicas}]
validations:
- {expression: "object.spec.replicas > params.max"}
- {expression: "object.spec.nothing == 1", messageExpression: "'a' + string(params.none)"}
- {expression: "variables.replicas > 'x'"}`), `{apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: [deployments]}`,
		`{apiGroups: [apps], apiVersions: [v1], operations: ["*"], resources: [deployments]}
    - {apiGroups: [x.io], apiVersions: [v2], operations: ["*"], resources: [limits]}`, 1)
	u := w.must(t, text)
	ctx, cancel := context.WithTimeout(t.Context(), waiting)
	defer cancel()
	got := func() *unstructured.Unstructured {
		for {
			now, err := client(w.objects, u).Get(ctx, "typed", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if seen, _, _ := unstructured.NestedInt64(now.Object, "status", "observedGeneration"); seen == now.GetGeneration() {
				return now
			}
		}
	}
	now := got()
	warnings, _, _ := unstructured.NestedSlice(now.Object, "status", "typeChecking", "expressionWarnings")
	var have []string
	for _, v := range warnings {
		m := v.(map[string]any)
		for _, line := range strings.Split(fmt.Sprint(m["warning"]), "\n") {
			if strings.Contains(line, "Kind=") {
				have = append(have, fmt.Sprint(m["fieldRef"], " ", line))
			}
		}
	}
	want := []string{
		"spec.validations[0].expression x.io/v2, Kind=Limit: ERROR: <input>:1:12: undefined field 'replicas'",
		"spec.validations[1].expression apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'nothing'",
		"spec.validations[1].expression x.io/v2, Kind=Limit: ERROR: <input>:1:12: undefined field 'nothing'",
		"spec.validations[1].messageExpression apps/v1, Kind=Deployment: ERROR: <input>:1:20: undefined field 'none'",
		"spec.validations[1].messageExpression x.io/v2, Kind=Limit: ERROR: <input>:1:20: undefined field 'none'",
		"spec.validations[2].expression apps/v1, Kind=Deployment: ERROR: <input>:1:20: found no matching overload for '_>_' applied to '(int, string)'",
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := unstructured.SetNestedSlice(now.Object, []any{map[string]any{"expression": "has(object.metadata)"}}, "spec", "validations"); err != nil {
		t.Fatal(err)
	}
	if _, err := client(w.objects, now).Update(ctx, now, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	now = got()
	if checked, _, _ := unstructured.NestedMap(now.Object, "status", "typeChecking"); len(checked) != 0 {
		t.Errorf("after the correction: %v", checked)
	}
}
