package kubelet

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/lifecycle"
)

// retryObserve is the wait before a runtime that did not answer is asked again.
const retryObserve = time.Second

// containerRecord is a container with what only the executor needs of it.
type containerRecord struct {
	lifecycle.Container
	logPath string
}

// found is what one look at the runtime saw. At most one field is set; neither
// means that the thing does not exist.
type found struct {
	container *containerRecord
	sandbox   *lifecycle.Sandbox
}

// changed looks at one container or sandbox again. Looks at the same id do not
// overlap.
func (w *podLoop) changed(ctx context.Context, id string) {
	if _, busy := w.observing[id]; busy {
		w.observing[id] = true
		return
	}
	w.observing[id] = false
	_, isSandbox := w.sandboxes[id]
	w.ops.Go(func() {
		f, err := w.k.look(ctx, id, isSandbox)
		for err != nil && ctx.Err() == nil {
			w.log.Warn("runtime does not tell the state of a container", "id", id, "error", err)
			w.k.pause(ctx, retryObserve)
			f, err = w.k.look(ctx, id, isSandbox)
		}
		w.post(func() {
			again := w.observing[id]
			delete(w.observing, id)
			if ctx.Err() == nil {
				w.learn(id, f)
			}
			if again {
				w.changed(ctx, id)
			}
		})
	})
}

// learn takes what a look has found. What was seen once never goes back: looks
// may end in another order than they began.
func (w *podLoop) learn(id string, f found) {
	switch {
	case f.container != nil:
		if old, ok := w.containers[id]; ok && old.State == lifecycle.Exited {
			return
		}
		w.learnResources(f.container)
		w.containers[id] = *f.container
	case f.sandbox != nil:
		if old, ok := w.sandboxes[id]; ok && !old.Ready {
			return
		}
		w.sandboxes[id] = *f.sandbox
	default:
		delete(w.containers, id)
		delete(w.sandboxes, id)
	}
}

// look asks the runtime about one id.
func (k *Kubelet) look(ctx context.Context, id string, sandboxFirst bool) (found, error) {
	if !sandboxFirst {
		status, err := k.runtime.ContainerStatus(ctx, id)
		if err == nil {
			c := k.containerRecord(status)
			return found{container: &c}, nil
		}
		if !cri.IsNotFound(err) {
			return found{}, err
		}
	}
	status, err := k.runtime.PodSandboxStatus(ctx, id)
	if err == nil {
		s := sandboxRecord(status)
		return found{sandbox: &s}, nil
	}
	if cri.IsNotFound(err) {
		return found{}, nil
	}
	return found{}, err
}

func sandboxRecord(s *runtimeapi.PodSandboxStatus) lifecycle.Sandbox {
	out := lifecycle.Sandbox{
		ID: s.GetId(), Attempt: s.GetMetadata().GetAttempt(), CreatedAt: time.Unix(0, s.GetCreatedAt()),
		Ready: s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		out.IPs = append(out.IPs, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		out.IPs = append(out.IPs, more.GetIp())
	}
	return out
}

func (k *Kubelet) containerRecord(s *runtimeapi.ContainerStatus) containerRecord {
	attempt := int32(s.GetMetadata().GetAttempt())
	if n, err := strconv.ParseInt(s.GetAnnotations()[cri.AnnotationRestartCount], 10, 32); err == nil {
		attempt = int32(n)
	}
	c := containerRecord{logPath: s.GetLogPath(), Container: lifecycle.Container{
		ID: s.GetId(), Name: s.GetMetadata().GetName(), SandboxID: s.GetAnnotations()[cri.AnnotationSandbox], Attempt: attempt, State: stateOf(s.GetState()),
		Hash:      s.GetAnnotations()[cri.AnnotationHash],
		CreatedAt: time.Unix(0, s.GetCreatedAt()), ExitCode: s.GetExitCode(), Reason: s.GetReason(), Message: s.GetMessage(),
		Image: s.GetImage().GetImage(), ImageID: s.GetImageRef(),
	}}
	c.Resources = criconfig.MadeWith(s.GetAnnotations())
	if d, err := time.ParseDuration(s.GetAnnotations()[cri.AnnotationDelay]); err == nil {
		c.Delay = d
	}
	if t := s.GetStartedAt(); t > 0 {
		c.StartedAt = time.Unix(0, t)
	}
	if t := s.GetFinishedAt(); t > 0 {
		c.FinishedAt = time.Unix(0, t)
	}
	if u := s.GetUser().GetLinux(); u != nil {
		c.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.GetUid(), GID: u.GetGid(), SupplementalGroups: u.GetSupplementalGroups()}}
	}
	if c.State == lifecycle.Exited {
		if text := terminationMessage(s); text != "" {
			c.Message = text
		}
	}
	return c
}

func stateOf(s runtimeapi.ContainerState) lifecycle.ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return lifecycle.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return lifecycle.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return lifecycle.Exited
	}
	return lifecycle.Unknown
}

// compare looks again at whatever a listing of the runtime shows differently
// from what the loop knows. The listing may be older than what the loop knows,
// so it decides nothing by itself.
func (w *podLoop) compare(ctx context.Context, listed inventory) {
	for id, state := range listed.containers {
		if c, ok := w.containers[id]; !ok || c.State != state {
			w.changed(ctx, id)
		}
	}
	for id := range w.containers {
		if _, ok := listed.containers[id]; !ok {
			w.changed(ctx, id)
		}
	}
	for id, ready := range listed.sandboxes {
		if s, ok := w.sandboxes[id]; !ok || s.Ready != ready && !s.Released {
			w.changed(ctx, id)
		}
	}
	for id := range w.sandboxes {
		if _, ok := listed.sandboxes[id]; !ok {
			w.changed(ctx, id)
		}
	}
}

// adopt takes over what already runs for the pod. It returns once everything
// listed has been seen, or ctx ends.
func (w *podLoop) adopt(ctx context.Context, listed inventory) {
	for id := range listed.sandboxes {
		w.adoptOne(ctx, id, true)
	}
	for id := range listed.containers {
		w.adoptOne(ctx, id, false)
	}
}

func (w *podLoop) adoptOne(ctx context.Context, id string, sandbox bool) {
	for ctx.Err() == nil {
		f, err := w.k.look(ctx, id, sandbox)
		if err == nil {
			w.learn(id, f)
			return
		}
		w.log.Warn("runtime does not tell the state of a container found running", "id", id, "error", err)
		w.k.pause(ctx, retryObserve)
	}
}
