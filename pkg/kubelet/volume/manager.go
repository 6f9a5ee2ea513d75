package volume

import (
	"context"
	"errors"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Config is what a Manager needs. The zero value of a field has the stated meaning.
type Config struct {
	// RootDir is the folder of the agent, "/var/lib/kubelet" if empty. Pods
	// have their folders in RootDir/pods/<uid>.
	RootDir string
	// Client fetches ConfigMaps, Secrets, claims, volumes and tokens. Required.
	Client kubernetes.Interface
	// Clock is the real clock if nil.
	Clock clock.Clock
	// Log discards if nil.
	Log *slog.Logger
	// NodeAllocatable gives what the node offers to pods, the upper bound of
	// memory-backed volumes and the stand-in for missing limits. May be nil.
	NodeAllocatable func() corev1.ResourceList
	// OnChange is called, from the Manager's goroutines, when a ConfigMap or
	// Secret that a pod uses has changed, so that the caller can Refresh that
	// pod soon. It must not block. May be nil.
	OnChange func(podUID types.UID)
	// RecursiveReadOnly reports whether the runtime handler of that name
	// ("" is the default one) can make mounts read-only recursively. Nil means no.
	RecursiveReadOnly func(runtimeHandler string) bool
}

// PodFacts is what volumes need to know of a pod beyond its object.
type PodFacts struct {
	// PodIPs and HostIPs are the addresses of the pod and its node.
	PodIPs, HostIPs []string
}

// Mounted maps the name of each volume of a pod to where it is on the node.
type Mounted map[string]Source

// Source is one volume that is set up on the node.
type Source struct {
	// HostPath is the volume's root on the node.
	HostPath string
	// ReadOnly is set when containers must not write to the volume, whatever
	// their volumeMounts say.
	ReadOnly bool
}

// Manager sets up and tears down the volumes of the node's pods.
type Manager struct{ cfg Config }

// New makes a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Run keeps the ConfigMaps and Secrets of known pods watched until ctx ends.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// PodDir is the folder of a pod on the node.
func (m *Manager) PodDir(uid types.UID) string { return m.cfg.RootDir + "/pods/" + string(uid) }

// ConfigMap reads a ConfigMap for a pod; NotFound if there is none.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return nil, errors.New("volume: not yet")
}

// Secret reads a Secret for a pod; NotFound if there is none.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return nil, errors.New("volume: not yet")
}

// Mount sets up all volumes of the pod. It is idempotent.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod, facts PodFacts) (Mounted, error) {
	return nil, errors.New("volume: not yet")
}

// ContainerMounts gives the mounts of one container.
func (m *Manager) ContainerMounts(pod *corev1.Pod, container *corev1.Container, env []*runtimeapi.KeyValue, mounted Mounted) ([]*runtimeapi.Mount, error) {
	return nil, errors.New("volume: not yet")
}

// EnvFile reads a file of a volume for podenv.Input.EnvFile.
func (m *Manager) EnvFile(mounted Mounted, volumeName, path string) ([]byte, error) {
	return nil, errors.New("volume: not yet")
}

// Refresh brings the ConfigMap, Secret, projected and downward volumes of a pod up to date.
func (m *Manager) Refresh(ctx context.Context, pod *corev1.Pod, facts PodFacts) error {
	return errors.New("volume: not yet")
}

// Unmount tears down all volumes of a pod and removes its folder. It is idempotent.
func (m *Manager) Unmount(ctx context.Context, podUID types.UID) error {
	return errors.New("volume: not yet")
}

// Orphans lists the pods that have a folder on the node and for which keep is false.
func (m *Manager) Orphans(keep func(types.UID) bool) ([]types.UID, error) {
	return nil, errors.New("volume: not yet")
}
