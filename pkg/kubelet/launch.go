package kubelet

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/image"
	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/podenv"
	"coracle/pkg/kubelet/volume"
)

// launch is one try to start a container.
type launch struct {
	k       *Kubelet
	pod     *corev1.Pod
	spec    *corev1.Container
	action  lifecycle.Action
	sandbox *runtimeapi.PodSandboxConfig
	podIPs  []string
	mounted volume.Mounted
	target  string // id of the container an ephemeral one looks into
	event   func(eventType, reason, message string)
}

// failure is a try that did not succeed, with the waiting reason it causes.
type failure struct {
	reason  string
	err     error
	retryAt time.Time
	image   string
}

// startContainer brings one container to run.
func (w *podLoop) startContainer(ctx context.Context, a lifecycle.Action) func() func() {
	pod, key := w.in.Pod, a.Key()
	sandbox := w.sandboxes[a.SandboxID]
	l := &launch{
		k: w.k, pod: pod, spec: findContainer(pod, a.Name), action: a, podIPs: w.podIPs(), mounted: w.mountedCopy(),
		target: w.targetID(a.Name),
		event: func(eventType, reason, message string) {
			w.k.event(pod, a.Name, eventType, reason, message)
		},
	}
	return func() func() {
		var err error
		if l.sandbox, err = w.k.sandboxConfig(pod, sandbox.Attempt); err != nil {
			return func() { w.settle(key, err, func() {}) }
		}
		id, fail := l.run(ctx)
		if fail == nil {
			fail = l.postStart(ctx, id)
		}
		var f found
		if id != "" {
			f, err = w.k.look(w.k.life, id, false)
		}
		return func() {
			if id != "" && err == nil {
				w.learn(id, f)
			} else if id != "" {
				w.changed(w.k.life, id)
			}
			w.launched(key, l, fail)
		}
	}
}

// launched books the end of a try.
func (w *podLoop) launched(key lifecycle.Key, l *launch, fail *failure) {
	if fail == nil {
		w.succeeded(key)
		return
	}
	if errors.Is(fail.err, context.Canceled) {
		return
	}
	message := cri.Reason(fail.err)
	var imageErr *image.Error
	if errors.As(fail.err, &imageErr) {
		message = imageErr.Message
	}
	w.log.Info("container not started", "container", l.spec.Name, "reason", fail.reason, "error", fail.err)
	w.fail(key, lifecycle.Trouble{Reason: fail.reason, Message: message, Image: fail.image, RetryAt: fail.retryAt})
}

// targetID finds the container an ephemeral one wants to look into.
func (w *podLoop) targetID(name string) string {
	for i := range w.in.Pod.Spec.EphemeralContainers {
		e := &w.in.Pod.Spec.EphemeralContainers[i]
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}
		for _, c := range w.containers {
			if c.Name == e.TargetContainerName && c.State == lifecycle.Running {
				return c.ID
			}
		}
	}
	return ""
}

// run pulls, creates and starts. The id is set as soon as a container exists.
func (l *launch) run(ctx context.Context) (id string, fail *failure) {
	img, err := l.k.images.Ensure(ctx, image.Request{Pod: l.pod, Container: l.spec, Sandbox: l.sandbox, Event: l.event})
	if err != nil {
		var e *image.Error
		if errors.As(err, &e) {
			return "", &failure{reason: e.Reason, err: err, retryAt: e.RetryAt, image: l.spec.Image}
		}
		return "", &failure{reason: lifecycle.ReasonErrImagePull, err: err, image: l.spec.Image}
	}
	config, err := l.config(ctx, img)
	if err != nil {
		l.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
		return "", &failure{reason: lifecycle.ReasonCreateContainerConfig, err: err}
	}
	if ctx.Err() != nil {
		return "", &failure{err: ctx.Err()}
	}
	// From here on a cancellation of the start is too late: cutting the runtime
	// short would leave open what it has done.
	ctx = l.k.life
	if id, err = l.k.runtime.CreateContainer(ctx, l.action.SandboxID, config, l.sandbox); err != nil {
		l.event(corev1.EventTypeWarning, "Failed", "Error: "+cri.Reason(err))
		return "", &failure{reason: lifecycle.ReasonCreateContainer, err: err}
	}
	l.event(corev1.EventTypeNormal, "Created", "Container created")
	if err = l.k.runtime.StartContainer(ctx, id); err != nil {
		l.event(corev1.EventTypeWarning, "Failed", "Error: "+cri.Reason(err))
		// the attempt counts as one that ended: its own back-off decides
		return id, &failure{reason: lifecycle.ReasonRunContainer, err: err, retryAt: l.k.cfg.Clock.Now()}
	}
	l.event(corev1.EventTypeNormal, "Started", "Container started")
	return id, nil
}

// config gathers everything the container is made from.
func (l *launch) config(ctx context.Context, img *runtimeapi.Image) (*runtimeapi.ContainerConfig, error) {
	env, err := l.environment(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := l.k.volumes.ContainerMounts(l.pod, l.spec, env, l.mounted)
	if err != nil {
		return nil, err
	}
	devices, err := l.k.volumes.ContainerDevices(l.spec, l.mounted)
	if err != nil {
		return nil, err
	}
	own, err := l.k.ownMounts(l.pod, l.spec, l.podIPs, l.action.Attempt)
	if err != nil {
		return nil, err
	}
	return criconfig.Container(criconfig.ContainerInput{
		Pod: l.pod, Spec: l.spec, Attempt: l.action.Attempt, Delay: l.action.Delay, Sandbox: l.action.SandboxID,
		Image: img, Env: env, Mounts: append(mounts, own...), Devices: devices, TargetID: l.target, SeccompRoot: l.k.seccompRoot(), Node: l.k.facts,
	})
}

// environment fetches what the variables are made from and computes them.
func (l *launch) environment(ctx context.Context) ([]*runtimeapi.KeyValue, error) {
	sources, err := l.k.envSources(ctx, l.pod)
	if err != nil {
		return nil, err
	}
	return podenv.Environment(podenv.Input{
		Pod: l.pod, Container: l.spec, ConfigMaps: sources.ConfigMaps, Secrets: sources.Secrets, Services: sources.Services,
		PodIPs: l.podIPs, HostIPs: l.k.cfg.NodeIPs, NodeAllocatable: l.k.allocatable(),
		EnvFile: func(name, path string) ([]byte, error) {
			return l.k.volumes.EnvFile(l.mounted, name, path)
		},
	})
}

// postStart runs the hook after a start, and ends a container whose hook fails.
func (l *launch) postStart(ctx context.Context, id string) *failure {
	if l.spec.Lifecycle == nil || l.spec.Lifecycle.PostStart == nil {
		return nil
	}
	target := hookTarget{pod: l.pod, spec: l.spec, id: id}
	if len(l.podIPs) > 0 {
		target.ip = l.podIPs[0]
	}
	hookErr := l.k.hook(ctx, l.spec.Lifecycle.PostStart, target)
	if hookErr == nil {
		return nil
	}
	if ctx.Err() != nil {
		return &failure{err: ctx.Err()}
	}
	l.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+hookErr.Error())
	l.event(corev1.EventTypeNormal, "Killing", "FailedPostStartHook")
	if err := l.k.runtime.StopContainer(ctx, id, lifecycle.Grace(l.pod)); err != nil {
		l.k.log.Warn("container with a failed postStart hook not stopped", "container", l.spec.Name, "error", err)
	}
	return &failure{reason: lifecycle.ReasonPostStartHook, err: hookErr, retryAt: l.k.cfg.Clock.Now()}
}
