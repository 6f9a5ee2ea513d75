// Package registry is the generic storage logic of every resource: get, list,
// watch, create, update, patch, apply, delete and deletecollection, driven by
// the table of package resource. It knows no HTTP: callers pass decoded
// options and get cached objects (encoded bytes with a small index) or API
// status errors.
//
// Contract: a write is one storage transaction that compares the object's
// revision. Conflicts with other writers are retried inside for writes that
// gave no resourceVersion, and answered 409 for those that did. An outcome
// that the store could not tell is answered with a timeout error and never
// retried. Decisions that rest on cached state are confirmed against the
// store before they refuse or skip a write.
package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/utils/clock"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// Config is what a Registry is made of. All fields but Hooks are required.
type Config struct {
	// Table is what is served at first.
	Table *resource.Table
	Cache *cache.Cache
	// Chain admits writes.
	Chain *admission.Chain
	Clock clock.PassiveClock
	// Rand feeds UIDs and generated names.
	Rand io.Reader
	// Types describes the schemas that field ownership follows. It is called
	// at the first write, since it takes about 100 ms.
	Types func() managedfields.TypeConverter
	// Hooks are further steps of single resources, by "resource.group"
	// (schema.GroupResource's string form).
	Hooks map[string]Hook
}

// Hook is what a resource does around its writes beside the table's pure
// functions: a Service takes addresses from an allocator. Each function may
// be nil. undo is called when the write did not happen.
type Hook struct {
	Create func(ctx context.Context, obj runtime.Object, dryRun bool) (undo func(), err error)
	Update func(ctx context.Context, obj, old runtime.Object, dryRun bool) (undo func(), err error)
	// Updated is called after an update was stored.
	Updated func(ctx context.Context, obj, old runtime.Object)
	// Deleted is called after obj left the store.
	Deleted func(ctx context.Context, obj runtime.Object)
}

// Registry serves the table's resources from one cache. It is safe for
// concurrent use.
type Registry struct {
	cfg  Config
	rand sync.Mutex // guards cfg.Rand

	table atomic.Pointer[resource.Table]

	typesOnce sync.Once
	typeConv  managedfields.TypeConverter // set by types
	managers  sync.Map                    // managerKey -> *managedfields.FieldManager
	owners    sync.Map                    // managerKey -> *owned
	kinds     sync.Map                    // GroupVersionKind -> *ownership.Kind, nil when there is none
	plans     plans
	sound     *sound
	templates *templates
}

// New returns a Registry over cfg.
func New(cfg Config) *Registry {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	r := &Registry{cfg: cfg, sound: newSound(), templates: newTemplates()}
	r.table.Store(cfg.Table)
	return r
}

// Table returns the resources the registry serves at the moment.
func (r *Registry) Table() *resource.Table { return r.table.Load() }

// SetTable replaces the resources that the registry serves. The literal kinds
// stay; requests under way end with the resource that they began with.
func (r *Registry) SetTable(t *resource.Table) { r.table.Store(t) }

// Cache returns the cache that all reads go through.
func (r *Registry) Cache() *cache.Cache { return r.cfg.Cache }

// Now is the registry's clock, which ages in tables follow.
func (r *Registry) Now() time.Time { return r.cfg.Clock.Now() }

// Request names what a call is about.
type Request struct {
	Resource *resource.Resource
	// View is the form in which the client sees the object and writes it; nil
	// is the stored one.
	View        *resource.View
	Subresource string
	Namespace   string
	Name        string
}

// WriteOptions are those that all writes share.
type WriteOptions struct {
	DryRun bool
	// Manager owns the fields that the write sets; the HTTP layer defaults it
	// to the first word of the User-Agent.
	Manager string
	// Options is the request's own options object, for admission.
	Options runtime.Object
	// Warn receives texts for Warning headers, from one goroutine or many; nil
	// drops them.
	Warn func(string)
	// Annotate receives what admission has to say for the audit log; nil drops
	// it. It is called as Warn is.
	Annotate func(key, value string)
	// Internal is admission.Attributes.Internal.
	Internal bool
}

func (o WriteOptions) warn(text string) {
	if o.Warn != nil {
		o.Warn(text)
	}
}

func (o WriteOptions) annotate(key, value string) {
	if o.Annotate != nil {
		o.Annotate(key, value)
	}
}

// Prefix is the storage prefix of a resource, or of one of its namespaces. It
// ends with a slash, so that ns1 never matches ns10.
func Prefix(res *resource.Resource, namespace string) string {
	p := "/registry/" + res.StoragePath + "/"
	if namespace != "" {
		p += namespace + "/"
	}
	return p
}

// Key is the storage key of an object.
func Key(res *resource.Resource, namespace, name string) (string, error) {
	if res.Namespaced && namespace == "" {
		return "", apierrors.NewBadRequest("a namespace must be given for " + res.Plural)
	}
	for _, part := range []string{namespace, name} {
		if part == "." || part == ".." || strings.ContainsAny(part, "/%\x00") {
			return "", apierrors.NewBadRequest(fmt.Sprintf("%q is not a name: it may not be . or .., nor contain / or %%", part))
		}
	}
	if name == "" {
		return "", apierrors.NewBadRequest("a name must be given")
	}
	if !res.Namespaced {
		namespace = ""
	}
	return Prefix(res, namespace) + name, nil
}

// attributes describes a write to admission.
func (r *Registry) attributes(ctx context.Context, op admission.Operation, req Request, obj, old runtime.Object, opts WriteOptions) *admission.Attributes {
	user, _ := auth.UserFrom(ctx)
	return &admission.Attributes{
		Operation: op, Resource: req.Resource, View: req.View, Subresource: req.Subresource,
		Namespace: req.Namespace, Name: req.Name,
		Object: obj, Stored: admission.Known(old), Options: opts.Options,
		User: user, DryRun: opts.DryRun, Internal: opts.Internal, Warn: opts.warn, Annotate: opts.annotate,
	}
}

// Admit runs the whole chain for a request whose object is not stored by the
// registry itself: a Binding, an Eviction, a TokenRequest, a connect. check,
// which may be nil, validates what the mutators made of obj.
func (r *Registry) Admit(ctx context.Context, op admission.Operation, req Request, obj runtime.Object, opts WriteOptions, check func() error) error {
	a := r.attributes(ctx, op, req, obj, nil, opts)
	err := r.cfg.Chain.Admit(ctx, a)
	if err == nil && check != nil {
		err = check()
	}
	if err == nil {
		err = r.cfg.Chain.Validate(ctx, a)
	}
	if err != nil {
		a.Undo()
	}
	return err
}

func (r *Registry) hook(res *resource.Resource) Hook {
	return r.cfg.Hooks[res.GroupResource().String()]
}

// NewUID makes a random (version 4) UUID.
func (r *Registry) NewUID() (types.UID, error) {
	var b [16]byte
	if err := r.random(b[:]); err != nil {
		return "", err
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	text := make([]byte, 0, 36)
	for i := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, b[i:i+1])
	}
	return types.UID(text), nil
}

func (r *Registry) random(b []byte) error {
	r.rand.Lock()
	defer r.rand.Unlock()
	if _, err := io.ReadFull(r.cfg.Rand, b); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	return nil
}

// storageError turns an error of the store into the API's.
func storageError(err error, res *resource.Resource, name string) error {
	var conflict *storage.ConflictError
	var unknown *storage.OutcomeUnknownError
	switch {
	case err == nil:
		return nil
	case isStatus(err):
		return err
	case errors.As(err, &unknown):
		return apierrors.NewTimeoutError("the store did not answer in time; the outcome of the write is not known", 1)
	case errors.Is(err, storage.ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError("the object is larger than the store takes")
	case errors.Is(err, storage.ErrNotFound):
		return apierrors.NewNotFound(res.GroupResource(), name)
	case errors.As(err, &conflict):
		return errModified(res, name)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierrors.NewTimeoutError("the request did not finish in the time it had", 1)
	}
	return apierrors.NewInternalError(fmt.Errorf("%s %q: %w", res.GroupResource(), name, err))
}

func isStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// errModified is the conflict that clients retry on; its words are upstream's
// since tools look for them.
func errModified(res *resource.Resource, name string) error {
	return apierrors.NewConflict(res.GroupResource(), name,
		errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}
