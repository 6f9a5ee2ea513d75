package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// requestTimeout bounds each round of requests to the API server.
const requestTimeout = 30 * time.Second

// Run keeps what the cluster knows of the drivers true until ctx ends: it makes
// the CSINode once the Node is there, takes out drivers that are gone, and
// writes anew what was lost with a Node that somebody deleted.
func (d *Drivers) Run(ctx context.Context) error {
	var limits sync.WaitGroup
	defer limits.Wait()
	limits.Go(func() { d.followLimits(ctx) })
	for delay := firstRetry; ctx.Err() == nil; {
		wait := checkEvery
		if err := d.publish(ctx); err != nil {
			if ctx.Err() == nil {
				d.cfg.Log.Warn("the cluster was not told of the node's CSI drivers, will try again", "error", err)
			}
			wait, delay = delay, min(2*delay, maxRetry)
		} else {
			delay = firstRetry
		}
		t := d.cfg.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-d.poke:
		case <-t.C():
		}
		t.Stop()
	}
	return nil
}

// NodeChanged has what is written looked at again: the Node is a new one.
func (d *Drivers) NodeChanged() { d.look() }

func (d *Drivers) look() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// tell has the cluster know of a driver, trying as long as ctx allows.
func (d *Drivers) tell(ctx context.Context, name string, info *Info) error {
	d.mu.Lock()
	before, had := d.wanted[name]
	d.wanted[name] = info
	d.mu.Unlock()
	var err error
	for delay := firstRetry; ; delay = min(2*delay, maxRetry) {
		if err = d.publish(ctx); err == nil || ctx.Err() != nil {
			break
		}
		d.cfg.Log.Warn("the cluster was not told of a CSI driver, will try again", "driver", name, "error", err)
		d.pause(ctx, delay)
	}
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted[name] == info { // as it was: what failed must not hold up others
		delete(d.wanted, name)
		if had {
			d.wanted[name] = before
		}
	}
	return err
}

// publish brings Node and CSINode up to date.
func (d *Drivers) publish(ctx context.Context) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	wanted := maps.Clone(d.wanted)
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	node, err := d.cfg.Client.CoreV1().Nodes().Get(ctx, d.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := d.patchNode(ctx, node, wanted); err != nil {
		return err
	}
	if err := d.writeCSINode(ctx, node, wanted); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, info := range wanted {
		if info == nil && d.wanted[name] == nil {
			delete(d.wanted, name)
		}
	}
	return nil
}

func (d *Drivers) patchNode(ctx context.Context, node *corev1.Node, wanted map[string]*Info) error {
	patch, err := nodePatch(node, wanted)
	if err != nil || patch == nil {
		return err
	}
	// Written only onto what was read: another writer of the annotation is not
	// overruled.
	patch["metadata"].(map[string]any)["resourceVersion"] = node.ResourceVersion
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = d.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, data, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("labelling and annotating the node: %w", err)
	}
	return nil
}

// writeCSINode makes or changes the CSINode. One that belongs to an earlier Node
// of the name is deleted first.
func (d *Drivers) writeCSINode(ctx context.Context, node *corev1.Node, wanted map[string]*Info) error {
	nodes := d.cfg.Client.StorageV1().CSINodes()
	for range 3 { // made, without what changed, and with it
		n, err := nodes.Get(ctx, node.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			n = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{ownerOf(node)}}}
			n.Spec.Drivers, _ = nextDrivers(nil, wanted)
			_, err = nodes.Create(ctx, n, metav1.CreateOptions{})
			return err
		case err != nil:
			return err
		case !owned(n, node):
			uid := n.UID
			if err := nodes.Delete(ctx, n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("deleting the CSINode of an earlier node: %w", err)
			}
			continue
		}
		next, same := nextDrivers(n.Spec.Drivers, wanted)
		if same {
			return nil
		}
		n = n.DeepCopy()
		n.Spec.Drivers = next
		if _, err := nodes.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return errors.New("somebody else keeps changing the CSINode")
}
