package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"coracle/pkg/controllers/nodelifecycle"
	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// The settings of a local cluster, which cluster.DefaultNodeFailure has too.
const (
	localGrace       = 26 * time.Second
	localNotReady    = 30
	localUnreachable = 0
	// failover is how soon a dead node's pods run elsewhere.
	failover = 30 * time.Second
)

// barrier lets through while it is open.
type barrier struct {
	mu   sync.Mutex
	open chan struct{} // closed while it is open; guarded by mu
}

func newBarrier() *barrier {
	b := &barrier{open: make(chan struct{})}
	close(b.open)
	return b
}

// stall shuts the barrier for a while, and returns when it is open again.
func (b *barrier) stall(d time.Duration) {
	b.mu.Lock()
	b.open = make(chan struct{})
	b.mu.Unlock()
	time.Sleep(d)
	b.mu.Lock()
	close(b.open)
	b.mu.Unlock()
}

// pass waits until the barrier is open, or ctx ends.
func (b *barrier) pass(ctx context.Context) error {
	b.mu.Lock()
	open := b.open
	b.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slowDisk is a store whose writes, and reads that need a quorum, wait at a
// barrier.
type slowDisk struct {
	storage.Backend
	*barrier
}

func (s slowDisk) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if err := s.pass(ctx); err != nil {
		return 0, err
	}
	return s.Backend.Put(ctx, key, value, expect, ttl)
}

func (s slowDisk) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	if err := s.pass(ctx); err != nil {
		return 0, err
	}
	return s.Backend.Delete(ctx, key, expect)
}

func (s slowDisk) Current(ctx context.Context) (storage.Revision, error) {
	if err := s.pass(ctx); err != nil {
		return 0, err
	}
	return s.Backend.Current(ctx)
}

// sleeper is the clock of a process that may be stopped: what should happen
// meanwhile happens when it goes on.
type sleeper struct {
	clock.RealClock
	*barrier
	ctx context.Context // of the test
}

func (s sleeper) After(d time.Duration) <-chan time.Time {
	due := make(chan time.Time, 1)
	timer := time.NewTimer(d)
	go func() {
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		if s.pass(s.ctx) == nil {
			due <- time.Now()
		}
	}()
	return due
}

// stalling has an agent's requests wait at a barrier.
func stalling(b *barrier) func(*rest.Config) {
	return func(c *rest.Config) {
		c.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if err := b.pass(r.Context()); err != nil {
					return nil, err
				}
				return next.RoundTrip(r)
			})
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// local is a cluster with the settings of a local one: three nodes, a
// Deployment of six, everything at rest.
type local struct {
	*testcluster.Cluster
	t            *testing.T
	nodes        []*testcluster.Node
	disk, server *barrier // the control plane's
	agent        *barrier // of node-1
	calm         map[types.UID]string
}

// locally runs body in virtual time, beginning so long after the moment at
// which the agents renew their leases.
func locally(t *testing.T, phase time.Duration, body func(l *local)) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		t.Cleanup(func() { _ = store.Close() })
		l := &local{t: t, disk: newBarrier(), server: newBarrier(), agent: newBarrier()}
		l.Cluster = testcluster.Start(t, testcluster.WithRoles(), testcluster.WithBackend(slowDisk{store, l.disk}),
			testcluster.WithClock(sleeper{barrier: l.server, ctx: t.Context()}), testcluster.WithConfig(func(c *controlplane.Config) {
				c.NodeLifecycle = nodelifecycle.Config{Grace: localGrace, Period: time.Second}
				c.NotReadySeconds, c.UnreachableSeconds = new(int64(localNotReady)), new(int64(localUnreachable))
			}))
		l.nodes = append(l.nodes, l.AddNode(t, 1, stalling(l.agent)), l.AddNode(t, 2), l.AddNode(t, 3))
		if _, err := l.Client.AppsV1().Deployments("default").Create(t.Context(), web(6, "fake/web:1"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		time.Sleep(10*time.Second - time.Duration(time.Now().UnixNano()%int64(10*time.Second)) + phase)
		synctest.Wait()
		l.calm = l.running()
		if len(l.calm) != 6 {
			t.Fatalf("%d pods run, want 6: %v", len(l.calm), l.calm)
		}
		body(l)
	})
}

// running are the ready pods that nobody deletes, and their nodes.
func (l *local) running() map[types.UID]string {
	l.t.Helper()
	pods, err := l.Client.CoreV1().Pods("default").List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[types.UID]string{}
	for i := range pods.Items {
		p := &pods.Items[i]
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
				out[p.UID] = p.Spec.NodeName
			}
		}
	}
	return out
}

// wantUndisturbed checks that the pods are still those of before.
func (l *local) wantUndisturbed() {
	l.t.Helper()
	synctest.Wait()
	now := l.running()
	for uid, node := range l.calm {
		if now[uid] != node {
			l.t.Errorf("the pod on %s was moved", node)
		}
	}
	if len(now) != len(l.calm) {
		l.t.Errorf("%d pods run, want those %d of before", len(now), len(l.calm))
	}
}

// phases are how long after the agents' renewals something happens.
var phases = []time.Duration{10 * time.Millisecond, 3 * time.Second, 7 * time.Second, 9990 * time.Millisecond}

// TestDeadNodesPodsRunElsewhereIn30Seconds: with the settings of a local
// cluster, and by nothing but the silence of its lease.
func TestDeadNodesPodsRunElsewhereIn30Seconds(t *testing.T) {
	for _, phase := range phases {
		t.Run(phase.String(), func(t *testing.T) {
			locally(t, phase, func(l *local) {
				l.nodes[1].Stop()
				time.Sleep(failover)
				synctest.Wait()
				now := l.running()
				elsewhere := 0
				for _, node := range now {
					if node != "node-2" {
						elsewhere++
					}
				}
				if elsewhere != 6 {
					t.Errorf("%d of 6 pods run elsewhere after %v: %v", elsewhere, failover, now)
				}
				for uid, node := range l.calm {
					if node != "node-2" && now[uid] != node {
						t.Errorf("the pod on %s, which lives, was moved", node)
					}
				}
			})
		})
	}
}

// TestStalledControlPlaneEvictsNobody: leases that nobody could renew are no
// evidence, whether the store or the whole process stood still.
func TestStalledControlPlaneEvictsNobody(t *testing.T) {
	for _, what := range []string{"store", "process"} {
		for _, phase := range phases {
			t.Run(fmt.Sprint(what, " ", phase), func(t *testing.T) {
				locally(t, phase, func(l *local) {
					if what == "process" {
						go l.server.stall(40 * time.Second)
					}
					l.disk.stall(40 * time.Second)
					l.wantUndisturbed()
					time.Sleep(2 * time.Minute)
					l.wantUndisturbed()
				})
			})
		}
	}
}

// TestStalledAgentLosesNoPods: an agent that stands still for 15 s is not dead.
func TestStalledAgentLosesNoPods(t *testing.T) {
	for _, phase := range phases {
		t.Run(phase.String(), func(t *testing.T) {
			locally(t, phase, func(l *local) {
				l.agent.stall(15 * time.Second)
				l.wantUndisturbed()
				time.Sleep(2 * time.Minute)
				l.wantUndisturbed()
			})
		})
	}
}
