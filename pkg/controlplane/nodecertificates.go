package controlplane

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

// joinersGroup is that of the bootstrap tokens with which nodes join.
const joinersGroup = "system:bootstrappers:kubeadm:default-node-token"

// nodeCertificates are the bindings by which nodes get their certificates with no
// human: every node may renew its own, and who joins with a bootstrap token of the
// group may ask for its first. The names are those that other tools look for.
func (cp *ControlPlane) nodeCertificates() []wantedObject {
	if cp.signer() == nil {
		return nil
	}
	bind := func(name, role, group string) wantedObject {
		return wantedObject{gvr: rbacGVR("clusterrolebindings"), obj: &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}},
		}}
	}
	requests := "system:certificates.k8s.io:certificatesigningrequests:"
	out := []wantedObject{bind("kubeadm:node-autoapprove-certificate-rotation", requests+"selfnodeclient", auth.GroupNodes)}
	if cp.cfg.BootstrapTokens {
		out = append(out, bind("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", joinersGroup),
			bind("kubeadm:node-autoapprove-bootstrap", requests+"nodeclient", joinersGroup))
	}
	return out
}
