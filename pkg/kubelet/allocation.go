package kubelet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"

	"coracle/pkg/kubelet/lifecycle"
)

// allocation is what the node has set aside for one pod. All of it is guarded
// by Kubelet.mu.
type allocation struct {
	desired    *corev1.Pod        // as the API server wants it
	pod        *corev1.Pod        // the same with the resources set aside; never changed
	generation int64              // of the spec these resources are from
	pending    *lifecycle.Pending // why desired is not set aside, nil when it is
	since      time.Time          // when it began to be pending
}

// grantedResources is what a pod was allocated, and what its containers have
// got of it, as it is remembered on disk once the pod was resized. Without it
// both follow from the annotations of the containers.
type grantedResources struct {
	Generation int64                                  `json:"generation"`
	Pod        *corev1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:"containers"`
	Applied    map[string]corev1.ResourceRequirements `json:"applied,omitempty"` // by container id
}

// recall restores what an earlier agent had set aside for the pod: as it wrote
// down or, if it did not, as the containers that it left were made. k.mu must
// be held, and the loop not be started.
func (k *Kubelet) recall(w *podLoop, found inventory) {
	desired := w.allocation.desired
	record, err := k.grants.load(w.uid)
	if err != nil {
		w.log.Warn("what was set aside for a pod cannot be read; its containers tell", "error", err)
	}
	switch {
	case record != nil:
		w.applied = record.Applied
		w.allocation.pod = lifecycle.Allocated(desired, record.Containers, record.Pod)
		w.allocation.generation = record.Generation
	case len(found.resources) > 0:
		made := map[string]corev1.ResourceRequirements{}
		for name, r := range found.resources {
			made[name] = r.resources
		}
		w.allocation.pod = lifecycle.Allocated(desired, made, desired.Spec.Resources)
	}
	k.grant(w, desired)
	w.in.Pod, w.in.Pending, w.in.AllocatedGeneration = w.allocation.pod, w.allocation.pending, w.allocation.generation
	w.publish()
}

// renew takes a newer version of a pod that the loop has. k.mu must be held.
func (k *Kubelet) renew(w *podLoop, pod *corev1.Pod) {
	k.grant(w, pod)
	w.update(w.allocation)
}

// grant sets aside what the pod asks for, or notes why not: then it keeps what
// it has. k.mu must be held.
func (k *Kubelet) grant(w *podLoop, pod *corev1.Pod) {
	a := &w.allocation
	before := a.pod
	a.desired = pod
	if lifecycle.SameResources(before, pod) {
		a.pod, a.generation, a.pending = pod, pod.Generation, nil
		return
	}
	if pending := k.weigh(w.uid, pod, before); pending != nil {
		if a.pending == nil {
			a.since = k.cfg.Clock.Now()
		}
		a.pod, a.pending = keepResources(pod, before), pending
		return
	}
	a.pod, a.generation, a.pending = pod, pod.Generation, nil
}

func keepResources(pod, before *corev1.Pod) *corev1.Pod {
	return lifecycle.Allocated(pod, resourcesOf(before), before.Spec.Resources)
}

func resourcesOf(pod *corev1.Pod) map[string]corev1.ResourceRequirements {
	out := map[string]corev1.ResourceRequirements{}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			out[list[i].Name] = list[i].Resources
		}
	}
	return out
}

// weigh tells why the node cannot set aside what a pod wants now. Before the
// agent knows all pods of the node it cannot tell what the others have, and
// leaves things as they were last reported. k.mu must be held.
func (k *Kubelet) weigh(uid types.UID, wanted, had *corev1.Pod) *lifecycle.Pending {
	if !k.synced {
		if c := condition(&wanted.Status, corev1.PodResizePending); c != nil {
			return &lifecycle.Pending{Reason: c.Reason, Message: c.Message}
		}
		return &lifecycle.Pending{Reason: corev1.PodReasonDeferred, Message: "The node does not know all its pods yet"}
	}
	used := corev1.ResourceList{}
	for _, other := range k.claims(uid) {
		addRequests(used, other)
	}
	options := resource.PodResourcesOptions{}
	return lifecycle.Weigh(resource.PodRequests(wanted, options), resource.PodRequests(had, options), used, k.allocatable())
}

// claims lists the pods that the node has set something aside for, but one.
// k.mu must be held.
func (k *Kubelet) claims(except types.UID) []*corev1.Pod {
	var out []*corev1.Pod
	for uid, w := range k.loops {
		if phase := w.view.Load().pod.Status.Phase; uid != except && phase != corev1.PodSucceeded && phase != corev1.PodFailed {
			out = append(out, w.allocation.pod)
		}
	}
	return out
}

// regrant looks at the resizes that were put off, when the others may have
// left room: the most important pods first, then those that wait longest.
// k.mu must be held.
func (k *Kubelet) regrant() {
	var waiting []*podLoop
	for _, w := range k.loops {
		if w.allocation.pending != nil {
			waiting = append(waiting, w)
		}
	}
	slices.SortFunc(waiting, func(a, b *podLoop) int {
		return cmp.Or(
			cmp.Compare(schedulinghelper.PodPriority(b.allocation.desired), schedulinghelper.PodPriority(a.allocation.desired)),
			cmp.Compare(classRank(a.allocation.desired), classRank(b.allocation.desired)),
			a.allocation.since.Compare(b.allocation.since), cmp.Compare(a.uid, b.uid))
	})
	for _, w := range waiting {
		was := *w.allocation.pending
		if k.grant(w, w.allocation.desired); w.allocation.pending == nil || *w.allocation.pending != was {
			w.update(w.allocation)
		}
	}
}

func classRank(pod *corev1.Pod) int {
	return slices.Index([]corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort}, lifecycle.QOS(pod))
}

// grantMemory keeps allocations on disk, one file each, where dir is set. Its
// methods may be called concurrently for different pods.
type grantMemory struct{ dir string }

const grantSuffix = ".resources.json"

func (m grantMemory) file(uid types.UID) string {
	return filepath.Join(m.dir, filepath.Base(string(uid))+grantSuffix)
}

// save returns once the record is on disk: what was set aside must not be
// forgotten after containers were given it.
func (m grantMemory) save(uid types.UID, r *grantedResources) error {
	if m.dir == "" {
		return nil
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(m.file(uid), data, true)
	}
	if err != nil {
		return fmt.Errorf("writing down what is set aside for the pod: %w", err)
	}
	return nil
}

// load returns nil and no error when nothing is remembered.
func (m grantMemory) load(uid types.UID) (*grantedResources, error) {
	if m.dir == "" {
		return nil, nil
	}
	f, err := os.Open(m.file(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint))
	if err != nil {
		return nil, err
	}
	r := &grantedResources{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return r, nil
}

func (m grantMemory) drop(uid types.UID) {
	if m.dir != "" {
		_ = os.Remove(m.file(uid))
	}
}

// keep drops what is remembered of other pods than known ones.
func (m grantMemory) keep(known map[types.UID]bool) {
	if m.dir == "" {
		return
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), grantSuffix); ok && !known[types.UID(uid)] {
			m.drop(types.UID(uid))
		}
	}
}
