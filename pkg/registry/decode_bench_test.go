package registry

import (
	"bytes"
	"encoding/json"
	"os"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"coracle/pkg/resource"
)

// bodies are request bodies to measure: a pod and an object of 1.4 KB.
func bodies(t testing.TB) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile("ownership/testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pod, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	cm := corev1.ConfigMap{Data: map[string]string{}}
	cm.APIVersion, cm.Kind, cm.Name, cm.Namespace = "v1", "ConfigMap", "web", "default"
	cm.Labels = map[string]string{"app": "web", "tier": "frontend"}
	for i := range 20 {
		cm.Data["key-"+string(rune('a'+i))] = string(bytes.Repeat([]byte("x"), 45))
	}
	small, err := json.Marshal(cm)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"Pod": pod, "ConfigMap": small}
}

// cpuTime is the processor time that the process has used, which a busy machine
// disturbs less than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func measure(b *testing.B, name string, size int, f func() error) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(size))
		cpu := cpuTime()
		for b.Loop() {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkDecode measures what fieldValidation costs beyond a plain decode.
func BenchmarkDecode(b *testing.B) {
	d := NewDecoder(resource.Builtin().Scheme())
	for kind, body := range bodies(b) {
		gvk := schema.GroupVersionKind{Version: "v1", Kind: kind}
		fresh := func() runtime.Object {
			obj, err := d.Scheme().New(gvk)
			if err != nil {
				b.Fatal(err)
			}
			return obj
		}
		for _, v := range []Validation{Ignore, Warn, Strict} {
			measure(b, kind+"/"+string(v), len(body), func() error {
				_, err := d.Decode(body, JSON, gvk, v, func(string) {})
				return err
			})
		}
		measure(b, kind+"/library-plain", len(body), func() error { return kjson.UnmarshalCaseSensitivePreserveInts(body, fresh()) })
		measure(b, kind+"/library-strict", len(body), func() error {
			_, err := kjson.UnmarshalStrict(body, fresh())
			return err
		})
	}
}
