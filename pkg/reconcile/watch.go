package reconcile

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Object is what an informer of T delivers.
type Object interface {
	metav1.Object
	comparable
}

// Watch queues keys(obj) for every event of informer; for an update, those of
// the old and of the new object. An object that vanished unseen counts with
// its last known state. Call it before Run. keys must not block and must not
// change obj.
func Watch[T Object](l *Loop, informer cache.SharedIndexInformer, keys func(obj T) []Key) {
	l.Handle(informer, cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { addAll(l, obj, keys) },
		UpdateFunc: func(old, obj any) {
			addAll(l, old, keys)
			addAll(l, obj, keys)
		},
		DeleteFunc: func(obj any) { addAll(l, obj, keys) },
	})
}

func addAll[T Object](l *Loop, obj any, keys func(T) []Key) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if o, ok := obj.(T); ok {
		for _, k := range keys(o) {
			l.Add(k)
		}
	}
}

// Handle adds a handler that Run waits for and removes at its end. Watch is
// the usual way; Handle is for a controller that must see old and new state.
func (l *Loop) Handle(informer cache.SharedIndexInformer, handler cache.ResourceEventHandler) {
	handle, err := informer.AddEventHandler(handler)
	if err != nil {
		// Only a stopped informer refuses: the root composed in wrong order.
		panic(fmt.Sprintf("%s: add an event handler before the informers stop: %v", l.cfg.Name, err))
	}
	l.watches = append(l.watches, watch{informer, handle})
}

// Self maps an object to its own key.
func Self[T Object](obj T) []Key {
	return []Key{KeyOf(obj)}
}

// KeyOf returns obj's key.
func KeyOf(obj metav1.Object) Key {
	return Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// Controller maps an object to the key of its controlling owner when that is
// of the given kind, else to nothing.
func Controller[T Object](kind string) func(T) []Key {
	return func(obj T) []Key {
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil && ref.Kind == kind {
			return []Key{{Namespace: obj.GetNamespace(), Name: ref.Name}}
		}
		return nil
	}
}

// ByController is the name of the index that AddControllerIndex makes.
const ByController = "controller-uid"

// AddControllerIndex indexes informer by the UID of the controlling owner;
// objects without one are under "orphan/" and their namespace. Adding it twice
// is harmless.
func AddControllerIndex(informer cache.SharedIndexInformer) {
	if _, ok := informer.GetIndexer().GetIndexers()[ByController]; ok {
		return
	}
	err := informer.AddIndexers(cache.Indexers{ByController: func(obj any) ([]string, error) {
		o, ok := obj.(metav1.Object)
		if !ok {
			return nil, nil
		}
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{OrphansIn(o.GetNamespace())}, nil
	}})
	if err != nil {
		panic(fmt.Sprintf("add indices before the informers stop: %v", err))
	}
}

// OrphansIn is the ByController index value of a namespace's objects that have
// no controller.
func OrphansIn(namespace string) string { return "orphan/" + namespace }

// Indexed returns the objects of informer under one value of an index. They
// are shared with the cache and must not be changed.
func Indexed[T Object](informer cache.SharedIndexInformer, index, value string) []T {
	objs, err := informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		panic(fmt.Sprintf("index %q is not there: %v", index, err))
	}
	out := make([]T, 0, len(objs))
	for _, obj := range objs {
		if o, ok := obj.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// Cached returns the object of informer under key, or the zero T. It is shared
// with the cache and must not be changed.
func Cached[T Object](informer cache.SharedIndexInformer, key Key) T {
	var none T
	name := cache.ObjectName{Namespace: key.Namespace, Name: key.Name}.String()
	obj, ok, err := informer.GetIndexer().GetByKey(name)
	if err != nil || !ok {
		return none
	}
	o, ok := obj.(T)
	if !ok {
		return none
	}
	return o
}
