package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestCompute(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	added := now.Add(-100 * time.Second)
	gone := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}
	other := corev1.Taint{Key: "example.org/drain", Effect: corev1.TaintEffectNoExecute}
	soft := corev1.Taint{Key: "example.org/soft", Effect: corev1.TaintEffectNoSchedule}
	exists := func(key string, seconds ...int64) corev1.Toleration {
		tol := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
		if len(seconds) > 0 {
			tol.TolerationSeconds = &seconds[0]
		}
		return tol
	}
	for _, tc := range []struct {
		name        string
		taints      []corev1.Taint
		tolerations []corev1.Toleration
		want        verdict
	}{
		{"no taint", nil, nil, verdict{}},
		{"only a NoSchedule taint", []corev1.Taint{soft}, nil, verdict{}},
		{"not tolerated", []corev1.Taint{gone}, nil, verdict{evict: true}},
		{"tolerated for ever", []corev1.Taint{gone}, []corev1.Toleration{exists(gone.Key)}, verdict{}},
		{"tolerated for 300 s", []corev1.Taint{gone}, []corev1.Toleration{exists(gone.Key, 300)}, verdict{wait: 200 * time.Second}},
		{"time is up", []corev1.Taint{gone}, []corev1.Toleration{exists(gone.Key, 100)}, verdict{evict: true}},
		{"negative means at once", []corev1.Taint{gone}, []corev1.Toleration{exists(gone.Key, -5)}, verdict{evict: true}},
		{"the shortest counts", []corev1.Taint{gone, other}, []corev1.Toleration{exists(gone.Key, 300), exists(other.Key, 150)}, verdict{wait: 50 * time.Second}},
		{"one of two is not tolerated", []corev1.Taint{gone, other}, []corev1.Toleration{exists(gone.Key)}, verdict{evict: true}},
		{"everything is tolerated", []corev1.Taint{gone, other}, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, verdict{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tc.tolerations}}
			if got := compute(pod, tc.taints, func(corev1.Taint) time.Time { return added }, now); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
