package volumebinder

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
	"coracle/pkg/volumebinding"
)

// The indices by which an event about one object finds the others that it may
// help. There is no periodic look at everything.
const (
	// byNeed lists claims under "class/NAME" while they have no volume, and
	// under "volume/NAME" when they name one.
	byNeed = "volumebinder-need"
	// byClaim lists volumes under their claimRef's namespace/name, and pods
	// without a node under their claims'.
	byClaim = "volumebinder-claim"
)

func addIndex(informer cache.SharedIndexInformer, name string, fn cache.IndexFunc) {
	if err := informer.AddIndexers(cache.Indexers{name: fn}); err != nil {
		panic("add indices before the informers stop: " + err.Error())
	}
}

func needs(obj any) ([]string, error) {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	switch {
	case !ok:
		return nil, nil
	case claim.Spec.VolumeName != "":
		return []string{"volume/" + claim.Spec.VolumeName}, nil
	case volumebinding.Complete(claim):
		return nil, nil
	}
	return []string{"class/" + volumebinding.ClassOf(claim)}, nil
}

func claimOfVolume(obj any) ([]string, error) {
	if v, ok := obj.(*corev1.PersistentVolume); ok && v.Spec.ClaimRef != nil {
		return []string{v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name}, nil
	}
	return nil, nil
}

func claimsOfPendingPod(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName != "" || finished(pod) {
		return nil, nil
	}
	var keys []string
	for _, name := range volumebinding.ClaimsOf(pod) {
		keys = append(keys, pod.Namespace+"/"+name)
	}
	return keys, nil
}

// claimsUnder are the keys of the claims under one value of byNeed.
func (c *Controller) claimsUnder(value string) []reconcile.Key {
	names, err := c.claims.GetIndexer().IndexKeys(byNeed, value)
	if err != nil {
		panic("index of claims: " + err.Error())
	}
	keys := make([]reconcile.Key, 0, len(names))
	for _, name := range names {
		namespace, name, err := cache.SplitMetaNamespaceKey(name)
		if err == nil {
			keys = append(keys, reconcile.Key{Namespace: namespace, Name: name})
		}
	}
	return keys
}
