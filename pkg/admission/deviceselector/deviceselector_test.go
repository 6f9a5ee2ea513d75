package deviceselector

import (
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
)

func class(expressions ...string) *resourcev1.DeviceClass {
	c := &resourcev1.DeviceClass{}
	for _, e := range expressions {
		c.Spec.Selectors = append(c.Spec.Selectors, resourcev1.DeviceSelector{CEL: &resourcev1.CELDeviceSelector{Expression: e}})
	}
	return c
}

func claim(expression string) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{}
	c.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "s", Selectors: class(expression).Spec.Selectors}}}}
	return c
}

func TestSelectors(t *testing.T) {
	costly := "device.driver == 'x'"
	for _, v := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		costly = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(" + v + ", " + costly + ")"
	}
	tests := []struct {
		name     string
		old, obj runtime.Object
		want     []string // parts of the error; none for no error
	}{
		{"good", nil, class(`device.driver == "d.example.com" && device.capacity["d.example.com"].memory.isGreaterThan(quantity("1Gi"))`), nil},
		{"consumable capacity", nil, class(`device.allowMultipleAllocations == true`), nil},
		{"no syntax", nil, class(`device.driver ==`), []string{"spec.selectors[0].cel.expression: Invalid value", "compilation failed", "Syntax error"}},
		{"not a bool", nil, class(`true`, `device.driver`), []string{"spec.selectors[1].cel.expression: Invalid value", "must evaluate to bool"}},
		{"of a claim", nil, claim(`device.nope`), []string{"spec.devices.requests[0].firstAvailable[0].selectors[0].cel.expression", "undefined field 'nope'"}},
		{"of a template", nil, &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{Spec: claim(`1`).Spec}},
			[]string{"spec.spec.devices.requests[0].firstAvailable[0].selectors[0].cel.expression"}},
		{"too costly", nil, class(costly), []string{"spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit"}},
		{"stored", class(costly), class(costly, `true`), nil},
		{"beside what is stored", class(costly), class(costly, `1`), []string{"spec.selectors[1].cel.expression: Invalid value"}},
		{"too long for the compiler", nil, class(strings.Repeat("(", resourcev1.CELSelectorExpressionMaxLength+1)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &admission.Attributes{Operation: admission.Create, Resource: &resource.Resource{Group: "resource.k8s.io", Kind: "X"}, Object: tt.obj, Stored: admission.Known(tt.old)}
			if tt.old != nil {
				a.Operation = admission.Update
			}
			err := Plugin{}.Validate(t.Context(), a)
			if len(tt.want) == 0 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !apierrors.IsInvalid(err) {
				t.Fatalf("error %v, want an invalid object", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}
