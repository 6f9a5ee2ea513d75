package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/quota"
)

// store is Quotas over a map, with a cache that shows each quota as it was one
// write ago.
type store struct {
	mu     sync.Mutex
	quotas map[string]*corev1.ResourceQuota // as stored
	cached map[string]*corev1.ResourceQuota // one write behind
	writes int
	fail   error // of every write, when set
}

func (s *store) List(_ context.Context, _ string, confirmed bool) ([]*corev1.ResourceQuota, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.cached
	if confirmed {
		from = s.quotas
	}
	var out []*corev1.ResourceQuota
	for _, q := range from {
		out = append(out, q.DeepCopy())
	}
	return out, nil
}

func (s *store) Charge(_ context.Context, _, name string, change func(*corev1.ResourceQuota) (corev1.ResourceList, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	q, ok := s.quotas[name]
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("resourcequotas"), name)
	}
	// As the registry does: first on what the cache has, then on the truth.
	if old, ok := s.cached[name]; ok {
		_, _ = change(old.DeepCopy())
	}
	used, err := change(q.DeepCopy())
	if err != nil {
		return err
	}
	s.writes++
	s.cached[name] = q
	q = q.DeepCopy()
	q.Status.Used = used
	s.quotas[name] = q
	return nil
}

func newStore(quotas ...*corev1.ResourceQuota) *store {
	s := &store{quotas: map[string]*corev1.ResourceQuota{}, cached: map[string]*corev1.ResourceQuota{}}
	for _, q := range quotas {
		s.quotas[q.Name], s.cached[q.Name] = q, q
	}
	return s
}

func quotaOf(name string, hard, used corev1.ResourceList) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec: corev1.ResourceQuotaSpec{Hard: hard}, Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
}

func (s *store) used(t *testing.T, name string, want corev1.ResourceList) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.quotas[name].Status.Used; !quota.Equal(got, want) {
		t.Errorf("quota %s has used %v, want %v", name, got, want)
	}
}

var configMapGVR = corev1.SchemeGroupVersion.WithResource("configmaps")

func makes(t *testing.T) *Attributes {
	return request(t, Create, configMapGVR, "", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}}, nil)
}

func TestResourceQuota(t *testing.T) {
	ctx := t.Context()
	s := newStore(quotaOf("a", quantities("configmaps", "2"), quantities("configmaps", "0")),
		quotaOf("b", quantities("count/configmaps", "1", "secrets", "0"), quantities("count/configmaps", "0", "secrets", "0")))
	p := NewResourceQuota(s, time.Now)
	dry := makes(t)
	dry.DryRun = true
	refused(t, p.Validate(ctx, dry), "")
	s.used(t, "a", quantities("configmaps", "0"))
	first := makes(t)
	refused(t, p.Validate(ctx, first), "")
	s.used(t, "a", quantities("configmaps", "1"))
	s.used(t, "b", quantities("count/configmaps", "1", "secrets", "0"))
	const over = "exceeded quota: b, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"
	refused(t, p.Validate(ctx, makes(t)), over)
	refused(t, p.Validate(ctx, dry), over)
	s.used(t, "a", quantities("configmaps", "1")) // what was charged before b refused is given back
	first.Undo()
	first.Undo() // once is enough
	s.used(t, "a", quantities("configmaps", "0"))
	s.used(t, "b", quantities("count/configmaps", "0", "secrets", "0"))
	refused(t, p.Validate(ctx, request(t, Update, configMapGVR, "", first.Object, first.Object)), "")
	refused(t, p.Validate(ctx, request(t, Delete, configMapGVR, "", nil, first.Object)), "")
	s.used(t, "a", quantities("configmaps", "0"))
}

// TestResourceQuotaAsksTheStore: a refusal that the cache suggests and the
// store does not is none; what the cache would allow, the store may refuse.
func TestResourceQuotaAsksTheStore(t *testing.T) {
	s := newStore(quotaOf("q", quantities("configmaps", "1"), quantities("configmaps", "1")))
	s.quotas["q"] = quotaOf("q", quantities("configmaps", "2"), quantities("configmaps", "1"))
	p := NewResourceQuota(s, time.Now)
	refused(t, p.Validate(t.Context(), makes(t)), "")
	s.cached["q"] = quotaOf("q", quantities("configmaps", "9"), quantities("configmaps", "0"))
	refused(t, p.Validate(t.Context(), makes(t)), "exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2")
	delete(s.quotas, "q")
	refused(t, p.Validate(t.Context(), makes(t)), "") // it went meanwhile
	s.quotas["q"] = quotaOf("q", quantities("configmaps", "9"), quantities("configmaps", "0"))
	s.fail = errors.New("the store is away")
	if err := p.Validate(t.Context(), makes(t)); !errors.Is(err, s.fail) {
		t.Errorf("without a store: %v", err)
	}
}

// TestResourceQuotaUnderLoad: of many writers on two servers exactly as many
// get through as the quota has room for, and they share writes.
func TestResourceQuotaUnderLoad(t *testing.T) {
	const writers, room = 200, 60
	s := newStore(quotaOf("q", quantities("configmaps", fmt.Sprint(room)), quantities("configmaps", "0")))
	servers := []*ResourceQuota{NewResourceQuota(s, time.Now), NewResourceQuota(s, time.Now)}
	var through, undone atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range writers {
		a := makes(t)
		wg.Go(func() {
			<-start
			if servers[i%2].Validate(t.Context(), a) != nil {
				return
			}
			through.Add(1)
			if i%5 == 0 { // its write fails after all
				a.Undo()
				undone.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := through.Load() - undone.Load(); n > room {
		t.Errorf("%d writers took %d places", n, room)
	}
	s.used(t, "q", quantities("configmaps", fmt.Sprint(through.Load()-undone.Load())))
	for _, p := range servers {
		p.reservations.mu.Lock()
		if len(p.reservations.queues) != 0 {
			t.Errorf("queues are left: %v", p.reservations.queues)
		}
		p.reservations.mu.Unlock()
	}
}

// TestReservationsShareWrites: those that wait are charged together.
func TestReservationsShareWrites(t *testing.T) {
	const writers = 50
	s := newStore(quotaOf("q", quantities("configmaps", "30"), quantities("configmaps", "0")))
	r := newReservations(s)
	w := quota.Write{Evaluator: quota.For(configMapGVR.GroupResource()), Object: &corev1.ConfigMap{}}
	s.mu.Lock() // the first writer is held at the store until all others wait
	var wg sync.WaitGroup
	var got atomic.Int64
	for range writers {
		wg.Go(func() {
			if delta, err := r.reserve(t.Context(), "ns", "q", w); err == nil && len(delta) == 1 {
				got.Add(1)
			}
		})
	}
	deadline := time.Now().Add(10 * time.Second)
	for waiting := 0; waiting < writers-1 && time.Now().Before(deadline); {
		r.mu.Lock()
		for _, queue := range r.queues {
			waiting = len(queue)
		}
		r.mu.Unlock()
	}
	s.mu.Unlock()
	wg.Wait()
	if got.Load() != 30 || s.writes > 3 {
		t.Errorf("%d got through with %d writes, want 30 with at most 3", got.Load(), s.writes)
	}
	s.used(t, "q", quantities("configmaps", "30"))
}
