package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"coracle/pkg/admission/jsonpatch"
	"coracle/pkg/registry/jsonvalue"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// PatchOptions are those of a patch.
type PatchOptions struct {
	WriteOptions
	Type  types.PatchType
	Force bool // apply: take fields that others own
	// Validation is the fieldValidation directive.
	Validation Validation
}

// Patch changes an object by one of the four patch types. Apply creates an
// object that is not there.
// Errors: as Update, and UnsupportedMediaType, Conflict with the fields and
// their owners (apply).
func (r *Registry) Patch(ctx context.Context, d *Decoder, req Request, patch []byte, opts PatchOptions) (o *cache.Object, created bool, err error) {
	p := &patcher{r: r, d: d, req: req, patch: patch, opts: opts}
	if err := p.check(); err != nil {
		return nil, false, err
	}
	change := p.change()
	if change == nil {
		return nil, false, errPatchType(req, opts.Type)
	}
	apply := opts.Type == types.ApplyPatchType
	if req.View != nil && !apply {
		change = p.through(req.View)
	}
	update := UpdateOptions{WriteOptions: opts.WriteOptions, AllowCreate: apply && req.Subresource == "", KeepManagers: apply}
	if onDocument := p.onDocument(); onDocument != nil && req.View == nil {
		update.onStored = func(o *cache.Object) (runtime.Object, error) { return p.patchStored(o, onDocument) }
	}
	return r.Update(ctx, req, change, update)
}

// patchStored patches the JSON that o has ready, or will be asked for anyway.
func (p *patcher) patchStored(o *cache.Object, onDocument documentChange) (runtime.Object, error) {
	if p.merges(o) {
		return p.mergeCustom(o)
	}
	if obj, err := p.mergeTyped(o); obj != nil || err != nil {
		return obj, err
	}
	bare, err := ItemJSON(p.req.Resource, p.r.Plan(p.req.Resource), o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if p.req.Resource.Custom != nil { // it says what it is
		out, err := onDocument(bare)
		if err != nil {
			return nil, err
		}
		return p.decode(out)
	}
	out, err := onDocument(p.document(bare))
	if err != nil {
		return nil, err
	}
	return p.decode(out)
}

// document is the JSON of an item of a list as that of an object by itself.
func (p *patcher) document(bare []byte) []byte {
	gvk := p.req.Resource.GVK()
	doc := fmt.Appendf(make([]byte, 0, len(bare)+96), `{"kind":%q,"apiVersion":%q`, gvk.Kind, gvk.GroupVersion().String())
	if len(bare) > len("{}") {
		doc = append(doc, ',')
	}
	return append(doc, bare[1:]...)
}

// merges says that the patch can be merged into the decoded form of o, which is
// the same object as o's JSON. Sizes are bounded so that the result surely holds
// no more values than a body may.
func (p *patcher) merges(o *cache.Object) bool {
	res := p.req.Resource
	return p.opts.Type == types.MergePatchType && res.Custom != nil && p.members != nil && len(o.Value)+len(p.patch) <= maxNodes &&
		storedAs(res, o.Value) && res.Custom.Conforms(int64(o.Revision))
}

// mergeCustom merges the patch into a copy of the decoded form of o.
func (p *patcher) mergeCustom(o *cache.Object) (runtime.Object, error) {
	shared, err := Shared(p.req.Resource, o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	patch, _ := jsonvalue.Copy(p.members).(map[string]any) // it may be merged again
	u := &unstructured.Unstructured{Object: jsonvalue.Merge(shared.(*unstructured.Unstructured).Object, patch)}
	return p.judge(func(validation Validation, warn func(string)) (runtime.Object, error) {
		return u, acceptCustom(p.req.Resource, u, nil, validation, warn)
	})
}

// mostMerged bounds what mergeTyped patches, in bytes: no object of the size has
// more values than a body may have.
const mostMerged = 8 << 10

// mergeTyped merges a plain patch into a copy of the decoded form of o. It
// returns nil where that is not what merging into its JSON would make, or takes
// somebody to say what is wrong.
func (p *patcher) mergeTyped(o *cache.Object) (runtime.Object, error) {
	res := p.req.Resource
	if p.opts.Type != types.MergePatchType || res.StoredJSON || p.members == nil || len(o.Value)+len(p.patch) > mostMerged {
		return nil, nil
	}
	shared, err := Shared(res, o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj, ok := mergePlain(p.d, res, shared, p.patch)
	if !ok {
		return nil, nil
	}
	return obj, nil
}

// mergePlain returns a copy of obj with a merge patch applied; ok is false for
// one that is not plain.
func mergePlain(d *Decoder, res *resource.Resource, obj runtime.Object, patch []byte) (_ runtime.Object, ok bool) {
	plan := d.planOf(reflect.TypeOf(obj).Elem())
	if plan == nil {
		return nil, false
	}
	out := obj.DeepCopyObject()
	kind := out.GetObjectKind()
	kind.SetGroupVersionKind(res.GVK())
	return out, plan.Merge(patch, out) == nil && kind.GroupVersionKind() == res.GVK()
}

// documentChange patches an object's JSON.
type documentChange func(doc []byte) ([]byte, error)

// patcher carries one patch request through the retries of an update.
type patcher struct {
	r     *Registry
	d     *Decoder
	req   Request
	patch []byte
	opts  PatchOptions
	// strict is what fieldValidation finds in the patch itself; set by check.
	strict []error
	// members are those of a merge patch that has nothing special; set by check.
	members map[string]any
}

// change returns how the patch's type changes an object, or nil for a type
// that is not known.
func (p *patcher) change() Change {
	switch p.opts.Type {
	case types.JSONPatchType, types.MergePatchType:
		return p.onJSON(p.onDocument())
	case types.StrategicMergePatchType:
		if p.req.Resource.Custom != nil {
			return nil // it follows Go types, of which there are none
		}
		return p.strategic
	case types.ApplyPatchType:
		return p.apply
	}
	return nil
}

// onDocument returns how a patch's type changes an object's JSON, or nil for
// one that does not work on JSON.
func (p *patcher) onDocument() documentChange {
	switch p.opts.Type {
	case types.JSONPatchType:
		return p.applyJSONPatch
	case types.MergePatchType:
		return func(doc []byte) ([]byte, error) {
			out, err := mergePatch(doc, p.patch)
			if err != nil {
				return nil, apierrors.NewBadRequest("the merge patch cannot be applied: " + err.Error())
			}
			return out, nil
		}
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
	if err := checkPatchWidth(p.patch); err != nil {
		return err
	}
	if p.opts.Force {
		return apierrors.NewBadRequest("force may only be set for apply patches")
	}
	if p.opts.Type != types.JSONPatchType {
		if members, ok := jsonvalue.Read(p.patch); ok {
			p.members = members
			return nil
		}
	}
	if p.opts.Validation != Ignore {
		p.strict = repeated(p.patch, p.opts.Type)
	}
	return nil
}

// jsonPatchOperation has the fields that an operation of a JSON patch may have.
type jsonPatchOperation struct {
	Op    string `json:"op"`
	From  string `json:"from"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// repeated finds fields that a patch has more than once, and those that an
// operation of a JSON patch cannot have. A patch that cannot be read at all is
// refused where it is applied.
func repeated(patch []byte, kind types.PatchType) (found []error) {
	if kind != types.JSONPatchType {
		found, err := kjson.UnmarshalStrict(patch, &map[string]any{})
		if err != nil {
			return nil
		}
		return found
	}
	errs, err := kjson.UnmarshalStrict(patch, &[]jsonPatchOperation{})
	if err != nil {
		return nil
	}
	for _, e := range errs {
		found = append(found, fmt.Errorf("json patch %w", e))
	}
	return found
}

// decode reads the patched document.
func (p *patcher) decode(doc []byte) (runtime.Object, error) {
	return p.judge(func(validation Validation, warn func(string)) (runtime.Object, error) {
		return p.d.DecodeFor(p.req.Resource, doc, JSON, validation, warn)
	})
}

// judge makes the patched object. What fieldValidation finds in it or found in
// the patch is a warning, or makes the patch invalid.
func (p *patcher) judge(make func(validation Validation, warn func(string)) (runtime.Object, error)) (runtime.Object, error) {
	found := p.strict
	validation := p.opts.Validation
	if validation == Strict {
		validation = Warn
	}
	obj, err := make(validation, func(text string) { found = append(found, errors.New(text)) })
	if err != nil {
		return nil, p.unfit(err)
	}
	if p.opts.Validation == Strict && len(found) > 0 {
		return nil, p.invalid(runtime.NewStrictDecodingError(found).Error())
	}
	for _, e := range found {
		p.opts.warn(e.Error())
	}
	return obj, nil
}

// unfit is what is wrong with a patch that made of an object what is none.
func (p *patcher) unfit(err error) error {
	if !apierrors.IsBadRequest(err) {
		return err
	}
	gvk := p.req.Resource.GVK()
	return p.invalid(strings.TrimPrefix(err.Error(), undecodable(gvk.Kind, gvk.Version, gvk.Kind)))
}

// invalid says that the patch is at fault, and why. It does not show the patch,
// which may be a Secret's: answers that refuse are in the audit log.
func (p *patcher) invalid(why string) error {
	return Invalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), field.OmitValueType{}, why)})
}

// onJSON runs a patch over the object's JSON document and decodes the result.
func (p *patcher) onJSON(f documentChange) Change {
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
		return p.decode(out)
	}
}

func (p *patcher) applyJSONPatch(doc []byte) ([]byte, error) {
	patch, err := jsonpatch.Decode(p.patch)
	if err == nil {
		doc, err = patch.Apply(doc)
	}
	switch {
	case errors.Is(err, jsonpatch.ErrTooLarge):
		return nil, apierrors.NewRequestEntityTooLargeError(err.Error())
	case errors.Is(err, jsonpatch.ErrSyntax):
		return nil, apierrors.NewBadRequest(err.Error())
	case err != nil:
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Message: "the JSON patch cannot be applied: " + err.Error(),
		}}
	}
	return doc, nil
}

func (p *patcher) strategic(current runtime.Object) (runtime.Object, error) {
	var patch map[string]any
	// Whole numbers have to be int64, as they are in the object, or an entry
	// keyed by a number is not found.
	if err := utiljson.Unmarshal(p.patch, &patch); err != nil {
		return nil, apierrors.NewBadRequest("the strategic merge patch is not a JSON object: " + err.Error())
	}
	if err := checkPairs(patch, current); err != nil {
		return nil, err
	}
	current.GetObjectKind().SetGroupVersionKind(p.req.Resource.GVK())
	doc, err := runtime.DefaultUnstructuredConverter.ToUnstructured(current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out, err := mergeStrategically(doc, patch, p.req.Resource.New())
	if err != nil {
		return nil, apierrors.NewBadRequest("the strategic merge patch cannot be applied: " + err.Error())
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj, err := p.decode(data)
	if err != nil {
		// This patch follows Go types, in whose terms clients know its errors.
		if why := runtime.DefaultUnstructuredConverter.FromUnstructured(out, p.req.Resource.New()); why != nil && apierrors.IsInvalid(err) {
			return nil, p.invalid(why.Error())
		}
	}
	return obj, err
}

// mergeStrategically calls the library, which panics where the key of a list's
// entry is no text or number.
func mergeStrategically(doc, patch map[string]any, object runtime.Object) (out map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("an entry of a list has a key that cannot be compared: %v", p)
		}
	}()
	return strategicpatch.StrategicMergeMapPatch(doc, patch, object)
}

// apply is server-side apply (KEP-555): the library merges and keeps track of
// who owns which field.
func (p *patcher) apply(current runtime.Object) (runtime.Object, error) {
	applied, err := p.applied()
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(checkSquares(applied.Object), checkSquares(current)); err != nil {
		return nil, err
	}
	m, err := p.r.manager(p.req)
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
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if _, err := p.req.Resource.Custom.Accept(u, false); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return u, nil
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

// applied decodes the applied configuration, checks it and its fields.
func (p *patcher) applied() (*unstructured.Unstructured, error) {
	u, err := p.decodeApplied()
	if err != nil {
		return nil, err
	}
	if want := p.req.gvk(); u.GroupVersionKind() != want {
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

// decodeApplied decodes the applied configuration, of which the merge takes
// just what it says.
func (p *patcher) decodeApplied() (*unstructured.Unstructured, error) {
	if p.req.Resource.Custom != nil {
		// The merge itself refuses what the schema does not have.
		u, found, err := decodeMap(p.patch, YAML)
		if err != nil {
			return nil, err
		}
		return u, report(found, p.opts.Validation, p.opts.warn)
	}
	// JSON that is right need not be read as YAML, which would find the same.
	if looksLikeJSON(p.patch) {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		if _, err := p.d.Decode(p.patch, JSON, p.req.gvk(), Strict, func(string) {}); err == nil && utiljson.Unmarshal(p.patch, &u.Object) == nil {
			return u, nil
		} else if apierrors.IsRequestEntityTooLargeError(err) {
			return nil, err
		}
	}
	// The typed decode finds unknown and repeated fields and wrong types.
	if _, err := p.d.Decode(p.patch, YAML, p.req.gvk(), p.opts.Validation, p.opts.warn); err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(p.patch, &u.Object); err != nil {
		return nil, apierrors.NewBadRequest("the applied configuration is not valid YAML: " + err.Error())
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
