package node

import (
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

// Operation is what an admitted request does.
type Operation string

// The operations.
const (
	Create Operation = "CREATE"
	Update Operation = "UPDATE"
	Delete Operation = "DELETE"
)

// Request is a write as admission sees it.
type Request struct {
	User      *auth.User
	Operation Operation
	// Resource is what is written; Name is empty on a create that is not to a
	// subresource.
	Resource        schema.GroupResource
	Subresource     string
	Namespace, Name string
	Object          runtime.Object
	OldObject       runtime.Object
	// Lister finds the objects that the request's own do not show.
	Lister Lister
}

// Lister looks up what a node's request is measured by. It must be fresh: a
// pod that the agent has seen is there.
type Lister interface {
	Pod(namespace, name string) (*corev1.Pod, bool)
	Node(name string) (*corev1.Node, bool)
}

// Restrict returns why a node's agent may not make this write, or nil: a 403
// with the error's text. It is nil for all who are not nodes. Every write that
// an agent is authorized for passes here, whatever verb brought it.
func Restrict(q *Request) error {
	node, isNode := auth.NodeName(q.User)
	if !isNode {
		return nil
	}
	if node == "" {
		return fmt.Errorf("could not determine node from user %q", q.User.Name)
	}
	switch q.Resource {
	case corev1.Resource("pods"):
		switch q.Subresource {
		case "":
			return restrictPod(node, q)
		case "status":
			return restrictPodStatus(node, q)
		case "eviction":
			return restrictPodOf(node, q, "evict")
		default:
			return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", q.Subresource)
		}
	case corev1.Resource("nodes"):
		return restrictNode(node, q)
	case corev1.Resource("persistentvolumeclaims"):
		return restrictClaimStatus(node, q)
	case corev1.Resource("serviceaccounts"):
		return restrictToken(node, q)
	case coordinationv1.Resource("leases"):
		if q.Namespace != corev1.NamespaceNodeLease {
			return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return restrictName(node, q, "node lease")
	case storagev1.Resource("csinodes"):
		return restrictName(node, q, "CSINode")
	case resourcev1.Resource("resourceslices"):
		return restrictSlice(node, q)
	case certificatesv1.Resource("certificatesigningrequests"):
		return restrictCSR(q)
	default:
		return nil
	}
}

func unexpected(o runtime.Object) error { return fmt.Errorf("unexpected type %T", o) }

func restrictName(node string, q *Request, what string) error {
	name := q.Name
	if q.Operation == Create {
		m, err := meta.Accessor(q.Object)
		if err != nil {
			return unexpected(q.Object)
		}
		name = m.GetName()
	}
	if name != node {
		return fmt.Errorf("can only access %s with the same name as the requesting node", what)
	}
	return nil
}

func restrictNode(node string, q *Request) error {
	name := q.Name
	var n *corev1.Node
	if q.Operation != Delete {
		var ok bool
		if n, ok = q.Object.(*corev1.Node); !ok {
			return unexpected(q.Object)
		}
		if name == "" {
			name = n.Name
		}
	}
	if name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, name)
	}
	switch q.Operation {
	case Create:
		return restrictNodeFields(node, n, &corev1.Node{Spec: corev1.NodeSpec{Taints: n.Spec.Taints}})
	case Update:
		old, ok := q.OldObject.(*corev1.Node)
		if !ok {
			return unexpected(q.OldObject)
		}
		return restrictNodeFields(node, n, old)
	default:
		return nil
	}
}

// restrictNodeFields compares a Node with what it was, or, for a new one, with
// what it may differ from. Taints a node may only register with.
func restrictNodeFields(node string, n, old *corev1.Node) error {
	same := equality.Semantic.DeepEqual
	switch {
	case !same(n.Spec.Taints, old.Spec.Taints):
		return fmt.Errorf("node %q is not allowed to modify taints", node)
	case !same(n.OwnerReferences, old.OwnerReferences):
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
	case !same(n.Finalizers, old.Finalizers):
		return fmt.Errorf("node %q is not allowed to modify finalizers", node)
	case n.Spec.PodCIDR != old.Spec.PodCIDR || !same(n.Spec.PodCIDRs, old.Spec.PodCIDRs):
		return fmt.Errorf("node %q is not allowed to modify its pod CIDRs", node)
	}
	if bad := forbiddenLabels(n.Labels, old.Labels); len(bad) > 0 {
		return fmt.Errorf("node %q is not allowed to modify labels: %s", node, strings.Join(bad, ", "))
	}
	return nil
}

// forbiddenLabels are the keys that differ and by which workloads could be
// drawn to a node: those under node-restriction.kubernetes.io, and those of
// Kubernetes that are not an agent's to set.
func forbiddenLabels(labels, old map[string]string) []string {
	var bad []string
	check := func(a, b map[string]string) {
		for k, v := range a {
			if w, ok := b[k]; (!ok || v != w) && forbiddenLabel(k) && !slices.Contains(bad, k) {
				bad = append(bad, k)
			}
		}
	}
	check(labels, old)
	check(old, labels)
	slices.Sort(bad)
	return bad
}

func forbiddenLabel(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	within := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
	if within(corev1.LabelNamespaceNodeRestriction) {
		return true
	}
	if !within("kubernetes.io") && !within("k8s.io") {
		return false
	}
	if within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
		return false
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable,
		corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return false
	}
	return true
}

func restrictClaimStatus(node string, q *Request) error {
	if q.Subresource != "status" || q.Operation != Update {
		return fmt.Errorf("node %q may only update the status of persistent volume claims", node)
	}
	claim, ok := q.Object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return unexpected(q.Object)
	}
	old, ok := q.OldObject.(*corev1.PersistentVolumeClaim)
	if !ok {
		return unexpected(q.OldObject)
	}
	strip := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
		return c
	}
	if !equality.Semantic.DeepEqual(strip(claim), strip(old)) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.capacity, status.conditions and status.allocatedResources of a claim", node)
	}
	return nil
}

// restrictToken wants tokens bound to a pod on the node.
func restrictToken(node string, q *Request) error {
	if q.Operation != Create || q.Subresource != "token" {
		return nil
	}
	r, ok := q.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return unexpected(q.Object)
	}
	b := r.Spec.BoundObjectRef
	switch {
	case b == nil || b.APIVersion != "v1" || b.Kind != "Pod" || b.Name == "":
		return fmt.Errorf("node requested token not bound to a pod")
	case b.UID == "":
		return fmt.Errorf("node requested token with a pod binding without a uid")
	}
	p, ok := q.Lister.Pod(q.Namespace, b.Name)
	switch {
	case !ok:
		return fmt.Errorf("node requested token bound to pod %q, which does not exist", b.Name)
	case p.UID != b.UID:
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", b.UID)
	case p.Spec.NodeName != node:
		return fmt.Errorf("node requested token bound to a pod scheduled on a different node")
	case p.Spec.ServiceAccountName != q.Name:
		return fmt.Errorf("node requested token of service account %q, which is not that of pod %q", q.Name, b.Name)
	}
	return nil
}

func restrictSlice(node string, q *Request) error {
	owned := func(o runtime.Object) error {
		s, ok := o.(*resourcev1.ResourceSlice)
		if !ok {
			return unexpected(o)
		}
		if s.Spec.NodeName == nil || *s.Spec.NodeName != node {
			return fmt.Errorf("can only access ResourceSlices whose spec.nodeName is the requesting node's")
		}
		return nil
	}
	switch q.Operation {
	case Create:
		return owned(q.Object)
	case Update:
		if err := owned(q.OldObject); err != nil {
			return err
		}
		return owned(q.Object)
	case Delete:
		// A deletecollection shows no object here; its selector was authorized.
		if q.OldObject == nil {
			return nil
		}
		return owned(q.OldObject)
	default:
		return fmt.Errorf("unexpected operation %q", q.Operation)
	}
}

// restrictCSR lets a node ask for certificates of node agents only in its own
// name.
func restrictCSR(q *Request) error {
	if q.Operation != Create || q.Subresource != "" {
		return nil
	}
	c, ok := q.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return unexpected(q.Object)
	}
	if c.Spec.SignerName != certificatesv1.KubeletServingSignerName && c.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	csr, err := pki.ParseCSR(c.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if csr.Subject.CommonName != q.User.Name {
		return fmt.Errorf("can only create a node CSR with CN=%s", q.User.Name)
	}
	return nil
}
