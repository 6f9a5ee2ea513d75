package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// maxPatchOperations bounds a JSON patch (upstream's limit, CVE-2019-1002100).
const maxPatchOperations = 10000

// Bounds of a JSON patch's copy operations: by how much all of them may grow
// the document (the store takes no larger object anyway), and the sum of the
// documents they result in, which is what they cost.
const (
	maxCopyGrowth = 3 << 19
	maxCopyWork   = 16 << 20
)

// PatchOptions are those of a patch.
type PatchOptions struct {
	WriteOptions
	Type  types.PatchType
	Force bool // apply: take fields that others own
	// Validation is the fieldValidation directive.
	Validation Validation
	// View is the form in which the client sees the object and patches it; nil
	// is the stored one. Apply works on the stored form only.
	View *resource.View
}

// Patch changes an object by one of the four patch types. Apply creates an
// object that is not there.
// Errors: as Update, and UnsupportedMediaType, Conflict with the fields and
// their owners (apply).
func (r *Registry) Patch(ctx context.Context, d *Decoder, req Request, patch []byte, opts PatchOptions) (o *cache.Object, created bool, err error) {
	p := patcher{r: r, d: d, req: req, patch: patch, opts: opts}
	change := p.change()
	if change == nil {
		return nil, false, errPatchType(req, opts.Type)
	}
	if err := p.check(); err != nil {
		return nil, false, err
	}
	apply := opts.Type == types.ApplyPatchType
	if opts.View != nil && !apply {
		change = p.through(opts.View)
	}
	return r.Update(ctx, req, change, UpdateOptions{
		WriteOptions: opts.WriteOptions, AllowCreate: apply && req.Subresource == "", KeepManagers: apply,
	})
}

// patcher carries one patch request through the retries of an update.
type patcher struct {
	r     *Registry
	d     *Decoder
	req   Request
	patch []byte
	opts  PatchOptions
}

// change returns how the patch's type changes an object, or nil for a type
// that is not known.
func (p *patcher) change() Change {
	switch p.opts.Type {
	case types.JSONPatchType:
		return p.onJSON(p.applyJSONPatch)
	case types.MergePatchType:
		return p.onJSON(func(doc []byte) ([]byte, error) {
			out, err := jsonpatch.MergePatch(doc, p.patch)
			if err != nil {
				return nil, apierrors.NewBadRequest("the merge patch cannot be applied: " + err.Error())
			}
			return out, nil
		})
	case types.StrategicMergePatchType:
		return p.strategic
	case types.ApplyPatchType:
		return p.apply
	}
	return nil
}

// through patches the object as a view shows it.
func (p *patcher) through(v *resource.View) Change {
	inner := *p
	inner.req.Resource = &resource.Resource{Group: v.Group, Version: v.Version, Kind: v.Kind, Plural: p.req.Resource.Plural, New: v.New}
	change := inner.change()
	return func(current runtime.Object) (runtime.Object, error) {
		seen, err := v.To(current)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		out, err := change(seen)
		if err != nil {
			return nil, err
		}
		if out, err = v.From(out); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return out, nil
	}
}

// check refuses what no object could make valid.
func (p *patcher) check() error {
	if p.opts.Type == types.ApplyPatchType {
		if p.opts.Manager == "" {
			return apierrors.NewBadRequest("fieldManager is required for apply patch")
		}
		return nil
	}
	if p.opts.Force {
		return apierrors.NewBadRequest("force may only be set for apply patches")
	}
	return nil
}

// onJSON runs a patch over the object's JSON document and decodes the result.
func (p *patcher) onJSON(f func(doc []byte) ([]byte, error)) Change {
	return func(current runtime.Object) (runtime.Object, error) {
		current.GetObjectKind().SetGroupVersionKind(p.req.Resource.GVK())
		doc, err := json.Marshal(current)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		out, err := f(doc)
		if err != nil {
			return nil, err
		}
		return p.d.Decode(out, JSON, p.req.Resource.GVK(), p.opts.Validation, p.opts.warn)
	}
}

func (p *patcher) applyJSONPatch(doc []byte) ([]byte, error) {
	ops, err := jsonpatch.DecodePatch(p.patch)
	if err != nil {
		return nil, apierrors.NewBadRequest("the JSON patch cannot be decoded: " + err.Error())
	}
	if len(ops) > maxPatchOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"the allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(ops)))
	}
	return runOperations(doc, ops)
}

// runOperations applies a JSON patch. A copy can double the document, so each
// is applied by itself and what all of them make is bounded
// (CVE-2019-1002100); the others only add what the body holds.
func runOperations(doc []byte, ops jsonpatch.Patch) ([]byte, error) {
	grown, work := 0, 0
	for len(ops) > 0 {
		n := 1
		copies := ops[0].Kind() == "copy"
		for !copies && n < len(ops) && ops[n].Kind() != "copy" {
			n++
		}
		out, err := ops[:n].Apply(doc)
		if err != nil {
			return nil, errPatchFails(err)
		}
		if copies {
			grown, work = grown+len(out)-len(doc), work+len(out)
			if grown > maxCopyGrowth || work > maxCopyWork {
				return nil, apierrors.NewRequestEntityTooLargeError("the copies of the JSON patch make too large a document: write the values themselves")
			}
		}
		doc, ops = out, ops[n:]
	}
	return doc, nil
}

// errPatchFails says that a JSON patch does not fit its object.
func errPatchFails(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: "the JSON patch cannot be applied: " + err.Error(),
	}}
}

func (p *patcher) strategic(current runtime.Object) (runtime.Object, error) {
	var patch map[string]any
	// Whole numbers have to be int64, as they are in the object, or an entry
	// keyed by a number is not found.
	if err := utiljson.Unmarshal(p.patch, &patch); err != nil {
		return nil, apierrors.NewBadRequest("the strategic merge patch is not a JSON object: " + err.Error())
	}
	current.GetObjectKind().SetGroupVersionKind(p.req.Resource.GVK())
	doc, err := runtime.DefaultUnstructuredConverter.ToUnstructured(current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out, err := strategicpatch.StrategicMergeMapPatch(doc, patch, p.req.Resource.New())
	if err != nil {
		return nil, apierrors.NewBadRequest("the strategic merge patch cannot be applied: " + err.Error())
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return p.d.Decode(data, JSON, p.req.Resource.GVK(), p.opts.Validation, p.opts.warn)
}

// apply is server-side apply (KEP-555): the library merges and keeps track of
// who owns which field.
func (p *patcher) apply(current runtime.Object) (runtime.Object, error) {
	applied, err := p.applied()
	if err != nil {
		return nil, err
	}
	m, err := p.r.manager(p.req.Resource, p.req.Subresource)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	current.GetObjectKind().SetGroupVersionKind(p.req.Resource.GVK())
	obj, err := m.Apply(current, applied, p.opts.Manager, p.opts.Force)
	if err != nil {
		if isStatus(err) {
			return nil, err
		}
		return nil, apierrors.NewBadRequest(err.Error())
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

// applied decodes the applied configuration, checks it and its fields.
func (p *patcher) applied() (*unstructured.Unstructured, error) {
	// The typed decode finds unknown and repeated fields and wrong types; the
	// merge itself works on just what the configuration says.
	if _, err := p.d.Decode(p.patch, YAML, p.req.Resource.GVK(), p.opts.Validation, p.opts.warn); err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(p.patch, &u.Object); err != nil {
		return nil, apierrors.NewBadRequest("the applied configuration is not valid YAML: " + err.Error())
	}
	if want := p.req.Resource.GVK(); u.GroupVersionKind() != want {
		got := u.GroupVersionKind()
		return nil, errWrongKind(want, &got)
	}
	if len(u.GetManagedFields()) > 0 {
		return nil, apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	if u.GetName() == "" {
		u.SetName(p.req.Name)
	}
	if u.GetName() != p.req.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf(
			"the name of the object (%s) does not match the name on the URL (%s)", u.GetName(), p.req.Name))
	}
	if p.req.Resource.Namespaced && u.GetNamespace() == "" {
		u.SetNamespace(p.req.Namespace)
	}
	return u, nil
}

// PatchObject patches an object that is not stored itself, such as a Scale,
// by a JSON, merge or strategic patch.
func PatchObject(d *Decoder, gvk schema.GroupVersionKind, obj runtime.Object, patch []byte, opts PatchOptions) (runtime.Object, error) {
	fresh, err := d.Scheme().New(gvk)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	res := &resource.Resource{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind,
		New: func() runtime.Object { return fresh.DeepCopyObject() }}
	p := patcher{d: d, req: Request{Resource: res}, patch: patch, opts: opts}
	change := p.change()
	if change == nil || opts.Type == types.ApplyPatchType {
		return nil, errPatchType(p.req, opts.Type)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return change(obj)
}

func errPatchType(req Request, t types.PatchType) error {
	return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", req.Resource.GroupResource(), req.Name,
		fmt.Sprintf("patches of type %q are not known here: use application/json-patch+json, application/merge-patch+json, "+
			"application/strategic-merge-patch+json or application/apply-patch+yaml", t), 0, false)
}

// SetScale writes the number of replicas through the /scale view.
// Errors: as Update.
func (r *Registry) SetScale(ctx context.Context, req Request, change func(scale runtime.Object) (runtime.Object, error), opts UpdateOptions) (*cache.Object, error) {
	res := req.Resource
	o, _, err := r.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		scale := res.Scale(current)
		next, err := change(scale)
		if err != nil {
			return nil, err
		}
		return current, setScale(res, req, current, next)
	}, opts)
	return o, err
}

func setScale(res *resource.Resource, req Request, obj, scale runtime.Object) error {
	acc, err := meta.Accessor(scale)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	target, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if rv := acc.GetResourceVersion(); rv != "" && rv != target.GetResourceVersion() {
		return errModified(res, req.Name)
	}
	typed, ok := scale.(*autoscalingv1.Scale)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("a Scale of autoscaling/v1 is needed here, not a %T", scale))
	}
	if typed.Spec.Replicas < 0 {
		errs := field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), typed.Spec.Replicas, "must be greater than or equal to 0")}
		return apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), req.Name, errs)
	}
	if errs := res.SetScale(obj, typed); len(errs) > 0 {
		return apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), req.Name, errs)
	}
	return nil
}
