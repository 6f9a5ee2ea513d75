// Package podenv computes what a container is told about its surroundings:
// its environment variables, the expansion of $(VAR) in its command line, its
// hosts file and its resolver configuration.
//
// Everything here is pure: objects go in, values come out. The caller fetches
// what References names and passes it in Input.
package podenv

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Input is all that the environment of one container depends on.
type Input struct {
	// Pod owns the container. Its metadata and spec answer field references.
	Pod *corev1.Pod
	// Container is the container to start: init, app, or an ephemeral one
	// converted to this type.
	Container *corev1.Container
	// ConfigMaps and Secrets hold, by name, the objects of the pod's namespace
	// that References names. An object that does not exist is left out.
	ConfigMaps map[string]*corev1.ConfigMap
	Secrets    map[string]*corev1.Secret
	// Services are the Services the variables of service links are made from:
	// those of the pod's namespace, and default/kubernetes. Others are ignored.
	Services []*corev1.Service
	// PodIPs and HostIPs are the addresses of the pod and of its node, the
	// primary one first.
	PodIPs  []string
	HostIPs []string
	// NodeAllocatable stands in for a limit that the container does not set.
	NodeAllocatable corev1.ResourceList
	// EnvFile reads a file of one of the pod's volumes, for fileKeyRef. The
	// path is relative to the volume. Nil refuses fileKeyRef. A missing file is
	// reported with an error that matches fs.ErrNotExist.
	EnvFile func(volumeName, path string) ([]byte, error)
}

// Environment computes the variables of a container: those of envFrom, then
// those of env in their order, each able to refer to earlier ones with $(NAME),
// then those of service links. A later variable of the same name wins, and env
// wins over envFrom, which wins over service links.
//
// It fails when a ConfigMap, Secret, key or file that is not optional is
// missing, and when a field or resource reference is not known.
func Environment(in Input) ([]*runtimeapi.KeyValue, error) {
	b := newBuilder(in)
	for i := range in.Container.EnvFrom {
		if err := b.addFrom(&in.Container.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range in.Container.Env {
		if err := b.addVar(&in.Container.Env[i]); err != nil {
			return nil, err
		}
	}
	return b.finish(), nil
}
