package match

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
)

// stored has the namespaces of a test.
type stored map[string]*corev1.Namespace

func (s stored) Get(_ context.Context, gvr schema.GroupVersionResource, _, name string) (runtime.Object, error) {
	if ns := s[name]; ns != nil && gvr.Resource == "namespaces" {
		return ns, nil
	}
	return nil, apierrors.NewNotFound(gvr.GroupResource(), name)
}

func (s stored) List(context.Context, schema.GroupVersionResource, string) ([]runtime.Object, error) {
	return nil, nil
}

func matcher() *Matcher {
	table := resource.Builtin()
	return &Matcher{
		Objects: stored{"a": {ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"team": "x"}}}},
		Table:   func() *resource.Table { return table },
	}
}

func kind(t *testing.T, group, version, plural string) *resource.Resource {
	t.Helper()
	res, ok := resource.Builtin().ByGVR(schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
	if !ok {
		t.Fatalf("there is no %s in %s/%s", plural, group, version)
	}
	return res
}

func named1(op admissionv1.OperationType, group, version string, resources ...string) admissionv1.NamedRuleWithOperations {
	return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{op},
		Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: resources},
	}}
}

func scoped(r admissionv1.NamedRuleWithOperations, scope admissionv1.ScopeType) admissionv1.NamedRuleWithOperations {
	r.Scope = &scope
	return r
}

func selector(text string) labels.Selector {
	s, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

func TestMatch(t *testing.T) {
	pods, nodes, namespaces := kind(t, "", "v1", "pods"), kind(t, "", "v1", "nodes"), kind(t, "", "v1", "namespaces")
	deployments := kind(t, "apps", "v1", "deployments")
	autoscalers := kind(t, "autoscaling", "v2", "horizontalpodautoscalers")
	pod := func(labels map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a", Labels: labels}}
	}
	create := &admission.Attributes{Operation: admission.Create, Resource: pods, Namespace: "a", Name: "p", Object: pod(map[string]string{"app": "new"})}
	update := &admission.Attributes{Operation: admission.Update, Resource: pods, Subresource: "status", Namespace: "a", Name: "p",
		Object: pod(map[string]string{"app": "new"}), Stored: admission.Known(pod(map[string]string{"app": "old"}))}
	node := &admission.Attributes{Operation: admission.Create, Resource: nodes, Name: "n", Object: &corev1.Node{}}
	ns := &admission.Attributes{Operation: admission.Create, Resource: namespaces, Name: "b",
		Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"team": "y"}}}}
	nsGone := &admission.Attributes{Operation: admission.Delete, Resource: namespaces, Name: "b", Stored: admission.Known(ns.Object)}
	scale := &admission.Attributes{Operation: admission.Update, Resource: deployments, Subresource: "scale", Namespace: "a", Name: "d",
		Object: &appsv1.Deployment{}, Stored: admission.Known(&appsv1.Deployment{})}
	hpa := &admission.Attributes{Operation: admission.Create, Resource: autoscalers, View: &autoscalers.Views[0], Namespace: "a",
		Object: &autoscalingv2.HorizontalPodAutoscaler{}}
	lost := &admission.Attributes{Operation: admission.Create, Resource: pods, Namespace: "gone", Object: pod(nil)}

	all := admissionv1.OperationAll
	for _, c := range []struct {
		name string
		a    *admission.Attributes
		c    Criteria
		want string // kind, "" for no match
		err  bool
	}{
		{"plainly", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1("CREATE", "", "v1", "pods")}}, "/v1, Kind=Pod", false},
		{"another operation", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1("UPDATE", "", "v1", "pods")}}, "", false},
		{"another group", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "apps", "v1", "pods")}}, "", false},
		{"another version", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "", "v2", "pods")}}, "", false},
		{"second rule", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "", "v2", "pods"), named1(all, "*", "*", "*")}}, "/v1, Kind=Pod", false},
		{"* is no subresource", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}}, "", false},
		{"*/* is everything", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*/*")}}, "/v1, Kind=Pod", false},
		{"*/* is the object, too", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*/*")}}, "/v1, Kind=Pod", false},
		{"pods/*", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "", "v1", "pods/*")}}, "/v1, Kind=Pod", false},
		{"*/status", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "", "v1", "*/status")}}, "/v1, Kind=Pod", false},
		{"*/scale is of another subresource", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "", "v1", "*/scale")}}, "", false},
		{"namespaced", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{scoped(named1(all, "*", "*", "*"), admissionv1.NamespacedScope)}}, "/v1, Kind=Pod", false},
		{"cluster scope", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{scoped(named1(all, "*", "*", "*"), admissionv1.ClusterScope)}}, "", false},
		{"a namespace is of cluster scope", ns, Criteria{Rules: []admissionv1.NamedRuleWithOperations{scoped(named1(all, "*", "*", "*"), admissionv1.ClusterScope)}}, "/v1, Kind=Namespace", false},
		{"a namespace is not in one", ns, Criteria{Rules: []admissionv1.NamedRuleWithOperations{scoped(named1(all, "*", "*", "*"), admissionv1.NamespacedScope)}}, "", false},
		{"except", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")},
			Except: []admissionv1.NamedRuleWithOperations{named1(all, "", "*", "pods")}}, "", false},
		{"named", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{{ResourceNames: []string{"p"}, RuleWithOperations: named1(all, "", "*", "pods").RuleWithOperations}}}, "/v1, Kind=Pod", false},
		{"another name", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{{ResourceNames: []string{"q"}, RuleWithOperations: named1(all, "", "*", "pods").RuleWithOperations}}}, "", false},
		{"a scale", scale, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "apps", "v1", "deployments/scale")}}, "autoscaling/v1, Kind=Scale", false},
		{"a view, exactly", hpa, Criteria{Exact: true, Rules: []admissionv1.NamedRuleWithOperations{named1(all, "autoscaling", "v1", "*")}}, "autoscaling/v1, Kind=HorizontalPodAutoscaler", false},
		{"the stored version is not what was asked", hpa, Criteria{Exact: true, Rules: []admissionv1.NamedRuleWithOperations{named1(all, "autoscaling", "v2", "*")}}, "", false},
		{"the stored version is equivalent", hpa, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "autoscaling", "v2", "horizontalpodautoscalers")}}, "autoscaling/v2, Kind=HorizontalPodAutoscaler", false},
		{"what was asked comes first", hpa, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "autoscaling", "v2", "*"), named1(all, "autoscaling", "v1", "*")}}, "autoscaling/v1, Kind=HorizontalPodAutoscaler", false},
		{"labels of the namespace", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team=x")}, "/v1, Kind=Pod", false},
		{"other labels of the namespace", create, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team!=x")}, "", false},
		{"no namespace", node, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team=x")}, "/v1, Kind=Node", false},
		{"a namespace's own labels", ns, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team=y")}, "/v1, Kind=Namespace", false},
		{"a deleted namespace's own labels", nsGone, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team=x")}, "", false},
		{"a namespace that is not there", lost, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*")}, Namespaces: selector("team=x")}, "", true},
		{"a namespace that does not matter", lost, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "apps", "*", "*")}, Namespaces: selector("team=x")}, "", false},
		{"the new object's labels", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*/*")}, Objects: selector("app=new")}, "/v1, Kind=Pod", false},
		{"the old object's labels", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*/*")}, Objects: selector("app=old")}, "/v1, Kind=Pod", false},
		{"neither's labels", update, Criteria{Rules: []admissionv1.NamedRuleWithOperations{named1(all, "*", "*", "*/*")}, Objects: selector("app=none")}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			form, err := matcher().Request(c.a).Match(t.Context(), &c.c)
			if (err != nil) != c.err {
				t.Fatalf("error %v", err)
			}
			got := ""
			if form != nil {
				got = form.Kind.String()
			}
			if got != c.want {
				t.Errorf("shown as %q, want %q", got, c.want)
			}
		})
	}
}

func TestReplaceThroughAView(t *testing.T) {
	res := kind(t, "autoscaling", "v2", "horizontalpodautoscalers")
	obj := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h"}}
	obj.Spec.MaxReplicas = 3
	old := obj.DeepCopy()
	r := matcher().Request(&admission.Attributes{Operation: admission.Update, Resource: res, View: &res.Views[0], Object: obj, Stored: admission.Known(old)})
	shown, before, err := r.Prepare(r.Asked())
	if err != nil {
		t.Fatal(err)
	}
	v1, ok := shown.(*autoscalingv1.HorizontalPodAutoscaler)
	if !ok || v1.Spec.MaxReplicas != 3 || v1.APIVersion != "autoscaling/v1" || v1.Kind != "HorizontalPodAutoscaler" {
		t.Fatalf("shown %#v", shown)
	}
	if _, ok := before.(*autoscalingv1.HorizontalPodAutoscaler); !ok {
		t.Errorf("the old one is a %T", before)
	}
	next := v1.DeepCopy()
	next.Spec.MaxReplicas = 7
	if err := r.Replace(r.Asked(), next); err != nil {
		t.Fatal(err)
	}
	if obj.Spec.MaxReplicas != 7 || obj.Kind != "" || *obj.Spec.MinReplicas != 1 {
		t.Errorf("after it: %+v", obj)
	}
	if old.Spec.MaxReplicas != 3 {
		t.Error("the old object was changed")
	}
	if shown, _, err = r.Prepare(r.Asked()); err != nil || shown.(*autoscalingv1.HorizontalPodAutoscaler).Spec.MaxReplicas != 7 {
		t.Errorf("shown again: %v %v", shown, err)
	}
}

func TestReplaceOfAScale(t *testing.T) {
	res := kind(t, "apps", "v1", "deployments")
	obj := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Labels: map[string]string{"kept": "yes"}}}
	r := matcher().Request(&admission.Attributes{Operation: admission.Update, Resource: res, Subresource: "scale", Object: obj, Stored: admission.Known(obj.DeepCopy())})
	shown, _, err := r.Prepare(r.Asked())
	if err != nil {
		t.Fatal(err)
	}
	next := shown.DeepCopyObject().(*autoscalingv1.Scale)
	next.Spec.Replicas = 4
	if err := r.Replace(r.Asked(), next); err != nil {
		t.Fatal(err)
	}
	want := &appsv1.Deployment{ObjectMeta: obj.ObjectMeta, Spec: appsv1.DeploymentSpec{Replicas: new(int32(4))}}
	res.Default(want)
	if diff := cmp.Diff(want, obj); diff != "" || obj.Labels["kept"] != "yes" {
		t.Errorf("the workload (-want +got):\n%s", diff)
	}
	next.Spec.Replicas = -1
	if err := r.Replace(r.Asked(), next); err == nil {
		t.Error("a negative number of replicas was taken")
	}
}

func TestExempt(t *testing.T) {
	for _, plural := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies",
		"validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"} {
		if !Exempt(&admission.Attributes{Resource: &resource.Resource{Group: "admissionregistration.k8s.io", Plural: plural}}) {
			t.Errorf("%s are not exempt", plural)
		}
	}
	pods := kind(t, "", "v1", "pods")
	if Exempt(&admission.Attributes{Resource: pods}) || !Exempt(&admission.Attributes{Resource: pods, Internal: true}) {
		t.Error("pods are exempt just when the server writes them itself")
	}
}
