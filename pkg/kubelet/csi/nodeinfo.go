package csi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// annotationNodeIDs is the Node's annotation with the drivers' ids for it, an
// object of JSON by the drivers' names.
const annotationNodeIDs = "csi.volume.kubernetes.io/nodeid"

// ownerOf is the reference by which a CSINode goes with its Node.
func ownerOf(node *corev1.Node) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// owned reports whether the CSINode belongs to this very Node, and not to an
// earlier one of the name.
func owned(n *storagev1.CSINode, node *corev1.Node) bool {
	return slices.ContainsFunc(n.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Node" && o.UID == node.UID })
}

// nodePatch is what must change of the Node's labels and annotations for the
// drivers to be known as wanted, nil if nothing. A driver that is wanted as nil
// is taken out. Two drivers may not disagree on the value of a label.
func nodePatch(node *corev1.Node, wanted map[string]*Info) (map[string]any, error) {
	ids := map[string]string{}
	text := node.Annotations[annotationNodeIDs]
	if text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil || ids == nil {
			ids = map[string]string{} // nobody can read it: write it anew
		}
	}
	labels := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		info := wanted[name]
		if info == nil {
			delete(ids, name)
			continue
		}
		ids[name] = info.NodeID
		for key, value := range info.Topology {
			have, exists := node.Labels[key]
			if other, promised := labels[key]; exists && have != value || promised && other != value {
				return nil, fmt.Errorf("detected topology value collision: driver %s reported %q:%q but existing label is %q:%q", name, key, value, key, have)
			}
			if !exists {
				labels[key] = value
			}
		}
	}
	annotations := map[string]any{}
	if next, err := marshalIDs(ids); err != nil {
		return nil, err
	} else if next != text {
		annotations[annotationNodeIDs] = next
		if next == "" {
			annotations[annotationNodeIDs] = nil
		}
	}
	metadata := map[string]any{}
	if len(labels) > 0 {
		metadata["labels"] = labels
	}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	if len(metadata) == 0 {
		return nil, nil
	}
	return map[string]any{"metadata": metadata}, nil
}

func marshalIDs(ids map[string]string) (string, error) {
	if len(ids) == 0 {
		return "", nil
	}
	data, err := json.Marshal(ids)
	return string(data), err
}

// nextDrivers is the list of drivers that a CSINode should have; same means that
// it has it. A driver whose id or topology is another one now cannot be changed
// in one step, since those do not change while a driver stays: the list is then
// without it, and asking again gives it.
func nextDrivers(have []storagev1.CSINodeDriver, wanted map[string]*Info) (next []storagev1.CSINodeDriver, same bool) {
	same = true
	next = []storagev1.CSINodeDriver{}
	present := map[string]bool{}
	for _, d := range have {
		info, told := wanted[d.Name]
		if !told {
			next = append(next, d)
			continue
		}
		present[d.Name] = true
		want := driverOf(d.Name, info)
		if info == nil || want.NodeID != d.NodeID || !sameKeys(want.TopologyKeys, d.TopologyKeys) {
			same = false
			continue
		}
		if count(want) != count(d) {
			same = false
		}
		d.Allocatable = want.Allocatable
		next = append(next, d)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if info := wanted[name]; info != nil && !present[name] {
			next, same = append(next, driverOf(name, info)), false
		}
	}
	return next, same
}

func driverOf(name string, info *Info) storagev1.CSINodeDriver {
	d := storagev1.CSINodeDriver{Name: name}
	if info == nil {
		return d
	}
	d.NodeID, d.TopologyKeys = info.NodeID, slices.Sorted(maps.Keys(info.Topology))
	if info.MaxVolumes > 0 {
		n := int32(min(info.MaxVolumes, math.MaxInt32))
		d.Allocatable = &storagev1.VolumeNodeResources{Count: &n}
	}
	return d
}

func sameKeys(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// count is a driver's limit, -1 if it has none.
func count(d storagev1.CSINodeDriver) int64 {
	if d.Allocatable == nil || d.Allocatable.Count == nil {
		return -1
	}
	return int64(*d.Allocatable.Count)
}
