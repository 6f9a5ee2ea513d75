package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/kubelet/image"
	"coracle/pkg/kubelet/imageview"
)

// shownImages is volume.Images: images come as those of containers do.
type shownImages struct {
	*imageview.Viewer
	k *Kubelet
}

// Bring implements volume.Images.
func (s shownImages) Bring(ctx context.Context, pod *corev1.Pod, source *corev1.ImageVolumeSource) (string, error) {
	img, err := s.k.images.Ensure(ctx, image.Request{
		Pod:       pod,
		Container: &corev1.Container{Image: source.Reference, ImagePullPolicy: source.PullPolicy},
		Event: func(eventType, reason, message string) {
			s.k.event(pod, "", eventType, reason, message)
		},
	})
	return img.GetId(), err
}
