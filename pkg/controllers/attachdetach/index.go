package attachdetach

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/volumebinding"
)

// The indices by which an event about one object finds the volumes that it is
// about. There is no periodic look at everything.
const (
	// byClaim lists pods that have a node under their claims' namespace/name.
	byClaim = "attachdetach-claim"
	// byNode lists pods with claims, and attachments, under their node.
	byNode = "attachdetach-node"
	// byVolume lists attachments under the name of their volume.
	byVolume = "attachdetach-volume"
	// byHandle lists volumes under their driver and handle.
	byHandle = "attachdetach-handle"
)

func addIndices(informer cache.SharedIndexInformer, indices cache.Indexers) {
	if err := informer.AddIndexers(indices); err != nil {
		panic("add indices before the informers stop: " + err.Error())
	}
}

func claimsOfPod(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return nil, nil
	}
	var keys []string
	for _, name := range volumebinding.ClaimsOf(pod) {
		keys = append(keys, pod.Namespace+"/"+name)
	}
	return keys, nil
}

func nodeOfPod(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || len(volumebinding.ClaimsOf(pod)) == 0 {
		return nil, nil
	}
	return []string{pod.Spec.NodeName}, nil
}

func nodeOfAttachment(obj any) ([]string, error) {
	if a, ok := obj.(*storagev1.VolumeAttachment); ok {
		return []string{a.Spec.NodeName}, nil
	}
	return nil, nil
}

func volumeOfAttachment(obj any) ([]string, error) {
	if a, ok := obj.(*storagev1.VolumeAttachment); ok && a.Spec.Source.PersistentVolumeName != nil {
		return []string{*a.Spec.Source.PersistentVolumeName}, nil
	}
	return nil, nil
}

func handleOfVolume(obj any) ([]string, error) {
	if v, ok := obj.(*corev1.PersistentVolume); ok && v.Spec.CSI != nil {
		return []string{v.Spec.CSI.Driver + "^" + v.Spec.CSI.VolumeHandle}, nil
	}
	return nil, nil
}
