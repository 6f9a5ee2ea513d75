package expression_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/admission/expression"
	"coracle/pkg/auth"
)

var all = expression.Declarations{Params: true, Authorizer: true}

// input is a pod that amy makes in a namespace, with a custom resource as
// params; amy may create pods there and get nothing.
func input() *expression.Input {
	return &expression.Input{
		Kind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Object: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "nginx:1.0"}}},
		},
		Request: &admissionv1.AdmissionRequest{
			Operation: admissionv1.Create, Name: "web", Namespace: "shop",
			Resource:        metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			RequestResource: &metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			UserInfo:        (&auth.User{Name: "amy", Groups: []string{"dev"}}).UserInfo(),
		},
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"env": "prod"}}},
		Params:    &unstructured.Unstructured{Object: map[string]any{"apiVersion": "x.io/v1", "kind": "Limit", "max": int64(3)}},
		ParamKind: schema.GroupVersionKind{Group: "x.io", Version: "v1", Kind: "Limit"},
		User:      &auth.User{Name: "amy", Groups: []string{"dev"}},
		Authorizer: auth.AuthorizerFunc(func(_ context.Context, a auth.Attributes) (auth.Decision, string, error) {
			if a.User.Name == "amy" && a.Verb == "create" && a.Resource == "pods" && a.Namespace == "shop" && a.ResourceRequest {
				return auth.Allow, "", nil
			}
			return auth.NoOpinion, "", nil
		}),
	}
}

func TestExpressions(t *testing.T) {
	c := expression.New(0)
	for text, want := range map[string]string{
		`object.metadata.name == 'web' && object.kind == 'Pod' && object.apiVersion == 'v1'`: "true",
		`oldObject == null`: "true",
		`object.spec.containers.all(c, c.image.startsWith('nginx'))`:                     "true",
		`has(object.spec.nodeName)`:                                                      "false",
		`request.operation == 'CREATE' && request.userInfo.groups == ['dev']`:            "true",
		`namespaceObject.metadata.labels['env'] == 'prod'`:                               "true",
		`params.max == 3 && params.kind == 'Limit'`:                                      "true",
		`authorizer.requestResource.check('create').allowed()`:                           "true",
		`authorizer.group('').resource('pods').namespace('shop').check('get').allowed()`: "false",
		`authorizer.path('/healthz').check('get').allowed()`:                             "false",
		// Every library of the Kubernetes environment.
		`quantity('1Gi').isGreaterThan(quantity('1Mi'))`:   "true",
		`ip('10.0.0.1').family() == 4`:                     "true",
		`cidr('10.0.0.0/8').containsIP('10.1.2.3')`:        "true",
		`url('https://a.b/c').getHost() == 'a.b'`:          "true",
		`'a1b22'.findAll('[0-9]+') == ['1', '22']`:         "true",
		`[1, 2, 3].sum() == 6 && [1, 2].isSorted()`:        "true",
		`sets.contains([1, 2, 3], [2])`:                    "true",
		`semver('1.2.3').isLessThan(semver('1.10.0'))`:     "true",
		`!format.dns1123Label().validate('ok').hasValue()`: "true",
		`'a,b'.split(',').join('-') == 'a-b'`:              "true",
		`object.?spec.?nodeName.orValue('none') == 'none'`: "true",
		`[1, 2].all(i, v, i + 1 == v)`:                     "true",
		`isQuantity('x')`:                                  "false",
		`object.spec.missing == 1`:                         "error: expression 'object.spec.missing == 1' resulted in error: no such key: missing",
		`1 + 1`:                                            "error: compilation error: must evaluate to bool but got int",
		`object.`:                                          "error: compilation error: compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'",
		`variables.x == 1`:                                 "error: compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables'",
		`request.bogus == ''`:                              "error: compilation error: compilation failed: ERROR: <input>:1:8: undefined field 'bogus'",
	} {
		s := c.Scope(expression.Stored)
		v, err := s.Begin(input(), expression.PolicyBudget).Eval(t.Context(), s.Compile(text, all, expression.Bool))
		got := fmt.Sprint(v.True())
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want && !(strings.HasPrefix(want, "error") && strings.HasPrefix(got, want)) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestUndeclared(t *testing.T) {
	s := expression.New(0).Scope(expression.Stored)
	for text, d := range map[string]expression.Declarations{
		"params == null":                     {Authorizer: true},
		"authorizer.path('/') == null":       {Params: true},
		"Object{} == Object{}":               all,
		"[JSONPatch{op: 'add'}].size() == 1": all,
	} {
		if p := s.Compile(text, d, expression.Bool); p.Err() == nil {
			t.Errorf("%s compiles with %+v", text, d)
		}
	}
	d := all
	d.Patches = true
	for text, want := range map[string]expression.Result{
		"Object{spec: Object.spec{replicas: 3}}":                                                     expression.ApplyConfiguration,
		"[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]": expression.JSONPatch,
	} {
		if p := s.Compile(text, d, want); p.Err() != nil {
			t.Errorf("%s: %v", text, p.Err())
		}
	}
}

func TestVariables(t *testing.T) {
	s := expression.New(0).Composed(expression.Stored)
	s.Variable("count", "object.spec.containers.size()", all)
	s.Variable("limit", "int(params.max)", all)
	s.Variable("over", "variables.count > variables.limit", all)
	s.Variable("broken", "object.spec.none", all)
	for text, want := range map[string]string{
		"variables.count == 1 && !variables.over": "true",
		"variables.broken == 1":                   "composited variable \"broken\" fails to evaluate: no such key: none",
	} {
		v, err := s.Begin(input(), expression.PolicyBudget).Eval(t.Context(), s.Compile(text, all, expression.Bool))
		if err == nil && fmt.Sprint(v.True()) != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", text, v.True(), err, want)
		}
	}
	for text, want := range map[string]string{
		"variables.nobody == 1":  "undefined field 'nobody'",
		"variables.over + 1 > 2": "found no matching overload",
	} {
		if err := s.Compile(text, all, expression.Bool).Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestCostIsBounded(t *testing.T) {
	s := expression.New(0).Scope(expression.Stored)
	in := input()
	var items []any
	for i := range 200 {
		items = append(items, int64(i))
	}
	in.Params = &unstructured.Unstructured{Object: map[string]any{"items": items}}
	three := s.Compile("params.items.all(a, params.items.all(b, params.items.all(c, a + b + c >= 0)))", all, expression.Bool)
	if _, err := s.Begin(in, expression.PolicyBudget).Eval(t.Context(), three); err == nil || !strings.Contains(err.Error(), "actual cost limit exceeded") {
		t.Errorf("a call beyond the limit: %v", err)
	}
	two := s.Compile("params.items.all(a, params.items.all(b, a + b >= 0))", all, expression.Bool)
	run := s.Begin(in, expression.PolicyBudget)
	var err error
	calls := 0
	for ; err == nil; calls++ {
		_, err = run.Eval(t.Context(), two)
	}
	if !errors.Is(err, expression.ErrBudget) || calls < 10 || calls > 100 {
		t.Errorf("after %d calls: %v, want the budget used up", calls, err)
	}
}

func TestDeadline(t *testing.T) {
	s := expression.New(0).Scope(expression.Stored)
	in := input()
	in.Params = &unstructured.Unstructured{Object: map[string]any{"items": make([]any, 5000)}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := s.Compile("params.items.all(a, a == null)", all, expression.Bool)
	if _, err := s.Begin(in, expression.PolicyBudget).Eval(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("evaluated in a context that is over: %v", err)
	}
}

func TestConditions(t *testing.T) {
	c := expression.New(0)
	for _, test := range []struct {
		texts []string
		match bool
		fails string
	}{
		{nil, true, ""},
		{[]string{"true", "object.metadata.name == 'web'"}, true, ""},
		{[]string{"true", "false"}, false, ""},
		{[]string{"object.none == 1", "false"}, false, ""}, // false settles it
		{[]string{"object.none == 1", "true"}, false, "no such key: none"},
		{[]string{"object.none == 1", "object.more == 1"}, false, "no such key: more"},
	} {
		s := c.Scope(expression.Stored)
		var list []admissionregistrationv1.MatchCondition
		for _, text := range test.texts {
			list = append(list, admissionregistrationv1.MatchCondition{Name: "c", Expression: text})
		}
		match, err := s.Conditions(list, all).Match(t.Context(), input())
		if match != test.match || (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
			t.Errorf("%q: %v, %v", test.texts, match, err)
		}
	}
}

func TestCheckConditions(t *testing.T) {
	errs := expression.New(0).CheckConditions(field.NewPath("webhooks").Index(0).Child("matchConditions"), []admissionregistrationv1.MatchCondition{
		{Name: "good", Expression: "authorizer.path('/').check('get').allowed()"}, {Name: "bad", Expression: "object.x =="},
	}, nil)
	if len(errs) != 1 || errs[0].Field != "webhooks[0].matchConditions[1].expression" || !strings.Contains(errs[0].Detail, "compilation failed") {
		t.Errorf("got %v", errs)
	}
}

// TestLazy: what is compiled is kept within the bound, by use.
func TestLazy(t *testing.T) {
	c := expression.New(2)
	made := map[string]int{}
	lazies := map[string]*expression.Lazy[string]{}
	get := func(name string) {
		t.Helper()
		l := lazies[name]
		if l == nil {
			l = expression.NewLazy(c, func() *string { made[name]++; return &name })
			lazies[name] = l
		}
		if *l.Get() != name {
			t.Errorf("%s holds %s", name, *l.Get())
		}
	}
	for _, name := range []string{"a", "b", "a", "c", "a", "b"} {
		get(name)
	}
	if fmt.Sprint(made) != "map[a:1 b:2 c:1]" {
		t.Errorf("compiled %v", made)
	}
	lazies["a"].Drop()
	get("a")
	if made["a"] != 2 {
		t.Errorf("a was not dropped: %v", made)
	}
}

func FuzzExpression(f *testing.F) {
	for _, text := range []string{"object.metadata.name == 'web'", "[1,2].map(x, x * 2)", "params.max > 3 ? 'a' : 'b'", "authorizer.group('').resource('pods')", "Object{spec: Object.spec{a: 1}}", "object.metadata.labels.exists(k, k.matches('^a+$'))", "variables.x", "'%s'.format([object])"} {
		f.Add(text)
	}
	c := expression.New(0)
	d := all
	d.Patches = true
	f.Fuzz(func(t *testing.T, text string) {
		s := c.Composed(expression.Stored)
		s.Variable("x", text, d)
		run := s.Begin(input(), expression.ConditionsBudget)
		if _, err := run.Eval(t.Context(), s.Compile(text, d, expression.Anything)); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if run.Remaining() > expression.ConditionsBudget {
			t.Error("an expression gave back cost")
		}
	})
}
