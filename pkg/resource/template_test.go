package resource

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// templatePod is a pod with a token as admission leaves it.
func templatePod(t testing.TB, name, suffix string) *corev1.Pod {
	t.Helper()
	const text = "metadata: {namespace: default, labels: {a: b}}\n" +
		"spec: {serviceAccountName: default, hostname: h, tolerations: [{key: a, operator: Exists}]," +
		"initContainers: [{name: i, image: x}]," +
		"volumes: [{name: data, emptyDir: {}}, {name: TOKEN, projected: {sources: [{serviceAccountToken: {path: token}}]}}]," +
		"containers: [{name: c, image: x, ports: [{containerPort: 80}], env: [{name: A, value: b}], resources: {limits: {cpu: 1}}," +
		"volumeMounts: [{name: data, mountPath: /data}, {name: TOKEN, mountPath: /token, readOnly: true}]}]}"
	pod := &corev1.Pod{}
	if err := yaml.Unmarshal([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	pod.Name = name
	defaultPod(pod)
	renameVolume(&pod.Spec, "TOKEN", tokenVolumePrefix+suffix)
	return pod
}

func TestPodsAlike(t *testing.T) {
	template := &corev1.Pod{Spec: *templatePod(t, "a", "bcdfg").Spec.DeepCopy()}
	for name, c := range map[string]struct {
		change func(pod *corev1.Pod)
		alike  bool
	}{
		"another name of the token's volume": {func(*corev1.Pod) {}, true},
		"other metadata":                     {func(p *corev1.Pod) { p.Labels = nil; p.Annotations = map[string]string{"a": "b"} }, true},
		"another image":                      {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "y" }, false},
		"another volume":                     {func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir.Medium = "Memory" }, false},
		"a mount of no volume":               {func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].Name = tokenVolumePrefix + "bcdfg" }, false},
		"a mount less":                       {func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1] }, false},
		"two volumes of one name":            {func(p *corev1.Pod) { p.Spec.Volumes[0].Name = p.Spec.Volumes[1].Name }, false},
		"a name of other letters":            {func(p *corev1.Pod) { renameVolume(&p.Spec, tokenVolumePrefix+"hjklm", tokenVolumePrefix+"HJKLM") }, false},
		"a list that is empty":               {func(p *corev1.Pod) { p.Spec.HostAliases = []corev1.HostAlias{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := templatePod(t, "b", "hjklm")
			c.change(pod)
			before := pod.DeepCopy()
			if got := podsAlike(pod, template); got != c.alike {
				t.Errorf("alike is %v", got)
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("the pod was changed: %s", diff)
			}
		})
	}
}

// TestTemplatesValidate changes every value of a pod in turn. Whatever is of its
// template is validated to the same result with and without it, and none that is
// found wrong for its spec is of the template of a good one.
func TestTemplatesValidate(t *testing.T) {
	r, ok := Builtin().ByGVK(corev1.SchemeGroupVersion.WithKind("Pod"))
	if !ok {
		t.Fatal("there are no pods")
	}
	good := templatePod(t, "a", "bcdfg")
	good.UID, good.CreationTimestamp = "u", metav1.Now()
	if errs := r.CheckCreate(t.Context(), good); len(errs) > 0 {
		t.Fatal(errs)
	}
	template := r.Templates.Of(good)
	pod := templatePod(t, "b", "hjklm")
	pod.UID, pod.CreationTimestamp = good.UID, good.CreationTimestamp
	pod.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/c": "unconfined", "seccomp.security.alpha.kubernetes.io/pod": "unconfined"}
	alike, changes := 0, 0
	check := func() {
		t.Helper()
		changes++
		before := pod.DeepCopy()
		is := r.Templates.Alike(pod, template)
		if !equality.Semantic.DeepEqual(before, pod) {
			t.Fatalf("comparing has changed the pod: %s", cmp.Diff(before, pod))
		}
		if !is {
			return
		}
		alike++
		got, want := r.CheckCreateAlike(pod.DeepCopy()), r.CheckCreate(t.Context(), pod.DeepCopy())
		if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
			t.Errorf("of the template, and validated otherwise: %s\n%v", diff, pod)
		}
	}
	check()
	eachChange(reflect.ValueOf(pod).Elem(), check)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 { // two changes at a time, of which the second may hide the first
		eachChange(reflect.ValueOf(&pod.ObjectMeta).Elem(), func() {
			if rnd.IntN(10) == 0 {
				eachChange(reflect.ValueOf(&pod.Spec.Containers[0].VolumeMounts[1]).Elem(), check)
			}
		})
	}
	if alike < 20 || alike > changes/2 {
		t.Errorf("of %d changed pods %d were of the template", changes, alike)
	}
}

func texts(errs field.ErrorList) []string {
	out := []string{}
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func TestTemplateFacts(t *testing.T) {
	var template Template
	for i := range 2 * maxFacts {
		template.Note(i, i)
	}
	if fact, ok := template.Fact(3); !ok || fact != 3 {
		t.Error(fact, ok)
	}
	if _, ok := template.Fact(maxFacts); ok {
		t.Error("more is noted than a template may have")
	}
}
