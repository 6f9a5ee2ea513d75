package resource

import (
	"fmt"
	"slices"
	"sort"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/version"
)

// Table is a set of resources with the scheme that decodes them. It does not
// change after it was made.
type Table struct {
	list   []*Resource
	byGVR  map[schema.GroupVersionResource]*Resource
	byGVK  map[schema.GroupVersionKind]*Resource
	scheme *runtime.Scheme
	// versions are the group versions of literal kinds, of a base only.
	versions map[schema.GroupVersion]struct{}
	// base is the table that this one adds custom resources to, nil for one of
	// literal kinds only; list holds base's too, the maps do not.
	base *Table
}

// Builtin returns the kinds that every cluster serves. A new kind adds its
// line here.
func Builtin() *Table {
	return MustTable(
		configMaps(),
		namespaces(),
		secrets(),
		serviceAccounts(),
		pods(),
		nodes(),
		services(),
		endpoints(),
		events(),
		leases(),
		deployments(),
		replicaSets(),
		endpointSlices(),
		priorityClasses(),
		roles(),
		roleBindings(),
		clusterRoles(),
		clusterRoleBindings(),
		certificateSigningRequests(),
		bindings(),
		tokenReviews(),
		selfSubjectReviews(),
		subjectAccessReviews(),
		localSubjectAccessReviews(),
		selfSubjectAccessReviews(),
		selfSubjectRulesReviews(),
		controllerRevisions(),
		statefulSets(),
		daemonSets(),
		jobs(),
		cronJobs(),
		replicationControllers(),
		podTemplates(),
		limitRanges(),
		resourceQuotas(),
		persistentVolumes(),
		persistentVolumeClaims(),
		storageClasses(),
		volumeAttachments(),
		volumeAttributesClasses(),
		csiDrivers(),
		csiNodes(),
		csiStorageCapacities(),
		podDisruptionBudgets(),
		horizontalPodAutoscalers(),
		ingresses(),
		ingressClasses(),
		networkPolicies(),
		ipAddresses(),
		serviceCIDRs(),
		runtimeClasses(),
		mutatingWebhookConfigurations(),
		validatingWebhookConfigurations(),
		mutatingAdmissionPolicies(),
		mutatingAdmissionPolicyBindings(),
		validatingAdmissionPolicies(),
		validatingAdmissionPolicyBindings(),
		flowSchemas(),
		priorityLevelConfigurations(),
		resourceClaims(),
		resourceClaimTemplates(),
		deviceClasses(),
		resourceSlices(),
		deviceTaintRules(),
		clusterTrustBundles(),
		podCertificateRequests(),
		storageVersionMigrations(),
		componentStatuses(),
		workloads(),
		podGroups(),
		apiServices(),
		customResourceDefinitions(),
	)
}

// MustTable is NewTable for literal lists, where an error is a bug.
func MustTable(list ...*Resource) *Table {
	t, err := NewTable(list...)
	utilruntime.Must(err)
	return t
}

// NewTable makes a table. It refuses two resources of one name and a resource
// that lacks what every resource has.
func NewTable(list ...*Resource) (*Table, error) {
	t := &Table{
		byGVR:  map[schema.GroupVersionResource]*Resource{},
		byGVK:  map[schema.GroupVersionKind]*Resource{},
		scheme: runtime.NewScheme(), versions: map[schema.GroupVersion]struct{}{},
	}
	metav1.AddToGroupVersion(t.scheme, schema.GroupVersion{Version: "v1"})
	for _, r := range list {
		if r.New == nil || r.Version == "" || r.Kind == "" || r.Plural == "" {
			return nil, fmt.Errorf("resource %q of kind %q lacks a version, a name or a constructor", r.Plural, r.Kind)
		}
		if _, twice := t.byGVR[r.GVR()]; twice {
			return nil, fmt.Errorf("resource %s is in the table twice", r.GVR())
		}
		t.list = append(t.list, r)
		t.byGVR[r.GVR()] = r
		t.byGVK[r.GVK()] = r
		t.register(r.GVK(), r.New, r.NewList)
		for _, v := range r.Views {
			gv := schema.GroupVersion{Group: v.Group, Version: v.Version}
			t.byGVR[gv.WithResource(r.Plural)] = r
			t.register(gv.WithKind(v.Kind), v.New, v.NewList)
		}
	}
	return t, nil
}

func (t *Table) register(gvk schema.GroupVersionKind, newObj, newList func() runtime.Object) {
	t.versions[gvk.GroupVersion()] = struct{}{}
	t.scheme.AddKnownTypeWithName(gvk, newObj())
	if newList != nil {
		t.scheme.AddKnownTypeWithName(gvk.GroupVersion().WithKind(gvk.Kind+"List"), newList())
	}
	metav1.AddToGroupVersion(t.scheme, gvk.GroupVersion())
}

// All returns the resources in the order of the list. The slice is shared.
func (t *Table) All() []*Resource { return t.list }

// Scheme returns the scheme that knows all types of the table.
func (t *Table) Scheme() *runtime.Scheme { return t.scheme }

// ByGVR finds a resource by the name in its URL, under any of its views.
func (t *Table) ByGVR(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := t.byGVR[gvr]
	if !ok && t.base != nil {
		return t.base.ByGVR(gvr)
	}
	return r, ok
}

// ByGVK finds a resource by its kind.
func (t *Table) ByGVK(gvk schema.GroupVersionKind) (*Resource, bool) {
	r, ok := t.byGVK[gvk]
	if !ok && t.base != nil {
		return t.base.ByGVK(gvk)
	}
	return r, ok
}

// Base returns the table without the custom resources that were added to it.
func (t *Table) Base() *Table {
	if t.base != nil {
		return t.base
	}
	return t
}

// IsCustom says that a group version has no literal kinds.
func (t *Table) IsCustom(gv schema.GroupVersion) bool {
	_, literal := t.Base().versions[gv]
	return !literal
}

// With returns a table of t's literal kinds and the given custom resources. A
// custom resource that has the name of a literal one, or of one before it, is
// left out: what every cluster has wins.
func (t *Table) With(custom []*Resource) *Table {
	base := t.Base()
	next := &Table{
		list:   slices.Clone(base.list),
		byGVR:  make(map[schema.GroupVersionResource]*Resource, len(custom)),
		byGVK:  make(map[schema.GroupVersionKind]*Resource, len(custom)),
		scheme: base.scheme,
		base:   base,
	}
	for _, r := range custom {
		if _, taken := next.ByGVR(r.GVR()); taken {
			continue
		}
		next.list = append(next.list, r)
		next.byGVR[r.GVR()] = r
		next.byGVK[r.GVK()] = r
	}
	return next
}

// Replace returns a table in which kinds of t stand as they are given here: a
// kind whose hooks need more than this package may link gets them that way.
func (t *Table) Replace(kinds ...*Resource) (*Table, error) {
	list := slices.Clone(t.list)
	for _, r := range kinds {
		i := slices.IndexFunc(list, func(other *Resource) bool { return other.GVR() == r.GVR() })
		if i < 0 {
			return nil, fmt.Errorf("resource %s is not in the table", r.GVR())
		}
		list[i] = r
	}
	return NewTable(list...)
}

// Groups returns the API groups with their versions, core first, then by
// name; versions newest first.
func (t *Table) Groups() []GroupVersions {
	seen := map[schema.GroupVersion]bool{}
	byGroup := map[string][]string{}
	for table := t; table != nil; table = table.base {
		for gvr := range table.byGVR {
			gv := gvr.GroupVersion()
			if !seen[gv] {
				seen[gv] = true
				byGroup[gv.Group] = append(byGroup[gv.Group], gv.Version)
			}
		}
	}
	out := make([]GroupVersions, 0, len(byGroup))
	for group, versions := range byGroup {
		sort.Slice(versions, func(i, j int) bool { return version.CompareKubeAwareVersionStrings(versions[i], versions[j]) > 0 })
		out = append(out, GroupVersions{Group: group, Versions: versions})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Group < out[j].Group })
	return out
}

// GroupVersions is an API group and its served versions, preferred first.
type GroupVersions struct {
	Group    string
	Versions []string
}
