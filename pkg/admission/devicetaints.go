package admission

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// DeviceTaintTimes writes into taints of devices since when they are there,
// where the client did not say: how long a toleration lasts counts from then. A
// rule whose taint gets another effect counts anew.
type DeviceTaintTimes struct {
	Now func() time.Time
}

// Name implements Plugin.
func (DeviceTaintTimes) Name() string { return "DeviceTaintTimes" }

// Handles implements Selective.
func (DeviceTaintTimes) Handles(r schema.GroupResource) bool {
	return r.Group == resourcev1.GroupName && (r.Resource == "resourceslices" || r.Resource == "devicetaintrules")
}

// Admit implements Mutator.
func (p DeviceTaintTimes) Admit(_ context.Context, a *Attributes) error {
	if a.Subresource != "" || a.Operation != Create && a.Operation != Update {
		return nil
	}
	// Encoded times have whole seconds.
	now := func() *metav1.Time { return &metav1.Time{Time: p.Now().Truncate(time.Second)} }
	switch obj := a.Object.(type) {
	case *resourcev1.DeviceTaintRule:
		taint := &obj.Spec.Taint
		old, ok := a.Old().(*resourcev1.DeviceTaintRule)
		if taint.TimeAdded == nil || ok && old.Spec.Taint.Effect != taint.Effect && taint.TimeAdded.Equal(old.Spec.Taint.TimeAdded) {
			taint.TimeAdded = now()
		}
	case *resourcev1.ResourceSlice:
		for i := range obj.Spec.Devices {
			taints := obj.Spec.Devices[i].Taints
			for j := range taints {
				if taints[j].TimeAdded == nil {
					taints[j].TimeAdded = now()
				}
			}
		}
	}
	return nil
}
