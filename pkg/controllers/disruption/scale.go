package disruption

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// wanted is a controller of pods and how many it wants.
type wanted struct {
	uid   types.UID
	scale int32
}

// lastingError is one that trying again does not cure.
type lastingError struct{ error }

// scaleOf adds up what the controllers of pods want. unmanaged are the names
// of pods that no controller looks after: they count for nothing.
func (c *Controller) scaleOf(ctx context.Context, pods []*corev1.Pod) (scale int, unmanaged []string, err error) {
	asked := map[types.UID]bool{}
	scales := map[types.UID]int32{}
	for _, pod := range pods {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil {
			unmanaged = append(unmanaged, pod.Name)
			continue
		}
		if asked[ref.UID] {
			continue
		}
		asked[ref.UID] = true
		w, err := c.wants(ctx, pod.Namespace, ref)
		if err != nil {
			return 0, nil, err
		}
		if w == nil {
			return 0, nil, fmt.Errorf("found no controllers for pod %q", pod.Name)
		}
		scales[w.uid] = w.scale
	}
	for _, n := range scales {
		scale += int(n)
	}
	return scale, unmanaged, nil
}

// wants finds the controller that ref names, or its own controller when that
// is a Deployment. It returns nil when there is none of this UID.
func (c *Controller) wants(ctx context.Context, namespace string, ref *metav1.OwnerReference) (*wanted, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("owner %s: %w", ref.Name, err)
	}
	key := reconcile.Key{Namespace: namespace, Name: ref.Name}
	switch gk := (schema.GroupKind{Group: gv.Group, Kind: ref.Kind}); gk {
	case schema.GroupKind{Kind: "ReplicationController"}:
		if rc := reconcile.Cached[*corev1.ReplicationController](c.controllers, key); rc != nil && rc.UID == ref.UID {
			return &wanted{rc.UID, *rc.Spec.Replicas}, nil
		}
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		if set := reconcile.Cached[*appsv1.StatefulSet](c.statefulSets, key); set != nil && set.UID == ref.UID {
			return &wanted{set.UID, *set.Spec.Replicas}, nil
		}
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		if rs := reconcile.Cached[*appsv1.ReplicaSet](c.replicaSets, key); rs != nil && rs.UID == ref.UID {
			if w := c.replicaSetWants(rs); w != nil {
				return w, nil
			}
		}
	}
	return c.askScale(ctx, gv, namespace, ref)
}

// replicaSetWants returns what the set's Deployment wants, or the set itself
// when it has none; nil when the Deployment is not there.
func (c *Controller) replicaSetWants(rs *appsv1.ReplicaSet) *wanted {
	owner := metav1.GetControllerOfNoCopy(rs)
	if owner == nil || owner.Kind != "Deployment" {
		return &wanted{rs.UID, *rs.Spec.Replicas}
	}
	d := reconcile.Cached[*appsv1.Deployment](c.deployments, reconcile.Key{Namespace: rs.Namespace, Name: owner.Name})
	if d == nil || d.UID != owner.UID || !strings.HasPrefix(owner.APIVersion, "apps/") {
		return nil
	}
	return &wanted{d.UID, *d.Spec.Replicas}
}

// askScale asks the server for the scale of an owner of any kind.
func (c *Controller) askScale(ctx context.Context, gv schema.GroupVersion, namespace string, ref *metav1.OwnerReference) (*wanted, error) {
	plural, err := c.pluralOf(gv, ref.Kind)
	if err != nil {
		return nil, err
	}
	prefix := []string{"apis", gv.Group, gv.Version}
	if gv.Group == "" {
		prefix = []string{"api", gv.Version}
	}
	raw, err := c.env.Client.Discovery().RESTClient().Get().
		AbsPath(append(prefix, "namespaces", namespace, plural, ref.Name, "scale")...).
		SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("scale of %s %s: %w", ref.Kind, ref.Name, err)
	}
	var scale autoscalingv1.Scale
	if err := json.Unmarshal(raw, &scale); err != nil {
		return nil, fmt.Errorf("scale of %s %s: %w", ref.Kind, ref.Name, err)
	}
	if scale.UID != ref.UID {
		return nil, nil
	}
	return &wanted{scale.UID, scale.Spec.Replicas}, nil
}

// pluralOf finds the resource of a kind, which must have a scale.
func (c *Controller) pluralOf(gv schema.GroupVersion, kind string) (string, error) {
	list, err := c.env.Client.Discovery().ServerResourcesForGroupVersion(gv.String())
	if err != nil {
		return "", fmt.Errorf("find the resource of %s in %s: %w", kind, gv, err)
	}
	plural := ""
	subresources := map[string]bool{}
	for _, r := range list.APIResources {
		switch name, sub, isSub := strings.Cut(r.Name, "/"); {
		case isSub && sub == "scale":
			subresources[name] = true
		case !isSub && r.Kind == kind:
			plural = r.Name
		}
	}
	if plural == "" {
		return "", fmt.Errorf("no resource in %s is of kind %s", gv, kind)
	}
	if !subresources[plural] {
		return "", lastingError{fmt.Errorf("%s does not implement the scale subresource", schema.GroupResource{Group: gv.Group, Resource: plural})}
	}
	return plural, nil
}

// watchOwners queues the budgets of a namespace when one of its owners of pods
// wants another number of them.
func (c *Controller) watchOwners(informer cache.SharedIndexInformer) {
	c.budgetLoop.Handle(informer, cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(metav1.Object); ok {
				c.queueNamespace(o.GetNamespace())
			}
		},
		UpdateFunc: func(old, obj any) {
			was, ok := old.(metav1.Object)
			is, ok2 := obj.(metav1.Object)
			if ok && ok2 && was.GetGeneration() != is.GetGeneration() {
				c.queueNamespace(is.GetNamespace())
			}
		},
	})
}
