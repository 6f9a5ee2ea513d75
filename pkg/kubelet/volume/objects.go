package volume

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-logr/logr"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// resourceName is one of the two kinds of object that volumes show.
type resourceName string

const (
	configMaps resourceName = "configmaps"
	secrets    resourceName = "secrets"
)

// objectKey names one object.
type objectKey struct {
	resource        resourceName
	namespace, name string
}

func (k objectKey) String() string { return string(k.resource) + "/" + k.namespace + "/" + k.name }

// objects reads ConfigMaps and Secrets. An object that mounted pods use is
// watched by its name, the only way in which the API server lets a node see it;
// an object that nobody watches is fetched, once for all that ask together.
type objects struct {
	client   kubernetes.Interface
	log      *slog.Logger
	onChange func(types.UID)
	flights  singleflight.Group

	mu      sync.Mutex
	watched map[objectKey]*watched           // guarded by mu
	uses    map[types.UID]map[objectKey]bool // guarded by mu: the keys of each pod
	ctx     context.Context                  // guarded by mu; of Run, nil before it
	running sync.WaitGroup
}

// watched is one object that pods use. Fields are guarded by objects.mu.
type watched struct {
	pods map[types.UID]bool
	// stop ends the watch, nil if there is none.
	stop context.CancelFunc
	// synced is set once the watch has shown the present state.
	synced bool
	// object is that state, nil if the object does not exist.
	object metav1.Object
	// version is the last resourceVersion that pods were given, "" for absence.
	version string
}

func newObjects(client kubernetes.Interface, log *slog.Logger, onChange func(types.UID)) *objects {
	return &objects{
		client: client, log: log, onChange: onChange,
		watched: make(map[objectKey]*watched), uses: make(map[types.UID]map[objectKey]bool),
	}
}

// run keeps the watches going until ctx ends and they have ended.
func (o *objects) run(ctx context.Context) error {
	// The watches say what troubles them to the logger of their context.
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.FromSlogHandler(o.log.Handler())))
	defer cancel()
	o.mu.Lock()
	o.ctx = ctx
	for key, w := range o.watched {
		o.startLocked(key, w)
	}
	o.mu.Unlock()
	<-ctx.Done()
	o.mu.Lock()
	o.ctx = nil
	for _, w := range o.watched {
		w.stop, w.synced = nil, false
	}
	o.mu.Unlock()
	o.running.Wait()
	return nil
}

// use says which objects a pod uses from now on.
func (o *objects) use(pod types.UID, keys map[objectKey]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.uses[pod] {
		if keys[key] {
			continue
		}
		w := o.watched[key]
		delete(w.pods, pod)
		if len(w.pods) == 0 {
			if w.stop != nil {
				w.stop()
			}
			delete(o.watched, key)
		}
	}
	if len(keys) == 0 {
		delete(o.uses, pod)
		return
	}
	for key := range keys {
		w := o.watched[key]
		if w == nil {
			w = &watched{pods: make(map[types.UID]bool)}
			o.watched[key] = w
			if o.ctx != nil {
				o.startLocked(key, w)
			}
		}
		w.pods[pod] = true
	}
	o.uses[pod] = keys
}

func (o *objects) startLocked(key objectKey, w *watched) {
	ctx, stop := context.WithCancel(o.ctx)
	w.stop = stop
	reflector := cache.NewReflectorWithOptions(o.listWatch(key), key.resource.example(),
		&watchStore{objects: o, key: key, entry: w}, cache.ReflectorOptions{Name: key.String()})
	o.running.Go(func() {
		defer stop()
		reflector.RunWithContext(ctx)
	})
}

func (r resourceName) example() runtime.Object {
	if r == secrets {
		return &corev1.Secret{}
	}
	return &corev1.ConfigMap{}
}

func (o *objects) listWatch(key objectKey) cache.ListerWatcher {
	byName := fields.OneTermEqualSelector(metav1.ObjectNameField, key.name).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector = byName
			if key.resource == secrets {
				return o.client.CoreV1().Secrets(key.namespace).List(ctx, opts)
			}
			return o.client.CoreV1().ConfigMaps(key.namespace).List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = byName
			if key.resource == secrets {
				return o.client.CoreV1().Secrets(key.namespace).Watch(ctx, opts)
			}
			return o.client.CoreV1().ConfigMaps(key.namespace).Watch(ctx, opts)
		},
	}
	return cache.ToListWatcherWithWatchListSemantics(lw, o.client)
}

// cached gives the watched state of an object, or fetches it where there is no
// watch that is up to date. Absence is always confirmed by a fetch: what a pod
// needs may have been made a moment ago.
func cached[T metav1.Object](ctx context.Context, o *objects, key objectKey) (T, error) {
	o.mu.Lock()
	if w := o.watched[key]; w != nil && w.synced && w.object != nil {
		defer o.mu.Unlock()
		w.version = w.object.GetResourceVersion()
		return w.object.(T), nil
	}
	o.mu.Unlock()
	obj, err := fetch[T](ctx, o, key)
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.watched[key]; w != nil {
		switch {
		case err == nil:
			w.version = obj.GetResourceVersion()
		case apierrors.IsNotFound(err):
			w.version = ""
		}
	}
	return obj, err
}

// fetch reads an object from the API server. Callers that ask for one object
// while a request for it is under way share its answer.
func fetch[T metav1.Object](ctx context.Context, o *objects, key objectKey) (T, error) {
	var none T
	result := o.flights.DoChan(key.String(), func() (any, error) {
		// The flight serves several callers: it must not die with the first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		if key.resource == secrets {
			return o.client.CoreV1().Secrets(key.namespace).Get(ctx, key.name, metav1.GetOptions{})
		}
		return o.client.CoreV1().ConfigMaps(key.namespace).Get(ctx, key.name, metav1.GetOptions{})
	})
	select {
	case <-ctx.Done():
		return none, unreachable{context.Cause(ctx)}
	case r := <-result:
		if r.Err != nil {
			return none, answered(r.Err)
		}
		obj, ok := r.Val.(T)
		if !ok {
			return none, fmt.Errorf("%s: the API server answered with a %T", key, r.Val)
		}
		return obj, nil
	}
}

// watchStore takes what one watch sees.
type watchStore struct {
	objects *objects
	key     objectKey
	entry   *watched
}

var _ cache.ReflectorStore = (*watchStore)(nil)

func (s *watchStore) Add(obj any) error    { return s.Update(obj) }
func (s *watchStore) Delete(any) error     { s.set(nil); return nil }
func (s *watchStore) Resync() error        { return nil }
func (s *watchStore) Update(obj any) error { return s.Replace([]any{obj}, "") }

// Replace takes the present state: the one object of the name, if it is there.
func (s *watchStore) Replace(list []any, _ string) error {
	var found metav1.Object
	for _, item := range list {
		if obj, ok := item.(metav1.Object); ok && obj.GetName() == s.key.name && obj.GetNamespace() == s.key.namespace {
			found = obj
		}
	}
	s.set(found)
	return nil
}

func (s *watchStore) set(obj metav1.Object) {
	o := s.objects
	o.mu.Lock()
	version := ""
	if obj != nil {
		version = obj.GetResourceVersion()
	}
	s.entry.object, s.entry.synced = obj, true
	var tell []types.UID
	if version != s.entry.version {
		s.entry.version = version
		for pod := range s.entry.pods {
			tell = append(tell, pod)
		}
	}
	o.mu.Unlock()
	for _, pod := range tell {
		o.onChange(pod)
	}
}
