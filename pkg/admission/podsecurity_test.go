package admission

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

func podSecurity(t *testing.T, objects Objects, levels PodSecurityLevels) *PodSecurity {
	t.Helper()
	p, err := NewPodSecurity(objects, levels)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func labelled(labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
	}
	return ns
}

func TestPodSecurity(t *testing.T) {
	plain := podOf(container("c", nil, nil))
	host := podOf(container("c", nil, nil))
	host.Spec.HostNetwork = true
	workload := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns"}, Spec: appsv1.DeploymentSpec{
		Template: corev1.PodTemplateSpec{Spec: host.Spec}}}
	deployments := appsv1.SchemeGroupVersion.WithResource("deployments")
	const hostViolates = `violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`
	tests := []struct {
		name     string
		levels   PodSecurityLevels
		ns       *corev1.Namespace
		gvr      schema.GroupVersionResource
		sub      string
		obj      runtime.Object
		refusal  string
		warns    string
		annotate string
	}{
		{"nothing asked", PodSecurityLevels{}, labelled(), podGVR, "", host, "", "", ""},
		{"enforced", PodSecurityLevels{}, labelled("enforce", "baseline"), podGVR, "", host, `pods "p" is forbidden: ` + hostViolates, "", ""},
		{"kept", PodSecurityLevels{}, labelled("enforce", "baseline"), podGVR, "", plain, "", "", ""},
		{"restricted", PodSecurityLevels{}, labelled("enforce", "restricted"), podGVR, "", plain, `violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`, "", ""},
		{"of an older version", PodSecurityLevels{}, labelled("enforce", "restricted", "enforce-version", "v1.20"), podGVR, "", plain, `violates PodSecurity "restricted:v1.20"`, "", ""},
		{"warned", PodSecurityLevels{}, labelled("warn", "baseline"), podGVR, "", host, "", `would violate PodSecurity "baseline:latest"`, ""},
		{"audited", PodSecurityLevels{}, labelled("audit", "baseline"), podGVR, "", host, "", "", `pod-security.kubernetes.io/audit-violations=would violate PodSecurity "baseline:latest"`},
		{"by default", PodSecurityLevels{Enforce: "baseline"}, labelled(), podGVR, "", host, hostViolates, "", ""},
		{"the label counts", PodSecurityLevels{Enforce: "baseline"}, labelled("enforce", "privileged"), podGVR, "", host, "", "", ""},
		{"a workload is warned of only", PodSecurityLevels{}, labelled("enforce", "baseline", "warn", "baseline"), deployments, "", workload, "", `would violate PodSecurity "baseline:latest"`, ""},
		{"status", PodSecurityLevels{}, labelled("enforce", "baseline"), podGVR, "status", host, "", "", ""},
		{"ephemeral containers", PodSecurityLevels{}, labelled("enforce", "baseline"), podGVR, "ephemeralcontainers", host, hostViolates, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := request(t, Create, tt.gvr, tt.sub, tt.obj, nil)
			var warned, noted []string
			a.Warn = func(s string) { warned = append(warned, s) }
			a.Annotate = func(k, v string) { noted = append(noted, k+"="+v) }
			p := podSecurity(t, stored{namespaceGVR: {tt.ns}}, tt.levels)
			refused(t, pass(t, p, a), tt.refusal)
			// The same is said of a pod whose template is known, again and again.
			a.Template = &resource.Template{Object: tt.obj}
			for range 3 {
				slices.Sort(noted) // they come in any order
				first, also := strings.Join(warned, "|"), strings.Join(noted, "|")
				warned, noted = nil, nil
				refused(t, pass(t, p, a), tt.refusal)
				slices.Sort(noted)
				if second, too := strings.Join(warned, "|"), strings.Join(noted, "|"); first != second || also != too {
					t.Errorf("a pod of a template is warned %q and noted %q, another %q and %q", second, too, first, also)
				}
			}
			if text := strings.Join(warned, "|"); (text == "") != (tt.warns == "") || !strings.Contains(text, tt.warns) {
				t.Errorf("warnings %q, want %q", text, tt.warns)
			}
			if !slices.ContainsFunc(append(noted, tt.annotate), func(s string) bool {
				return tt.annotate == "" || strings.HasPrefix(s, tt.annotate) && s != "" && len(noted) > 0
			}) {
				t.Errorf("annotations %q, want %q", noted, tt.annotate)
			}
		})
	}
}

// TestPodSecurityOfTemplates: what was said of a template holds where it was said
// and for pods whose annotations say nothing.
func TestPodSecurityOfTemplates(t *testing.T) {
	pod := podOf(container("c", nil, nil))
	pod.Spec.HostNetwork = true
	template := &resource.Template{Object: pod}
	ns := labelled("enforce", "privileged")
	p := podSecurity(t, stored{namespaceGVR: {ns}}, PodSecurityLevels{Warn: "baseline"})
	ask := func(pod *corev1.Pod) error {
		a := request(t, Create, podGVR, "", pod, nil)
		a.Warn, a.Annotate, a.Template = func(string) {}, func(string, string) {}, template
		return pass(t, p, a)
	}
	for range 2 {
		if err := ask(pod); err != nil {
			t.Fatal(err)
		}
	}
	ns.Labels = labelled("enforce", "baseline").Labels
	refused(t, ask(pod), "host namespaces (hostNetwork=true)")
	pod.Spec.HostNetwork = false
	template = &resource.Template{Object: pod}
	for range 2 {
		if err := ask(pod); err != nil {
			t.Fatal(err)
		}
	}
	noted := pod.DeepCopy()
	noted.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}
	refused(t, ask(noted), "forbidden AppArmor profile")
}

// TestPodSecurityOfNamespaces: labels must mean something, and who makes them
// stricter hears which pods would not pass.
func TestPodSecurityOfNamespaces(t *testing.T) {
	host := podOf(container("c", nil, nil))
	host.Spec.HostPID = true
	p := podSecurity(t, stored{podGVR: {host}}, PodSecurityLevels{})
	var warned []string
	ask := func(op Operation, ns, old *corev1.Namespace) error {
		warned = nil
		var was runtime.Object
		if old != nil {
			was = old
		}
		a := request(t, op, namespaceGVR, "", ns, was)
		a.Namespace, a.Name = "", ns.Name
		a.Warn = func(s string) { warned = append(warned, s) }
		a.Annotate = func(string, string) {}
		return pass(t, p, a)
	}
	if err := ask(Create, labelled("enforce", "strict"), nil); !apierrors.IsInvalid(err) ||
		!strings.Contains(err.Error(), "must be one of privileged, baseline, restricted") {
		t.Errorf("an unknown level: %v", err)
	}
	if err := ask(Update, labelled("enforce", "baseline"), labelled()); err != nil || len(warned) != 2 ||
		!strings.Contains(warned[0], `existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest"`) || !strings.Contains(warned[1], "p: host namespaces") {
		t.Errorf("a stricter level: %v, warnings %q", err, warned)
	}
	if err := ask(Update, labelled("enforce", "privileged"), labelled("enforce", "baseline")); err != nil || len(warned) != 0 {
		t.Errorf("a looser level: %v, warnings %q", err, warned)
	}
	if _, err := NewPodSecurity(stored{}, PodSecurityLevels{Warn: "strict"}); err == nil {
		t.Error("an unknown default level is accepted")
	}
}

func BenchmarkPodSecurity(b *testing.B) {
	p, err := NewPodSecurity(stored{namespaceGVR: {labelled()}}, PodSecurityLevels{Warn: "baseline", Audit: "restricted"})
	if err != nil {
		b.Fatal(err)
	}
	res, _ := table.ByGVR(podGVR)
	a := &Attributes{Operation: Create, Resource: res, Namespace: "ns", Name: "p", Object: podOf(container("c", nil, nil)),
		Warn: func(string) {}, Annotate: func(string, string) {}}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Validate(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}
