package podset

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Claims sorts an owner's candidates.
type Claims[T metav1.Object] struct {
	Owned   []T // controlled by the owner and matching its selector
	Adopt   []T // matching, without a controller
	Release []T // controlled by the owner, matching no longer
}

// Claim sorts candidates by whether they match selector and who controls them.
// An owner that is being deleted adopts and releases nothing. adoptable says
// whether an ownerless match is worth having; objects being deleted never are.
func Claim[T metav1.Object](owner metav1.Object, selector labels.Selector, candidates []T, adoptable func(T) bool) Claims[T] {
	var c Claims[T]
	dying := owner.GetDeletionTimestamp() != nil
	for _, o := range candidates {
		ref := metav1.GetControllerOfNoCopy(o)
		matches := selector.Matches(labels.Set(o.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			c.Owned = append(c.Owned, o)
		case ref != nil && !dying:
			c.Release = append(c.Release, o)
		case ref == nil && matches && !dying && o.GetDeletionTimestamp() == nil && adoptable(o):
			c.Adopt = append(c.Adopt, o)
		}
	}
	return c
}

// AdoptPatch is the strategic merge patch that makes owner the controller of
// the object with the given UID, and adds the finalizers.
func AdoptPatch(owner metav1.Object, kind schema.GroupVersionKind, uid types.UID, finalizers ...string) []byte {
	m := map[string]any{
		"uid":             uid,
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
	}
	if len(finalizers) > 0 {
		m["finalizers"] = finalizers
	}
	return metadataPatch(m)
}

// withoutFinalizers is the directive that takes entries out of a list.
const withoutFinalizers = "$deleteFromPrimitiveList/finalizers"

// ReleasePatch is the strategic merge patch that removes owner's reference
// from the object with the given UID, and the finalizers.
func ReleasePatch(owner, uid types.UID, finalizers ...string) []byte {
	m := map[string]any{
		"uid":             uid,
		"ownerReferences": []map[string]any{{"$patch": "delete", "uid": owner}},
	}
	if len(finalizers) > 0 {
		m[withoutFinalizers] = finalizers
	}
	return metadataPatch(m)
}

// unfinalizePatch removes finalizers from the object with the given UID, and
// only at the given version unless that is empty.
func unfinalizePatch(uid types.UID, version string, finalizers []string) []byte {
	m := map[string]any{"uid": uid, withoutFinalizers: finalizers}
	if version != "" {
		m["resourceVersion"] = version
	}
	return metadataPatch(m)
}

func metadataPatch(metadata map[string]any) []byte {
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		panic(err) // strings and plain structs only: cannot fail
	}
	return data
}
