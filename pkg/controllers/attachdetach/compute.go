package attachdetach

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
)

const (
	// forceAfter is how long a node that is not ready may keep a volume that
	// no pod needs there.
	forceAfter = 6 * time.Minute
	// attachPatience is how long an attacher may be silent before users are
	// told.
	attachPatience = 2 * time.Minute
)

// view is one volume: who needs it where, and where it is or may be.
type view struct {
	wants       []want                        // the one to serve first comes first
	attachments []*storagev1.VolumeAttachment // by name
	// node returns nil for a node that is gone.
	node func(name string) *corev1.Node
	// unwanted says since when nobody needs an attachment, which it notes when
	// it is asked first.
	unwanted func(uid types.UID) time.Time
	now      time.Time
}

// plan is what to do about one volume.
type plan struct {
	attach []want
	detach []detachment
	// wanted are attachments that are needed and not on their way out.
	wanted []types.UID
	lines  []line
	// after is when to look again without an event; 0 for not.
	after time.Duration
}

// detachment is an attachment to end. If force, the node is not asked: it may
// still have the volume mounted, and will not answer.
type detachment struct {
	attachment *storagev1.VolumeAttachment
	force      bool
}

// line is what the users of a pod that waits for a volume are told.
type line struct {
	pod     *corev1.Pod
	message string
	// at tells tries of the attacher apart that fail alike.
	at time.Time
}

func decide(v view) plan {
	var p plan
	for _, a := range v.attachments {
		wanted := slices.ContainsFunc(v.wants, func(w want) bool { return w.node == a.Spec.NodeName })
		switch {
		case a.DeletionTimestamp != nil:
		case wanted:
			p.wanted = append(p.wanted, a.UID)
		default:
			d, wait := release(a, v.node(a.Spec.NodeName), v.unwanted(a.UID), v.now)
			if d != nil {
				p.detach = append(p.detach, *d)
			}
			p.lookAfter(wait)
		}
	}
	for _, w := range v.wants {
		v.serve(&p, w)
	}
	return p
}

// release decides about an attachment that nobody needs: end it, or look again
// after a while, or (neither) wait for the node. A node that is gone says no
// more what it uses.
func release(a *storagev1.VolumeAttachment, node *corev1.Node, since, now time.Time) (d *detachment, wait time.Duration) {
	switch left := since.Add(forceAfter).Sub(now); {
	case node != nil && outOfService(node):
		return &detachment{a, true}, 0
	case node != nil && !uses(node, a.Name):
		return &detachment{a, false}, 0
	case node != nil && ready(node):
		return nil, 0
	case left > 0:
		return nil, left
	}
	return &detachment{a, true}, 0
}

// serve decides about one node that needs the volume.
func (v *view) serve(p *plan, w want) {
	name := nameOf(w.volume, w.node)
	for _, a := range v.attachments {
		if a.Name == name {
			v.follow(p, w, a)
			return
		}
	}
	if v.node(w.node) == nil {
		return // its pods go soon, or it comes
	}
	if !shared(w.volume) {
		if len(v.attachments) > 0 {
			v.occupied(p, w)
			return
		}
		if len(p.attach) > 0 {
			return
		}
	}
	p.attach = append(p.attach, w)
}

// follow tells what the attacher says of an attachment that is under way.
func (v *view) follow(p *plan, w want, a *storagev1.VolumeAttachment) {
	failed := func(message string, at time.Time) {
		for _, pod := range w.pods {
			p.lines = append(p.lines, line{pod, about("AttachVolume.Attach failed", w.volume, ": "+message), at})
		}
	}
	left := a.CreationTimestamp.Add(attachPatience).Sub(v.now)
	switch {
	case a.DeletionTimestamp != nil: // it must go before it can be made again
	case a.Status.Attached:
	case a.Status.AttachError != nil:
		failed(a.Status.AttachError.Message, a.Status.AttachError.Time.Time)
	case left > 0:
		p.lookAfter(left)
	default:
		failed(fmt.Sprintf("timed out waiting for external-attacher of %s CSI driver to attach volume %s", a.Spec.Attacher, w.volume.Spec.CSI.VolumeHandle), time.Time{})
	}
}

// occupied tells who has a volume that only one node may have. While it is
// being detached there is nothing to tell.
func (v *view) occupied(p *plan, w want) {
	var users []*corev1.Pod
	for _, a := range v.attachments {
		leaving := slices.ContainsFunc(p.detach, func(d detachment) bool { return d.attachment == a })
		if leaving || a.DeletionTimestamp != nil {
			return
		}
		for _, other := range v.wants {
			if other.node == a.Spec.NodeName {
				users = append(users, other.pods...)
			}
		}
	}
	for _, pod := range w.pods {
		p.lines = append(p.lines, line{pod: pod, message: about("Waiting for detach", w.volume, usedBy(users, pod.Namespace))})
	}
}

// usedBy names the pods that keep a volume from a pod of this namespace, who
// must not read the names of others'.
func usedBy(users []*corev1.Pod, namespace string) string {
	var names []string
	for _, pod := range users {
		if pod.Namespace == namespace {
			names = append(names, pod.Name)
		}
	}
	others := len(users) - len(names)
	switch {
	case len(users) == 0:
		return "Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node"
	case len(names) == 0:
		return fmt.Sprintf("Volume is already used by %d pod(s) in different namespaces", others)
	case others > 0:
		return fmt.Sprintf("Volume is already used by pod(s) %s and %d pod(s) in different namespaces", strings.Join(names, ", "), others)
	}
	return "Volume is already used by pod(s) " + strings.Join(names, ", ")
}

// about puts a message as Kubernetes words those about volumes.
func about(what string, volume *corev1.PersistentVolume, rest string) string {
	return fmt.Sprintf("%s for volume %q %s", what, volume.Name, rest)
}

func (p *plan) lookAfter(d time.Duration) {
	if d > 0 && (p.after == 0 || d < p.after) {
		p.after = d
	}
}

// uses says that the node has the volume of that attachment mounted, or is
// about to.
func uses(node *corev1.Node, name string) bool {
	return slices.ContainsFunc(node.Status.VolumesInUse, func(v corev1.UniqueVolumeName) bool { return names(v, node.Name, name) })
}

// names says that a volume of the node's status is that of the attachment.
func names(v corev1.UniqueVolumeName, node, name string) bool {
	driver, handle, ok := attachment.FromStatus(v)
	return ok && attachment.Name(driver, handle, node) == name
}

func outOfService(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// reported are the volumes that the node may mount: those whose attacher says
// that they are attached, and that are not on their way out. nameIn returns
// what an attachment is called in a node's status, empty when its volume is
// gone: then it stays if it was there. Volumes of others than CSI drivers are
// not this controller's. What stays keeps its place.
func reported(node *corev1.Node, attachments []*storagev1.VolumeAttachment, nameIn func(*storagev1.VolumeAttachment) corev1.UniqueVolumeName, leaving func(types.UID) bool) []corev1.AttachedVolume {
	safe := map[string]*storagev1.VolumeAttachment{}
	for _, a := range attachments {
		if a.Status.Attached && a.DeletionTimestamp == nil && !leaving(a.UID) && attachment.IsName(a.Name) {
			safe[a.Name] = a
		}
	}
	var out []corev1.AttachedVolume
	for _, v := range node.Status.VolumesAttached {
		driver, handle, ours := attachment.FromStatus(v.Name)
		name := attachment.Name(driver, handle, node.Name)
		if !ours || safe[name] != nil {
			out = append(out, v)
			delete(safe, name)
		}
	}
	var added []corev1.AttachedVolume
	for name, a := range safe {
		if in := nameIn(a); in != "" && names(in, node.Name, name) {
			added = append(added, corev1.AttachedVolume{Name: in})
		}
	}
	slices.SortFunc(added, func(a, b corev1.AttachedVolume) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return append(out, added...)
}
