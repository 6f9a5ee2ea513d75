package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func execProbe(name string, p corev1.Probe) *corev1.Probe {
	p.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}}
	return &p
}

// world answers exec probes and writes down, in virtual seconds, what happened.
type world struct {
	start time.Time
	mu    sync.Mutex
	// exit says how a probe's command ends at a time; nil is 0.
	exit   func(id, probe string, second int) (int, error)
	events []string
}

func (w *world) now() int { return int(time.Since(w.start) / time.Second) }

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf("%d ", w.now())+fmt.Sprintf(format, args...))
}

func (w *world) exec(_ context.Context, id string, cmd []string, _ time.Duration) (int, []byte, error) {
	w.log("%s %s", cmd[0], id)
	if w.exit == nil {
		return 0, nil, nil
	}
	code, err := w.exit(id, cmd[0], w.now())
	return code, []byte("no"), err
}

// run starts a manager in a bubble and ends it again after the test's body.
func (w *world) run(t *testing.T, body func(m *Manager)) {
	synctest.Test(t, func(t *testing.T) {
		w.start = time.Now()
		var m *Manager
		m = New(Config{
			Exec: w.exec,
			OnChange: func(uid types.UID, c string) {
				w.log("ready=%s live=%s started=%s", m.Result(uid, c, Readiness), m.Result(uid, c, Liveness), m.Result(uid, c, Startup))
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		body(m)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func podOf(c corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
}

func TestStartupGatesTheOthers(t *testing.T) {
	w := &world{exit: func(_, probe string, second int) (int, error) {
		if probe == "startup" && second < 4 {
			return 1, nil
		}
		return 0, nil
	}}
	w.run(t, func(m *Manager) {
		pod := podOf(corev1.Container{Name: "app",
			StartupProbe:   execProbe("startup", corev1.Probe{PeriodSeconds: 2, FailureThreshold: 5}),
			LivenessProbe:  execProbe("liveness", corev1.Probe{PeriodSeconds: 100}),
			ReadinessProbe: execProbe("readiness", corev1.Probe{PeriodSeconds: 100, InitialDelaySeconds: 6}),
		})
		if got := m.Result("u", "app", Readiness); got != Unknown {
			t.Errorf("a pod that nobody announced is %q", got)
		}
		m.Update(pod, "10.0.0.1", nil)
		m.Update(pod, "10.0.0.1", []Container{{Name: "app", ID: "c1", Running: true, StartedAt: time.Now()}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
	})
	want := []string{"0 startup c1", "2 startup c1", "4 startup c1", "4 ready=failure live=success started=success",
		"4 liveness c1", "6 readiness c1", "6 ready=success live=success started=success"}
	if diff := cmp.Diff(want, w.events); diff != "" {
		t.Error(diff)
	}
}

func TestLivenessFailureWaitsForANewContainer(t *testing.T) {
	w := &world{exit: func(id, _ string, second int) (int, error) {
		if id == "c1" && second >= 2 {
			return 1, nil
		}
		return 0, nil
	}}
	w.run(t, func(m *Manager) {
		pod := podOf(corev1.Container{Name: "app", LivenessProbe: execProbe("liveness", corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2})})
		m.Update(pod, "", []Container{{Name: "app", ID: "c1", Running: true, StartedAt: time.Now()}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.log("restart")
		m.Update(pod, "", []Container{{Name: "app", ID: "c2", Running: true, StartedAt: time.Now()}})
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		pod = pod.DeepCopy()
		pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		m.Update(pod, "", []Container{{Name: "app", ID: "c2", Running: true, StartedAt: time.Now()}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.Remove(pod.UID)
		m.Remove(pod.UID)
	})
	want := []string{"0 liveness c1", "1 liveness c1", "2 liveness c1", "3 liveness c1", "3 ready=success live=failure started=success",
		"10 restart", "10 ready=success live=success started=success", "10 liveness c2", "11 liveness c2"}
	if diff := cmp.Diff(want, w.events); diff != "" {
		t.Error(diff)
	}
}

func TestRuntimeErrorsSayNothing(t *testing.T) {
	w := &world{exit: func(_, _ string, second int) (int, error) {
		if second < 3 {
			return 0, errors.New("the runtime is away")
		}
		return 0, fmt.Errorf("exec: %w", context.DeadlineExceeded)
	}}
	w.run(t, func(m *Manager) {
		pod := podOf(corev1.Container{Name: "app", LivenessProbe: execProbe("l", corev1.Probe{PeriodSeconds: 3, FailureThreshold: 1})})
		m.Update(pod, "", []Container{{Name: "app", ID: "c1", Running: true, StartedAt: time.Now()}})
		time.Sleep(20 * time.Second)
		synctest.Wait()
	})
	want := []string{"0 l c1", "0 l c1", "0 l c1", "3 l c1", "3 ready=success live=failure started=success"}
	if diff := cmp.Diff(want, w.events); diff != "" {
		t.Error(diff)
	}
}
