// Package sidecar plays what a CSI driver brings along: the external
// provisioner and attacher, a storage system that they talk to, and what an
// agent mounts on its node.
//
// It keeps to the API that the real ones use: annotations of claims, finalizers
// of volumes and attachments, status patches. The storage system notes what no
// controller may ever do; see Wrongs.
package sidecar

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// retryDelay is how soon what failed is tried again.
const retryDelay = time.Second

// Driver is one CSI driver. Make it with Start.
type Driver struct {
	name   string
	client kubernetes.Interface
	wake   chan struct{}

	claims, volumes, attachments, classes, nodes, pods cache.SharedIndexInformer

	mu       sync.Mutex
	refusal  string              // why nothing is attached; guarded by mu
	mute     bool                // attach and detach are not answered; guarded by mu
	disks    map[string]bool     // handles of the disks that there are; guarded by mu
	attached map[string][]string // nodes by handle; guarded by mu
	mounted  map[string][]string // nodes by handle; guarded by mu
	off      map[string]bool     // nodes whose agents do nothing; guarded by mu
	wrongs   []string            // guarded by mu
}

// Start runs the driver until the test ends.
func Start(t testing.TB, client kubernetes.Interface, name string) *Driver {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	core, storage := factory.Core().V1(), factory.Storage().V1()
	d := &Driver{
		name: name, client: client, wake: make(chan struct{}, 1),
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(), nodes: core.Nodes().Informer(),
		attachments: storage.VolumeAttachments().Informer(), classes: storage.StorageClasses().Informer(), pods: core.Pods().Informer(),
		disks: map[string]bool{}, attached: map[string][]string{}, mounted: map[string][]string{}, off: map[string]bool{},
	}
	for _, informer := range []cache.SharedIndexInformer{d.claims, d.volumes, d.attachments, d.classes, d.nodes, d.pods} {
		nudge := func(any) { d.nudge() }
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: nudge, DeleteFunc: nudge, UpdateFunc: func(_, obj any) { nudge(obj) }}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	factory.StartWithContext(ctx)
	go func() {
		defer close(done)
		d.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done; factory.Shutdown() })
	return d
}

func (d *Driver) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Driver) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
		if !d.look(ctx) {
			time.AfterFunc(retryDelay, d.nudge)
		}
	}
}

// look does what there is to do and reports whether all went well.
func (d *Driver) look(ctx context.Context) bool {
	ok := true
	try := func(err error) {
		ok = ok && (err == nil || apierrors.IsNotFound(err))
	}
	for _, a := range items[*storagev1.VolumeAttachment](d.attachments) {
		if a.Spec.Attacher == d.name && a.Spec.Source.PersistentVolumeName != nil {
			try(d.attachment(ctx, a))
		}
	}
	for _, v := range items[*corev1.PersistentVolume](d.volumes) {
		if v.Spec.CSI != nil && v.Spec.CSI.Driver == d.name {
			try(d.volume(ctx, v))
		}
	}
	for _, c := range items[*corev1.PersistentVolumeClaim](d.claims) {
		try(d.claim(ctx, c))
	}
	for _, n := range items[*corev1.Node](d.nodes) {
		try(d.agent(ctx, n))
	}
	return ok
}

func items[T any](informer cache.SharedIndexInformer) []T {
	var out []T
	for _, obj := range informer.GetStore().List() {
		if o, ok := obj.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// find returns the zero T for what is not there.
func find[T any](informer cache.SharedIndexInformer, key string) T {
	obj, ok, err := informer.GetStore().GetByKey(key)
	if o, is := obj.(T); is && ok && err == nil {
		return o
	}
	var none T
	return none
}

// Refuse has attaching fail with the message, or succeed again when it is
// empty.
func (d *Driver) Refuse(message string) { d.change(func() { d.refusal = message }, true) }

// Mute has the attacher not answer.
func (d *Driver) Mute(mute bool) { d.change(func() { d.mute = mute }, true) }

// Silence has the agent of a node do nothing any more, or go on.
func (d *Driver) Silence(node string, silent bool) { d.change(func() { d.off[node] = silent }, true) }

// PowerOff silences a node that has nothing mounted any more: to detach its
// volumes is no wrong.
func (d *Driver) PowerOff(node string) {
	d.change(func() {
		d.off[node] = true
		for handle, on := range d.mounted {
			d.mounted[handle] = without(on, node)
		}
	}, true)
}

func (d *Driver) change(f func(), nudge bool) {
	d.mu.Lock()
	f()
	d.mu.Unlock()
	if nudge {
		d.nudge()
	}
}

// Attached are the nodes that a disk is attached to.
func (d *Driver) Attached(handle string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.attached[handle])
}

// Mounted are the nodes that have a disk mounted.
func (d *Driver) Mounted(handle string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mounted[handle])
}

// Disks is how many disks there are.
func (d *Driver) Disks() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.disks)
}

// Wrongs is what happened and must not: a disk of one node attached to two, one
// that is detached while it is mounted, deleted while it is attached, or
// mounted where it is not attached.
func (d *Driver) Wrongs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.wrongs)
}

// wrong needs mu.
func (d *Driver) wrong(format string, args ...any) {
	d.wrongs = append(d.wrongs, fmt.Sprintf(format, args...))
}
