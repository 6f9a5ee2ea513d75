package reconcile

import (
	"context"
	"reflect"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
)

// NewInformers makes the one informer factory of a process: no resync, objects
// through Transform, first lists consistent.
func NewInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTransform(Transform),
		informers.WithTweakListOptions(ConsistentLists))
}

// ConsistentLists turns a reflector's "any cached version" into "the newest".
// A reflector asks for a WatchList first, which is consistent by itself; its
// fallback lists at resourceVersion 0, which may show a state older than what
// this process saw before it restarted.
func ConsistentLists(o *metav1.ListOptions) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
		o.ResourceVersionMatch = ""
	}
}

// Transform drops managedFields, which no controller reads, and makes equal
// strings of many objects share their memory. It is idempotent, and writing a
// transformed object back keeps the stored managedFields, since the server
// takes an absent list as "unchanged".
func Transform(obj any) (any, error) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		// Its object came out of the cache: it has been here before.
		return lost, nil
	}
	o, ok := obj.(metav1.Object)
	if !ok {
		return obj, nil
	}
	o.SetManagedFields(nil)
	o.SetNamespace(intern(o.GetNamespace()))
	if labels := o.GetLabels(); len(labels) > 0 {
		o.SetLabels(interned(labels))
	}
	if refs := o.GetOwnerReferences(); len(refs) > 0 {
		for i := range refs {
			refs[i].APIVersion = intern(refs[i].APIVersion)
			refs[i].Kind = intern(refs[i].Kind)
			refs[i].Name = intern(refs[i].Name)
		}
		o.SetOwnerReferences(refs)
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		internPod(pod)
	}
	return obj, nil
}

func internPod(pod *corev1.Pod) {
	pod.GenerateName = intern(pod.GenerateName)
	pod.Spec.NodeName = intern(pod.Spec.NodeName)
	pod.Spec.ServiceAccountName = intern(pod.Spec.ServiceAccountName)
	pod.Spec.SchedulerName = intern(pod.Spec.SchedulerName)
	pod.Status.HostIP = intern(pod.Status.HostIP)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.Name, c.Image = intern(c.Name), intern(c.Image)
	}
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		c.Name, c.Image, c.ImageID = intern(c.Name), intern(c.Image), intern(c.ImageID)
	}
}

// interned returns m with shared keys and values.
func interned(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[intern(k)] = intern(v)
	}
	return out
}

func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// Running says which types the factory follows already, for parts that follow
// types they learn of while they run: there must not be a second informer.
func Running(factory informers.SharedInformerFactory) RunningInformers {
	ended, cancel := context.WithCancel(context.Background())
	cancel() // only the list of started informers is of interest
	return RunningInformers{factory, factory.WaitForCacheSyncWithContext(ended).Synced}
}

// RunningInformers are the informers that a factory had started.
type RunningInformers struct {
	factory informers.SharedInformerFactory
	types   map[reflect.Type]bool
}

// Informer returns the shared informer of a kind; nil when there is none.
func (r RunningInformers) Informer(resource schema.GroupVersionResource, kind schema.GroupVersionKind) cache.SharedIndexInformer {
	obj, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil
	}
	if _, ok := r.types[reflect.TypeOf(obj)]; !ok {
		return nil
	}
	generic, err := r.factory.ForResource(resource)
	if err != nil {
		return nil
	}
	return generic.Informer()
}
