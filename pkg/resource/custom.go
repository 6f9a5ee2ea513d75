package resource

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// ErrAbandoned says that a conversion was not finished because the request that
// wanted it has ended. It says nothing about the object.
var ErrAbandoned = errors.New("the request that the conversion was for has ended")

// Custom is what a version of a custom resource has beside the hooks of every
// kind. Objects are stored as JSON in one version, of which the others are
// converted forms; each version is a Resource of its own, with its own schema,
// over the same stored objects.
//
// The functions compile the schema when they are first called and may forget
// it again. They are safe for concurrent use.
type Custom struct {
	// ListKind is the kind of a list.
	ListKind string
	// ID names the definition and the generation of it that this was made of.
	ID string
	// StoredVersion is the apiVersion in which objects are written.
	StoredVersion string
	// Conforms says of an object that was stored in this version at a revision
	// that it is what the schema makes of it, so that its bytes are served as
	// they are.
	Conforms func(revision int64) bool
	// Accept prunes a decoded request body. unknown are the fields that it
	// dropped, if they are asked for.
	Accept func(u *unstructured.Unstructured, wantUnknown bool) (unknown []string, err error)
	// FromStored makes an object of this version out of a stored one, ToStored
	// a stored one of this version. They may change u, and return it.
	FromStored, ToStored func(u *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// For returns the resource as one request uses it: conversions by a webhook
	// end with ctx, as ErrAbandoned. nil where no webhook converts; then
	// conversions do not wait for anything.
	For func(ctx context.Context) *Resource
	// Expect says of a resource that For returned which stored objects
	// FromStored will be asked for next, so that a webhook converts many of them
	// in one call. load decodes the i-th of n when it is needed, and returns nil
	// for one that will not be asked for.
	Expect func(n int, load func(i int) *unstructured.Unstructured)
	// Own records in managedFields who set what differs between live and u. It
	// says no, and changes nothing, where it cannot follow the write: then
	// Manager does it, which also applies.
	Own     func(live, u *unstructured.Unstructured, manager, subresource string, now time.Time) bool
	Manager func(subresource string) (*managedfields.FieldManager, error)
	// FieldTypes is the schema of all versions as field ownership follows it.
	FieldTypes func() (managedfields.TypeConverter, error)
	// OpenAPI is the schema as it is published: a JSON object without
	// x-kubernetes-group-version-kind, for version 2 or 3 of OpenAPI, which
	// refers to metadata by the name that ref makes of a definition's.
	OpenAPI func(v3 bool, ref func(definition string) string) ([]byte, error)
	// ReplicasPath leads to the field that /scale writes, where there is one.
	ReplicasPath []string
	// Terminating says that the definition is being deleted: nothing may be
	// created any more.
	Terminating bool
}
