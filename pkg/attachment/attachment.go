// Package attachment names what controllers and node agents agree on about
// volumes of CSI drivers that are attached to nodes.
//
// Contract: everything here is pure. The names are those of Kubernetes: agents
// and attachers from elsewhere build the same ones.
package attachment

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// csiPrefix begins the names under which nodes list volumes of CSI drivers.
	csiPrefix = "kubernetes.io/csi/"
	// separator parts driver and handle in those names.
	separator = "^"
)

// Name is the name of the VolumeAttachment of one volume to one node.
func Name(driver, handle, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

var named = regexp.MustCompile(`^csi-[0-9a-f]{64}$`)

// IsName says that name has the form of Name's.
func IsName(name string) bool { return named.MatchString(name) }

// InStatus is the name of a volume in status.volumesInUse and
// status.volumesAttached of a node.
func InStatus(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName(csiPrefix + driver + separator + handle)
}

// FromStatus takes InStatus apart; ok is false for volumes that are not a CSI
// driver's. No driver's name has the separator; a handle may.
func FromStatus(name corev1.UniqueVolumeName) (driver, handle string, ok bool) {
	rest, ok := strings.CutPrefix(string(name), csiPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, separator)
}
