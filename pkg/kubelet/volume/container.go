package volume

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/podenv"
)

// ContainerMounts turns the volumeMounts of a container (init, app, or an
// ephemeral one converted) into mounts for the runtime. env is the container's
// environment, for subPathExpr; mounted is what Mount gave. Paths of subPaths
// that do not exist are made. Call it before each start of the container.
func (m *Manager) ContainerMounts(pod *corev1.Pod, container *corev1.Container, env []*runtimeapi.KeyValue, mounted Mounted) ([]*runtimeapi.Mount, error) {
	defer m.lock(pod.UID)()
	mounts := make([]*runtimeapi.Mount, 0, len(container.VolumeMounts))
	for i := range container.VolumeMounts {
		vm := &container.VolumeMounts[i]
		source, ok := mounted[vm.Name]
		if !ok {
			return nil, fmt.Errorf("container %q mounts volume %q, which is not set up", container.Name, vm.Name)
		}
		if source.Block {
			return nil, fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", vm.Name)
		}
		hostPath := source.HostPath
		subPath := vm.SubPath
		if vm.SubPathExpr != "" {
			var err error
			if subPath, err = podenv.ExpandStrict(vm.SubPathExpr, env); err != nil {
				return nil, fmt.Errorf("subPathExpr of volume %q: %w", vm.Name, err)
			}
		}
		if subPath != "" {
			var err error
			hostPath, err = m.mountSubPath(subPathMount{
				pod: pod.UID, container: container.Name, volume: vm.Name, index: i, path: subPath, source: source,
			})
			if err != nil {
				return nil, err
			}
		}
		mount := &runtimeapi.Mount{
			ContainerPath: absolute(vm.MountPath),
			HostPath:      hostPath,
			Readonly:      vm.ReadOnly || source.ReadOnly,
		}
		var err error
		if mount.Propagation, err = propagation(vm); err != nil {
			return nil, err
		}
		if mount.RecursiveReadOnly, err = m.recursive(pod, vm); err != nil {
			return nil, err
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

// ContainerDevices turns the volumeDevices of a container into devices for the
// runtime.
func (m *Manager) ContainerDevices(container *corev1.Container, mounted Mounted) ([]*runtimeapi.Device, error) {
	var devices []*runtimeapi.Device
	for i := range container.VolumeDevices {
		vd := &container.VolumeDevices[i]
		source, ok := mounted[vd.Name]
		if !ok {
			return nil, fmt.Errorf("container %q wants the device of volume %q, which is not set up", container.Name, vd.Name)
		}
		if !source.Block {
			return nil, fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", vd.Name)
		}
		permissions := "mrw"
		if source.ReadOnly {
			permissions = "r"
		}
		devices = append(devices, &runtimeapi.Device{ContainerPath: vd.DevicePath, HostPath: source.HostPath, Permissions: permissions})
	}
	return devices, nil
}

func absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join("/", path)
}

func propagation(vm *corev1.VolumeMount) (runtimeapi.MountPropagation, error) {
	mode := corev1.MountPropagationNone
	if vm.MountPropagation != nil {
		mode = *vm.MountPropagation
	}
	switch mode {
	case corev1.MountPropagationNone:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	}
	return 0, fmt.Errorf("mountPropagation %q of volume %q is not known", mode, vm.Name)
}

// recursive decides whether the mount is read-only all the way down.
func (m *Manager) recursive(pod *corev1.Pod, vm *corev1.VolumeMount) (bool, error) {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !vm.ReadOnly {
		return false, fmt.Errorf("volume %q: recursiveReadOnly needs readOnly", vm.Name)
	}
	handler := ""
	if pod.Spec.RuntimeClassName != nil {
		handler = *pod.Spec.RuntimeClassName
	}
	supported := m.cfg.RecursiveReadOnly != nil && m.cfg.RecursiveReadOnly(handler)
	switch *vm.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case corev1.RecursiveReadOnlyEnabled:
		if !supported {
			return false, fmt.Errorf("volume %q: the container runtime cannot make mounts read-only recursively: use recursiveReadOnly IfPossible", vm.Name)
		}
		return true, nil
	}
	return false, fmt.Errorf("recursiveReadOnly %q of volume %q is not known", *vm.RecursiveReadOnly, vm.Name)
}
