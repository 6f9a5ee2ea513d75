package fairness

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// Controller lets requests in as one configuration says, which can be replaced
// while it works.
type Controller struct {
	total int
	seed  maphash.Seed
	snap  atomic.Pointer[snapshot]

	mu       sync.Mutex          // serializes changes
	levels   map[string]*level   // guarded by mu; those in use, and those that drain
	stats    map[flowKey]*stats  // guarded by mu
	fraction float64             // guarded by mu; of its target that each level got
	names    map[string]struct{} // guarded by mu; levels of the configuration
}

// snapshot is one configuration. It is never changed.
type snapshot struct {
	schemas  []*schema
	catchAll *Flow
	memo     *memo
}

type schema struct {
	rules []rule
	flow  *Flow
}

// Flow is a schema with its level, as of one configuration.
type Flow struct {
	// Schema and Level are their names.
	Schema, Level string
	// SchemaUID and LevelUID are the values of response headers, shared: they
	// must not be changed.
	SchemaUID, LevelUID []string

	level         *level
	stats         *stats
	distinguisher flowcontrolv1.FlowDistinguisherMethodType
}

// Exempt says that the flow's requests never wait.
func (f *Flow) Exempt() bool { return f.level.exempt }

// ListWork is the cost of going through so many objects for this flow.
func (f *Flow) ListWork(objects int) Work { return listWork(objects, int(f.level.widest.Load())) }

// WriteWork is the cost of a write of which so many watchers are told.
func (f *Flow) WriteWork(watchers int) Work { return writeWork(watchers, int(f.level.widest.Load())) }

// New makes a Controller of so many seats with the default configuration.
func New(total int) *Controller {
	c := &Controller{
		total: max(total, 1), seed: maphash.MakeSeed(),
		levels: map[string]*level{}, stats: map[flowKey]*stats{},
	}
	c.Configure(DefaultFlowSchemas(), DefaultPriorityLevels(), time.Now())
	return c
}

// Configure replaces the configuration. Schemas whose level is not there are
// left out; what is mandatory and missing is added. The objects are shared and
// not changed.
func (c *Controller) Configure(schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration, now time.Time) {
	schemas, levels = complete(schemas, levels)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = map[string]struct{}{}
	for i, b := range divide(c.total, levels) {
		c.setLevel(levels[i], b, now)
	}
	snap := &snapshot{memo: &memo{seed: c.seed, named: namespacesIn(schemas)}}
	kept := map[flowKey]*stats{}
	for _, s := range schemas {
		f := c.flow(s, levels)
		if f == nil {
			continue
		}
		kept[flowKey{f.Level, f.Schema}] = f.stats
		snap.schemas = append(snap.schemas, &schema{compileRules(s.Spec.Rules), f})
		if f.Schema == flowcontrolv1.FlowSchemaNameCatchAll {
			snap.catchAll = f
		}
	}
	for k, s := range c.stats {
		if kept[k] == nil && s.busy() {
			kept[k] = s // until the last request has left
		}
	}
	c.stats = kept
	c.snap.Store(snap)
	c.retire()
	c.lend(now)
}

// setLevel makes a level or changes it.
func (c *Controller) setLevel(p *flowcontrolv1.PriorityLevelConfiguration, b bounds, now time.Time) {
	c.names[p.Name] = struct{}{}
	l := c.levels[p.Name]
	if l == nil {
		l = &level{name: p.Name, exempt: p.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt, start: now, then: now}
		c.levels[p.Name] = l
	}
	l.spec, l.bounds = p.Spec, b
	l.configure(&p.Spec)
	hand := 0
	if p.Spec.Limited != nil && p.Spec.Limited.LimitResponse.Queuing != nil {
		hand = int(p.Spec.Limited.LimitResponse.Queuing.HandSize)
	}
	l.widest.Store(int64(widest(b.nominal, hand, hand > 0)))
}

// retire lets levels that nothing names any more drain, and forgets them then.
func (c *Controller) retire() {
	for name, l := range c.levels {
		if _, ok := c.names[name]; ok {
			continue
		}
		s := seats(l.state.Load())
		if s.used() == 0 && !s.waiting() {
			delete(c.levels, name)
		} else if s.limit() == 0 {
			l.setLimit(1)
		}
	}
}

// flow binds a schema to its level; nil when that is not there.
func (c *Controller) flow(s *flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration) *Flow {
	name := s.Spec.PriorityLevelConfiguration.Name
	at := slices.IndexFunc(levels, func(p *flowcontrolv1.PriorityLevelConfiguration) bool { return p.Name == name })
	if at < 0 {
		return nil
	}
	f := &Flow{Schema: s.Name, Level: name, level: c.levels[name], SchemaUID: uid(string(s.UID)), LevelUID: uid(string(levels[at].UID))}
	if s.Spec.DistinguisherMethod != nil {
		f.distinguisher = s.Spec.DistinguisherMethod.Type
	}
	key := flowKey{name, s.Name}
	if c.stats[key] == nil {
		c.stats[key] = newStats()
	}
	f.stats = c.stats[key]
	return f
}

// uid is a header's values; whoever adds to them gets a copy.
func uid(v string) []string { return []string{v}[:1:1] }

// complete adds what is mandatory, and sorts schemas in the order in which they
// are asked.
func complete(schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration) ([]*flowcontrolv1.FlowSchema, []*flowcontrolv1.PriorityLevelConfiguration) {
	schemas, levels = slices.Clone(schemas), slices.Clone(levels)
	for _, p := range mandatoryLevels() {
		if !slices.ContainsFunc(levels, func(have *flowcontrolv1.PriorityLevelConfiguration) bool { return have.Name == p.Name }) {
			levels = append(levels, p)
		}
	}
	for _, s := range mandatorySchemas() {
		if !slices.ContainsFunc(schemas, func(have *flowcontrolv1.FlowSchema) bool { return have.Name == s.Name }) {
			schemas = append(schemas, s)
		}
	}
	slices.SortFunc(schemas, func(a, b *flowcontrolv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(levels, func(a, b *flowcontrolv1.PriorityLevelConfiguration) int { return cmp.Compare(a.Name, b.Name) })
	return schemas, levels
}

// namespacesIn are those that rules name.
func namespacesIn(schemas []*flowcontrolv1.FlowSchema) map[string]bool {
	out := map[string]bool{}
	for _, s := range schemas {
		for _, r := range s.Spec.Rules {
			for _, rr := range r.ResourceRules {
				for _, ns := range rr.Namespaces {
					if ns != flowcontrolv1.NamespaceEvery {
						out[ns] = true
					}
				}
			}
		}
	}
	return out
}

// Classify finds the flow of a request, which is never nil.
func (c *Controller) Classify(r *Request) *Flow {
	snap := c.snap.Load()
	if !r.Resource {
		return snap.match(r)
	}
	f, slot := snap.memo.find(r)
	if f == nil {
		f = snap.match(r)
		snap.memo.keep(slot, r, f)
	}
	return f
}

func (s *snapshot) match(r *Request) *Flow {
	for _, sc := range s.schemas {
		if matchRules(sc.rules, r) {
			return sc.flow
		}
	}
	return s.catchAll
}

// Refused is why a request was not let in.
type Refused struct {
	// Reason is queue-full, concurrency-limit, time-out or cancelled.
	Reason string
	// RetryAfter is when the client is to come again, in seconds.
	RetryAfter int
}

// Error implements error.
func (r *Refused) Error() string {
	return fmt.Sprintf("the request was refused by priority and fairness (%s)", r.Reason)
}

// Ticket is what a request holds while it is served. The zero value holds
// nothing.
type Ticket struct {
	flow   *Flow
	waiter *waiter // nil for those that did not wait
	work   Work
	began  time.Time
}

// Enter takes seats for a request, waiting up to limit where there are none.
// user and namespace tell flows of one schema apart. The error is a *Refused.
func (c *Controller) Enter(ctx context.Context, f *Flow, user, namespace string, work Work, now time.Time, limit time.Duration) (Ticket, error) {
	if f.level.enterAtOnce(work.Seats, now) {
		f.stats.dispatched(work.Seats)
		return Ticket{flow: f, work: work, began: now}, nil
	}
	return c.enterLate(ctx, f, user, namespace, work, limit)
}

// enterLate is Enter where seats are short.
func (c *Controller) enterLate(ctx context.Context, f *Flow, user, namespace string, work Work, limit time.Duration) (Ticket, error) {
	came := time.Now()
	w, reason := f.level.wait(ctx, f.waiter(user, namespace, work, came), f.hash(c.seed, user, namespace), limit)
	now := time.Now()
	if reason != "" {
		f.stats.refused(reason)
		if reason == reasonTimeOut || reason == reasonCancelled {
			f.stats.gaveUp.observe(now.Sub(came))
		}
		f.level.mu.Lock()
		defer f.level.mu.Unlock()
		return Ticket{}, &Refused{reason, int(f.level.after.refused(now.Unix()))}
	}
	f.level.entered(0, work.Seats, now)
	f.stats.waited.observe(now.Sub(came))
	f.stats.began(work.Seats)
	return Ticket{flow: f, waiter: w, work: work, began: now}, nil
}

// Leave gives the seats back, after the time that the request's watchers cost.
// It is called once.
func (t *Ticket) Leave() {
	if t.flow == nil {
		return
	}
	now := time.Now()
	t.flow.stats.ended(t.work.Seats, now.Sub(t.began))
	if t.work.After == 0 {
		t.release(now)
		return
	}
	late := *t
	time.AfterFunc(t.work.After, func() { late.release(time.Now()) })
}

func (t *Ticket) release(now time.Time) {
	l := t.flow.level
	if w := t.waiter; w != nil && w.line != nil {
		l.mu.Lock()
		if l.queue != nil {
			l.queue.finish(w.line, w.seats, w.cost, float64(w.seats)*now.Sub(t.began).Seconds())
		}
		l.mu.Unlock()
	}
	l.leave(t.work.Seats, now)
}

// LendEvery is the time between two calls of Lend.
const LendEvery = 10 * time.Second

// Lend moves seats from levels that do not use them to those that could.
func (c *Controller) Lend(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.levels {
		l.look(now)
	}
	c.retire()
	c.lend(now)
}

// look measures what the level used since the last look.
func (l *level) look(now time.Time) {
	passed := now.Sub(l.then)
	if passed <= 0 {
		return
	}
	l.mu.Lock()
	wanted := l.wanted
	l.mu.Unlock()
	used := seats(l.state.Load()).used()
	at := now.Sub(l.start).Microseconds()
	integral := l.sum.Load() + int64(used)*at
	average := float64(integral-l.sumThen)/float64(passed.Microseconds()) + float64(wanted)
	l.sumThen, l.then = integral, now
	l.demand.step(int(max(l.peak.Swap(int64(used+wanted)), int64(used+wanted))), average)
}

// lend sets the levels' limits. c.mu is held.
func (c *Controller) lend(time.Time) {
	var levels []*level
	var in []lender
	for name := range c.names {
		l := c.levels[name]
		levels = append(levels, l)
		in = append(in, lender{bounds: l.bounds, demand: l.demand, exempt: l.exempt})
	}
	limits, targets, fraction := lend(in)
	c.fraction = fraction
	for i, l := range levels {
		l.target = targets[i]
		l.setLimit(limits[i])
	}
}
