// Package resource is the table of resources the API server serves: each kind
// is described once, in one file, as one Resource. Routes, storage keys,
// watch, discovery, OpenAPI paths, tables, RBAC verbs and tests follow from
// the table; nothing else in the project lists kinds.
//
// Everything here is pure: no clock, no I/O, no goroutine. Hooks get decoded
// objects of k8s.io/api types (there are no internal versions) and may change
// only the object that their doc names.
//
// A new kind costs one file that returns a *Resource and one line in Builtin.
package resource

import (
	"context"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Resource describes one kind: how it is named, routed, stored, defaulted,
// validated and shown. It is filled in once by define and read-only afterwards.
type Resource struct {
	// Group, Version and Kind name the served type. Group is "" for core.
	Group, Version, Kind string
	// Plural is the name in URLs and RBAC rules, Singular the one that
	// kubectl prints; both lower case. Singular defaults to lower(Kind).
	Plural, Singular string
	// ShortNames and Categories are what discovery publishes ("po", "all").
	ShortNames, Categories []string
	// Namespaced says whether objects live in a namespace.
	Namespaced bool
	// StoragePath is the path below /registry/ that kube-apiserver uses,
	// without slashes at the ends; it defaults to Plural.
	StoragePath string
	// StoredJSON says that objects are stored as JSON and not as protobuf, as
	// kube-apiserver stores custom resources and their definitions.
	StoredJSON bool
	// Compact says that the watch cache holds objects compressed and remembers
	// no other form of them: they are large and seldom read.
	Compact bool
	// Custom is set for kinds that a CustomResourceDefinition declares, whose
	// objects are *unstructured.Unstructured.
	Custom *Custom
	// Verbs are the verbs of the resource itself. Nil means all eight.
	// Resources that are only created (reviews) list just "create" and are
	// never stored.
	Verbs []string
	// Computed says that objects are made for each request and never stored
	// (ComponentStatus); such a resource has the verbs get and list at most.
	Computed bool
	// Nameless says that objects have no name: they are answered, not stored,
	// and what their metadata may hold is for Validate to say.
	Nameless bool
	// Deprecated is the warning that every request of the resource's own version
	// gets; empty for most.
	Deprecated string
	// Views are further group versions under which the same stored objects
	// are served (events.k8s.io/v1 for core events).
	Views []View

	// New and NewList make empty objects of the kind and of its list.
	New, NewList func() runtime.Object

	// HasStatus says that the type has Spec and Status fields and a /status
	// subresource: the main resource then ignores status, and /status ignores
	// spec.
	HasStatus bool
	// StatusOnCreate says that a create keeps the status of the request: only
	// a Node's does, since its agent knows the machine.
	StatusOnCreate bool
	// HasGeneration says that metadata.generation is 1 on create and grows
	// by one whenever Spec changes.
	HasGeneration bool
	// Subresources are the others: scale, log, binding, ...; /status is
	// implied by HasStatus.
	Subresources []Subresource

	// AllowCreateOnUpdate makes PUT on a missing name create it (as for
	// leases and a few more upstream).
	AllowCreateOnUpdate bool
	// UnconditionalUpdate allows PUT without a resourceVersion.
	UnconditionalUpdate bool
	// ValidateName checks metadata.name, or generateName when prefix is set;
	// nil means a DNS subdomain.
	ValidateName func(name string, prefix bool) []string
	// ReturnDeleted answers a delete with the object instead of a Status, as
	// upstream does for pods, services and a few more.
	ReturnDeleted bool
	// TTL is how long a stored object lives; 0 means until deleted.
	TTL time.Duration

	// Default fills unset fields, on every decode of a request body.
	Default func(obj runtime.Object)
	// Prepare changes obj after admission, before validation: it drops what a
	// client may not set. old is nil on create. Status and generation are
	// handled by HasStatus and HasGeneration before it is called.
	Prepare func(obj, old runtime.Object)
	// PrepareStatus is Prepare for an update of /status.
	PrepareStatus func(obj, old runtime.Object)
	// Stamp sets the times in the status that the server keeps, after each
	// create (old is nil) and update was prepared. It changes nothing where
	// nothing but times would change.
	Stamp func(obj, old runtime.Object, now metav1.Time)
	// Validate returns what is wrong with obj itself (metadata is checked by
	// the caller).
	Validate func(obj runtime.Object) field.ErrorList
	// ValidateSame returns what Validate would of a stored obj whose name and spec
	// are those of one in which it has found nothing. Nil means to ask Validate.
	ValidateSame func(obj runtime.Object) field.ErrorList
	// Templates tells objects of one template, so that they are validated once;
	// nil for kinds whose objects differ. Such a kind has Validate and neither
	// ValidateCreate nor Check.
	Templates *Templates
	// ValidateCreate returns what is wrong with a new obj only, where stored
	// ones are left alone; Validate is called as well.
	ValidateCreate func(obj runtime.Object) field.ErrorList
	// ValidateUpdate returns what may not change from old to obj; Validate is
	// called as well.
	ValidateUpdate func(obj, old runtime.Object) field.ErrorList
	// ValidateStatus is ValidateUpdate for an update of /status; Validate is
	// not called then.
	ValidateStatus func(obj, old runtime.Object) field.ErrorList
	// Check takes the place of the Validate hooks for kinds whose validation
	// compares the objects all the way down or may take long: old is nil on
	// create, subresource says what is written.
	Check func(ctx context.Context, obj, old runtime.Object, subresource string) field.ErrorList
	// Warnings returns texts for the client's Warning headers; old is nil on
	// create.
	Warnings func(obj, old runtime.Object) []string
	// Fields returns the selectable fields beside metadata.name and
	// metadata.namespace. FieldNames lists all keys it may return, since a
	// selector on another field is a 400. FieldsRead are the fields, by the
	// JSON names that lead there, which Fields reads; empty means any.
	Fields     func(obj runtime.Object) map[string]string
	FieldNames []string
	FieldsRead []string
	// Grace decides on graceful deletion. Nil means that objects go at once.
	Grace func(obj runtime.Object, requested *int64) Grace
	// Graceless says of an object, by its selectable fields, that Grace surely
	// lets it go at once. It may say no where that is so; nil always does.
	Graceless func(fields map[string]string, requested *int64) bool
	// Held says that an object marked for deletion has to stay although it has
	// no metadata.finalizers (a Namespace has finalizers in its spec). Nil
	// means never.
	Held func(obj runtime.Object) bool
	// Orphans says that dependents stay when a delete gives no propagation
	// policy: the oldest controllers' kinds keep what they did before there was
	// garbage collection. OrphansWarning tells the client, if not empty.
	Orphans        bool
	OrphansWarning string
	// MarkDeleting changes what else says that an object is being deleted
	// (a Namespace's phase).
	MarkDeleting func(obj runtime.Object)

	// Scale and SetScale read and write the /scale view (Subresources must
	// list "scale").
	Scale    func(obj runtime.Object) *autoscalingv1.Scale
	SetScale func(obj runtime.Object, scale *autoscalingv1.Scale) field.ErrorList

	// Columns are those of `kubectl get`; those of priority 1 show with
	// `-o wide`. Nil means Name and Created At.
	Columns []metav1.TableColumnDefinition
	// Row returns one cell for each column. now is for ages.
	Row func(obj runtime.Object, now time.Time) []any
}

// View is another group version of a stored kind, with the conversion both
// ways. The objects passed to To and From are not kept.
type View struct {
	Group, Version, Kind string
	New, NewList         func() runtime.Object
	// To converts the stored form to the view's, From back. Neither sets the
	// result's kind and apiVersion.
	To, From func(obj runtime.Object) (runtime.Object, error)
	// Columns and Row override the parent's where set.
	Columns []metav1.TableColumnDefinition
	Row     func(obj runtime.Object, now time.Time) []any
	// FieldNames maps the view's field selector names to the stored ones'.
	FieldNames map[string]string
}

// Subresource is a path below an object.
type Subresource struct {
	// Name is the path element: "scale", "log", "token".
	Name string
	// Kind is what discovery publishes and what bodies carry (a Scale, a
	// Binding, an Eviction, a TokenRequest); empty Kind means the parent's.
	Kind schema.GroupVersionKind
	// Verbs are RBAC verbs: get, update, patch, create, delete.
	Verbs []string
	// Prepare and Validate belong to subresources whose body is the parent
	// (approval, ephemeralcontainers, resize, finalize): Prepare takes back
	// every change of obj but the subresource's own, Validate says what is
	// wrong with the update. Both nil for others.
	Prepare  func(obj, old runtime.Object)
	Validate func(obj, old runtime.Object) field.ErrorList
}

// Grace is the answer of a Resource's Grace hook.
type Grace struct {
	// Seconds is the grace period to store; 0 deletes at once.
	Seconds int64
	// Graceful is false when the object is to be removed at once although a
	// grace period was asked for (a pod that no node runs).
	Graceful bool
}

// AllVerbs are the verbs of an ordinary resource, in discovery's order.
func AllVerbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
}

// GVK returns the served group, version and kind.
func (r *Resource) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// GVR returns the served group, version and resource.
func (r *Resource) GVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural}
}

// GroupResource names the resource in errors and RBAC.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// Stored says whether objects of the resource are kept at all; reviews are not,
// nor is what is computed.
func (r *Resource) Stored() bool { return r.HasVerb("get") && !r.Computed }

// HasVerb says whether the resource itself serves verb.
func (r *Resource) HasVerb(verb string) bool {
	for _, v := range r.Verbs {
		if v == verb {
			return true
		}
	}
	return false
}

// Subresource returns the description of a subresource, /status included.
func (r *Resource) Subresource(name string) (Subresource, bool) {
	if name == "status" && r.HasStatus {
		return Subresource{Name: "status", Verbs: []string{"get", "patch", "update"}}, true
	}
	for _, s := range r.Subresources {
		if s.Name == name {
			return s, true
		}
	}
	return Subresource{}, false
}
