package webhook

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/admission/expression"
)

func configuration(name string, generation int64, webhooks ...string) *admissionregistrationv1.MutatingWebhookConfiguration {
	c := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: generation}}
	for _, w := range webhooks {
		c.Webhooks = append(c.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: w, TimeoutSeconds: new(int32(7)), FailurePolicy: new(admissionregistrationv1.Ignore),
			SideEffects: new(admissionregistrationv1.SideEffectClassNone), ReinvocationPolicy: new(admissionregistrationv1.IfNeededReinvocationPolicy),
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "c", Expression: "true"}},
		})
	}
	return c
}

func ids(hooks []*hook) (out []string) {
	for _, h := range hooks {
		out = append(out, h.id())
	}
	return out
}

// TestCompiledFollowsItsSource: configurations are read when the mark changes,
// and compiled when their own generation does.
func TestCompiledFollowsItsSource(t *testing.T) {
	mark, reads := 0, 0
	var list []runtime.Object
	var fail error
	c := compiled{expressions: expression.New(0), source: Source{
		Mark: func() any { return mark },
		List: func(context.Context) ([]runtime.Object, error) { reads++; return list, fail },
	}}
	get := func() []*hook {
		t.Helper()
		hooks, err := c.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return hooks
	}
	if n := len(get()); n != 0 || reads != 1 {
		t.Fatalf("%d webhooks after %d reads", n, reads)
	}
	list = []runtime.Object{configuration("a", 1, "x", "y"), configuration("b", 1, "x")}
	if n := len(get()); n != 0 || reads != 1 {
		t.Errorf("read without a change: %d webhooks, %d reads", n, reads)
	}
	mark++
	first := get()
	if !slices.Equal(ids(first), []string{"a/x", "a/y", "b/x"}) {
		t.Fatalf("webhooks %v", ids(first))
	}
	if h := first[0]; !h.ignore || !h.dryRun || !h.again || h.timeout != 7*time.Second || h.conditions == nil {
		t.Errorf("webhook %+v", h)
	}
	mark++
	list[1] = configuration("b", 2, "z")
	second := get()
	if !slices.Equal(ids(second), []string{"a/x", "a/y", "b/z"}) || second[0] != first[0] || reads != 3 {
		t.Errorf("after an edit: %v after %d reads, compiled again: %t", ids(second), reads, second[0] != first[0])
	}
	// A list that cannot be read is no list: neither the old nor an empty one.
	mark++
	fail = errors.New("broken")
	if _, err := c.get(t.Context()); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
}

func TestBrokenSelectorIsRemembered(t *testing.T) {
	w := webhook{ValidatingWebhook: admissionregistrationv1.ValidatingWebhook{
		Name:           "w",
		ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Nonsense"}}},
	}}
	if h := compile("c", &w, expression.New(0)); h.broken == nil {
		t.Error("nothing is wrong with a selector that is none")
	}
}
