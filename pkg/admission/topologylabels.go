package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// PodTopologyLabels tells pods, in labels, the zone and the region of the node
// that they are bound to.
type PodTopologyLabels struct {
	// NodeLabels reads the labels of a node, which are shared and never changed;
	// an API NotFound error says that there is none.
	NodeLabels func(ctx context.Context, name string) (map[string]string, error)
}

// Name implements Plugin.
func (PodTopologyLabels) Name() string { return "PodTopologyLabels" }

// Handles implements Selective.
func (PodTopologyLabels) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator. The labels of a Binding become the pod's.
func (p PodTopologyLabels) Admit(ctx context.Context, a *Attributes) error {
	if a.Operation != Create || a.Resource.Group != "" || a.Resource.Plural != "pods" {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.Binding:
		if obj.Target.Kind == "Node" {
			return p.label(ctx, &obj.ObjectMeta, obj.Target.Name)
		}
	case *corev1.Pod:
		if a.Subresource == "" && obj.Spec.NodeName != "" {
			return p.label(ctx, &obj.ObjectMeta, obj.Spec.NodeName)
		}
	}
	return nil
}

func (p PodTopologyLabels) label(ctx context.Context, meta *metav1.ObjectMeta, name string) error {
	labels, err := p.NodeLabels(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil // static pods may come before their node
	}
	if err != nil {
		return err
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if value, ok := labels[key]; ok {
			metav1.SetMetaDataLabel(meta, key, value)
		}
	}
	return nil
}
