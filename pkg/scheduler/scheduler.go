// Package scheduler gives each pending pod a node.
//
// Contract: one goroutine decides, pod by pod, on compact records of nodes and
// pods that informers keep current; decisions are pure (decide.go, package
// plugin). A chosen node is assumed at once and bound beside the next
// decisions. The API server binds a pod once and only once, so a stale record,
// a restart or a second scheduler costs a try, not a double placement. A pod
// that no node can take waits for a change that may help it and says why, in
// its PodScheduled condition and in an Event.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1beta1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"coracle/pkg/placement"
	"coracle/pkg/podbinding"
	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/config"
	"coracle/pkg/scheduler/devices"
	"coracle/pkg/scheduler/plugin"
	"coracle/pkg/scheduler/queue"
)

// Config is what a Scheduler needs. Client and Informers are required.
type Config struct {
	// Client binds pods and writes their conditions and Events.
	Client kubernetes.Interface
	// Informers is the process's one factory; New registers what it
	// reads.
	Informers informers.SharedInformerFactory
	// Profiles say how pods are placed, by their schedulerName; the zero value is
	// Kubernetes' default.
	Profiles config.Config
	// Placements takes the last verdict about each pod; may be nil.
	Placements *placement.Book
	Clock      clock.WithTicker
	Log        *slog.Logger
	// Seed makes ties fall the same way each time; zero takes one from the
	// clock.
	Seed uint64
	// VolumeTimeout is how long a pod waits for its volumes at a node before it
	// is tried elsewhere; zero means what its profile says.
	VolumeTimeout time.Duration
}

const (
	// bindWorkers bounds the bindings under way, bindTimeout each of them.
	bindWorkers = 64
	bindTimeout = 30 * time.Second
)

// Scheduler places pods. Run it once.
type Scheduler struct {
	cfg     Config
	cluster *cluster
	events  map[string]*reconcile.Recorder // by schedulerName; never changed
	pods    corelisters.PodLister
	groups  schedulinglisters.PodGroupLister
	synced  []cache.InformerSynced
	volumes *volumes
	devices *devices.Tracker
	slots   chan struct{} // one for each binding under way
	settles chan struct{} // one for each pod that waits for volumes
	meters  *meters
	binder  *podbinding.Binder
	news    *announcer
	binding sync.WaitGroup // bindings and reports under way
}

// New makes a Scheduler and registers its informers. Start the factory
// afterwards, then Run.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Client == nil || cfg.Informers == nil {
		return nil, errors.New("a scheduler needs a client and informers")
	}
	if len(cfg.Profiles.Profiles) == 0 {
		cfg.Profiles = config.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(cfg.Clock.Now().UnixNano())
	}
	volumes, err := newVolumes(cfg.Informers)
	if err != nil {
		return nil, fmt.Errorf("index volumes: %w", err)
	}
	s := &Scheduler{
		cfg:     cfg,
		cluster: newCluster(cfg.Profiles),
		events:  map[string]*reconcile.Recorder{},
		pods:    cfg.Informers.Core().V1().Pods().Lister(),
		groups:  cfg.Informers.Scheduling().V1beta1().PodGroups().Lister(),
		volumes: volumes,
		devices: devices.New(cfg.Informers, cfg.Log),
		slots:   make(chan struct{}, bindWorkers),
		settles: make(chan struct{}, maxSettling), meters: newMeters(), binder: podbinding.New(cfg.Client),
	}
	s.cluster.volumes, s.cluster.devices = volumes, s.devices
	if s.cluster.profiles, err = newProfiles(cfg.Profiles, s.cluster, rand.New(rand.NewPCG(cfg.Seed, 0))); err != nil {
		return nil, err
	}
	for name := range s.cluster.profiles {
		s.events[name] = reconcile.NewRecorder(cfg.Client, name, cfg.Clock, cfg.Log)
	}
	s.news = newAnnouncer(cfg.Clock, func() bool { return len(s.slots) > bindWorkers/2 }, s.announce)
	return s, s.listen()
}

// listen keeps the records current.
func (s *Scheduler) listen() error {
	now := s.cfg.Clock.Now
	core, apps := s.cfg.Informers.Core().V1(), s.cfg.Informers.Apps().V1()
	owner := func(obj any, gone bool) { s.cluster.setOwner(obj, gone) }
	for _, l := range []struct {
		what     string
		informer cache.SharedIndexInformer
		see      func(obj any, gone bool)
	}{
		{"pods", core.Pods().Informer(), func(obj any, gone bool) {
			if pod, ok := obj.(*corev1.Pod); ok && gone {
				s.cluster.deletePod(pod.UID, now())
				s.volumes.wake(podKey(pod.UID))
				s.forget(pod)
			} else if ok {
				s.cluster.setPod(pod, now())
			}
		}},
		{"nodes", core.Nodes().Informer(), func(obj any, gone bool) {
			if node, ok := obj.(*corev1.Node); ok && gone {
				s.cluster.deleteNode(node.Name, now())
			} else if ok {
				s.cluster.setNode(node, now())
			}
		}},
		{"pod disruption budgets", s.cfg.Informers.Policy().V1().PodDisruptionBudgets().Informer(), func(obj any, gone bool) {
			if b, ok := obj.(*policyv1.PodDisruptionBudget); ok {
				s.cluster.setBudget(b, gone)
			}
		}},
		{"pod groups", s.cfg.Informers.Scheduling().V1beta1().PodGroups().Informer(), func(obj any, gone bool) {
			if g, ok := obj.(*schedulingv1beta1.PodGroup); ok {
				s.cluster.setPodGroup(g, gone, now())
			}
		}},
		{"namespaces", core.Namespaces().Informer(), func(obj any, gone bool) {
			if ns, ok := obj.(*corev1.Namespace); ok {
				s.cluster.setNamespace(ns, gone, now())
			}
		}},
		{"services", core.Services().Informer(), owner},
		{"replication controllers", core.ReplicationControllers().Informer(), owner},
		{"replica sets", apps.ReplicaSets().Informer(), owner},
		{"stateful sets", apps.StatefulSets().Informer(), owner},
	} {
		registered, err := l.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { l.see(obj, false) },
			UpdateFunc: func(_, obj any) { l.see(obj, false) },
			DeleteFunc: func(obj any) {
				if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = lost.Obj
				}
				l.see(obj, true)
			},
		})
		if err != nil {
			return fmt.Errorf("watch %s: %w", l.what, err)
		}
		s.synced = append(s.synced, registered.HasSynced)
	}
	synced, err := s.volumes.listen(func(old, obj any) { s.cluster.objectChanged(old, obj, now()) })
	if err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	s.synced = append(s.synced, synced...)
	if synced, err = s.devices.Follow(func(old, obj any) { s.cluster.objectChanged(old, obj, now()) }); err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	s.synced = append(s.synced, synced...)
	return nil
}

// forget drops what readers could read of a pod.
func (s *Scheduler) forget(pod *corev1.Pod) {
	if s.cfg.Placements != nil {
		s.cfg.Placements.Forget(pod.Namespace, pod.Name, pod.UID)
	}
}

// note keeps a verdict for readers.
func (s *Scheduler) note(e *entry, o *outcome, message string) {
	if s.cfg.Placements != nil {
		s.cfg.Placements.Put(e.Pod.Namespace(), e.Pod.Name, e.UID, o.verdict(e, message, s.cfg.Clock.Now()))
	}
}

// Run places pods until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	var recording errgroup.Group
	for _, r := range s.events {
		recording.Go(func() error { return r.Run(ctx) })
	}
	recording.Go(func() error { return s.news.run(ctx) })
	s.loop(ctx)
	s.binding.Wait()
	return recording.Wait()
}

func (s *Scheduler) loop(ctx context.Context) {
	for ctx.Err() == nil {
		began := s.cfg.Clock.Now()
		e, o, next := s.cluster.attempt(s.cfg.Clock.Now)
		if e == nil {
			s.wait(ctx, next)
			continue
		}
		s.meters.algorithm.Observe(s.cfg.Clock.Since(began).Seconds())
		o.began = began
		if o.gang != nil {
			for i := range o.gang.members {
				o.gang.members[i].o.began = began
			}
			s.startGang(ctx, o.gang)
			continue
		}
		s.start(ctx, e, &o)
	}
}

// start does what was decided about a pod, beside the next decisions.
func (s *Scheduler) start(ctx context.Context, e *entry, o *outcome) {
	// What waits for a provisioner must not keep others from being bound.
	slots, do := s.slots, s.conclude
	if !o.volumes.Empty() || !o.devices.Empty() {
		slots, do = s.settles, s.settle
	}
	s.beside(ctx, slots, func() { do(ctx, e, o) })
}

// beside calls f in a goroutine of its own once there is a slot, unless ctx ends
// first.
func (s *Scheduler) beside(ctx context.Context, slots chan struct{}, f func()) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	s.binding.Go(func() {
		defer func() { <-slots }()
		f()
	})
}

// conclude binds a pod to the node that was chosen, or says why there is none.
func (s *Scheduler) conclude(ctx context.Context, e *entry, o *outcome) {
	if o.node != "" {
		s.note(e, o, "")
		s.bind(ctx, e, o)
		return
	}
	s.refused(ctx, e, o)
}

// refused says why a pod waits, makes room for it where it may, and gives it
// back.
func (s *Scheduler) refused(ctx context.Context, e *entry, o *outcome) {
	message := o.why.message()
	if o.plan.message != "" {
		message += " " + o.plan.message
	}
	s.note(e, o, message)
	s.report(ctx, e, message, o.plan)
	s.unstrand(ctx, e.Pod, o.why)
	r := queue.Refusal{Plugins: o.why.filters, Alone: o.plan.node != ""}
	if err := s.carryOut(ctx, e, o.plan); err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("room for a pod could not be made: it is tried again", "pod", e.Pod.Key(), "node", o.plan.node, "error", err)
		}
		r.Error = true
	}
	s.meters.planned(&o.plan)
	s.meters.count(e, resultUnschedulable, o.began, s.cfg.Clock.Now())
	s.cluster.failed(e, r, s.cfg.Clock.Now())
}

// wait blocks until something changes or next is reached.
func (s *Scheduler) wait(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := s.cfg.Clock.NewTimer(max(next.Sub(s.cfg.Clock.Now()), time.Millisecond))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-s.cluster.wakeup:
	case <-due:
	}
}

// bind writes a decision. Whatever the API server says no to is undone and
// tried again; a pod that is gone or bound by another is dropped when its
// event comes.
func (s *Scheduler) bind(ctx context.Context, e *entry, o *outcome) {
	node := o.node
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	p := e.Pod
	err := s.binder.Bind(call, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace(), Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	})
	if err != nil {
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			s.cfg.Log.Warn("a pod could not be bound", "pod", p.Key(), "node", node, "error", err)
		}
		s.giveBack(ctx, p, o)
		s.meters.count(e, resultError, o.began, s.cfg.Clock.Now())
		s.cluster.undo(e, s.cfg.Clock.Now())
		return
	}
	s.meters.placed(e, o.began, s.cfg.Clock.Now())
	s.news.put(announcement{p, node, s.cfg.Clock.Now()})
}

// reference is a pod to hang an Event on.
func reference(p *plugin.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace(), Name: p.Name, UID: p.UID}}
}
