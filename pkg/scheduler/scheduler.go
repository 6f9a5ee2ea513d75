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

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/plugin"
)

// Config is what a Scheduler needs. Client and Informers are required.
type Config struct {
	// Client binds pods and writes their conditions and Events.
	Client kubernetes.Interface
	// Informers is the process's one factory; New registers what it
	// reads.
	Informers informers.SharedInformerFactory
	// Name is the schedulerName of the pods this scheduler places; empty means
	// default-scheduler.
	Name  string
	Clock clock.WithTicker
	Log   *slog.Logger
	// Seed makes ties fall the same way each time; zero takes one from the
	// clock.
	Seed uint64
	// VolumeTimeout is how long a pod waits for its volumes at a node before it
	// is tried elsewhere; zero means 10 minutes.
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
	decider *decider // the deciding loop's own; looks at the cluster under its lock
	cluster *cluster
	events  *reconcile.Recorder
	pods    corelisters.PodLister
	synced  []cache.InformerSynced
	volumes *volumes
	slots   chan struct{}  // one for each binding under way
	settles chan struct{}  // one for each pod that waits for volumes
	binding sync.WaitGroup // bindings and reports under way
}

// New makes a Scheduler and registers its informers. Start the factory
// afterwards, then Run.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Client == nil || cfg.Informers == nil {
		return nil, errors.New("a scheduler needs a client and informers")
	}
	if cfg.Name == "" {
		cfg.Name = corev1.DefaultSchedulerName
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
	if cfg.VolumeTimeout <= 0 {
		cfg.VolumeTimeout = defaultVolumeTimeout
	}
	volumes, err := newVolumes(cfg.Informers)
	if err != nil {
		return nil, fmt.Errorf("index volumes: %w", err)
	}
	s := &Scheduler{
		cfg:     cfg,
		cluster: newCluster(),
		events:  reconcile.NewRecorder(cfg.Client, cfg.Name, cfg.Clock, cfg.Log),
		pods:    cfg.Informers.Core().V1().Pods().Lister(),
		volumes: volumes,
		slots:   make(chan struct{}, bindWorkers),
		settles: make(chan struct{}, maxSettling),
	}
	profile, err := plugin.NewProfile(plugin.Default(), plugin.Handles{Owners: s.cluster.owners, Volumes: volumes})
	if err != nil {
		return nil, fmt.Errorf("make the scheduler's plugins: %w", err)
	}
	s.cluster.volumes = volumes
	s.decider = newDecider(profile, s.cluster.records, rand.New(rand.NewPCG(cfg.Seed, 0)))
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
			} else if ok {
				s.seePod(pod)
			}
		}},
		{"nodes", core.Nodes().Informer(), func(obj any, gone bool) {
			if node, ok := obj.(*corev1.Node); ok && gone {
				s.cluster.deleteNode(node.Name)
			} else if ok {
				s.cluster.setNode(node, now())
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
	synced, err := s.volumes.listen(func() { s.cluster.wakeClaims(now()) })
	if err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	s.synced = append(s.synced, synced...)
	return nil
}

func (s *Scheduler) seePod(pod *corev1.Pod) {
	s.cluster.setPod(pod, pod.Spec.SchedulerName == s.cfg.Name, s.cfg.Clock.Now())
}

// Run places pods until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	recording := make(chan error, 1)
	go func() { recording <- s.events.Run(ctx) }()
	s.loop(ctx)
	s.binding.Wait()
	return <-recording
}

func (s *Scheduler) loop(ctx context.Context) {
	for ctx.Err() == nil {
		e, o, began, next, ok := s.cluster.attempt(s.decider, s.cfg.Clock.Now())
		if !ok {
			s.wait(ctx, next)
			continue
		}
		// What waits for a provisioner must not keep others from being bound.
		slots, do := s.slots, s.conclude
		if !o.volumes.Empty() {
			slots, do = s.settles, s.settle
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		s.binding.Go(func() {
			defer func() { <-slots }()
			do(ctx, e, &o, began)
		})
	}
}

// conclude binds a pod to the node that was chosen, or says why there is none.
func (s *Scheduler) conclude(ctx context.Context, e *entry, o *outcome, began int) {
	if o.node != "" {
		s.bind(ctx, e, o.node, began)
		return
	}
	s.report(ctx, e, o.why.message())
	s.cluster.failed(e, began, s.cfg.Clock.Now())
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
func (s *Scheduler) bind(ctx context.Context, e *entry, node string, began int) {
	call, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	p := e.pod
	err := s.cfg.Client.CoreV1().Pods(p.Namespace()).Bind(call, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace(), Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			s.cfg.Log.Warn("a pod could not be bound", "pod", p.Key(), "node", node, "error", err)
		}
		s.cluster.undo(e, began, s.cfg.Clock.Now())
		return
	}
	s.events.Eventf(reference(p), corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s to %s", p.Key(), node)
}

// reference is a pod to hang an Event on.
func reference(p *plugin.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace(), Name: p.Name, UID: p.UID}}
}
