package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func restrictPod(node string, q *Request) error {
	switch q.Operation {
	case Create:
		p, ok := q.Object.(*corev1.Pod)
		if !ok {
			return unexpected(q.Object)
		}
		return restrictMirror(node, p, q.Lister)
	case Delete:
		return restrictPodOf(node, q, "delete")
	default:
		return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", q.Operation, node)
	}
}

// restrictPodOf wants the pod of the request's name to be the node's.
func restrictPodOf(node string, q *Request, verb string) error {
	p, ok := q.OldObject.(*corev1.Pod)
	if !ok {
		if p, ok = q.Lister.Pod(q.Namespace, q.Name); !ok {
			return fmt.Errorf("node %q can only %s existing pods, and there is no pod %q", node, verb, q.Name)
		}
	}
	if p.Spec.NodeName != node {
		return fmt.Errorf("node %q can only %s pods with spec.nodeName set to itself", node, verb)
	}
	return nil
}

// restrictMirror lets a node show the pods of its static manifests, owned by
// its Node and with no reference that would widen what the node may read.
func restrictMirror(node string, p *corev1.Pod, l Lister) error {
	if !isMirror(p) {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if p.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := restrictOwner(node, p, l); err != nil {
		return err
	}
	plain := p.DeepCopy()
	delete(plain.Annotations, corev1.MirrorPodAnnotationKey)
	if refs := podRefs(plain); len(refs) > 0 {
		return fmt.Errorf("node %q can not create pods that reference %s", node, refs[0].kind)
	}
	if len(p.Spec.ResourceClaims) > 0 || p.Status.ExtendedResourceClaimStatus != nil || len(p.Status.ResourceClaimStatuses) > 0 {
		return fmt.Errorf("node %q can not create pods that reference %s", node, resourceClaim)
	}
	for i := range p.Spec.Volumes {
		v := p.Spec.Volumes[i].Projected
		if v == nil {
			continue
		}
		for j := range v.Sources {
			switch {
			case v.Sources[j].ClusterTrustBundle != nil:
				return fmt.Errorf("node %q can not create pods that reference clustertrustbundles", node)
			case v.Sources[j].ServiceAccountToken != nil, v.Sources[j].PodCertificate != nil:
				return fmt.Errorf("node %q can not create pods that reference %s", node, serviceAccount)
			}
		}
	}
	return nil
}

func restrictOwner(node string, p *corev1.Pod, l Lister) error {
	if len(p.OwnerReferences) != 1 {
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	o := p.OwnerReferences[0]
	switch {
	case o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case o.Controller == nil || !*o.Controller:
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	case o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion:
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	n, ok := l.Node(node)
	switch {
	case !ok:
		return fmt.Errorf("node %q does not exist yet: it cannot own pods", node)
	case n.UID != o.UID:
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, n.UID, o.UID)
	}
	return nil
}

// restrictPodStatus lets a node report on its pods. Labels, owners, finalizers
// and claims, through which other rights go, must stay as they are.
func restrictPodStatus(node string, q *Request) error {
	if q.Operation != Update {
		return fmt.Errorf("unexpected operation %q", q.Operation)
	}
	p, ok := q.Object.(*corev1.Pod)
	if !ok {
		return unexpected(q.Object)
	}
	old, ok := q.OldObject.(*corev1.Pod)
	if !ok {
		return unexpected(q.OldObject)
	}
	same := equality.Semantic.DeepEqual
	switch {
	case old.Spec.NodeName != node:
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !same(p.Labels, old.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	case !same(p.OwnerReferences, old.OwnerReferences):
		return fmt.Errorf("node %q cannot update owner references through pod status", node)
	case !same(p.Finalizers, old.Finalizers):
		return fmt.Errorf("node %q cannot update finalizers through pod status", node)
	case !same(p.Status.ResourceClaimStatuses, old.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statuses", node)
	case !same(p.Status.ExtendedResourceClaimStatus, old.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	}
	return nil
}

func (k kind) String() string {
	return [...]string{
		"secrets", "configmaps", "a service account", "persistentvolumeclaims", "persistentvolumes",
		"resourceclaims", "pods", "volumeattachments", "resourceslices",
	}[k]
}
