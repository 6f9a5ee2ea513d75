package fairness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"coracle/pkg/auth"
)

// small is a Controller whose users, in group g, share a level of so many
// seats; queues is 0 where they do not wait.
func small(seats, queues, length int32) *Controller {
	level := queued("small", 1, 0, max(queues, 1), 1)
	if queues == 0 {
		level = limited("small", 1, 0, flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject})
	} else {
		level.Spec.Limited.LimitResponse.Queuing.QueueLengthLimit = length
	}
	level.Spec.Limited.BorrowingLimitPercent = new(int32)
	c := New(int(seats))
	// Nobody else has shares but catch-all, which is mandatory.
	level.Spec.Limited.NominalConcurrencyShares = new(int32(1_000_000_000))
	c.Configure([]*flowcontrolv1.FlowSchema{flowSchema("small", "small", 10, byUser, all(groups("g")))}, []*flowcontrolv1.PriorityLevelConfiguration{level}, time.Now())
	return c
}

func of(name string) *Request {
	return &Request{User: &auth.User{Name: name, Groups: []string{"g"}}, Verb: "get", Namespace: "n", Plural: "pods", Resource: true}
}

// enter asks for seats as a user.
func enter(ctx context.Context, c *Controller, name string, seats int, limit time.Duration) (Ticket, error) {
	return c.Enter(ctx, c.Classify(of(name)), name, "n", Work{Seats: seats}, time.Now(), limit)
}

func reason(err error) string {
	if refused := (*Refused)(nil); errors.As(err, &refused) {
		return refused.Reason
	}
	return fmt.Sprint(err)
}

// TestRefusals: a level without queues refuses at once, one with queues when
// they are full and when the time is up.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(2, 0, 0)
		a, err := enter(t.Context(), c, "a", 2, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enter(t.Context(), c, "b", 1, time.Hour); reason(err) != "concurrency-limit" {
			t.Errorf("without a queue: %v", err)
		}
		a.Leave()
		if b, err := enter(t.Context(), c, "b", 1, time.Hour); err != nil {
			t.Errorf("after a seat was free: %v", err)
		} else {
			b.Leave()
		}

		c = small(1, 1, 1)
		a, err = enter(t.Context(), c, "a", 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan string, 1)
		began := time.Now()
		go func() {
			_, err := enter(t.Context(), c, "b", 1, time.Minute)
			answers <- reason(err)
		}()
		synctest.Wait()
		if _, err := enter(t.Context(), c, "c", 1, time.Hour); reason(err) != "queue-full" {
			t.Errorf("with a full queue: %v", err)
		}
		if got := <-answers; got != "time-out" || time.Since(began) != time.Minute {
			t.Errorf("who waited is told %s after %v", got, time.Since(began))
		}
		a.Leave()
		idle(t, c)
	})
}

// idle checks that nothing is held any more.
func idle(t *testing.T, c *Controller) {
	t.Helper()
	for name, l := range c.levels {
		s := seats(l.state.Load())
		if s.used() != 0 || s.waiting() || l.wanted != 0 {
			t.Errorf("level %s: %d seats used, waiting %t for %d", name, s.used(), s.waiting(), l.wanted)
		}
		if at := l.sum.Load(); at < 0 {
			t.Errorf("level %s: an integral of %d", name, at)
		}
	}
	for k, s := range c.stats {
		if s.busy() || s.executingSeats.Load() != 0 || s.inQueueSeats.Load() != 0 {
			t.Errorf("flow %v is still busy", k)
		}
	}
}

// TestFloodDoesNotStarve: while one client has all seats and a full queue of
// further requests, another's wait for one turn at the most.
func TestFloodDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seats = 4
		c := small(seats, 1024, 500)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		serve := func(name string) {
			ticket, err := enter(t.Context(), c, name, 1, time.Hour)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			ticket.Leave()
		}
		for range 200 {
			wg.Go(func() { serve("flood") })
		}
		synctest.Wait()
		for range 10 {
			begun := func() int { mu.Lock(); defer mu.Unlock(); return len(order) }()
			serve("victim")
			mu.Lock()
			at := slices.Index(order[begun:], "victim")
			mu.Unlock()
			if at > seats {
				t.Errorf("%d of the flood were served before the victim's", at)
			}
		}
		wg.Wait()
		if n := len(order); n != 210 {
			t.Errorf("%d were served", n)
		}
		idle(t, c)
	})
}

// TestLimitsHold: however requests come, leave and give up, a level's seats are
// never exceeded but by one request that is alone, exempt ones never wait, and
// in the end nothing is held.
func TestLimitsHold(t *testing.T) {
	const limit = 7
	c := small(limit, 8, 20)
	var used, most atomic.Int64
	var wg sync.WaitGroup
	var served, refused atomic.Int64
	for g := range 16 {
		wg.Go(func() {
			for i := range 300 {
				n := 1 + (g+i)%5
				if g == 0 && i%50 == 0 {
					n = limit + 3
				}
				ctx, cancel := context.WithCancel(t.Context())
				if i%7 == 0 {
					cancel()
				}
				ticket, err := enter(ctx, c, fmt.Sprint("u", g%5), n, time.Minute)
				cancel()
				if err != nil {
					refused.Add(1)
					continue
				}
				now := used.Add(int64(n))
				if now > limit && now != int64(n) {
					t.Errorf("%d seats are used", now)
				}
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				used.Add(int64(-n))
				served.Add(1)
				ticket.Leave()
			}
		})
	}
	root := &Request{User: &auth.User{Name: "root", Groups: []string{auth.GroupMasters}}, Verb: "get", Plural: "pods", Resource: true}
	for range 1000 {
		ticket, err := c.Enter(t.Context(), c.Classify(root), "root", "", Work{Seats: 10}, time.Now(), 0)
		if err != nil {
			t.Errorf("an exempt request: %v", err)
		}
		ticket.Leave()
	}
	wg.Wait()
	if served.Load() == 0 || served.Load()+refused.Load() != 16*300 {
		t.Errorf("%d served, %d refused", served.Load(), refused.Load())
	}
	idle(t, c)
}

// TestWideWaitsItsTurn: who needs more seats than are free is not overtaken by
// those that need fewer, and keeps its seats for its watchers' sake.
func TestWideWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(4, 64, 10)
		first, err := enter(t.Context(), c, "a", 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 2)
		var wide, narrow Ticket
		go func() {
			wide, _ = c.Enter(t.Context(), c.Classify(of("wide")), "wide", "n", Work{Seats: 4, After: time.Second}, time.Now(), time.Hour)
			order <- "wide"
		}()
		synctest.Wait()
		go func() {
			narrow, _ = enter(t.Context(), c, "narrow", 1, time.Hour)
			order <- "narrow"
		}()
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%s came before its turn", <-order)
		}
		first.Leave()
		if got := <-order; got != "wide" {
			t.Errorf("%s was first", got)
		}
		wide.Leave()
		synctest.Wait()
		if len(order) != 0 {
			t.Error("the seats were free before the watchers were told")
		}
		began := time.Now()
		if <-order; time.Since(began) != time.Second {
			t.Errorf("the seats were free after %v", time.Since(began))
		}
		narrow.Leave()
		idle(t, c)
	})
}

// TestBorrowing: a busy level gets what others do not use, and they get it back
// within a period once they need it.
func TestBorrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(100)
		a, b := queued("a", 50, 80, 16, 2), queued("b", 50, 80, 16, 2)
		c.Configure([]*flowcontrolv1.FlowSchema{
			flowSchema("a", "a", 10, byUser, all(groups("a"))), flowSchema("b", "b", 10, byUser, all(groups("b"))),
		}, []*flowcontrolv1.PriorityLevelConfiguration{a, b}, time.Now())
		limit := func(name string) int { return seats(c.levels[name].state.Load()).limit() }
		start := func(group string, n int) (held []Ticket) {
			f := c.Classify(&Request{User: &auth.User{Name: group, Groups: []string{group}}, Verb: "get", Plural: "pods", Resource: true})
			for range n {
				if ticket, err := c.Enter(t.Context(), f, group, "", Work{Seats: 1}, time.Now(), time.Millisecond); err == nil {
					held = append(held, ticket)
				}
			}
			return held
		}
		next := func() {
			time.Sleep(LendEvery)
			c.Lend(time.Now())
		}
		nominal := c.levels["a"].bounds.nominal
		held := start("a", 90)
		next()
		next()
		if limit("a") <= nominal {
			t.Errorf("a busy level has %d seats, its own are %d", limit("a"), nominal)
		}
		held = append(held, start("a", 90)...)
		theirs := start("b", 90)
		next()
		next()
		if limit("b") < len(theirs) || len(theirs) == 0 {
			t.Errorf("the lender has %d seats back, and used %d", limit("b"), len(theirs))
		}
		for _, ticket := range append(held, theirs...) {
			ticket.Leave()
		}
		idle(t, c)
	})
}

// TestReconfigure: those that wait at a level that goes away, or loses its
// queues, are served all the same.
func TestReconfigure(t *testing.T) {
	for name, levels := range map[string][]*flowcontrolv1.PriorityLevelConfiguration{
		"gone":           nil,
		"without queues": {limited("small", 1, 0, flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject})},
		"more queues":    {queued("small", 1, 0, 512, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := small(2, 4, 10)
				wide, err := enter(t.Context(), c, "a", 2, 0)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i := range 6 {
					wg.Go(func() {
						ticket, err := enter(t.Context(), c, fmt.Sprint(i), 1, time.Hour)
						if err != nil {
							t.Errorf("%d: %v", i, err)
							return
						}
						ticket.Leave()
					})
				}
				synctest.Wait()
				c.Configure(DefaultFlowSchemas(), levels, time.Now())
				wide.Leave()
				wg.Wait()
				idle(t, c)
				c.Lend(time.Now())
				if _, there := c.levels["small"]; there != (levels != nil) {
					t.Errorf("the level is there: %t", there)
				}
			})
		})
	}
}

// TestMetrics: the names that dashboards use, with what happened.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := small(1, 0, 0)
		a, err := enter(t.Context(), c, "a", 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enter(t.Context(), c, "b", 1, 0); err == nil {
			t.Fatal("let in")
		}
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(c.Metrics())
		for metric, want := range map[string]float64{
			`apiserver_flowcontrol_rejected_requests_total{flow_schema="small",priority_level="small",reason="concurrency-limit"}`: 1,
			`apiserver_flowcontrol_dispatched_requests_total{flow_schema="small",priority_level="small"}`:                          1,
			`apiserver_flowcontrol_current_executing_requests{flow_schema="small",priority_level="small"}`:                         1,
			`apiserver_flowcontrol_nominal_limit_seats{priority_level="small"}`:                                                    1,
			`apiserver_flowcontrol_current_inqueue_requests{flow_schema="small",priority_level="small"}`:                           0,
		} {
			if got, ok := gathered(t, r)[metric]; !ok || got != want {
				t.Errorf("%s is %v (%t), want %v", metric, got, ok, want)
			}
		}
		a.Leave()
	})
}

// gathered are the values of counters and gauges by name and labels.
func gathered(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName() + "{"
			for i, l := range m.GetLabel() {
				if i > 0 {
					key += ","
				}
				key += fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
			}
			out[key+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// TestFreeOfCost: a request that need not wait allocates nothing.
func TestFreeOfCost(t *testing.T) {
	c := New(600)
	user := account("default", "robot")
	if n := testing.AllocsPerRun(1000, func() { pass(c, user, "default") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// pass is what the server does for a request that need not wait.
func pass(c *Controller, user *auth.User, namespace string) {
	r := Request{User: user, Verb: "get", Namespace: namespace, Plural: "configmaps", Resource: true}
	f := c.Classify(&r)
	ticket, err := c.Enter(context.Background(), f, user.Name, namespace, Work{Seats: 1}, time.Now(), time.Minute)
	if err != nil {
		panic(err)
	}
	ticket.Leave()
}

func BenchmarkPass(b *testing.B) {
	for name, user := range map[string]*auth.User{
		"exempt": {Name: "root", Groups: []string{auth.GroupMasters, auth.GroupAuthenticated}}, "serviceaccount": account("default", "robot"),
	} {
		b.Run(name, func(b *testing.B) {
			c := New(600)
			b.ReportAllocs()
			for b.Loop() {
				pass(c, user, "default")
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		c, user := New(600), account("default", "robot")
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				pass(c, user, "default")
			}
		})
	})
}

// BenchmarkClassify compares what is remembered with asking the rules.
func BenchmarkClassify(b *testing.B) {
	c := New(600)
	r := Request{User: account("default", "robot"), Verb: "get", Namespace: "default", Plural: "configmaps", Resource: true}
	b.Run("memo", func(b *testing.B) {
		for b.Loop() {
			c.Classify(&r)
		}
	})
	b.Run("rules", func(b *testing.B) {
		snap := c.snap.Load()
		for b.Loop() {
			snap.match(&r)
		}
	})
}
