package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/storage"
	"coracle/pkg/testcluster/history"
)

// patience bounds waits for what has to come.
const patience = 20 * time.Second

// Config describes a workload.
type Config struct {
	Seed uint64
	// Backend is an empty store.
	Backend storage.Backend
	Servers int // on the one backend; default 1
	Workers int // default 6
	Each    int // requests of each worker; default 150
	Objects int // names per kind and namespace; default 5
	// Informers is how many follow each scope; default 1.
	Informers int
	// Restarts is how often each server ends and comes back.
	Restarts int
	// CompactEvery is the number of requests between two compactions; 0 never.
	CompactEvery int
	// Patience is how long open watches have after the last write to tell
	// everything. Default 20 s; a test of what never comes wants less.
	Patience time.Duration
	Plants   Plants
}

func (c *Config) complete() {
	if c.Patience == 0 {
		c.Patience = patience
	}
	for _, f := range []struct {
		field   *int
		initial int
	}{{&c.Servers, 1}, {&c.Workers, 6}, {&c.Each, 150}, {&c.Objects, 5}, {&c.Informers, 1}} {
		if *f.field == 0 {
			*f.field = f.initial
		}
	}
}

// run is one workload on its way.
type run struct {
	cfg    Config
	record *record
	tap    *tap
	slots  []*slot

	// finish is closed when the workers are done; final and truth are set
	// before.
	finish chan struct{}
	final  int64
	truth  *history.Truth
}

// Run runs a workload and returns its history.
func Run(t testing.TB, cfg Config) *history.History {
	t.Helper()
	cfg.complete()
	r := &run{cfg: cfg, record: &record{}, finish: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	if r.tap, err = newTap(ctx, cfg.Backend); err != nil {
		t.Fatalf("record the store: %v", err)
	}
	var tapping sync.WaitGroup
	tapping.Go(func() { r.tap.run(ctx) })
	defer tapping.Wait()
	defer r.tap.watch.Close()
	defer cancel()
	for i := range cfg.Servers {
		s := &slot{name: string(rune('a' + i)), backend: cfg.Backend, plants: cfg.Plants, sole: cfg.Servers == 1}
		r.slots = append(r.slots, s)
		s.start(t)
		defer s.stop()
	}
	r.namespaces(t)

	var informers, workers sync.WaitGroup
	failed := make(chan error, 1000)
	r.startInformers(ctx, &informers, failed)
	done := r.startWorkers(ctx, &workers)
	r.disturb(t, ctx, done)
	workers.Wait()

	changes, final, err := r.tap.all(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.final, r.truth = final, history.NewTruth(changes, final)
	r.lastLists(ctx)
	close(r.finish)
	informers.Wait()
	close(failed)
	h := r.record.history(changes, final)
	for err := range failed {
		h.Stalled = append(h.Stalled, err.Error())
	}
	return h
}

func (r *run) anyServer(random *rand.Rand) *server {
	return r.slots[random.IntN(len(r.slots))].now.Load()
}

func (r *run) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.cfg.Seed, stream)) }

// keys are all objects that a scope could ever select.
func (r *run) keys(scope history.Scope) []history.Key {
	var out []history.Key
	for n := range r.cfg.Objects {
		for _, key := range []history.Key{
			{Resource: configMaps, Namespace: "ns1", Name: fmt.Sprintf("c%d", n)},
			{Resource: configMaps, Namespace: "ns10", Name: fmt.Sprintf("c%d", n)},
			{Resource: nodes, Name: fmt.Sprintf("n%d", n)},
		} {
			if scope.Resource == key.Resource && (scope.Namespace == "" || scope.Namespace == key.Namespace) {
				out = append(out, key)
			}
		}
	}
	return out
}

func (r *run) namespaces(t testing.TB) {
	t.Helper()
	for _, name := range []string{"ns1", "ns10"} {
		client := r.slots[0].now.Load().cluster.Client
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatalf("make the namespace %s: %v", name, err)
		}
	}
}

func (r *run) startInformers(ctx context.Context, wg *sync.WaitGroup, failed chan<- error) {
	for i := range r.cfg.Informers {
		for j, scope := range scopes() {
			f := &informer{run: r, name: fmt.Sprintf("i%d.%d", i, j), random: r.random(uint64(1000 + i*100 + j)), ctx: ctx, scope: scope}
			f.streams = (i+j)%2 == 0
			f.pace = []pace{quick, quick, slow, dead}[f.random.IntN(4)]
			wg.Go(func() {
				if err := f.follow(); err != nil {
					failed <- err
				}
			})
		}
	}
}

// startWorkers returns a channel that is closed when all workers are done.
func (r *run) startWorkers(ctx context.Context, wg *sync.WaitGroup) <-chan struct{} {
	for i := range r.cfg.Workers {
		w := &worker{run: r, name: fmt.Sprintf("w%d", i), random: r.random(uint64(i)), ctx: ctx, known: map[history.Key]seenObject{}}
		wg.Go(func() { w.work(r.cfg.Each) })
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	return done
}

// disturb restarts servers and compacts while the workers work, each after so
// many requests.
func (r *run) disturb(t testing.TB, ctx context.Context, done <-chan struct{}) {
	total := int64(r.cfg.Workers * r.cfg.Each)
	restarts := int64(r.cfg.Restarts * len(r.slots))
	compactAt, restarted := int64(r.cfg.CompactEvery), int64(0)
	random := r.random(9999)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		ops := r.record.ops.Load()
		if r.cfg.CompactEvery > 0 && ops >= compactAt {
			compactAt = ops + int64(r.cfg.CompactEvery)
			if err := r.compact(ctx, random); err != nil {
				t.Errorf("compact: %v", err)
			}
		}
		if restarted < restarts && ops >= (restarted+1)*total/(restarts+1) {
			s := r.slots[restarted%int64(len(r.slots))]
			restarted++
			s.stop()
			s.start(t)
		}
	}
}

// compact drops history, often all of it. What is dropped has been recorded.
func (r *run) compact(ctx context.Context, random *rand.Rand) error {
	rev, err := r.cfg.Backend.Current(ctx)
	if err != nil {
		return err
	}
	if err := r.tap.reach(ctx, rev); err != nil {
		return err
	}
	if random.IntN(2) == 0 {
		rev -= storage.Revision(random.IntN(30))
	}
	r.record.compaction(int64(rev))
	err = r.cfg.Backend.Compact(ctx, rev)
	if errors.Is(err, storage.ErrCompacted) {
		return nil
	}
	return err
}

// lastLists reads every scope from every server after the last write.
func (r *run) lastLists(ctx context.Context) {
	for _, s := range r.slots {
		srv := s.now.Load()
		l := &lister{record: r.record, name: "last", ctx: ctx}
		for _, scope := range scopes() {
			l.page(srv, srv.json, &history.List{Scope: scope}, options(scope))
		}
	}
}
