package fleet

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

func TestDecide(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	at := func(d time.Duration) *metav1.Time { m := metav1.NewTime(now.Add(d)); return &m }
	seconds := func(n int64) *int64 { return &n }
	pending := func() *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", Generation: 1}, Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	}
	runs := func(since time.Duration) *corev1.Pod {
		p := pending()
		p.Status = *verdict{report: running}.status(p, []string{"10.0.0.1"}, now.Add(since))
		return p
	}
	with := func(p *corev1.Pod, change func(*corev1.Pod)) *corev1.Pod { change(p); return p }
	may := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }
	for _, tt := range []struct {
		name  string
		pod   *corev1.Pod
		times times
		seen  time.Duration
		want  verdict
	}{
		{"new", pending(), times{start: 2 * time.Second}, -time.Second, verdict{next: now.Add(time.Second)}},
		{"starts", pending(), times{start: 2 * time.Second}, -2 * time.Second, verdict{report: running}},
		{"runs", runs(-time.Hour), times{run: time.Second}, -time.Hour, verdict{}},
		{"will end", with(runs(-time.Second), may), times{run: 3 * time.Second}, 0, verdict{next: now.Add(2 * time.Second)}},
		{"ends", with(runs(-3*time.Second), may), times{run: 3 * time.Second}, 0, verdict{report: stopped, over: true}},
		{"time is up", with(runs(-3*time.Second), func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = seconds(3) }), times{}, 0,
			verdict{report: stopped, code: killedCode, over: true}},
		{"resized", with(runs(-time.Second), func(p *corev1.Pod) { p.Generation++ }), times{}, 0, verdict{report: running}},
		{"said to be unready", with(runs(-time.Second), func(p *corev1.Pod) {
			for i := range p.Status.Conditions {
				p.Status.Conditions[i].Status = corev1.ConditionFalse
			}
		}), times{}, 0, verdict{report: running}},
		{"deleted, ending", with(runs(-time.Hour), func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = at(29*time.Second), seconds(30)
		}), times{stop: 5 * time.Second}, 0, verdict{next: now.Add(4 * time.Second)}},
		{"deleted, grace shorter than the end", with(runs(-time.Hour), func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = at(0), seconds(1)
		}), times{stop: 5 * time.Second}, 0, verdict{report: stopped, code: killedCode, remove: true, over: true}},
		{"deleted before it started", with(pending(), func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = at(30*time.Second), seconds(30)
		}), times{stop: 5 * time.Second}, 0, verdict{report: stopped, code: killedCode, remove: true, over: true}},
		{"over", with(runs(-time.Hour), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), times{}, 0, verdict{over: true}},
		{"over and deleted", with(runs(-time.Hour), func(p *corev1.Pod) {
			p.Status.Phase, p.DeletionTimestamp = corev1.PodFailed, at(0)
		}), times{}, 0, verdict{remove: true, over: true}},
	} {
		got := decide(tt.pod, tt.times, now.Add(tt.seen), now)
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		status := got.status(tt.pod, []string{"10.0.0.1"}, now)
		want := map[report]corev1.PodPhase{running: corev1.PodRunning, stopped: corev1.PodSucceeded}[got.report]
		if got.code != 0 {
			want = corev1.PodFailed
		}
		if status != nil && status.Phase != want {
			t.Errorf("%s: reports %s, want %s", tt.name, status.Phase, want)
		}
	}
}

// TestAddresses: no two pods of a node have one address, whatever comes and goes.
func TestAddresses(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a := addresses{base: netip.MustParseAddr("10.1.2.0")}
	a.move(netip.MustParsePrefix("10.244.7.0/24"))
	has := map[uint8]bool{}
	for range 10_000 {
		if rnd.IntN(2) == 0 {
			n := a.take()
			if n == 0 && len(has) < 253 || n != 0 && (has[n] || reserved(int(n))) {
				t.Fatalf("got %d with %d taken", n, len(has))
			}
			if n != 0 {
				has[n] = true
			}
			continue
		}
		for n := range has {
			a.release(n)
			delete(has, n)
			break
		}
	}
	if n := a.claim(netip.MustParseAddr("10.244.7.9")); n != 9 {
		t.Errorf("10.244.7.9 has number %d", n)
	}
	if n := a.claim(netip.MustParseAddr("10.244.8.9")); n != 0 {
		t.Errorf("an address of another node has number %d", n)
	}
}

// job counts how often it is done, and by how many at once.
type job struct {
	place slot
	every time.Duration

	mu        sync.Mutex
	now, most int         // guarded by mu
	done      []time.Time // guarded by mu
}

func (j *job) slot() *slot { return &j.place }

func (j *job) act(context.Context) time.Time {
	j.mu.Lock()
	j.now++
	j.most = max(j.most, j.now)
	j.done = append(j.done, time.Now())
	j.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	j.mu.Lock()
	j.now--
	j.mu.Unlock()
	if j.every == 0 {
		return time.Time{}
	}
	return time.Now().Add(j.every)
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := newQueue(clock.RealClock{}, 4)
		ended := make(chan struct{})
		go func() { q.run(ctx); close(ended) }()
		begin := time.Now()
		often, once, never := &job{every: time.Second}, &job{}, &job{}
		q.at(often, begin)
		q.at(once, begin.Add(time.Hour))
		q.at(never, begin.Add(2*time.Second))
		q.drop(never)
		q.at(once, begin.Add(3*time.Second)) // sooner counts
		q.at(once, begin.Add(5*time.Second)) // later does not
		time.Sleep(3*time.Second + 5*time.Millisecond)
		for range 3 { // while it is being done: once more, when it is
			q.at(once, time.Now())
		}
		time.Sleep(7 * time.Second)
		cancel()
		<-ended
		if n := len(often.done); n != 10 {
			t.Errorf("done %d times in ten seconds, want 10", n)
		}
		if len(once.done) != 2 || once.most != 1 || once.done[0].Sub(begin) != 3*time.Second {
			t.Errorf("done at %v, %d at once", once.done, once.most)
		}
		if len(never.done) != 0 {
			t.Error("done after it was dropped")
		}
	})
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{"no client": {Count: 1}, "no nodes": {}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
