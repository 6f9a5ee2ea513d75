package kubelet

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/probe"
	"coracle/pkg/kubelet/volume"
)

// podLoop is the one goroutine that owns a pod. Others reach it by post.
type podLoop struct {
	k   *Kubelet
	uid types.UID
	log *slog.Logger

	mu     sync.Mutex
	inbox  []func()      // run by the loop, in order; guarded by mu
	signal chan struct{} // holds one token while the inbox is not empty

	deleted  chan struct{} // closed when the API server no longer has the pod
	deleting sync.Once     // guards the closing

	view atomic.Pointer[podView] // what others may see of the pod

	allocation allocation // guarded by Kubelet.mu

	// The rest belongs to the loop's goroutine.

	in         lifecycle.Input
	wanted     *corev1.Pod // as the API server has it; in.Pod has the allocated resources
	sandboxes  map[string]lifecycle.Sandbox
	containers map[string]containerRecord
	mounted    volume.Mounted
	cancels    map[lifecycle.Key]context.CancelFunc // of starts under way
	failures   map[lifecycle.Key]int                // tries that failed in a row
	observing  map[string]bool                      // ids being looked at; true: look again afterwards
	// applied is what containers were given after their creation, by id.
	applied    map[string]corev1.ResourceRequirements
	replaced   map[string]bool // ids that were stopped to be given other resources
	refreshed  time.Time       // when volume content was last brought up to date
	refreshing bool
	// attachSince is since when the pod waits for nothing but the attachment of
	// volumes, attachTold that its owner was told.
	attachSince time.Time
	attachTold  bool
	forgotten   bool
	ops         sync.WaitGroup
}

// podView is a snapshot of a pod for readers. It is never changed.
type podView struct {
	pod        *corev1.Pod // with the newest status
	containers []lifecycle.Container
	sandbox    string // id of the ready sandbox, empty when there is none
}

func newPodLoop(k *Kubelet, pod *corev1.Pod) *podLoop {
	w := &podLoop{
		k: k, uid: pod.UID, log: k.log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID),
		signal:     make(chan struct{}, 1),
		deleted:    make(chan struct{}),
		sandboxes:  map[string]lifecycle.Sandbox{},
		containers: map[string]containerRecord{},
		cancels:    map[lifecycle.Key]context.CancelFunc{},
		failures:   map[lifecycle.Key]int{},
		observing:  map[string]bool{},
		replaced:   map[string]bool{},
		wanted:     pod,
		allocation: allocation{desired: pod, pod: pod, generation: pod.Generation},
	}
	w.in = lifecycle.Input{
		Pod: pod, Runtime: k.runtimeName(), HostIPs: k.cfg.NodeIPs,
		Ops: map[lifecycle.Key]lifecycle.Op{}, Trouble: map[lifecycle.Key]lifecycle.Trouble{}, Probes: map[string]lifecycle.Probes{},
	}
	w.publish()
	return w
}

// post hands f to the loop. It never blocks. What is posted is bounded by the
// pod's operations and by the rate of its changes.
func (w *podLoop) post(f func()) {
	w.mu.Lock()
	w.inbox = append(w.inbox, f)
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *podLoop) take() []func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.inbox
	w.inbox = nil
	return taken
}

// run owns the pod until it is forgotten or ctx ends.
func (w *podLoop) run(ctx context.Context) {
	defer w.ops.Wait()
	timer := w.k.cfg.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		for _, f := range w.take() {
			f()
		}
		wake := w.step(ctx)
		if w.forgotten {
			return
		}
		if !timer.Stop() {
			select {
			case <-timer.C():
			default:
			}
		}
		timer.Reset(w.until(wake))
		select {
		case <-ctx.Done():
		case <-w.signal:
		case <-timer.C():
		}
	}
}

// until is how long to sleep when nothing happens.
func (w *podLoop) until(wake time.Time) time.Duration {
	d := w.k.cfg.RefreshEvery
	if !wake.IsZero() {
		d = min(d, wake.Sub(w.k.cfg.Clock.Now()))
	}
	return max(d, time.Millisecond)
}

// step decides once and begins what was decided.
func (w *podLoop) step(ctx context.Context) time.Time {
	w.gather()
	d := lifecycle.Compute(w.in)
	w.in.StoppingSince = d.StoppingSince
	w.report(d.Status)
	for _, a := range d.Actions {
		w.begin(ctx, a)
	}
	w.refresh(ctx)
	return d.Wake
}

// gather puts what was observed into the input of the next decision. Probes
// hear of new containers first, so that no verdict on an old one counts.
func (w *podLoop) gather() {
	w.in.Now = w.k.cfg.Clock.Now()
	w.in.Sandboxes = w.in.Sandboxes[:0:0]
	for _, s := range w.sandboxes {
		w.in.Sandboxes = append(w.in.Sandboxes, s)
	}
	w.in.Containers = w.in.Containers[:0:0]
	for _, c := range w.containers {
		w.in.Containers = append(w.in.Containers, c.Container)
	}
	if !w.in.StoppingSince.IsZero() || w.in.Gone {
		w.k.probes.Remove(w.uid)
		return
	}
	w.k.probes.Update(w.in.Pod, w.podIP(), w.probed())
	for _, c := range lifecycle.Containers(w.in.Pod) {
		if c.StartupProbe != nil || c.LivenessProbe != nil || c.ReadinessProbe != nil {
			w.in.Probes[c.Name] = lifecycle.Probes{
				Startup:   w.verdict(c.Name, probe.Startup),
				Liveness:  w.verdict(c.Name, probe.Liveness),
				Readiness: w.verdict(c.Name, probe.Readiness),
			}
		}
	}
}

func (w *podLoop) verdict(container string, kind probe.Kind) lifecycle.Result {
	switch w.k.probes.Result(w.uid, container, kind) {
	case probe.Success:
		return lifecycle.Success
	case probe.Failure:
		return lifecycle.Failure
	}
	return lifecycle.NoResult
}

// probed lists the newest attempt of each container for the probes. One whose
// postStart hook still runs does not count as running.
func (w *podLoop) probed() []probe.Container {
	newest := map[string]lifecycle.Container{}
	for _, c := range w.containers {
		if old, ok := newest[c.Name]; !ok || c.Attempt > old.Attempt {
			newest[c.Name] = c.Container
		}
	}
	out := make([]probe.Container, 0, len(newest))
	for name, c := range newest {
		_, starting := w.in.Ops[lifecycle.Key{Kind: lifecycle.StartContainer, Name: name}]
		out = append(out, probe.Container{Name: name, ID: c.ID, Running: c.State == lifecycle.Running && !starting, StartedAt: c.StartedAt})
	}
	return out
}

// current returns the sandbox the pod lives in.
func (w *podLoop) current() (lifecycle.Sandbox, bool) {
	var found lifecycle.Sandbox
	ok := false
	for _, s := range w.sandboxes {
		if s.Ready && !s.Released && (!ok || s.Attempt > found.Attempt) {
			found, ok = s, true
		}
	}
	return found, ok
}

func (w *podLoop) podIPs() []string {
	if w.in.Pod.Spec.HostNetwork {
		return w.k.cfg.NodeIPs
	}
	s, _ := w.current()
	return s.IPs
}

func (w *podLoop) podIP() string {
	if ips := w.podIPs(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

// report hands a changed status on.
func (w *podLoop) report(status corev1.PodStatus) {
	last := w.in.Last
	if last != nil && apiequality.Semantic.DeepEqual(*last, status) {
		if w.in.Gone {
			return
		}
		w.publish()
		return
	}
	w.in.Last = &status
	w.publish()
	if w.in.Gone {
		return
	}
	w.k.status.Set(w.uid, status)
	w.announce(last, &status)
	w.announceResize(last, &status)
	if over(&status) && (last == nil || !over(last)) {
		w.k.mu.Lock()
		w.k.regrant()
		w.k.mu.Unlock()
	}
}

func over(s *corev1.PodStatus) bool {
	return s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
}

// announce makes Events of containers that begin to wait.
func (w *podLoop) announce(last, now *corev1.PodStatus) {
	before := map[string]string{}
	if last != nil {
		for _, cs := range allStatuses(last) {
			if cs.State.Waiting != nil {
				before[cs.Name] = cs.State.Waiting.Reason
			}
		}
	}
	for _, cs := range allStatuses(now) {
		waiting := cs.State.Waiting
		if waiting == nil || before[cs.Name] == waiting.Reason {
			continue
		}
		switch waiting.Reason {
		case lifecycle.ReasonCrashLoopBackOff:
			w.event(cs.Name, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container "+cs.Name+" in pod "+
				w.in.Pod.Name+"_"+w.in.Pod.Namespace+"("+string(w.uid)+")")
		case lifecycle.ReasonImagePullBackOff:
			w.event(cs.Name, corev1.EventTypeNormal, "BackOff", waiting.Message)
		}
	}
}

func allStatuses(s *corev1.PodStatus) []corev1.ContainerStatus {
	out := append([]corev1.ContainerStatus(nil), s.InitContainerStatuses...)
	out = append(out, s.ContainerStatuses...)
	return append(out, s.EphemeralContainerStatuses...)
}

// publish makes the present state visible to readers.
func (w *podLoop) publish() {
	v := &podView{pod: w.in.Pod}
	if w.in.Last != nil {
		v.pod = w.in.Pod.DeepCopy()
		v.pod.Status = *w.in.Last
	}
	for _, c := range w.containers {
		v.containers = append(v.containers, c.Container)
	}
	if s, ok := w.current(); ok {
		v.sandbox = s.ID
	}
	w.view.Store(v)
}

// update takes a newer version of the pod's object, or what is set aside for
// it now.
func (w *podLoop) update(a allocation) {
	w.post(func() {
		old, pod := w.in.Pod, a.pod
		w.in.Pod, w.in.Pending, w.in.AllocatedGeneration, w.wanted = pod, a.pending, a.generation, a.desired
		if !lifecycle.SameResources(old, pod) {
			delete(w.in.Trouble, lifecycle.Key{Kind: lifecycle.ResizePod})
		}
		if !apiequality.Semantic.DeepEqual(old.Spec, pod.Spec) || !apiequality.Semantic.DeepEqual(old.Annotations, pod.Annotations) ||
			!apiequality.Semantic.DeepEqual(old.Labels, pod.Labels) {
			w.retryNow()
			w.refreshed = time.Time{}
		}
	})
}

// retryNow lets operations that failed be tried at once, since what they
// depend on has changed.
func (w *podLoop) retryNow() {
	for k, t := range w.in.Trouble {
		t.RetryAt = time.Time{}
		w.in.Trouble[k] = t
	}
}

// gone tells the loop that the API server no longer has the pod.
func (w *podLoop) gone() {
	w.deleting.Do(func() { close(w.deleted) })
	w.post(func() { w.in.Gone = true })
}

func (w *podLoop) event(container, eventType, reason, message string) {
	w.k.event(w.in.Pod, container, eventType, reason, message)
}
