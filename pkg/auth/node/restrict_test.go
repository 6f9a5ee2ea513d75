package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/auth"
)

// cluster is what exists.
type cluster struct {
	pods  map[string]*corev1.Pod
	nodes map[string]*corev1.Node
}

func (c cluster) Pod(namespace, name string) (*corev1.Pod, bool) {
	p, ok := c.pods[namespace+"/"+name]
	return p, ok
}

func (c cluster) Node(name string) (*corev1.Node, bool) {
	n, ok := c.nodes[name]
	return n, ok
}

func ptr[T any](v T) *T { return &v }

var existing = cluster{
	pods: map[string]*corev1.Pod{
		"ns/mine":   {ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mine", UID: "mine-uid"}, Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa"}},
		"ns/theirs": {ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "theirs", UID: "theirs-uid"}, Spec: corev1.PodSpec{NodeName: "n2", ServiceAccountName: "sa"}},
	},
	nodes: map[string]*corev1.Node{"n1": {ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n1-uid"}}},
}

type testCase struct {
	name string
	q    Request
	// err is a part of the refusal, empty when allowed.
	err string
}

func run(t *testing.T, cases []testCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if tc.q.User == nil {
				tc.q.User = agent("n1")
			}
			tc.q.Lister = existing
			err := Restrict(&tc.q)
			switch {
			case tc.err == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("%v, want a refusal with %q", err, tc.err)
			}
		})
	}
}

func TestRestrictNode(t *testing.T) {
	nodes := corev1.Resource("nodes")
	base := func() *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/hostname": "n1", "node-restriction.kubernetes.io/tier": "a"}},
			Spec:       corev1.NodeSpec{PodCIDR: "10.244.1.0/24", Taints: []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}},
		}
	}
	with := func(change func(*corev1.Node)) *corev1.Node {
		n := base()
		change(n)
		return n
	}
	update := func(name, err string, change func(*corev1.Node)) testCase {
		return testCase{name, Request{Operation: Update, Resource: nodes, Name: "n1", Object: with(change), OldObject: base()}, err}
	}
	create := func(name, err string, change func(*corev1.Node)) testCase {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		change(n)
		return testCase{"create " + name, Request{Operation: Create, Resource: nodes, Object: n}, err}
	}
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "y"}}
	run(t, []testCase{
		update("nothing", "", func(*corev1.Node) {}),
		update("status", "", func(n *corev1.Node) { n.Status.Phase = corev1.NodeRunning }),
		update("own label", "", func(n *corev1.Node) { n.Labels["example.com/rack"] = "7" }),
		update("kubelet label", "", func(n *corev1.Node) { n.Labels["node.kubernetes.io/instance-type"] = "big" }),
		update("zone", "", func(n *corev1.Node) { n.Labels["topology.kubernetes.io/zone"] = "z" }),
		update("add restricted label", "node-restriction", func(n *corev1.Node) { n.Labels["node-restriction.kubernetes.io/x"] = "b" }),
		update("change restricted label", "node-restriction", func(n *corev1.Node) { n.Labels["node-restriction.kubernetes.io/tier"] = "b" }),
		update("drop restricted label", "node-restriction", func(n *corev1.Node) { delete(n.Labels, "node-restriction.kubernetes.io/tier") }),
		update("restricted label with prefix", "not allowed", func(n *corev1.Node) { n.Labels["a.node-restriction.kubernetes.io/x"] = "b" }),
		update("role label", "node-role.kubernetes.io/control-plane", func(n *corev1.Node) { n.Labels["node-role.kubernetes.io/control-plane"] = "" }),
		update("k8s.io label", "not allowed", func(n *corev1.Node) { n.Labels["foo.k8s.io/x"] = "" }),
		update("taint", "taints", func(n *corev1.Node) { n.Spec.Taints = nil }),
		update("owner", "ownerReferences", func(n *corev1.Node) { n.OwnerReferences = owner }),
		update("finalizer", "finalizers", func(n *corev1.Node) { n.Finalizers = []string{"x/y"} }),
		update("pod CIDR", "pod CIDRs", func(n *corev1.Node) { n.Spec.PodCIDR = "10.244.0.0/16" }),
		update("unschedulable", "", func(n *corev1.Node) { n.Spec.Unschedulable = true }),
		{"another node", Request{Operation: Update, Resource: nodes, Name: "n2", Object: base(), OldObject: base()}, "not allowed to modify node"},
		{"delete itself", Request{Operation: Delete, Resource: nodes, Name: "n1"}, ""},
		{"delete another", Request{Operation: Delete, Resource: nodes, Name: "n2"}, "not allowed to modify node"},
		create("plain", "", func(*corev1.Node) {}),
		create("with taint", "", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "startup"}} }),
		create("hostname", "", func(n *corev1.Node) { n.Labels = map[string]string{"kubernetes.io/hostname": "n1"} }),
		create("restricted label", "node-restriction", func(n *corev1.Node) { n.Labels = map[string]string{"node-restriction.kubernetes.io/x": ""} }),
		create("owner", "ownerReferences", func(n *corev1.Node) { n.OwnerReferences = owner }),
		create("another", "not allowed to modify node", func(n *corev1.Node) { n.Name = "n2" }),
		{"wrong type", Request{Operation: Update, Resource: nodes, Name: "n1", Object: &corev1.Pod{}, OldObject: base()}, "unexpected type"},
		{"nameless node", Request{User: &auth.User{Name: "x", Groups: []string{auth.GroupNodes}}, Operation: Update, Resource: nodes, Name: "n1", Object: base(), OldObject: base()}, "could not determine node"},
		{"not a node", Request{User: &auth.User{Name: "root"}, Operation: Update, Resource: nodes, Name: "n2", Object: base(), OldObject: base()}, ""},
	})
}

func TestRestrictPods(t *testing.T) {
	pods := corev1.Resource("pods")
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "static-n1", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "n1-uid", Controller: ptr(true)}}},
			Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
		}
		change(p)
		return p
	}
	create := func(name, err string, change func(*corev1.Pod)) testCase {
		return testCase{"create " + name, Request{Operation: Create, Resource: pods, Namespace: "ns", Object: mirror(change)}, err}
	}
	volume := func(v corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: v}} }
	}
	projected := func(s corev1.VolumeProjection) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}}})
	}
	status := func(name, pod, err string, change func(*corev1.Pod)) testCase {
		old := existing.pods["ns/"+pod]
		p := old.DeepCopy()
		change(p)
		return testCase{"status " + name, Request{Operation: Update, Resource: pods, Subresource: "status", Namespace: "ns", Name: pod, Object: p, OldObject: old}, err}
	}
	run(t, []testCase{
		create("mirror", "", func(*corev1.Pod) {}),
		create("not a mirror", "mirror pods", func(p *corev1.Pod) { p.Annotations = nil }),
		create("elsewhere", "spec.nodeName set to itself", func(p *corev1.Pod) { p.Spec.NodeName = "n2" }),
		create("ownerless", "owner reference", func(p *corev1.Pod) { p.OwnerReferences = nil }),
		create("two owners", "owner reference", func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) }),
		create("another owner", "owner reference", func(p *corev1.Pod) { p.OwnerReferences[0].Name = "n2" }),
		create("owner not controller", "controller owner", func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }),
		create("blocking owner", "blockOwnerDeletion", func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr(true) }),
		create("owner of another uid", "UID mismatch", func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" }),
		create("service account", "service account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "sa" }),
		create("secret volume", "secrets", volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}})),
		create("secret env of an ephemeral container", "secrets", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}}}
		}),
		create("configmap env of an init container", "configmaps", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}}}}}
		}),
		create("claim", "persistentvolumeclaims", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}})),
		create("token", "service account", projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})),
		create("trust bundle", "clustertrustbundles", projected(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})),
		create("resource claim", "resourceclaims", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }),
		{"update", Request{Operation: Update, Resource: pods, Namespace: "ns", Name: "mine"}, "unexpected operation"},
		{"delete own", Request{Operation: Delete, Resource: pods, Namespace: "ns", Name: "mine"}, ""},
		{"delete another's", Request{Operation: Delete, Resource: pods, Namespace: "ns", Name: "theirs"}, "can only delete"},
		{"delete none", Request{Operation: Delete, Resource: pods, Namespace: "ns", Name: "none"}, "can only delete"},
		{"evict own", Request{Operation: Create, Resource: pods, Subresource: "eviction", Namespace: "ns", Name: "mine", Object: &policyv1.Eviction{}}, ""},
		{"evict another's", Request{Operation: Create, Resource: pods, Subresource: "eviction", Namespace: "ns", Name: "theirs", Object: &policyv1.Eviction{}}, "can only evict"},
		{"exec", Request{Operation: Create, Resource: pods, Subresource: "exec", Namespace: "ns", Name: "mine"}, "unexpected pod subresource"},
		{"binding", Request{Operation: Create, Resource: pods, Subresource: "binding", Namespace: "ns", Name: "mine"}, "unexpected pod subresource"},
		status("own", "mine", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }),
		status("another's", "theirs", "spec.nodeName set to itself", func(*corev1.Pod) {}),
		status("labels", "mine", "labels", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "x"} }),
		status("owner", "mine", "owner references", func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} }),
		status("finalizers", "mine", "finalizers", func(p *corev1.Pod) { p.Finalizers = []string{"a/b"} }),
		status("claims", "mine", "resource claim", func(p *corev1.Pod) {
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "a", ResourceClaimName: ptr("b")}}
		}),
		status("extended claim", "mine", "extended resource claim", func(p *corev1.Pod) {
			p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "b"}
		}),
	})
}

func TestRestrictRest(t *testing.T) {
	token := func(name, err, account string, ref *authenticationv1.BoundObjectReference) testCase {
		return testCase{"token " + name, Request{Operation: Create, Resource: corev1.Resource("serviceaccounts"), Subresource: "token", Namespace: "ns", Name: account,
			Object: &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}}, err}
	}
	bound := func(kind, name string, uid types.UID) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid}
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	grown := claim.DeepCopy()
	grown.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	lost := claim.DeepCopy()
	lost.Status.Phase = corev1.ClaimLost
	labelled := claim.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	claims := func(name, sub, err string, o runtime.Object) testCase {
		return testCase{"claim " + name, Request{Operation: Update, Resource: corev1.Resource("persistentvolumeclaims"), Subresource: sub, Object: o, OldObject: claim}, err}
	}
	named := func(name, err string, r schema.GroupResource, namespace string, o runtime.Object) testCase {
		return testCase{name, Request{Operation: Create, Resource: r, Namespace: namespace, Object: o}, err}
	}
	leases, csiNodes, slices := coordinationv1.Resource("leases"), storagev1.Resource("csinodes"), resourcev1.Resource("resourceslices")
	lease := func(name string) runtime.Object {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	slice := func(node string) runtime.Object {
		return &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{NodeName: &node}}
	}
	csr := func(name, err, signer, cn string) testCase {
		return named("csr "+name, err, certificatesv1.Resource("certificatesigningrequests"), "", &certificatesv1.CertificateSigningRequest{
			Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: newCSR(t, cn)}})
	}
	run(t, []testCase{
		token("for own pod", "", "sa", bound("Pod", "mine", "mine-uid")),
		token("unbound", "not bound to a pod", "sa", nil),
		token("bound to a secret", "not bound to a pod", "sa", bound("Secret", "mine", "mine-uid")),
		token("bound to the node", "not bound to a pod", "sa", bound("Node", "n1", "n1-uid")),
		token("without uid", "without a uid", "sa", bound("Pod", "mine", "")),
		token("of an older pod", "does not match", "sa", bound("Pod", "mine", "old")),
		token("for another's pod", "different node", "sa", bound("Pod", "theirs", "theirs-uid")),
		token("of another account", "not that of pod", "admin", bound("Pod", "mine", "mine-uid")),
		token("for no pod", "does not exist", "sa", bound("Pod", "none", "x")),
		claims("capacity", "status", "", grown),
		claims("phase", "status", "not allowed", lost),
		claims("labels", "status", "not allowed", labelled),
		claims("spec", "", "may only update the status", grown),
		named("own lease", "", leases, "kube-node-lease", lease("n1")),
		named("lease of another", "same name", leases, "kube-node-lease", lease("n2")),
		named("lease elsewhere", "system namespace", leases, "kube-system", lease("n1")),
		{"lease update", Request{Operation: Update, Resource: leases, Namespace: "kube-node-lease", Name: "n2", Object: lease("n2")}, "same name"},
		named("own csinode", "", csiNodes, "", &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}),
		named("csinode of another", "same name", csiNodes, "", &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}),
		named("own slice", "", slices, "", slice("n1")),
		named("slice of another", "spec.nodeName", slices, "", slice("n2")),
		named("slice of all", "spec.nodeName", slices, "", &resourcev1.ResourceSlice{}),
		{"take over a slice", Request{Operation: Update, Resource: slices, Object: slice("n1"), OldObject: slice("n2")}, "spec.nodeName"},
		{"give a slice away", Request{Operation: Update, Resource: slices, Object: slice("n2"), OldObject: slice("n1")}, "spec.nodeName"},
		{"delete another's slice", Request{Operation: Delete, Resource: slices, OldObject: slice("n2")}, "spec.nodeName"},
		csr("own", "", certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:n1"),
		csr("of another", "can only create a node CSR", certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:n2"),
		csr("serving of another", "can only create a node CSR", certificatesv1.KubeletServingSignerName, "system:node:n2"),
		csr("of another signer", "", "example.com/x", "y"),
		named("events", "", corev1.Resource("events"), "ns", &corev1.Event{}),
	})
}

func newCSR(t *testing.T, cn string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}
