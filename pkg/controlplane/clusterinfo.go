package controlplane

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/auth"
	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/auth/policy"
)

// clusterInfoRole lets everybody read cluster-info; the name is the one that
// joining machines' tools know.
const clusterInfoRole = "kubeadm:bootstrap-signer-clusterinfo"

// clusterInfo is what a machine that joins reads before it has any identity:
// where the API server is and by whose authority it is known. The bootstrap
// signer adds the signatures by which the machine believes it.
func (cp *ControlPlane) clusterInfo() ([]wantedObject, error) {
	id := cp.cfg.Identity
	if !cp.cfg.BootstrapTokens || id == nil || id.RootCA == nil || !cp.cfg.Advertise.IsValid() {
		return nil, nil
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: "https://" + cp.cfg.Advertise.String(), CertificateAuthorityData: id.RootCA.Bytes()}
	text, err := clientcmd.Write(*config)
	if err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Name: bootstraptoken.ClusterInfoName, Namespace: bootstraptoken.ClusterInfoNamespace}
	role := metav1.ObjectMeta{Name: clusterInfoRole, Namespace: bootstraptoken.ClusterInfoNamespace}
	return []wantedObject{{
		gvr: corev1.SchemeGroupVersion.WithResource("configmaps"),
		obj: &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{bootstraptoken.KubeconfigKey: string(text)}},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			m := current.(*corev1.ConfigMap)
			changed := m.Data[bootstraptoken.KubeconfigKey] != string(text)
			if m.Data == nil {
				m.Data = map[string]string{}
			}
			m.Data[bootstraptoken.KubeconfigKey] = string(text)
			return m, updateIf(changed)
		},
	}, {
		gvr: rbacGVR("roles"),
		obj: &rbacv1.Role{ObjectMeta: role, Rules: []rbacv1.PolicyRule{{
			Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{bootstraptoken.ClusterInfoName},
		}}},
	}, {
		gvr: rbacGVR("rolebindings"),
		obj: &rbacv1.RoleBinding{ObjectMeta: role,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: clusterInfoRole},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: auth.UserAnonymous}}},
	}}, nil
}
