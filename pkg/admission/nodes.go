package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/auth/node"
)

// TaintNodesByCondition keeps pods off a new node until it is ready.
type TaintNodesByCondition struct{}

// Name implements Plugin.
func (TaintNodesByCondition) Name() string { return "TaintNodesByCondition" }

// Handles implements Selective.
func (TaintNodesByCondition) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "nodes"
}

// Admit implements Mutator.
func (TaintNodesByCondition) Admit(_ context.Context, a *Attributes) error {
	n, ok := a.Object.(*corev1.Node)
	if !ok || a.Operation != Create || a.Subresource != "" {
		return nil
	}
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoSchedule {
			return nil
		}
	}
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	return nil
}

// NodeRestriction keeps a node's agent to its own node and its own pods,
// whatever it is authorized for.
type NodeRestriction struct{ Objects Objects }

// Name implements Plugin.
func (NodeRestriction) Name() string { return "NodeRestriction" }

// Validate implements Validator.
func (p NodeRestriction) Validate(ctx context.Context, a *Attributes) error {
	if a.Operation == Connect {
		return nil
	}
	if _, isNode := auth.NodeName(a.User); !isNode {
		return nil // and nobody needs to know the old object
	}
	err := node.Restrict(&node.Request{
		User: a.User, Operation: node.Operation(a.Operation), Resource: a.Resource.GroupResource(), Subresource: a.Subresource,
		Namespace: a.Namespace, Name: a.Name, Object: a.Object, OldObject: a.Old(),
		Lister: nodeLister{ctx, p.Objects},
	})
	if err != nil {
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, err)
	}
	return nil
}

// nodeLister looks objects up for one request.
type nodeLister struct {
	ctx     context.Context // of the one request that the lister lives for
	objects Objects
}

func (l nodeLister) Pod(namespace, name string) (*corev1.Pod, bool) {
	pod, err := get[*corev1.Pod](l.ctx, l.objects, podGVR, namespace, name)
	return pod, err == nil
}

func (l nodeLister) Node(name string) (*corev1.Node, bool) {
	n, err := get[*corev1.Node](l.ctx, l.objects, nodeGVR, "", name)
	return n, err == nil
}
