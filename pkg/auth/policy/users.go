package policy

import rbacv1 "k8s.io/api/rbac/v1"

// userRoles are the roles meant for people and for every client.
func userRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		role("cluster-admin", on("*", "*", "*"), onURLs("*", "*")),
		role("system:discovery", onURLs("get", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez",
			"/openapi", "/openapi/*", "/readyz", "/version", "/version/")),
		role("system:basic-user",
			on("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			on("create", "authentication.k8s.io", "selfsubjectreviews")),
		role("system:public-info-viewer", onURLs("get", "/healthz", "/livez", "/readyz", "/version", "/version/")),
		role("system:monitoring", onURLs("get", "/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*", "/flagz", "/statusz"),
			on("get", "core", "nodes/metrics")),
		role("system:service-account-issuer-discovery", onURLs("get", "/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/")),
		role("system:cluster-trust-bundle-discovery", on(read, "certificates.k8s.io", "clustertrustbundles")),
		aggregate("admin", aggregateToAdmin),
		labelled(aggregate("edit", aggregateToEdit), aggregateToAdmin),
		labelled(aggregate("view", aggregateToView), aggregateToEdit),
		labelled(role("system:aggregate-to-admin", adminRules()...), aggregateToAdmin),
		labelled(role("system:aggregate-to-edit", editRules()...), aggregateToEdit),
		labelled(role("system:aggregate-to-view", viewRules()...), aggregateToView),
		// Who may read a pod may read why it is where it is.
		labelled(role("coracle:view-placements", on("get", "explain.coracle.dev", "podplacements")), aggregateToView),
	}
}

func adminRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("create", "authorization.k8s.io", "localsubjectaccessreviews"),
		on(readWrite, rbacv1.GroupName, "rolebindings roles"),
	}
}

// editRules let a user do in a namespace all that is not giving rights or
// changing limits. Whoever has them can act as any service account of the
// namespace. Endpoints are not among them: who writes them reaches other
// namespaces.
func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on(read, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
		on("impersonate", "core", "serviceaccounts"),
		on(write, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
		on("create", "core", "pods/eviction"),
		on(write, "events.k8s.io", "events"),
		on(write, "core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"),
		on("create", "core", "serviceaccounts/token"),
		on(write, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"),
		on(write, "autoscaling", "horizontalpodautoscalers"),
		on(write, "batch", "cronjobs jobs"),
		on(write, "extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale"),
		on(write, "policy", "poddisruptionbudgets"),
		on(write, "networking.k8s.io", "ingresses networkpolicies"),
		on(readWrite, "coordination.k8s.io", "leases"),
		on(write, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
		on(write, "scheduling.k8s.io", "podgroups workloads"),
	}
}

// viewRules show what is in a namespace but for secrets, which would give the
// rights of its service accounts, and roles.
func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on(read, "core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"),
		on(read, "core", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status"),
		on(read, "core", "namespaces"),
		on(read, "events.k8s.io", "events"),
		on(read, "discovery.k8s.io", "endpointslices"),
		on(read, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
		on(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		on(read, "batch", "cronjobs cronjobs/status jobs jobs/status"),
		on(read, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale"),
		on(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		on(read, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
		on(read, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
		on(read, "scheduling.k8s.io", "podgroups podgroups/status workloads"),
	}
}
