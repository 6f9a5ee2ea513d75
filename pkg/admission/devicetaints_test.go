package admission

import (
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDeviceTaintTimes(t *testing.T) {
	now := time.Unix(1000, 5)
	p := DeviceTaintTimes{Now: func() time.Time { return now }}
	at := func(s int64) *metav1.Time { return &metav1.Time{Time: time.Unix(s, 0)} }
	rule := func(effect resourcev1.DeviceTaintEffect, added *metav1.Time) *resourcev1.DeviceTaintRule {
		return &resourcev1.DeviceTaintRule{Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "k", Effect: effect, TimeAdded: added}}}
	}
	const keepOff, end = resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNoExecute
	rules := resourcev1.SchemeGroupVersion.WithResource("devicetaintrules")
	for _, tt := range []struct {
		name     string
		old, obj *resourcev1.DeviceTaintRule
		want     *metav1.Time
	}{
		{"new", nil, rule(end, nil), at(1000)},
		{"said", nil, rule(end, at(7)), at(7)},
		{"the same effect", rule(end, at(7)), rule(end, at(7)), at(7)},
		{"another effect", rule(keepOff, at(7)), rule(end, at(7)), at(1000)},
		{"another effect and time", rule(keepOff, at(7)), rule(end, at(8)), at(8)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := request(t, Create, rules, "", tt.obj, nil)
			if tt.old != nil {
				a = request(t, Update, rules, "", tt.obj, tt.old)
			}
			if err := p.Admit(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if got := tt.obj.Spec.Taint.TimeAdded; !got.Equal(tt.want) {
				t.Errorf("added %v, want %v", got, tt.want)
			}
		})
	}
	slice := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Devices: []resourcev1.Device{{Taints: []resourcev1.DeviceTaint{{Key: "a"}, {Key: "b", TimeAdded: at(3)}}}}}}
	if err := p.Admit(t.Context(), request(t, Create, resourcev1.SchemeGroupVersion.WithResource("resourceslices"), "", slice, nil)); err != nil {
		t.Fatal(err)
	}
	if got := slice.Spec.Devices[0].Taints; !got[0].TimeAdded.Equal(at(1000)) || !got[1].TimeAdded.Equal(at(3)) {
		t.Errorf("taints %v", got)
	}
}
