package resourcequota

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	resourceinformers "k8s.io/client-go/informers/resource/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// How old the answer to what is served may be: for a resource that it has, and
// for one that it has not. The second is much shorter than a charge is taken
// for pending, so that the first objects of a new resource are not missed.
const (
	servedPeriod   = resyncPeriod
	unservedPeriod = time.Second
)

// state is what is known of a resource.
type state int

const (
	unknown  state = iota // it is not there yet, or nobody knows
	followed              // its informer shows all
	unserved              // there is no such resource, and so no object of it
)

// follower follows the resources that quotas count, beginning with the first
// quota that does.
type follower struct {
	env      reconcile.Env
	metadata metadata.Interface
	handler  func(gr schema.GroupResource) cache.ResourceEventHandler
	ctx      context.Context // of the controller's Run, which sets it: ends the informers

	mu       sync.Mutex
	always   map[schema.GroupResource]cache.SharedIndexInformer // set before Run
	running  map[schema.GroupResource]*informer                 // guarded by mu
	served   map[schema.GroupResource]servedAs                  // guarded by mu
	complete bool                                               // guarded by mu: served is all there is
	asked    time.Time                                          // guarded by mu: when served was read
	wg       sync.WaitGroup
}

// servedAs is the version and the kind of a resource.
type servedAs struct {
	version, kind string
}

// informer follows one resource.
type informer struct {
	cache.SharedIndexInformer
	handle cache.ResourceEventHandlerRegistration
	stop   context.CancelFunc // nil for a shared one
}

func (i *informer) end() {
	// The only error is that the handle belongs to another informer.
	_ = i.RemoveEventHandler(i.handle)
	if i.stop != nil {
		i.stop()
	}
}

// close ends what was started and waits for it.
func (f *follower) close() {
	f.mu.Lock()
	for _, i := range f.running {
		i.end()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// objects is the cache of a resource's objects, when its state is followed.
func (f *follower) objects(gr schema.GroupResource) (cache.Indexer, state) {
	if i, ok := f.always[gr]; ok {
		return i.GetIndexer(), followed // the loop began when these had synced
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.discover(gr)
	as, ok := f.served[gr]
	i := f.running[gr]
	switch {
	case !ok && f.complete:
		if i != nil {
			i.end()
			delete(f.running, gr)
		}
		return nil, unserved
	case !ok:
		return nil, unknown
	case i == nil:
		var err error
		if i, err = f.start(gr, as); err != nil {
			f.env.Log.Warn("a resource that quotas count cannot be followed", "resource", gr.String(), "err", err)
			return nil, unknown
		}
		f.running[gr] = i
	}
	if !i.handle.HasSynced() {
		return nil, unknown
	}
	return i.GetIndexer(), followed
}

// start follows one resource; the caller holds mu.
func (f *follower) start(gr schema.GroupResource, as servedAs) (*informer, error) {
	gvr := gr.WithVersion(as.version)
	i := &informer{SharedIndexInformer: reconcile.Running(f.env.Informers).Informer(gvr, schema.GroupVersionKind{Group: gr.Group, Version: as.version, Kind: as.kind})}
	own := i.SharedIndexInformer == nil
	if own {
		byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		if gr.Group == resourcev1.GroupName && gr.Resource == "resourceclaims" {
			i.SharedIndexInformer = resourceinformers.NewFilteredResourceClaimInformer(f.env.Client, metav1.NamespaceAll, 0, byNamespace, reconcile.ConsistentLists)
		} else {
			i.SharedIndexInformer = metadatainformer.NewFilteredMetadataInformer(f.metadata, gvr, metav1.NamespaceAll, 0, byNamespace, reconcile.ConsistentLists).Informer()
		}
		if err := i.SetTransform(trim); err != nil {
			return nil, err
		}
	}
	var err error
	if i.handle, err = i.AddEventHandler(f.handler(gr)); err != nil {
		return nil, err
	}
	if own {
		ctx, cancel := context.WithCancel(f.ctx)
		i.stop = cancel
		f.wg.Go(func() { i.RunWithContext(ctx) })
	}
	return i, nil
}

// trim drops what is not counted.
func trim(obj any) (any, error) {
	if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
		o.Annotations, o.Labels, o.OwnerReferences, o.Finalizers = nil, nil, nil, nil
	}
	return reconcile.Transform(obj)
}

// discover asks what is served, unless the last answer is good enough for gr;
// the caller holds mu.
func (f *follower) discover(gr schema.GroupResource) {
	now, period := f.env.Clock.Now(), unservedPeriod
	if _, ok := f.served[gr]; ok {
		period = servedPeriod
	}
	if !f.asked.IsZero() && now.Sub(f.asked) < period {
		return
	}
	f.asked = now
	_, lists, err := f.env.Client.Discovery().ServerGroupsAndResources()
	var failed *discovery.ErrGroupDiscoveryFailed
	if lists == nil || err != nil && !errors.As(err, &failed) {
		f.env.Log.Warn("quotas are counted by what was served before", "err", err)
		f.complete = false
		return
	}
	f.complete = err == nil
	f.served = map[schema.GroupResource]servedAs{}
	for _, list := range lists { // in the server's order of preference
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			f.complete = false
			continue
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			gr := gv.WithResource(r.Name).GroupResource()
			if _, ok := f.served[gr]; ok || !r.Namespaced || strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "watch") {
				continue
			}
			f.served[gr] = servedAs{gv.Version, r.Kind}
		}
	}
}
