package expression

import apiservercel "k8s.io/apiserver/pkg/cel"

// fields builds the fields of a declared type.
type fields map[string]*apiservercel.DeclField

func (f fields) add(t *apiservercel.DeclType, required bool, names ...string) fields {
	for _, name := range names {
		f[name] = apiservercel.NewDeclField(name, t, required, nil, nil)
	}
	return f
}

func listOf(t *apiservercel.DeclType) *apiservercel.DeclType { return apiservercel.NewListType(t, -1) }

func mapOf(t *apiservercel.DeclType) *apiservercel.DeclType {
	return apiservercel.NewMapType(apiservercel.StringType, t, -1)
}

// requestType declares `request`: an AdmissionRequest without uid, object and
// oldObject.
func requestType() *apiservercel.DeclType {
	text := apiservercel.StringType
	kind := apiservercel.NewObjectType("kubernetes.GroupVersionKind", fields{}.add(text, true, "group", "version", "kind"))
	resource := apiservercel.NewObjectType("kubernetes.GroupVersionResource", fields{}.add(text, true, "group", "version", "resource"))
	user := userType()
	return apiservercel.NewObjectType("kubernetes.AdmissionRequest", fields{}.
		add(kind, true, "kind", "requestKind").
		add(resource, true, "resource", "requestResource").
		add(text, true, "name", "operation").
		add(text, false, "subResource", "requestSubResource", "namespace").
		add(user, true, "userInfo").
		add(apiservercel.BoolType, false, "dryRun").
		add(apiservercel.DynType, false, "options"))
}

// userType declares who sent a request.
func userType() *apiservercel.DeclType {
	text := apiservercel.StringType
	return apiservercel.NewObjectType("kubernetes.UserInfo", fields{}.
		add(text, false, "username", "uid").
		add(listOf(text), false, "groups").
		add(mapOf(listOf(text)), false, "extra"))
}

// namespaceType declares `namespaceObject`: a Namespace without what only
// machines read of it.
func namespaceType() *apiservercel.DeclType {
	text, moment := apiservercel.StringType, apiservercel.TimestampType
	condition := apiservercel.NewObjectType("kubernetes.NamespaceCondition", fields{}.
		add(text, true, "type", "status", "reason", "message").
		add(moment, true, "lastTransitionTime"))
	meta := apiservercel.NewObjectType("kubernetes.NamespaceMetadata", fields{}.
		add(text, true, "name", "generateName", "namespace", "UID", "resourceVersion").
		add(mapOf(text), true, "labels", "annotations").
		add(listOf(text), true, "finalizers").
		add(apiservercel.IntType, true, "generation", "deletionGracePeriodSeconds").
		add(moment, true, "creationTimestamp", "deletionTimestamp"))
	spec := apiservercel.NewObjectType("kubernetes.NamespaceSpec", fields{}.add(listOf(text), true, "finalizers"))
	status := apiservercel.NewObjectType("kubernetes.NamespaceStatus", fields{}.
		add(text, true, "phase").add(listOf(condition), true, "conditions"))
	return apiservercel.NewObjectType("kubernetes.Namespace", fields{}.
		add(meta, true, "metadata").add(spec, true, "spec").add(status, true, "status"))
}
