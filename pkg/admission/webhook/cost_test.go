package webhook

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/resource"
)

// TestWithoutConfigurations: a server without webhooks allocates nothing for
// them.
func TestWithoutConfigurations(t *testing.T) {
	mark := new(int)
	none := Source{
		Mark: func() any { return mark },
		List: func(context.Context) ([]runtime.Object, error) { return nil, nil },
	}
	mutating, validating := New(Config{Mutating: none, Validating: none, Expressions: expression.New(0)})
	a := &admission.Attributes{Operation: admission.Create, Resource: &resource.Resource{Plural: "configmaps"}, Object: &corev1.ConfigMap{}}
	n := testing.AllocsPerRun(100, func() {
		if err := mutating.Admit(t.Context(), a); err != nil {
			t.Error(err)
		}
		if err := validating.Validate(t.Context(), a); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
