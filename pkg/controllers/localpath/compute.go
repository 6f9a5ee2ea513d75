package localpath

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/localpath"
	"coracle/pkg/volumebinding"
)

// maxRemovals bounds the annotations of one Node; more wait until those are
// done.
const maxRemovals = 100

// wants reports whether the claim waits for this provisioner.
func wants(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[volumebinding.Provisioner] == localpath.Provisioner && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil
}

// volumeName is the name of the volume that a claim gets.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// refusal says why a claim cannot be served. With another set, another node
// may do.
type refusal struct {
	message string
	another bool
}

// provision makes the volume of a claim, or says why it cannot. node is the
// one that the scheduler chose, nil if it is not there.
func provision(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) (*corev1.PersistentVolume, *refusal) {
	if why := unsupported(claim, class); why != "" {
		return nil, &refusal{message: why}
	}
	chosen := claim.Annotations[volumebinding.SelectedNode]
	switch {
	case chosen == "":
		return nil, &refusal{message: fmt.Sprintf("a volume of StorageClass %q is a folder of a node: use a class with volumeBindingMode WaitForFirstConsumer, and a pod that uses the claim", class.Name)}
	case node == nil:
		return nil, &refusal{another: true, message: fmt.Sprintf("node %q is not there", chosen)}
	case node.Annotations[localpath.Folder] == "" || node.Labels[corev1.LabelHostname] == "":
		return nil, &refusal{another: true, message: fmt.Sprintf("node %q keeps no volumes: its agent does not say where", chosen)}
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	name := volumeName(claim)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{localpath.ProvisionedBy: localpath.Provisioner, localpath.Node: node.Name},
			Finalizers:  []string{localpath.Finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef:                      volumebinding.Reference(claim),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: localpath.Path(node.Annotations[localpath.Folder], name)},
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Labels[corev1.LabelHostname]},
				}},
			}}}},
		},
	}, nil
}

// unsupported says what of a claim a folder cannot be.
func unsupported(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) string {
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return fmt.Sprintf("a folder of one node cannot be %s: ask for ReadWriteOnce or ReadWriteOncePod", mode)
		}
	}
	switch {
	case volumebinding.IsBlock(claim.Spec.VolumeMode):
		return "a folder cannot be a raw block device: ask for volumeMode Filesystem"
	case claim.Spec.Selector != nil:
		return "volumes that are made for a claim have no labels to select: leave out the claim's selector"
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return "volumes of this provisioner begin empty: leave out the claim's dataSource"
	case claim.Spec.VolumeAttributesClassName != nil && *claim.Spec.VolumeAttributesClassName != "":
		return "volumes of this provisioner have no attributes: leave out the claim's volumeAttributesClassName"
	case len(class.MountOptions) > 0:
		return fmt.Sprintf("a folder has no mount options: leave out those of StorageClass %q", class.Name)
	}
	return ""
}

// step is what a volume needs next.
type step int

const (
	nothing    step = iota
	discard         // delete the object; its finalizers keep it
	ask             // tell the node to remove the folder
	letGo           // take the finalizer off
	grow            // give the volume the capacity that its claim asks for
	tellGrowth      // give the claim's status the volume's capacity
)

// decideVolume says what a volume of this provisioner needs. claim is the one
// it is bound to, nil if that is gone; node is nil when it is not there, and
// with it the folder.
func decideVolume(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim, node *corev1.Node) step {
	if v.DeletionTimestamp == nil {
		if v.Status.Phase == corev1.VolumeReleased && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			return discard
		}
		return growth(v, claim)
	}
	if !slices.Contains(v.Finalizers, localpath.Finalizer) || v.Status.Phase == corev1.VolumeBound {
		return nothing
	}
	if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || node == nil {
		return letGo // the data stay, or went with the node
	}
	removals := localpath.Removals(node.Annotations)
	switch removals[v.Name] {
	case "":
		if len(removals) >= maxRemovals {
			return nothing // the node's event names this volume again
		}
		return ask
	case localpath.Removed:
		return letGo
	}
	return nothing
}

// growth compares what the claim asks for with what it has. Admission has
// looked at whether its class lets it ask.
func growth(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) step {
	if claim == nil || v.Status.Phase != corev1.VolumeBound || claim.Status.Phase != corev1.ClaimBound {
		return nothing
	}
	asked, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	if asked.Cmp(has) > 0 {
		return grow
	}
	if told := claim.Status.Capacity[corev1.ResourceStorage]; told.Cmp(has) < 0 {
		return tellGrowth
	}
	return nothing
}
