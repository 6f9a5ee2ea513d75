package kubelet

import (
	"context"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/podenv"
	"coracle/pkg/kubelet/volume"
)

const (
	firstRetry   = 500 * time.Millisecond
	maxRetry     = 10 * time.Second
	mountTimeout = 2 * time.Minute
	// retryClean is the time between two tries to remove what former pods left.
	retryClean = 10 * time.Second
	// deletedTimeout is how long the end of a pod waits for the watch to tell of
	// its deletion.
	deletedTimeout = 30 * time.Second
)

// begin starts an operation in a goroutine of its own. Its end is posted to the
// loop, which applies the result before it decides again.
func (w *podLoop) begin(ctx context.Context, a lifecycle.Action) {
	switch a.Kind {
	case lifecycle.CancelStart:
		if cancel := w.cancels[a.Key()]; cancel != nil {
			cancel()
		}
		return
	case lifecycle.Forget:
		w.forgotten = true
		return
	}
	key := a.Key()
	if t, failed := w.in.Trouble[key]; failed && w.in.Now.Before(t.RetryAt) {
		return
	}
	if (a.Kind == lifecycle.StartContainer || a.Kind == lifecycle.CreateSandbox) && w.k.lapsed() {
		w.wakeIn(beatEvery)
		return
	}
	op := lifecycle.Op{}
	if a.Kind == lifecycle.StopContainer {
		op.Deadline = w.in.Now.Add(a.Grace)
	}
	w.in.Ops[key] = op
	octx, cancel := context.WithCancel(ctx)
	if a.Kind == lifecycle.StartContainer {
		w.cancels[key] = cancel
	}
	do := w.operation(octx, a)
	w.ops.Go(func() {
		apply := do()
		w.post(func() {
			cancel()
			delete(w.cancels, key)
			delete(w.in.Ops, key)
			if ctx.Err() == nil {
				apply()
			}
		})
	})
}

// operation returns what to do for an action outside the loop. What it needs
// of the loop's state is copied here; what it returns is applied in the loop.
func (w *podLoop) operation(ctx context.Context, a lifecycle.Action) func() (apply func()) {
	pod, key := w.in.Pod, a.Key()
	simple := func(f func(context.Context) error, success func()) func() func() {
		return func() func() {
			err := f(ctx)
			return func() { w.settle(key, err, success) }
		}
	}
	switch a.Kind {
	case lifecycle.Prepare:
		return w.prepare(ctx, pod)
	case lifecycle.CreateSandbox:
		return w.createSandbox(ctx, pod, uint32(a.Attempt))
	case lifecycle.StartContainer:
		return w.startContainer(ctx, a)
	case lifecycle.StopContainer:
		return w.stopContainer(ctx, a)
	case lifecycle.ResizePod:
		return w.resizePod(ctx, a)
	case lifecycle.StopSandbox:
		return simple(func(ctx context.Context) error { return w.k.runtime.StopPodSandbox(ctx, a.ID) }, func() {
			if s, ok := w.sandboxes[a.ID]; ok {
				s.Ready, s.Released = false, true
				w.sandboxes[a.ID] = s
			}
		})
	case lifecycle.RemoveSandbox:
		return simple(func(ctx context.Context) error { return w.k.runtime.RemovePodSandbox(ctx, a.ID) },
			func() { delete(w.sandboxes, a.ID) })
	case lifecycle.RemoveContainer:
		c := w.containers[a.ID]
		return simple(func(ctx context.Context) error { return w.k.removeContainer(ctx, c) },
			func() { delete(w.containers, a.ID); delete(w.replaced, a.ID) })
	case lifecycle.Teardown:
		return simple(func(ctx context.Context) error { return w.k.teardown(ctx, w.uid) },
			func() { w.in.TornDown, w.in.Prepared, w.in.Cgroup = true, false, nil })
	case lifecycle.Confirm:
		return func() func() {
			done := make(chan struct{})
			w.k.status.Delete(w.uid, func() { close(done) })
			select {
			case <-done:
			case <-ctx.Done():
				return func() {}
			}
			// The watch says so too, after all it has to say about the pod. It may
			// be away for long, though.
			t := w.k.cfg.Clock.NewTimer(deletedTimeout)
			defer t.Stop()
			select {
			case <-w.deleted:
			case <-t.C():
			case <-ctx.Done():
			}
			return func() { w.in.Gone = true }
		}
	}
	return func() func() {
		return func() { w.log.Error("an action is not known", "kind", a.Kind) }
	}
}

// settle books the end of an operation that can simply be tried again.
func (w *podLoop) settle(key lifecycle.Key, err error, success func()) {
	if err == nil {
		w.succeeded(key)
		success()
		return
	}
	w.log.Warn("operation failed, will try again", "operation", key.Kind, "on", key.Name, "error", err)
	w.fail(key, lifecycle.Trouble{Reason: string(key.Kind), Message: err.Error()})
}

func (w *podLoop) succeeded(key lifecycle.Key) {
	delete(w.in.Trouble, key)
	delete(w.failures, key)
}

// fail remembers a failed operation and when it may be tried again, twice as
// late after each failure in a row.
func (w *podLoop) fail(key lifecycle.Key, t lifecycle.Trouble) {
	t.At = w.k.cfg.Clock.Now()
	if t.RetryAt.IsZero() {
		delay := min(firstRetry<<min(w.failures[key], 10), maxRetry)
		t.RetryAt = t.At.Add(delay)
	}
	w.failures[key]++
	w.in.Trouble[key] = t
	if key.Kind != lifecycle.StartContainer && key.Kind != lifecycle.Prepare && key.Kind != lifecycle.CreateSandbox {
		// not waited for by a decision: wake the loop by itself
		w.wakeIn(t.RetryAt.Sub(t.At))
	}
}

// wakeIn makes the loop decide again after d.
func (w *podLoop) wakeIn(d time.Duration) {
	w.ops.Go(func() {
		w.k.pause(w.k.life, d)
		w.post(func() {})
	})
}

// prepare mounts the volumes and makes folders and cgroup; a pod with devices
// stays there.
func (w *podLoop) prepare(ctx context.Context, pod *corev1.Pod) func() func() {
	facts := volume.PodFacts{PodIPs: w.podIPs(), HostIPs: w.k.cfg.NodeIPs}
	key := lifecycle.Key{Kind: lifecycle.Prepare}
	wide := lifecycle.Widest(pod, w.in.Containers, nil)
	return func() func() {
		mounted, err := w.k.prepare(ctx, pod, wide, facts)
		return func() {
			if err == nil {
				w.succeeded(key)
				w.mounted, w.in.Prepared, w.in.TornDown, w.in.Cgroup = mounted, true, false, wide
				w.refreshed, w.attachSince, w.attachTold = w.k.cfg.Clock.Now(), time.Time{}, false
				return
			}
			reason, message := prepareTrouble(err)
			last, again := w.in.Trouble[key]
			switch {
			case volume.OnlyWaits(err):
				if w.impatient(w.k.cfg.Clock.Now()) {
					w.event("", corev1.EventTypeWarning, reason, "Unable to attach or mount volumes: timed out waiting for the condition: "+message)
				}
			case !again || last.Message != message:
				w.event("", corev1.EventTypeWarning, reason, message)
			}
			w.fail(key, lifecycle.Trouble{Reason: reason, Message: message})
		}
	}
}

// prepare makes a cgroup that what already runs of the pod fits into: wide.
func (k *Kubelet) prepare(ctx context.Context, pod, wide *corev1.Pod, facts volume.PodFacts) (volume.Mounted, error) {
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	if err := k.needsDevices(ctx, pod); err != nil {
		return nil, err
	}
	if err := k.makeFolders(pod); err != nil {
		return nil, err
	}
	if err := k.cgroups.Create(wide); err != nil {
		return nil, err
	}
	return k.volumes.Mount(ctx, pod, facts)
}

// sandboxConfig is the same for every call with the same pod and attempt.
func (k *Kubelet) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := podenv.ResolvConf(pod, k.hostResolvConf(), podenv.DNS{ClusterDNS: k.cfg.ClusterDNS, ClusterDomain: k.cfg.ClusterDomain})
	if err != nil {
		return nil, err
	}
	hostname, err := podenv.SandboxHostname(pod, k.cfg.ClusterDomain)
	if err != nil {
		return nil, err
	}
	return criconfig.Sandbox(criconfig.SandboxInput{
		Pod: pod, Attempt: attempt, Hostname: hostname, DNS: dns, LogRoot: k.cfg.LogDir,
		CgroupParent: k.cgroups.Parent(pod), SeccompRoot: k.seccompRoot(),
	}), nil
}

func (w *podLoop) createSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) func() func() {
	key := lifecycle.Key{Kind: lifecycle.CreateSandbox}
	return func() func() {
		id, f, err := w.k.runSandbox(ctx, pod, attempt)
		if err == nil {
			return func() {
				w.succeeded(key)
				w.learn(id, f)
			}
		}
		listed := w.k.survey(ctx, pod.UID) // the runtime may have made it nevertheless
		return func() {
			w.event("", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+cri.Reason(err))
			w.log.Warn("pod sandbox not created, will try again", "error", err)
			w.fail(key, lifecycle.Trouble{Reason: "CreatePodSandboxError", Message: cri.Reason(err)})
			w.compare(ctx, listed)
		}
	}
}

func (k *Kubelet) runSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (string, found, error) {
	config, err := k.sandboxConfig(pod, attempt)
	if err != nil {
		return "", found{}, err
	}
	if err := k.makeFolders(pod); err != nil { // the runtime wants the log folder
		return "", found{}, err
	}
	handler, err := k.runtimeHandler(ctx, pod)
	if err != nil {
		return "", found{}, err
	}
	id, err := k.runtime.RunPodSandbox(ctx, config, handler)
	if err != nil {
		return "", found{}, err
	}
	f, err := k.look(ctx, id, true)
	return id, f, err
}

// stopContainer runs the preStop hook and stops a container within its grace.
func (w *podLoop) stopContainer(ctx context.Context, a lifecycle.Action) func() func() {
	pod := w.in.Pod
	target := hookTarget{pod: pod, spec: findContainer(pod, a.Name), id: a.ID, ip: w.podIP()}
	end := w.k.cfg.Clock.Now().Add(a.Grace)
	if a.Reason == lifecycle.ReasonResize {
		w.replaced[a.ID] = true
	}
	_, again := w.in.Trouble[a.Key()]
	if !again {
		w.event(a.Name, corev1.EventTypeNormal, "Killing", a.Message)
	}
	return func() func() {
		if a.Grace > 0 && a.Reason != "Unknown" {
			w.k.preStop(ctx, target, a.Grace)
		}
		grace := a.Grace
		if a.Grace > 0 {
			grace = max(end.Sub(w.k.cfg.Clock.Now()), min(a.Grace, minimumStop))
		}
		err := w.k.runtime.StopContainer(ctx, a.ID, grace)
		if cri.IsNotFound(err) {
			err = nil
		}
		f, lookErr := w.k.look(ctx, a.ID, false)
		return func() {
			if lookErr == nil {
				w.learn(a.ID, f)
			} else {
				w.changed(ctx, a.ID)
			}
			w.settle(a.Key(), err, func() {})
		}
	}
}

// removeContainer deletes a container and its log.
func (k *Kubelet) removeContainer(ctx context.Context, c containerRecord) error {
	if err := k.runtime.RemoveContainer(ctx, c.ID); err != nil && !cri.IsNotFound(err) {
		return err
	}
	k.removeLog(c.logPath)
	return nil
}

// refresh brings the content of volumes up to date once in a while.
func (w *podLoop) refresh(ctx context.Context) {
	now := w.k.cfg.Clock.Now()
	if !w.in.Prepared || w.refreshing || !w.in.StoppingSince.IsZero() || now.Sub(w.refreshed) < w.k.cfg.RefreshEvery {
		return
	}
	w.refreshing, w.refreshed = true, now
	pod, facts := w.in.Pod, volume.PodFacts{PodIPs: w.podIPs(), HostIPs: w.k.cfg.NodeIPs}
	w.ops.Go(func() {
		rctx, cancel := context.WithTimeout(ctx, mountTimeout)
		defer cancel()
		err := w.k.volumes.Refresh(rctx, pod, facts)
		w.post(func() {
			w.refreshing = false
			if err != nil && !errors.Is(err, context.Canceled) {
				w.log.Warn("volumes not brought up to date", "error", err)
			}
		})
	})
}

func (w *podLoop) mountedCopy() volume.Mounted { return maps.Clone(w.mounted) }

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range lifecycle.Containers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}
