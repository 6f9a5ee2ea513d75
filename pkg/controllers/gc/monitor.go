package gc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// ignored are the types without owners worth following: there are many, they
// are short-lived and expire by themselves.
var ignored = []schema.GroupResource{
	{Resource: "events"}, {Group: "events.k8s.io", Resource: "events"},
}

// served is one resource type as discovery shows it.
type served struct {
	resource   schema.GroupVersionResource
	kind       string
	namespaced bool
	follow     bool // can be listed, watched and deleted, and is the version to follow
}

// catalogue is what the API server serves, by version and kind.
type catalogue map[schema.GroupVersionKind]served

// discover asks for all types. When some groups do not answer it keeps what
// was known of them and returns an error too.
func discover(client discovery.DiscoveryInterface, known catalogue) (catalogue, error) {
	groups, lists, err := client.ServerGroupsAndResources()
	if len(groups) == 0 || lists == nil {
		return known, fmt.Errorf("discovery: %w", errors.Join(err, errors.New("no API group answered")))
	}
	found := catalogue{}
	var failed *discovery.ErrGroupDiscoveryFailed
	if err != nil {
		if !errors.As(err, &failed) {
			return known, fmt.Errorf("discovery: %w", err)
		}
		for gvk, s := range known {
			if _, ok := failed.Groups[gvk.GroupVersion()]; ok {
				found[gvk] = s
			}
		}
		err = fmt.Errorf("discovery: %w", err)
	}
	// Lists come in the server's order of preference within a group.
	seen := map[schema.GroupResource]bool{}
	for _, list := range lists {
		gv, parse := schema.ParseGroupVersion(list.GroupVersion)
		if parse != nil {
			err = errors.Join(err, parse)
			continue
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			if strings.Contains(r.Name, "/") {
				continue
			}
			gvr := gv.WithResource(r.Name)
			follow := !seen[gvr.GroupResource()] && !slices.Contains(ignored, gvr.GroupResource()) && followable(r.Verbs)
			seen[gvr.GroupResource()] = seen[gvr.GroupResource()] || follow
			found[gv.WithKind(r.Kind)] = served{resource: gvr, kind: r.Kind, namespaced: r.Namespaced, follow: follow}
		}
	}
	return found, err
}

func followable(verbs metav1.Verbs) bool {
	for _, v := range []string{"list", "watch", "delete"} {
		if !slices.Contains(verbs, v) {
			return false
		}
	}
	return true
}

// monitors follows all types.
type monitors struct {
	metadata metadata.Interface
	factory  informers.SharedInformerFactory
	events   func(kind schema.GroupKind, resource schema.GroupVersionResource) cache.ResourceEventHandler

	mu      sync.Mutex
	running map[schema.GroupVersionResource]*monitor // guarded by mu
	wg      sync.WaitGroup
}

// monitor follows one type.
type monitor struct {
	informer cache.SharedIndexInformer
	handle   cache.ResourceEventHandlerRegistration
	stop     context.CancelFunc // ends an informer of our own; nil for a shared one
}

// sync makes monitors for types that are new and ends those for types that
// are gone.
func (m *monitors) sync(ctx context.Context, found catalogue) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := map[schema.GroupVersionResource]schema.GroupVersionKind{}
	for gvk, s := range found {
		if s.follow {
			want[s.resource] = gvk
		}
	}
	for resource, mon := range m.running {
		if _, ok := want[resource]; !ok {
			mon.end()
			delete(m.running, resource)
		}
	}
	shared := reconcile.Running(m.factory)
	var errs []error
	for resource, gvk := range want {
		if m.running[resource] != nil {
			continue
		}
		mon, err := m.start(ctx, resource, gvk, shared)
		if err != nil {
			errs = append(errs, fmt.Errorf("follow %s: %w", resource, err))
			continue
		}
		m.running[resource] = mon
	}
	return errors.Join(errs...)
}

func (m *monitors) start(ctx context.Context, resource schema.GroupVersionResource, gvk schema.GroupVersionKind, shared reconcile.RunningInformers) (*monitor, error) {
	mon := &monitor{informer: shared.Informer(resource, gvk)}
	own := mon.informer == nil
	if own {
		mon.informer = metadatainformer.NewFilteredMetadataInformer(m.metadata, resource, metav1.NamespaceAll, 0, nil, reconcile.ConsistentLists).Informer()
		if err := mon.informer.SetTransform(trim); err != nil {
			return nil, err
		}
	}
	handle, err := mon.informer.AddEventHandler(m.events(gvk.GroupKind(), resource))
	if err != nil {
		return nil, err
	}
	mon.handle = handle
	if own {
		running, cancel := context.WithCancel(ctx)
		mon.stop = cancel
		m.wg.Go(func() { mon.informer.RunWithContext(running) })
	}
	return mon, nil
}

func (m *monitor) end() {
	// The only error is that the handle belongs to another informer.
	_ = m.informer.RemoveEventHandler(m.handle)
	if m.stop != nil {
		m.stop()
	}
}

// unsynced returns the types whose first list has not been delivered.
func (m *monitors) unsynced() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for resource, mon := range m.running {
		if !mon.handle.HasSynced() {
			out = append(out, resource.GroupResource().String())
		}
	}
	slices.Sort(out)
	return out
}

// wait blocks until all monitors have synced, ctx ends or d has passed.
func (m *monitors) wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	m.mu.Lock()
	checks := make([]cache.DoneChecker, 0, len(m.running))
	for mon := range maps.Values(m.running) {
		checks = append(checks, mon.handle.HasSyncedChecker())
	}
	m.mu.Unlock()
	cache.WaitFor(ctx, "", checks...)
}

// close ends all monitors and waits for them.
func (m *monitors) close() {
	m.mu.Lock()
	for _, mon := range m.running {
		mon.end()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// trim drops what the graph does not need.
func trim(obj any) (any, error) {
	if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
		o.Annotations, o.Labels, o.ManagedFields, o.GenerateName = nil, nil, nil, ""
	}
	return reconcile.Transform(obj)
}
