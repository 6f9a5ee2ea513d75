package kubelet

import (
	"context"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

const (
	beatEvery = time.Second
	// lapse is how long the agent may be stopped and still trust what it knows.
	lapse = 15 * time.Second
	// relistTimeout is how long an agent that was stopped waits for a list of its
	// pods. Without an answer it goes on with those it knows.
	relistTimeout = 5 * time.Second
)

// beat notices that the agent itself was stopped for a while, by a signal or
// with its machine, and then has the pods listed again before any container is
// started: some may have been replaced on other nodes meanwhile.
func (k *Kubelet) beat(ctx context.Context) error {
	for ctx.Err() == nil {
		if k.lapsed() {
			k.log.Warn("the agent was stopped for a while; listing its pods before anything is started")
			k.relistPods(ctx)
		}
		k.lastBeat.Store(k.cfg.Clock.Now().UnixNano())
		k.pause(ctx, beatEvery)
	}
	return nil
}

// lapsed tells whether the agent has been stopped and not listed its pods yet.
func (k *Kubelet) lapsed() bool {
	last := k.lastBeat.Load()
	return last != 0 && k.cfg.Clock.Now().UnixNano()-last > int64(lapse)
}

// relistPods asks for the pods of the node with a consistent read.
func (k *Kubelet) relistPods(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, relistTimeout)
	defer cancel()
	for ctx.Err() == nil {
		list, err := k.cfg.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("spec.nodeName", k.cfg.NodeName).String(),
		})
		if err != nil {
			k.pause(ctx, beatEvery/2)
			continue
		}
		pods := make([]*corev1.Pod, 0, len(list.Items))
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
		k.replacePods(pods)
		k.mu.Lock()
		k.listVersion = max(k.listVersion, version(list.ResourceVersion))
		k.mu.Unlock()
		return
	}
}

func version(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// outdated needs mu. It tells whether news of an unknown pod is older than a
// list that did not have it: the watch lags behind that list.
func (k *Kubelet) outdated(pod *corev1.Pod) bool {
	v := version(pod.ResourceVersion)
	return v != 0 && v <= k.listVersion
}
