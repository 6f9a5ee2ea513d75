package kubelet

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/lifecycle"
)

type containerState = lifecycle.ContainerState

func getOptions() metav1.GetOptions { return metav1.GetOptions{} }

// takeStock lists what the runtime runs, before any pod is started.
func (k *Kubelet) takeStock(ctx context.Context) bool {
	for ctx.Err() == nil {
		all, err := k.list(ctx, nil)
		if err == nil {
			k.mu.Lock()
			k.initial = all
			k.remembered = k.memory.load()
			k.mu.Unlock()
			return true
		}
		k.log.Warn("container runtime does not list its containers, waiting for it", "error", err)
		k.pause(ctx, retryObserve)
	}
	return false
}

// followPods keeps the loops in step with the pods bound to the node. The
// first list is a consistent read: a stale one could bring back pods that were
// deleted, or replaced elsewhere, while the agent was away.
func (k *Kubelet) followPods(ctx context.Context) {
	pods := k.cfg.Client.CoreV1().Pods(metav1.NamespaceAll)
	selector := fields.OneTermEqualSelector("spec.nodeName", k.cfg.NodeName).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			options.ResourceVersion, options.ResourceVersionMatch = "", ""
			return pods.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return pods.Watch(ctx, options)
		},
	}
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, k.cfg.Client), &corev1.Pod{}, podStore{k},
		cache.ReflectorOptions{Name: "kubelet pods"})
	reflector.RunWithContext(ctx)
}

// podStore hands what the reflector sees to the loops.
type podStore struct{ k *Kubelet }

var _ cache.ReflectorStore = podStore{}

func (s podStore) Add(obj any) error    { return s.set(obj) }
func (s podStore) Update(obj any) error { return s.set(obj) }
func (s podStore) Resync() error        { return nil }

func (s podStore) set(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("the API server sent a %T among the pods", obj)
	}
	s.k.setPod(pod)
	return nil
}

func (s podStore) Delete(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return errors.New("the API server deleted something else than a pod")
	}
	if w := s.k.loop(pod.UID); w != nil {
		s.k.mu.Lock()
		s.k.renew(w, pod) // its grace may be new
		s.k.mu.Unlock()
		w.gone()
	}
	return nil
}

func (s podStore) Replace(list []any, _ string) error {
	pods := make([]*corev1.Pod, 0, len(list))
	for _, obj := range list {
		if pod, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	s.k.replacePods(pods)
	return nil
}

// setPod starts a loop for a new pod, and tells that of a known one.
func (k *Kubelet) setPod(pod *corev1.Pod) {
	k.status.Observe(pod)
	k.memory.save(pod)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take(pod)
}

// take needs mu.
func (k *Kubelet) take(pod *corev1.Pod) {
	if w := k.loops[pod.UID]; w != nil {
		k.renew(w, pod)
		k.regrant()
		return
	}
	if k.life.Err() != nil || k.outdated(pod) {
		return
	}
	w := newPodLoop(k, pod)
	found := k.initial[pod.UID]
	if len(found.sandboxes)+len(found.containers) == 0 {
		if w.in.Verdict = k.admit(pod); w.in.Verdict != nil {
			k.event(pod, "", corev1.EventTypeWarning, w.in.Verdict.Reason, w.in.Verdict.Message)
		}
	}
	k.recall(w, found)
	k.startLoop(w)
}

// startLoop needs mu.
func (k *Kubelet) startLoop(w *podLoop) {
	found := k.initial[w.uid]
	delete(k.initial, w.uid)
	k.loops[w.uid] = w
	k.running.Go(func() {
		w.adopt(k.life, found)
		if w.in.Verdict == nil && len(w.sandboxes) == 0 {
			w.in.Verdict = k.checkAffinity(k.life, w.in.Pod)
		}
		w.run(k.life)
		if w.forgotten {
			k.forget(w)
		}
	})
}

// forget drops the last traces of a pod.
func (k *Kubelet) forget(w *podLoop) {
	k.mu.Lock()
	if k.loops[w.uid] == w {
		delete(k.loops, w.uid)
		k.regrant()
	}
	k.mu.Unlock()
	k.status.Forget(w.uid)
	k.images.Forget(w.uid)
	k.probes.Remove(w.uid)
	k.memory.drop(w.uid)
	k.env.drop(w.uid)
	k.grants.drop(w.uid)
	k.removeLogs(w.in.Pod)
}

// replacePods makes the loops follow a complete list: pods that are not in it
// are gone, and what the runtime runs for no pod is ended.
func (k *Kubelet) replacePods(pods []*corev1.Pod) {
	known := map[types.UID]bool{}
	for _, pod := range pods {
		known[pod.UID] = true
		k.setPod(pod)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, w := range k.loops {
		if !known[uid] {
			w.gone()
		}
	}
	for uid, found := range k.initial {
		k.endOrphan(uid, found)
	}
	if !k.synced {
		k.synced = true
		k.regrant()
		close(k.listed)
		for _, pod := range k.remembered {
			if !known[pod.UID] {
				k.memory.drop(pod.UID)
				k.env.drop(pod.UID)
			}
		}
		k.remembered = nil
		k.grants.keep(known)
		k.running.Go(k.cleanFolders)
	}
}

// endOrphan needs mu. It starts a loop that ends what runs for a pod the API
// server does not have.
func (k *Kubelet) endOrphan(uid types.UID, found inventory) {
	if k.life.Err() != nil {
		return
	}
	k.log.Info("ending containers of a pod that no longer exists", "uid", uid, "pod", found.labels[cri.LabelPodNamespace]+"/"+found.labels[cri.LabelPodName])
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID: uid, Name: found.labels[cri.LabelPodName], Namespace: found.labels[cri.LabelPodNamespace],
	}}
	if grace, err := strconv.ParseInt(found.grace, 10, 64); err == nil {
		pod.Spec.TerminationGracePeriodSeconds = &grace
	}
	k.initial[uid] = found
	w := newPodLoop(k, pod)
	w.in.Gone = true
	k.startLoop(w)
}

// runtimeChanged routes a change in the runtime to the pod's loop.
func (k *Kubelet) runtimeChanged(c cri.Change) {
	w := k.loop(types.UID(c.PodUID))
	if w == nil {
		w = k.owner(c.ID)
	}
	if w != nil {
		w.post(func() { w.changed(k.life, c.ID) })
	}
}

// owner finds the pod that has a container or sandbox.
func (k *Kubelet) owner(id string) *podLoop {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.loops {
		v := w.view.Load()
		if v.sandbox == id {
			return w
		}
		for i := range v.containers {
			if v.containers[i].ID == id {
				return w
			}
		}
	}
	return nil
}

// relistLoop compares, once in a while, what the runtime lists with what the
// loops know, and so repairs what events missed.
func (k *Kubelet) relistLoop(ctx context.Context) {
	for {
		k.pause(ctx, k.cfg.RelistEvery)
		if ctx.Err() != nil {
			return
		}
		all, err := k.list(ctx, nil)
		if err != nil {
			if ctx.Err() == nil {
				k.log.Warn("container runtime does not list its containers", "error", err)
			}
			continue
		}
		k.mu.Lock()
		for uid, w := range k.loops {
			listed := all[uid]
			w.post(func() { w.compare(ctx, listed) })
		}
		for uid, found := range all {
			if k.loops[uid] == nil && k.synced {
				k.endOrphan(uid, found)
			}
		}
		k.regrant()
		k.mu.Unlock()
	}
}

// startOffline runs the pods that the agent remembers when the API server does
// not answer for a while.
func (k *Kubelet) startOffline(ctx context.Context) {
	t := k.cfg.Clock.NewTimer(k.cfg.OfflineAfter)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-k.listed:
	case <-t.C():
		k.runRemembered()
	}
}

// runRemembered starts the pods that were remembered on disk, unless a list
// has arrived after all.
func (k *Kubelet) runRemembered() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.synced {
		return
	}
	k.log.Warn("the API server does not answer; running the pods last known", "pods", len(k.remembered))
	for _, pod := range k.remembered {
		k.status.Observe(pod)
		k.take(pod)
	}
}

// cleanFolders takes down what earlier agents have left of pods that are gone.
// The driver of a volume may not be there yet, so what fails is tried again.
func (k *Kubelet) cleanFolders() {
	for k.life.Err() == nil && !k.cleanOnce() {
		k.pause(k.life, retryClean)
	}
}

// cleanOnce reports whether nothing is left to be done.
func (k *Kubelet) cleanOnce() bool {
	clean := true
	orphans, err := k.volumes.Orphans(func(uid types.UID) bool { return k.loop(uid) != nil })
	if err != nil {
		k.log.Warn("folders of former pods not found", "error", err)
		clean = false
	}
	for _, uid := range orphans {
		if err := k.teardown(k.life, uid); err != nil {
			k.log.Warn("what a former pod left is not removed, will try again", "uid", uid, "error", err)
			clean = false
		}
	}
	return clean
}
