package resource

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-2,3 ? jan mon-fri", "@daily", "@every 1h", "a b c d e", "0/0 - , * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if badSchedule(s) == "" && !strings.HasPrefix(s, "@") && len(strings.Fields(s)) != 5 {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseCertificateRequest(data)
		_ = checkCertificates(data)
		_ = checkAnchors(data)
	})
}

// FuzzPod: whatever decodes as a pod can be defaulted, validated and shown.
func FuzzPod(f *testing.F) {
	f.Add([]byte("spec: {containers: [{name: a, image: b}]}"))
	f.Add([]byte("spec: {volumes: [{projected: {sources: [{}]}}], initContainers: [{restartPolicy: Always}], resources: {limits: {cpu: -1}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pod := &corev1.Pod{}
		if yaml.Unmarshal(data, pod) != nil {
			return
		}
		r := pods()
		r.Default(pod)
		r.Prepare(pod, nil)
		errs := r.Validate(pod)
		r.Row(pod, testNow)
		r.Warnings(pod, nil)
		if len(errs) == 0 && len(pod.Spec.Containers) == 0 {
			t.Error("a pod without containers is valid")
		}
		if errs := r.ValidateUpdate(pod.DeepCopy(), pod); len(errs) > 0 && pod.Spec.ActiveDeadlineSeconds == nil {
			t.Errorf("an update that changes nothing: %v", errs)
		}
	})
}

func BenchmarkPodCreate(b *testing.B) {
	r := pods()
	base := &corev1.Pod{}
	if err := yaml.Unmarshal([]byte("metadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: 'b:1', ports: [{containerPort: 80}], resources: {requests: {cpu: 100m}}}]}"), base); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		pod := base.DeepCopy()
		r.Default(pod)
		r.Prepare(pod, nil)
		if errs := r.Validate(pod); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
