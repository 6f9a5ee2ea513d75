package kubelet

import (
	"context"
	"fmt"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cgroup"
	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/logs"
	"coracle/pkg/kubelet/server"
)

// Pods lists the pods of the node with their newest status. The objects must
// not be changed.
func (k *Kubelet) Pods() []*corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(k.loops))
	for _, w := range k.loops {
		out = append(out, w.view.Load().pod)
	}
	return out
}

// Pod finds a pod by name. Of several, one that is not being deleted wins.
func (k *Kubelet) Pod(namespace, name string) (*corev1.Pod, bool) {
	var found *corev1.Pod
	for _, pod := range k.Pods() {
		if pod.Namespace == namespace && pod.Name == name && (found == nil || pod.DeletionTimestamp == nil) {
			found = pod
		}
	}
	return found, found != nil
}

// Container finds the newest attempt of a container or, with previous, the
// newest one before it that has ended.
func (k *Kubelet) Container(uid types.UID, name string, previous bool) (server.Container, bool) {
	w := k.loop(uid)
	if w == nil {
		return server.Container{}, false
	}
	var newest, before *lifecycle.Container
	v := w.view.Load()
	for i := range v.containers {
		c := &v.containers[i]
		if c.Name != name || c.State == lifecycle.Created {
			continue
		}
		switch {
		case newest == nil || c.Attempt > newest.Attempt:
			newest, before = c, newest
		case before == nil || c.Attempt > before.Attempt:
			before = c
		}
	}
	if previous {
		newest = before
	}
	if newest == nil {
		return server.Container{}, false
	}
	id := newest.ID
	return server.Container{
		ID: id, LogName: criconfig.LogName(name, newest.Attempt),
		Running: func() bool { return w.runs(id) },
	}, true
}

// runs tells whether a container of the pod is running.
func (w *podLoop) runs(id string) bool {
	for _, c := range w.view.Load().containers {
		if c.ID == id {
			return c.State == lifecycle.Running
		}
	}
	return false
}

// Sandbox finds the id of the pod's ready sandbox.
func (k *Kubelet) Sandbox(uid types.UID) (string, bool) {
	w := k.loop(uid)
	if w == nil {
		return "", false
	}
	id := w.view.Load().sandbox
	return id, id != ""
}

var _ server.Pods = (*Kubelet)(nil)

// streams offers the runtime to the server.
type streams struct{ runtime cri.Runtime }

var _ server.Runtime = streams{}

func (s streams) Exec(ctx context.Context, req *runtimeapi.ExecRequest) (string, error) {
	resp, err := s.runtime.Exec(ctx, req)
	return resp.GetUrl(), err
}

func (s streams) Attach(ctx context.Context, req *runtimeapi.AttachRequest) (string, error) {
	resp, err := s.runtime.Attach(ctx, req)
	return resp.GetUrl(), err
}

func (s streams) PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (string, error) {
	resp, err := s.runtime.PortForward(ctx, req)
	return resp.GetUrl(), err
}

func (s streams) ContainerStats(ctx context.Context) ([]*runtimeapi.ContainerStats, error) {
	return s.runtime.ListContainerStats(ctx, nil)
}

// loggedContainers lists the logs that may need rotation.
func (k *Kubelet) loggedContainers() []logs.Container {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []logs.Container
	for _, w := range k.loops {
		v := w.view.Load()
		for _, c := range v.containers {
			if c.State == lifecycle.Running {
				out = append(out, logs.Container{
					ID: c.ID, PodDir: criconfig.LogDir(k.cfg.LogDir, v.pod), Name: filepath.Join(criconfig.LogName(c.Name, c.Attempt)),
				})
			}
		}
	}
	return out
}

// newServer composes the HTTPS server.
func (k *Kubelet) newServer(c *ServerConfig) (*server.Server, error) {
	auth, token := c.Auth, c.Token
	if auth == nil {
		auth = k.reviewAccess
	}
	if token == nil {
		token = k.reviewToken
	}
	var usage func() (cgroup.Usage, error)
	if !k.cfg.Simulated {
		usage = func() (cgroup.Usage, error) { return cgroup.ReadUsage("/sys/fs/cgroup") }
	}
	var volumes func(string, types.UID) []server.VolumeStats
	if k.drivers != nil {
		volumes = k.drivers.volumeStats
	}
	return server.New(server.Config{
		Listener: c.Listener, Address: c.Address, TLS: c.TLS, ClientCAs: c.ClientCAs,
		NodeName: k.cfg.NodeName, Auth: auth, Token: token,
		Pods: k, Runtime: streams{k.runtime}, NodeUsage: usage, VolumeStats: volumes, LogDir: k.cfg.LogDir, Log: k.log,
	})
}

// reviewAccess asks the API server whether a user may do what it wants to do
// with this node.
func (k *Kubelet) reviewAccess(ctx context.Context, user string, groups []string, verb, subresource string) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: k.cfg.NodeName,
		},
	}}
	answer, err := k.cfg.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("asking the API server for permission: %w", err)
	}
	if !answer.Status.Allowed {
		return fmt.Errorf("user %q may not %s nodes/%s of node %q: %s", user, verb, subresource, k.cfg.NodeName, answer.Status.Reason)
	}
	return nil
}

// reviewToken asks the API server whose token it is.
func (k *Kubelet) reviewToken(ctx context.Context, token string) (user string, groups []string, err error) {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	answer, err := k.cfg.Client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("asking the API server about a token: %w", err)
	}
	if !answer.Status.Authenticated {
		return "", nil, fmt.Errorf("the token is not valid: %s", answer.Status.Error)
	}
	return answer.Status.User.Username, answer.Status.User.Groups, nil
}
