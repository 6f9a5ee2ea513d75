package kubelet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestContainersRestartWithoutTheAPIServer(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cm"}, Data: map[string]string{"k": "v"}}
		if _, err := n.client.CoreV1().ConfigMaps("ns").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p := simplePod("p")
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
		n.create(p)
		n.after(2 * time.Second)
		n.away.Store(true)
		n.runtime.Exit("uid-p", "c", 1)
		n.after(time.Minute)
		if n.runtime.Live("uid-p", "c") != 1 || n.runtime.Starts("uid-p", "c") != 2 {
			t.Errorf("%d live after %d starts", n.runtime.Live("uid-p", "c"), n.runtime.Starts("uid-p", "c"))
		}
		n.away.Store(false)
		n.after(time.Minute)
		if s := n.containerStatus("p"); s.RestartCount != 1 {
			t.Errorf("what happened meanwhile is not reported: %+v", s)
		}
	})
}

// TestRememberedPodsComeBack restarts node and agent while the API server is
// away: the pods run again, and one that was deleted meanwhile is ended once
// the API server tells.
func TestRememberedPodsComeBack(t *testing.T) {
	dir := t.TempDir()
	onNode(t, func(t *testing.T, n *simNode) {
		n.stop()
		n.checkpoints = dir
		n.start()
		n.create(simplePod("p"))
		n.create(simplePod("q"))
		n.after(2 * time.Second)
		n.stop()
		if err := n.client.CoreV1().Pods("ns").Delete(t.Context(), "q", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.runtime.Reboot()
		n.away.Store(true)
		n.start()
		n.after(5 * time.Second)
		if n.runtime.Live("uid-p", "c") != 0 {
			t.Error("started before the API server had its chance")
		}
		n.after(time.Minute)
		if n.runtime.Live("uid-p", "c") != 1 || n.runtime.Live("uid-q", "c") != 1 {
			t.Error("the pods did not come back")
		}
		n.away.Store(false)
		n.after(2 * time.Minute)
		if s := n.containerStatus("p"); s.State.Running == nil || s.RestartCount != 1 {
			t.Errorf("status %+v", s)
		}
		if n.runtime.Live("uid-q", "c") != 0 {
			t.Error("a deleted pod runs on")
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); slices.ContainsFunc(left, func(s string) bool { return strings.Contains(s, "uid-q") }) {
		t.Errorf("the deleted pod is still remembered: %v", left)
	}
}

func TestCheckpointsAreWholeOrAbsent(t *testing.T) {
	dir := t.TempDir()
	c := newCheckpoints(dir, discard())
	pod := simplePod("p")
	c.save(pod)
	c.flush()
	for name, text := range map[string]string{"broken.pod": "\xff\xff\xff", "empty.pod": "", "uid-x.pod.new": "half"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := newCheckpoints(dir, discard())
	pods := again.load()
	if len(pods) != 1 || pods[0].UID != "uid-p" || pods[0].Spec.Containers[0].Image != "img:1" {
		t.Errorf("loaded %v", pods)
	}
	info, err := os.Stat(filepath.Join(dir, "uid-p.pod"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v", info, err)
	}
	again.drop("uid-p")
	again.flush()
	if _, err := os.Stat(filepath.Join(dir, "uid-p.pod")); err == nil {
		t.Error("still there after it was dropped")
	}
}

func FuzzCheckpoint(f *testing.F) {
	data, err := simplePod("p").Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "x.pod")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if pod, err := readCheckpoint(name); err == nil && (pod.UID == "" || pod.Name == "") {
			t.Error("a pod without identity is accepted")
		}
	})
}
