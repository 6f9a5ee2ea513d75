package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/kubelet/volume"
	"coracle/pkg/localpath"
)

// retryRemoval is the time between two tries to remove a volume, and
// removalTimeout bounds the note that it is gone.
const (
	retryRemoval   = 10 * time.Second
	removalTimeout = 10 * time.Second
)

// locals removes the volumes that the cluster made on this node and has given
// up, as the annotations of the Node say. See package localpath.
type locals struct {
	k       *Kubelet
	volumes *volume.Manager
	nodes   corelisters.NodeLister
	poke    chan struct{}
}

// newLocals registers the informer of Nodes, which the node's network follows
// as well.
func newLocals(k *Kubelet, volumes *volume.Manager, factory informers.SharedInformerFactory) (*locals, error) {
	l := &locals{k: k, volumes: volumes, nodes: factory.Core().V1().Nodes().Lister(), poke: make(chan struct{}, 1)}
	look := func(obj any) {
		if node, ok := obj.(*corev1.Node); ok && node.Name == k.cfg.NodeName && len(wanted(node)) > 0 {
			l.look()
		}
	}
	_, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, obj any) { look(obj) },
	})
	return l, err
}

// wanted are the volumes that the Node is asked to remove.
func wanted(node *corev1.Node) []string {
	var names []string
	for name, state := range localpath.Removals(node.Annotations) {
		if state == localpath.Wanted {
			names = append(names, name)
		}
	}
	return names
}

// look has the volumes that are to go looked at. A nil l has none.
func (l *locals) look() {
	if l == nil {
		return
	}
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// run removes volumes until ctx ends.
func (l *locals) run(ctx context.Context) error {
	for {
		wait, stop := ctx, context.CancelFunc(func() {})
		if !l.removeAll(ctx) {
			wait, stop = context.WithTimeout(ctx, retryRemoval)
		}
		select {
		case <-wait.Done():
		case <-l.poke:
		}
		stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// removeAll removes what it can; false means that a try failed. A volume that a
// pod has waits for that pod's end.
func (l *locals) removeAll(ctx context.Context) bool {
	node, err := l.nodes.Get(l.k.cfg.NodeName)
	if err != nil {
		return true // not there yet: its event comes
	}
	done := map[string]any{}
	good := true
	for _, name := range wanted(node) {
		switch err := l.volumes.RemoveLocal(name); {
		case err == nil:
			done[localpath.RemoveKey(name)] = localpath.Removed
		case errors.Is(err, volume.ErrInUse):
			l.k.log.Info("a volume that is to be removed waits for its pod", "volume", name)
		default:
			l.k.log.Warn("a volume could not be removed, will try again", "volume", name, "error", err)
			good = false
		}
	}
	if len(done) == 0 {
		return good
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": done}})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, removalTimeout)
		defer cancel()
		_, err = l.k.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil && ctx.Err() == nil {
		l.k.log.Warn("the API server was not told that volumes are gone, will try again", "error", err)
		return false
	}
	return good
}
