package custom

import (
	"context"
	"math"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// check implements resource.Resource.Check. What was wrong before and did not
// change is let pass (ratcheting).
func (o *objects) check(ctx context.Context, obj, before runtime.Object, subresource string) field.ErrorList {
	u := obj.(*unstructured.Unstructured)
	old, _ := before.(*unstructured.Unstructured)
	if errs := o.checkType(u); len(errs) > 0 {
		return errs
	}
	c, err := o.compiled()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	fine := c.fine(u, old, subresource)
	if fine && !c.hasRules {
		return o.checkScale(u, subresource)
	}
	lib, err := c.library()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	k := checker{o: o, c: lib, u: u, old: old}
	if old != nil {
		k.unchanged = common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: lib.structural})
	}
	var errs field.ErrorList
	switch {
	case fine:
		errs = o.checkScale(u, subresource)
	case subresource == "status":
		errs = k.status()
	default:
		errs = k.whole(ctx)
	}
	return append(errs, k.rules(ctx, errs)...)
}

// fine says that the schema has nothing against what is written.
func (c *compiled) fine(u, old *unstructured.Unstructured, subresource string) bool {
	switch {
	case c.shape == nil || c.deep && old != nil || !c.shape.unique(u.Object):
		return false
	case subresource != "status":
		return !c.embeds && c.shape.valid(u.Object)
	}
	status, ok := u.Object["status"]
	if !ok || c.shape.object == nil || c.shape.object.fields["status"] == nil {
		return true
	}
	return c.shape.object.fields["status"].valid(status)
}

// checkScale checks the fields that /scale shows.
func (o *objects) checkScale(u *unstructured.Unstructured, subresource string) field.ErrorList {
	k := checker{o: o, u: u}
	if subresource == "status" {
		return k.scaleStatus()
	}
	return append(k.scaleSpec(), k.scaleStatus()...)
}

func (o *objects) checkType(u *unstructured.Unstructured) field.ErrorList {
	var errs field.ErrorList
	if got := u.GetKind(); got != o.gvk.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), got, "must be "+o.gvk.Kind))
	}
	if got := u.GetAPIVersion(); got != o.apiVersion {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), got, "must be "+o.apiVersion))
	}
	return errs
}

// checker validates one object.
type checker struct {
	o         *objects
	c         *library
	u, old    *unstructured.Unstructured // old is nil on create
	unchanged *common.CorrelatedObject   // nil on create
}

func (k *checker) whole(ctx context.Context) field.ErrorList {
	var errs field.ErrorList
	if k.old == nil {
		errs = validation.ValidateCustomResource(nil, k.u.Object, k.c.whole)
	} else {
		errs = validation.ValidateCustomResourceUpdate(nil, k.u.Object, k.old.Object, k.c.whole, validation.WithRatcheting(k.unchanged))
	}
	errs = append(errs, k.scaleSpec()...)
	errs = append(errs, k.scaleStatus()...)
	errs = append(errs, objectmeta.Validate(ctx, nil, k.u.Object, k.c.structural, false)...)
	return append(errs, k.lists()...)
}

func (k *checker) status() field.ErrorList {
	var errs field.ErrorList
	if status, ok := k.u.Object["status"]; ok && k.c.status != nil {
		var opts []validation.ValidationOption
		if k.c.structural != nil {
			opts = append(opts, validation.WithRatcheting(k.unchanged.Key("status")))
		}
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, k.old.Object["status"], k.c.status, opts...)
	}
	errs = append(errs, k.scaleStatus()...)
	return append(errs, k.lists()...)
}

// lists checks sets and maps; a list that was wrong before may stay so.
func (k *checker) lists() field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, k.c.structural, k.u.Object)
	if len(errs) > 0 && k.old != nil && len(listtype.ValidateListSetsAndMaps(nil, k.c.structural, k.old.Object)) > 0 {
		return nil
	}
	return errs
}

// rules evaluates the x-kubernetes-validations, unless found says that the
// object is not of the shape that they are written for.
func (k *checker) rules(ctx context.Context, found field.ErrorList) field.ErrorList {
	if k.c.rules == nil {
		return nil
	}
	blocking := []field.ErrorType{field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid}
	if slices.ContainsFunc(found, func(e *field.Error) bool { return slices.Contains(blocking, e.Type) }) {
		return field.ErrorList{field.Invalid(nil, nil,
			"some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
	}
	var errs field.ErrorList
	if k.old == nil {
		errs, _ = k.c.rules.Validate(ctx, nil, k.c.structural, k.u.Object, nil, celconfig.RuntimeCELCostBudget)
	} else {
		errs, _ = k.c.rules.Validate(ctx, nil, k.c.structural, k.u.Object, k.old.Object, celconfig.RuntimeCELCostBudget, cel.WithRatcheting(k.unchanged))
	}
	return errs
}

func (k *checker) scaleSpec() field.ErrorList {
	if k.o.scale == nil {
		return nil
	}
	return checkReplicas(k.u, k.o.scale.SpecReplicasPath)
}

func (k *checker) scaleStatus() field.ErrorList {
	if k.o.scale == nil {
		return nil
	}
	errs := checkReplicas(k.u, k.o.scale.StatusReplicasPath)
	if p := k.o.scale.LabelSelectorPath; p != nil {
		if selector, _, err := unstructured.NestedString(k.u.Object, splitPath(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), selector, err.Error()))
		}
	}
	return errs
}

func checkReplicas(u *unstructured.Unstructured, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(u.Object, splitPath(path)...)
	problem := ""
	switch {
	case err != nil:
		problem = err.Error()
	case n < 0:
		problem = "should be a non-negative integer"
	case n > math.MaxInt32:
		problem = "should be less than or equal to 2147483647"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(path), n, problem)}
}

// splitPath splits a JSON path of plain fields.
func splitPath(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }
