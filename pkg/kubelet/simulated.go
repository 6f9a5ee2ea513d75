package kubelet

import (
	"context"
	"io/fs"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/volume"
)

// volumes is what the agent needs of a volume manager.
type volumes interface {
	Mount(ctx context.Context, pod *corev1.Pod, facts volume.PodFacts) (volume.Mounted, error)
	Refresh(ctx context.Context, pod *corev1.Pod, facts volume.PodFacts) error
	Unmount(ctx context.Context, uid types.UID) error
	Orphans(keep func(types.UID) bool) ([]types.UID, error)
	ContainerMounts(pod *corev1.Pod, c *corev1.Container, env []*runtimeapi.KeyValue, mounted volume.Mounted) ([]*runtimeapi.Mount, error)
	ContainerDevices(c *corev1.Container, mounted volume.Mounted) ([]*runtimeapi.Device, error)
	EnvFile(mounted volume.Mounted, name, path string) ([]byte, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	PodDir(uid types.UID) string
	Run(ctx context.Context) error
}

var _ volumes = (*volume.Manager)(nil)

// cgroups is what the agent needs of a cgroup manager.
type cgroups interface {
	// Create makes the pod's cgroup with its limits.
	Create(pod *corev1.Pod) error
	// Parent is the cgroup the runtime puts the pod's containers into, empty to
	// leave that to the runtime.
	Parent(pod *corev1.Pod) string
	Remove(uid types.UID) error
}

// noCgroups leaves cgroups to the runtime.
type noCgroups struct{}

func (noCgroups) Create(*corev1.Pod) error   { return nil }
func (noCgroups) Parent(*corev1.Pod) string  { return "" }
func (noCgroups) Remove(uid types.UID) error { return nil }

// noVolumes stands in for volumes on a simulated node: they are always there.
// ConfigMaps and Secrets for environment variables are real.
type noVolumes struct{ client kubernetes.Interface }

func (noVolumes) Mount(context.Context, *corev1.Pod, volume.PodFacts) (volume.Mounted, error) {
	return volume.Mounted{}, nil
}
func (noVolumes) Refresh(context.Context, *corev1.Pod, volume.PodFacts) error { return nil }
func (noVolumes) Unmount(context.Context, types.UID) error                    { return nil }
func (noVolumes) Orphans(func(types.UID) bool) ([]types.UID, error)           { return nil, nil }
func (noVolumes) PodDir(types.UID) string                                     { return "" }
func (noVolumes) EnvFile(volume.Mounted, string, string) ([]byte, error) {
	return nil, fs.ErrNotExist
}

func (noVolumes) ContainerMounts(*corev1.Pod, *corev1.Container, []*runtimeapi.KeyValue, volume.Mounted) ([]*runtimeapi.Mount, error) {
	return nil, nil
}

func (noVolumes) ContainerDevices(*corev1.Container, volume.Mounted) ([]*runtimeapi.Device, error) {
	return nil, nil
}

func (v noVolumes) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return v.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (v noVolumes) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return v.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (noVolumes) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
