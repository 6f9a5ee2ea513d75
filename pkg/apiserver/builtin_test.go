package apiserver_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

func simplePod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if change != nil {
		change(p)
	}
	return p
}

// TestClassesFillInWhatIsNotSaid: storage, ingress and runtime classes.
func TestClassesFillInWhatIsNotSaid(t *testing.T) {
	s := newServer(t)
	ctx, c := t.Context(), s.Client
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	def := func(name, annotation string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Annotations: map[string]string{annotation: "true"}}
	}
	must(c.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: def("fast", "storageclass.kubernetes.io/is-default-class"), Provisioner: "p.example.com"}, metav1.CreateOptions{}))
	must(c.NetworkingV1().IngressClasses().Create(ctx, &networkingv1.IngressClass{ObjectMeta: def("web", networkingv1.AnnotationIsDefaultIngressClass),
		Spec: networkingv1.IngressClassSpec{Controller: "example.com/web"}}, metav1.CreateOptions{}))
	cpu := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	must(c.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Handler: "vm", Overhead: &nodev1.Overhead{PodFixed: cpu}}, metav1.CreateOptions{}))
	claim, err := c.CoreV1().PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}, metav1.CreateOptions{})
	must(claim, err)
	if got := claim.Spec.StorageClassName; got == nil || *got != "fast" || len(claim.Finalizers) != 1 {
		t.Errorf("the claim has class %v and finalizers %v", got, claim.Finalizers)
	}
	ingress, err := c.NetworkingV1().Ingresses("default").Create(ctx, &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "i"}, Spec: networkingv1.IngressSpec{
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}, metav1.CreateOptions{})
	must(ingress, err)
	if got := ingress.Spec.IngressClassName; got == nil || *got != "web" {
		t.Errorf("the Ingress has class %v", got)
	}
	pods := c.CoreV1().Pods("default")
	pod, err := pods.Create(ctx, simplePod("vm", func(p *corev1.Pod) { p.Spec.RuntimeClassName = new("vm") }), metav1.CreateOptions{})
	must(pod, err)
	if got := pod.Spec.Overhead.Cpu(); got.String() != "100m" {
		t.Errorf("the pod's overhead is %s", got)
	}
	must(nil, c.NodeV1().RuntimeClasses().Delete(ctx, "vm", metav1.DeleteOptions{}))
	_, err = pods.Create(ctx, simplePod("late", func(p *corev1.Pod) { p.Spec.RuntimeClassName = new("vm") }), metav1.CreateOptions{})
	refused(t, err, 403, metav1.StatusReasonForbidden, `pod rejected: RuntimeClass "vm" not found`)
}

// TestBindingTellsTopology: a pod learns its zone with its node, and the labels
// that a scheduler gives in a Binding are the pod's.
func TestBindingTellsTopology(t *testing.T) {
	s := newServer(t)
	ctx, core := t.Context(), s.Client.CoreV1()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}}
	if _, err := core.Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Pods("default").Create(ctx, simplePod("p", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"own": "yes"}}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := core.Pods("default").Bind(ctx, b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := core.Pods("default").Get(ctx, "p", metav1.GetOptions{})
	if err != nil || got.Labels[corev1.LabelTopologyZone] != "z" || got.Labels["own"] != "yes" {
		t.Errorf("the bound pod has labels %v (%v)", got.Labels, err)
	}
}

// TestPodSecurityByLabels: enforced where a namespace asks for it; elsewhere
// only warned of.
func TestPodSecurityByLabels(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	s.makeNamespace(t, "strict")
	patch := `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`
	s.must(t, 200, "PATCH", "/api/v1/namespaces/strict", patch, contentType("application/merge-patch+json"))
	host := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	_, err := s.Client.CoreV1().Pods("strict").Create(ctx, simplePod("p", host), metav1.CreateOptions{})
	refused(t, err, 403, metav1.StatusReasonForbidden, `pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	body := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"i"}]}}`
	a := s.must(t, 201, "POST", "/api/v1/namespaces/default/pods", body)
	if got := strings.Join(a.header.Values("Warning"), " "); !strings.Contains(got, "would violate PodSecurity") {
		t.Errorf("warnings: %q", got)
	}
	bad := `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"severe"}}}`
	s.must(t, 422, "PATCH", "/api/v1/namespaces/strict", bad, contentType("application/merge-patch+json"))
}

// TestOptionalPlugins: what is off by default works once it is enabled, and a
// name that means nothing is an error.
func TestOptionalPlugins(t *testing.T) {
	enable := func(names ...string) testcluster.Option {
		return testcluster.WithConfig(func(c *controlplane.Config) { c.EnableAdmission = names })
	}
	policy := func(options ...testcluster.Option) corev1.PullPolicy {
		t.Helper()
		s := newServer(t, options...)
		pod, err := s.Client.CoreV1().Pods("default").Create(t.Context(), simplePod("p", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever }), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pod.Spec.Containers[0].ImagePullPolicy
	}
	if got := policy(); got != corev1.PullNever {
		t.Errorf("AlwaysPullImages is on by default: %s", got)
	}
	if got := policy(enable("AlwaysPullImages", "PodNodeSelector", "OwnerReferencesPermissionEnforcement")); got != corev1.PullAlways {
		t.Errorf("AlwaysPullImages is enabled: %s", got)
	}
	backend := memory.New(memory.Config{})
	defer closeIt(t, backend)
	for _, cfg := range []controlplane.Config{
		{Backend: backend, EnableAdmission: []string{"ImagePolicyWebhook"}},
		{Backend: backend, EnableAdmission: []string{"AlwaysPullImages"}, DisableAdmission: []string{"AlwaysPullImages"}},
		{Backend: backend, DisableAdmission: []string{"NodeRestriction"}},
	} {
		if _, err := controlplane.New(cfg); err == nil {
			t.Errorf("enabling %v and disabling %v is accepted", cfg.EnableAdmission, cfg.DisableAdmission)
		}
	}
}
