package scheduler

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler/plugin"
	"coracle/pkg/volumebinding"
)

// volumes is what the scheduler knows of claims and volumes: what the informers
// show, and what it has promised to pods that are on their way to a node.
type volumes struct {
	claims, objects, classes, drivers, capacities cache.SharedIndexInformer

	mu       sync.Mutex
	promised map[string]types.UID // volume to claim; guarded by mu
	selected map[types.UID]string // claim to node; guarded by mu
	// waiting are those who wait for a claim, by its key; guarded by mu
	waiting map[string][]chan struct{}
}

// byClass lists volumes by the name of their class.
const byClass = "scheduler-class"

func newVolumes(factory informers.SharedInformerFactory) (*volumes, error) {
	core, storage := factory.Core().V1(), factory.Storage().V1()
	v := &volumes{
		claims: core.PersistentVolumeClaims().Informer(), objects: core.PersistentVolumes().Informer(),
		classes: storage.StorageClasses().Informer(), drivers: storage.CSIDrivers().Informer(),
		capacities: storage.CSIStorageCapacities().Informer(),
		promised:   map[string]types.UID{}, selected: map[types.UID]string{}, waiting: map[string][]chan struct{}{},
	}
	return v, v.objects.AddIndexers(cache.Indexers{byClass: func(obj any) ([]string, error) {
		if pv, ok := obj.(*corev1.PersistentVolume); ok {
			return []string{volumebinding.VolumeClassOf(pv)}, nil
		}
		return nil, nil
	}})
}

// listen calls changed after every change of a kind that decisions read, with
// nil for what was or is not there. It returns what must have synced before the
// first decision.
func (v *volumes) listen(changed func(old, now any)) ([]cache.InformerSynced, error) {
	var synced []cache.InformerSynced
	see := func(obj any) {
		switch o := obj.(type) {
		case *corev1.PersistentVolumeClaim:
			v.wake(o.Namespace + "/" + o.Name)
		case *corev1.PersistentVolume:
			if ref := o.Spec.ClaimRef; ref != nil {
				v.wake(ref.Namespace + "/" + ref.Name)
			}
		}
	}
	for _, informer := range []cache.SharedIndexInformer{v.claims, v.objects, v.classes, v.drivers, v.capacities} {
		handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { see(obj); changed(nil, obj) },
			UpdateFunc: func(old, obj any) { see(obj); changed(old, obj) },
			DeleteFunc: func(obj any) {
				if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = lost.Obj
				}
				see(obj)
				changed(obj, nil)
			},
		})
		if err != nil {
			return nil, err
		}
		synced = append(synced, handle.HasSynced)
	}
	return synced, nil
}

var _ plugin.Volumes = (*volumes)(nil)

// Claim implements plugin.Volumes.
func (v *volumes) Claim(namespace, name string) *corev1.PersistentVolumeClaim {
	return reconcile.Cached[*corev1.PersistentVolumeClaim](v.claims, reconcile.Key{Namespace: namespace, Name: name})
}

// Volume implements plugin.Volumes.
func (v *volumes) Volume(name string) *corev1.PersistentVolume {
	return reconcile.Cached[*corev1.PersistentVolume](v.objects, reconcile.Key{Name: name})
}

// Class implements plugin.Volumes.
func (v *volumes) Class(name string) *storagev1.StorageClass {
	return reconcile.Cached[*storagev1.StorageClass](v.classes, reconcile.Key{Name: name})
}

// OfClass implements plugin.Volumes.
func (v *volumes) OfClass(class string) []*corev1.PersistentVolume {
	return reconcile.Indexed[*corev1.PersistentVolume](v.objects, byClass, class)
}

// Promised implements plugin.Volumes.
func (v *volumes) Promised(volume string) types.UID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.promised[volume]
}

// Selected implements plugin.Volumes.
func (v *volumes) Selected(claim *corev1.PersistentVolumeClaim) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if node := v.selected[claim.UID]; node != "" {
		return node
	}
	return claim.Annotations[volumebinding.SelectedNode]
}

// HasRoom implements plugin.Volumes: only drivers that publish what they have
// are asked.
func (v *volumes) HasRoom(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, node *plugin.Facts) bool {
	driver := reconcile.Cached[*storagev1.CSIDriver](v.drivers, reconcile.Key{Name: class.Provisioner})
	if driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return true
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return slices.ContainsFunc(v.capacities.GetStore().List(), func(obj any) bool {
		c, ok := obj.(*storagev1.CSIStorageCapacity)
		if !ok || c.StorageClassName != class.Name || c.NodeTopology == nil {
			return false
		}
		room := plugin.LargestVolume(c)
		selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
		return err == nil && room != nil && room.Cmp(size) >= 0 && selector.Matches(labels.Set(node.Labels))
	})
}

// promise keeps what work needs from other pods until release.
func (v *volumes) promise(work *plugin.VolumeWork, node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range work.Bind {
		v.promised[m.Volume.Name] = m.Claim.UID
	}
	for _, claim := range work.Provision {
		v.selected[claim.UID] = node
	}
}

func (v *volumes) release(work *plugin.VolumeWork) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range work.Bind {
		delete(v.promised, m.Volume.Name)
	}
	for _, claim := range work.Provision {
		delete(v.selected, claim.UID)
	}
}

// watch fills the channel whenever one of the keys is woken, until stop.
func (v *volumes) watch(keys []string) (woken chan struct{}, stop func()) {
	woken = make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, key := range keys {
		v.waiting[key] = append(v.waiting[key], woken)
	}
	return woken, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, key := range keys {
			left := slices.DeleteFunc(v.waiting[key], func(c chan struct{}) bool { return c == woken })
			if len(left) == 0 {
				delete(v.waiting, key)
			} else {
				v.waiting[key] = left
			}
		}
	}
}

func (v *volumes) wake(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.waiting[key] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
