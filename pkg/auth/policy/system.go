package policy

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

const (
	signerClient        = "kubernetes.io/kube-apiserver-client"
	signerKubeletClient = "kubernetes.io/kube-apiserver-client-kubelet"
	signerKubeletServer = "kubernetes.io/kubelet-serving"
	signerLegacy        = "kubernetes.io/legacy-unknown"

	// nodeNetworkRole is this project's own addition.
	nodeNetworkRole = "coracle:node-network"
)

// NodeRules are what a node's agent may do, before the Node authorizer narrows
// secrets, configmaps, volumes, claims, tokens, leases, pods and nodes down to
// its own.
func NodeRules() []rbacv1.PolicyRule {
	return append(nodeRules(), on(readWrite, "resource.k8s.io", "resourceslices"))
}

// nodeRules are those of the role system:node as well, which says of
// ResourceSlices what upstream's does: the others of its own are the
// authorizer's business.
func nodeRules() []rbacv1.PolicyRule {
	return append(checkAccess(),
		on("create", "authorization.k8s.io", "localsubjectaccessreviews"),
		on(read, "core", "services"),
		on("create get list watch", "core", "nodes"),
		on("patch update", "core", "nodes/status"),
		on("patch update", "core", "nodes"),
		on("create patch update", "core events.k8s.io", "events"),
		on(read, "core", "pods"),
		on("create delete", "core", "pods"),
		on("patch update", "core", "pods/status"),
		on("create", "core", "pods/eviction"),
		on(read, "core", "configmaps secrets"),
		on("get", "core", "persistentvolumeclaims persistentvolumes"),
		on("get", "core", "endpoints"),
		on("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
		on("create delete get patch update", "coordination.k8s.io", "leases"),
		on("get", "storage.k8s.io", "volumeattachments"),
		on("get patch update", "core", "persistentvolumeclaims/status"),
		on("create", "core", "serviceaccounts/token"),
		on("get", "core", "serviceaccounts"),
		on(read, "storage.k8s.io", "csidrivers"),
		on("create delete get patch update", "storage.k8s.io", "csinodes"),
		on(read, "node.k8s.io", "runtimeclasses"),
		on("get", "resource.k8s.io", "resourceclaims"),
		on(read, "certificates.k8s.io", "clustertrustbundles"),
		on("create get list watch", "certificates.k8s.io", "podcertificaterequests"),
	)
}

// systemRoles are the roles of the cluster's own parts.
func systemRoles() []*rbacv1.ClusterRole {
	return slices.Concat(componentRoles(), certificateRoles(), []*rbacv1.ClusterRole{
		role("system:heapster",
			on(read, "core", "events namespaces nodes pods"),
			on(read, "extensions", "deployments")),
		role("system:node", append(nodeRules(), on("deletecollection", "resource.k8s.io", "resourceslices"))...),
		// The agent of a node is also its service proxy, DNS server and router,
		// which elsewhere have identities of their own: it sees all services,
		// namespaces and nodes, and of pods only its own, as the Node
		// authorizer says.
		role(nodeNetworkRole,
			on("list watch", "core", "namespaces nodes services"),
			on("list watch", "discovery.k8s.io", "endpointslices")),
		role("system:node-problem-detector",
			on("get", "core", "nodes"),
			on("patch", "core", "nodes/status"),
			recordEvents()),
		role("system:kubelet-api-admin",
			on(read, "core", "nodes"),
			on("proxy", "core", "nodes"),
			on("*", "core", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats")),
		role("system:node-bootstrapper", on("create get list watch", "certificates.k8s.io", "certificatesigningrequests")),
		role("system:auth-delegator", checkAccess()...),
		role("system:kube-aggregator", on(read, "core", "endpoints services")),
		role("system:persistent-volume-provisioner",
			on("create delete get list watch", "core", "persistentvolumes"),
			on("get list update watch", "core", "persistentvolumeclaims"),
			on(read, "storage.k8s.io", "storageclasses"),
			on("watch", "core", "events"),
			recordEvents()),
	})
}

func certificateRoles() []*rbacv1.ClusterRole {
	approver := func(name, signer string) *rbacv1.ClusterRole {
		return role("system:certificates.k8s.io:"+name, named("approve", "certificates.k8s.io", "signers", signer))
	}
	return []*rbacv1.ClusterRole{
		role("system:certificates.k8s.io:certificatesigningrequests:nodeclient",
			on("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")),
		role("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
			on("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")),
		approver("legacy-unknown-approver", signerLegacy),
		approver("kubelet-serving-approver", signerKubeletServer),
		approver("kube-apiserver-client-approver", signerClient),
		approver("kube-apiserver-client-kubelet-approver", signerKubeletClient),
	}
}

func componentRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		role("system:kube-dns",
			on("list watch", "core", "endpoints services")),
		role("system:node-proxier",
			on("list watch", "core", "endpoints services"),
			on(read, "core", "nodes"),
			recordEvents(),
			on("list watch", "discovery.k8s.io", "endpointslices"),
			on("list watch", "networking.k8s.io", "servicecidrs")),
		role("system:volume-scheduler",
			on(read+" patch update", "core", "persistentvolumes"),
			on(read, "storage.k8s.io", "storageclasses"),
			on(read+" patch update", "core", "persistentvolumeclaims")),
		role("system:kube-controller-manager", append(checkAccess(),
			recordEvents(),
			on("create", "coordination.k8s.io", "leases"),
			named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
			on("create", "core", "secrets serviceaccounts"),
			on("delete", "core", "secrets"),
			on("get", "core", "configmaps namespaces secrets serviceaccounts"),
			on("update", "core", "secrets serviceaccounts"),
			// The informers of all controllers read under this one identity.
			on("list watch", "*", "*"),
			on("create", "core", "serviceaccounts/token"))...),
		role("system:kube-scheduler", append(checkAccess(),
			recordEvents(),
			on("create", "coordination.k8s.io", "leases"),
			named("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
			on(readWrite, "coordination.k8s.io", "leasecandidates"),
			on(read, "core", "nodes"),
			on("delete get list watch", "core", "pods"),
			on("create", "core", "bindings pods/binding"),
			on("patch update", "core", "pods/status"),
			on("update", "core", "pods/finalizers"),
			on(read, "core", "replicationcontrollers services"),
			on(read, "apps extensions", "replicasets"),
			on(read, "apps", "statefulsets"),
			on(read, "policy", "poddisruptionbudgets"),
			on(read, "core", "persistentvolumeclaims persistentvolumes"),
			on(read, "core", "namespaces"),
			on(read, "storage.k8s.io", "csinodes csidrivers csistoragecapacities volumeattachments"),
			on(read, "resource.k8s.io", "deviceclasses devicetaintrules resourceclaims resourceslices"),
			on("create delete patch update", "resource.k8s.io", "resourceclaims"),
			on(read+" patch update", "resource.k8s.io", "resourceclaims/status"),
			on("patch update", "resource.k8s.io", "resourceclaims/binding"),
			on(read, "scheduling.k8s.io", "podgroups workloads"),
			on("patch update", "scheduling.k8s.io", "podgroups/status"))...),
	}
}

func namespaced(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

func namespaceRoles() []*rbacv1.Role {
	// Leases of all components: who takes part in an election may have to
	// give way to another.
	locking := func(component string) *rbacv1.Role {
		return namespaced(namespaceSystem, "system::leader-locking-"+component,
			on("create get list update watch", "coordination.k8s.io", "leases"),
			on("create get list update watch", "coordination.k8s.io", "leasecandidates"))
	}
	return []*rbacv1.Role{
		namespaced(namespaceSystem, "extension-apiserver-authentication-reader",
			named(read, "core", "configmaps", "extension-apiserver-authentication")),
		namespaced(namespaceSystem, controllerPrefix+"bootstrap-signer", on(read, "core", "secrets")),
		namespaced(namespaceSystem, controllerPrefix+"cloud-provider", on("create get list watch", "core", "configmaps")),
		namespaced(namespaceSystem, controllerPrefix+"token-cleaner", on("delete get list watch", "core", "secrets"), recordEvents()),
		locking("kube-controller-manager"),
		locking("kube-scheduler"),
		namespaced(namespacePublic, controllerPrefix+"bootstrap-signer",
			on(read, "core", "configmaps"),
			named("update", "core", "configmaps", "cluster-info"),
			recordEvents()),
	}
}

func bindRole(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   subjects,
	}
}

func namespaceRoleBindings() []*rbacv1.RoleBinding {
	toSelf := func(namespace, name string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return bindRole(namespace, name, name, subjects...)
	}
	return []*rbacv1.RoleBinding{
		bindRole(namespaceSystem, "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
			user(auth.UserManager), user(auth.UserScheduler)),
		toSelf(namespaceSystem, "system::leader-locking-kube-controller-manager",
			user(auth.UserManager), serviceAccount("kube-controller-manager"), serviceAccount("leader-election-controller")),
		toSelf(namespaceSystem, "system::leader-locking-kube-scheduler",
			user(auth.UserScheduler), serviceAccount("kube-scheduler")),
		toSelf(namespaceSystem, controllerPrefix+"bootstrap-signer", serviceAccount("bootstrap-signer")),
		toSelf(namespaceSystem, controllerPrefix+"cloud-provider", serviceAccount("cloud-provider")),
		toSelf(namespaceSystem, controllerPrefix+"token-cleaner", serviceAccount("token-cleaner")),
		toSelf(namespacePublic, controllerPrefix+"bootstrap-signer", serviceAccount("bootstrap-signer")),
	}
}
