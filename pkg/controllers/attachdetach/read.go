package attachdetach

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/reconcile"
)

func (c *Controller) node(name string) *corev1.Node {
	return reconcile.Cached[*corev1.Node](c.nodes, reconcile.Key{Name: name})
}

func (c *Controller) since(now time.Time) func(types.UID) time.Time {
	return func(uid types.UID) time.Time { return c.memory.unwanted(uid, now) }
}

// cached is a lookup in the caches.
func (c *Controller) cached() lookup {
	return lookup{
		claim: func(namespace, name string) (*corev1.PersistentVolumeClaim, error) {
			return reconcile.Cached[*corev1.PersistentVolumeClaim](c.claims, reconcile.Key{Namespace: namespace, Name: name}), nil
		},
		volume: func(name string) (*corev1.PersistentVolume, error) { return c.volume(name), nil },
		attached: func(name string) bool {
			d := reconcile.Cached[*storagev1.CSIDriver](c.drivers, reconcile.Key{Name: name})
			return d == nil || d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
		},
	}
}

// live is a lookup that asks the server where the caches show nothing that
// could be used.
func (c *Controller) live(ctx context.Context) lookup {
	l := c.cached()
	seenClaim, seenVolume := l.claim, l.volume
	l.claim = func(namespace, name string) (*corev1.PersistentVolumeClaim, error) {
		if claim, _ := seenClaim(namespace, name); usable(claim) {
			return claim, nil
		}
		// The role of this controller may list claims and volumes, not get them.
		list, err := c.env.Client.CoreV1().PersistentVolumeClaims(namespace).List(ctx, only(name))
		if err != nil {
			return nil, fmt.Errorf("look for claim %s/%s: %w", namespace, name, err)
		}
		if len(list.Items) == 0 {
			return nil, nil
		}
		return &list.Items[0], nil
	}
	l.volume = func(name string) (*corev1.PersistentVolume, error) {
		if v, _ := seenVolume(name); v != nil && v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID != "" {
			return v, nil
		}
		list, err := c.env.Client.CoreV1().PersistentVolumes().List(ctx, only(name))
		if err != nil {
			return nil, fmt.Errorf("look for volume %s: %w", name, err)
		}
		if len(list.Items) == 0 {
			return nil, nil
		}
		return &list.Items[0], nil
	}
	return l
}

func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
}

// podsOf are the pods that need the volume on their nodes.
func (c *Controller) podsOf(volume *corev1.PersistentVolume) []*corev1.Pod {
	ref := volume.Spec.ClaimRef
	if ref == nil {
		return nil
	}
	pods := reconcile.Indexed[*corev1.Pod](c.pods, byClaim, ref.Namespace+"/"+ref.Name)
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		volumes, err := volumesOf(pod, c.cached())
		return err != nil || !slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool { return v.Name == volume.Name })
	})
}

// attachmentsOf are the attachments of a volume, by name. One that is wanted
// is found by its name even if it was made for another object of that volume.
func (c *Controller) attachmentsOf(req *reconcile.Request, volumes []*corev1.PersistentVolume, wants []want) []*storagev1.VolumeAttachment {
	var out []*storagev1.VolumeAttachment
	for _, v := range volumes {
		for _, a := range reconcile.Indexed[*storagev1.VolumeAttachment](c.attachments, byVolume, v.Name) {
			if a.Name == nameOf(v, a.Spec.NodeName) && a.Spec.Attacher == req.Namespace {
				out = append(out, a)
			}
		}
	}
	for _, w := range wants {
		a := reconcile.Cached[*storagev1.VolumeAttachment](c.attachments, reconcile.Key{Name: nameOf(w.volume, w.node)})
		if a != nil && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *storagev1.VolumeAttachment) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// neededBy says that one of the pods of a node needs the attachment.
func (c *Controller) neededBy(pods []*corev1.Pod, a *storagev1.VolumeAttachment, l lookup) (bool, error) {
	for _, pod := range pods {
		volumes, err := volumesOf(pod, l)
		if err != nil {
			return false, err
		}
		if pod.Spec.NodeName == a.Spec.NodeName && slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool { return nameOf(v, a.Spec.NodeName) == a.Name }) {
			return true, nil
		}
	}
	return false, nil
}

// isNeeded asks the server whether a pod needs the attachment after all.
func (c *Controller) isNeeded(ctx context.Context, a *storagev1.VolumeAttachment) (bool, error) {
	list, err := c.env.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", a.Spec.NodeName).String()})
	if err != nil {
		return false, fmt.Errorf("look for pods on node %s: %w", a.Spec.NodeName, err)
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = &list.Items[i]
	}
	return c.neededBy(pods, a, c.live(ctx))
}

// trust makes sure, once, that the cache shows every attachment there is, those
// of a controller that ran before this one included. Before that nothing may
// be attached of which there must be one attachment only.
func (c *Controller) trust(ctx context.Context) error {
	if c.trusted.Load() {
		return nil
	}
	const page = 500
	for opts := (metav1.ListOptions{Limit: page}); ; {
		list, err := c.env.Client.StorageV1().VolumeAttachments().List(ctx, opts)
		if err != nil {
			return fmt.Errorf("look for attachments of volumes: %w", err)
		}
		for i := range list.Items {
			a := reconcile.Cached[*storagev1.VolumeAttachment](c.attachments, reconcile.Key{Name: list.Items[i].Name})
			if a == nil || a.UID != list.Items[i].UID {
				return reconcile.ErrStale
			}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			c.trusted.Store(true)
			return nil
		}
	}
}
