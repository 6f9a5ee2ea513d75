// Package volumebinding decides which persistent volume a claim may have.
//
// Contract: everything here is pure and changes nothing it is given. The
// controller that binds and the scheduler that chooses nodes ask the same
// functions, so that they never disagree about what fits. The names of
// annotations and the rules are those of Kubernetes, which external
// provisioners rely on.
package volumebinding

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const (
	// BindCompleted is on claims that were bound once: if their volume is gone
	// now, it is lost.
	BindCompleted = "pv.kubernetes.io/bind-completed"
	// BoundByController is on claims and volumes whose partner was chosen for
	// them. Without it the user did, and the choice is kept.
	BoundByController = "pv.kubernetes.io/bound-by-controller"
	// ProvisionedBy is on volumes that a provisioner made, and names it.
	ProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// SelectedNode is on claims whose volume is to be made for a pod that goes
	// to this node.
	SelectedNode = "volume.kubernetes.io/selected-node"
	// Provisioner is on claims that wait for a provisioner, and names it;
	// BetaProvisioner is its old name, which provisioners still read.
	Provisioner     = "volume.kubernetes.io/storage-provisioner"
	BetaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	// MigratedTo is on volumes of old plugins whose driver is elsewhere.
	MigratedTo = "pv.kubernetes.io/migrated-to"
	// NoProvisioner is the provisioner of classes whose volumes are all made
	// by hand.
	NoProvisioner = "kubernetes.io/no-provisioner"

	defaultClass     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultClass = "storageclass.beta.kubernetes.io/is-default-class"
)

// HasClass reports whether the claim says which class it wants, if only none.
func HasClass(claim *corev1.PersistentVolumeClaim) bool {
	_, old := claim.Annotations[corev1.BetaStorageClassAnnotation]
	return old || claim.Spec.StorageClassName != nil
}

// ClassOf is the name of the claim's class, empty for none.
func ClassOf(claim *corev1.PersistentVolumeClaim) string {
	if class, old := claim.Annotations[corev1.BetaStorageClassAnnotation]; old {
		return class
	}
	return deref(claim.Spec.StorageClassName)
}

// VolumeClassOf is the name of the volume's class, empty for none.
func VolumeClassOf(volume *corev1.PersistentVolume) string {
	if class, old := volume.Annotations[corev1.BetaStorageClassAnnotation]; old {
		return class
	}
	return volume.Spec.StorageClassName
}

// DefaultClass is the class of claims that name none: the newest that is
// marked, nil if there is none.
func DefaultClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var best *storagev1.StorageClass
	for _, c := range classes {
		if c.Annotations[defaultClass] != "true" && c.Annotations[betaDefaultClass] != "true" {
			continue
		}
		if best == nil || best.CreationTimestamp.Before(&c.CreationTimestamp) ||
			best.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < best.Name {
			best = c
		}
	}
	return best
}

// Waits reports whether claims of the class get their volume only when a pod
// needs it. A nil class does not wait.
func Waits(class *storagev1.StorageClass) bool {
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// Provisions reports whether volumes of the class are made for nodes with
// these labels.
func Provisions(class *storagev1.StorageClass, labels map[string]string) bool {
	if class.Provisioner == "" || class.Provisioner == NoProvisioner {
		return false
	}
	if len(class.AllowedTopologies) == 0 {
		return true
	}
	return slices.ContainsFunc(class.AllowedTopologies, func(term corev1.TopologySelectorTerm) bool {
		return len(term.MatchLabelExpressions) > 0 && !slices.ContainsFunc(term.MatchLabelExpressions, func(r corev1.TopologySelectorLabelRequirement) bool {
			value, ok := labels[r.Key]
			return !ok || !slices.Contains(r.Values, value)
		})
	})
}

// Complete reports whether the claim was bound once.
func Complete(claim *corev1.PersistentVolumeClaim) bool {
	_, ok := claim.Annotations[BindCompleted]
	return ok
}

// FullyBound reports whether pods may use the claim.
func FullyBound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && Complete(claim)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ClaimsOf are the names of the claims that a pod's volumes need.
func ClaimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, EphemeralName(pod, v.Name))
		}
	}
	return names
}

// EphemeralName is the name of the claim that a pod's ephemeral volume makes.
func EphemeralName(pod *corev1.Pod, volume string) string { return pod.Name + "-" + volume }
