package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func limitRanges() *Resource {
	return define(Resource{
		Version: "v1", Kind: "LimitRange", Plural: "limitranges", ShortNames: []string{"limits"},
		Namespaced:          true,
		AllowCreateOnUpdate: true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &corev1.LimitRange{} },
		NewList:             func() runtime.Object { return &corev1.LimitRangeList{} },
		Columns:             columns("Name", "Created At:date"),
	}, hooks[*corev1.LimitRange]{
		Default: func(l *corev1.LimitRange) {
			for i := range l.Spec.Limits {
				defaultLimit(&l.Spec.Limits[i])
			}
		},
		Validate: func(l *corev1.LimitRange) field.ErrorList {
			var errs field.ErrorList
			seen := map[corev1.LimitType]bool{}
			for i := range l.Spec.Limits {
				item, p := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
				errs = append(errs, checkLimitType(p.Child("type"), item.Type)...)
				if seen[item.Type] {
					errs = append(errs, field.Duplicate(p.Child("type"), item.Type))
				}
				seen[item.Type] = true
				errs = append(errs, checkLimit(p, item)...)
			}
			return errs
		},
		Row: func(l *corev1.LimitRange, _ time.Time) []any {
			return []any{l.Name, l.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

// defaultLimit: for containers a bound is also what one that asks for nothing
// gets.
func defaultLimit(l *corev1.LimitRangeItem) {
	for _, list := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		roundUp(list)
	}
	if l.Type != corev1.LimitTypeContainer {
		return
	}
	if l.Default == nil {
		l.Default = corev1.ResourceList{}
	}
	if l.DefaultRequest == nil {
		l.DefaultRequest = corev1.ResourceList{}
	}
	all := func(corev1.ResourceName) bool { return true }
	addMissing(l.Default, l.Max, all)
	addMissing(l.DefaultRequest, l.Default, all)
	addMissing(l.DefaultRequest, l.Min, all)
}

func checkLimit(path *field.Path, l *corev1.LimitRangeItem) field.ErrorList {
	var errs field.ErrorList
	names := corev1.ResourceList{}
	for _, f := range []struct {
		name string
		list corev1.ResourceList
	}{{"max", l.Max}, {"min", l.Min}, {"default", l.Default}, {"defaultRequest", l.DefaultRequest}, {"maxLimitRequestRatio", l.MaxLimitRequestRatio}} {
		if l.Type == corev1.LimitTypePod && len(f.list) > 0 && (f.name == "default" || f.name == "defaultRequest") {
			errs = append(errs, field.Forbidden(path.Child(f.name), "may not be specified when `type` is 'Pod'"))
			continue
		}
		for _, name := range sortedKeys(f.list) {
			errs = append(errs, checkLimitName(path.Child(f.name).Key(string(name)), l.Type, name)...)
			names[name] = resource.Quantity{}
		}
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, lower := l.Min[corev1.ResourceStorage]
		_, upper := l.Max[corev1.ResourceStorage]
		if !lower && !upper {
			errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	for _, name := range sortedKeys(names) {
		errs = append(errs, checkLimitOrder(path, l, name)...)
	}
	return errs
}

// checkLimitType wants one of Kubernetes' own or a name with a domain.
func checkLimitType(path *field.Path, t corev1.LimitType) field.ErrorList {
	if msgs := utilvalidation.IsQualifiedName(string(t)); len(msgs) > 0 {
		return invalid(path, t, msgs)
	}
	own := []corev1.LimitType{corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim}
	if !strings.Contains(string(t), "/") && !slices.Contains(own, t) {
		return field.ErrorList{field.Invalid(path, t, "must be a standard limit type or fully qualified")}
	}
	return nil
}

func checkLimitName(path *field.Path, t corev1.LimitType, name corev1.ResourceName) field.ErrorList {
	if t == corev1.LimitTypePod || t == corev1.LimitTypeContainer {
		return checkContainerResource(path, name)
	}
	return checkResourceName(path, name)
}

// checkLimitOrder: min <= defaultRequest <= default <= max, and a ratio that
// such bounds allow.
func checkLimitOrder(path *field.Path, l *corev1.LimitRangeItem, name corev1.ResourceName) field.ErrorList {
	var errs field.ErrorList
	key := string(name)
	order := func(f string, low, high corev1.ResourceList, lowName, highName string) {
		a, okA := low[name]
		b, okB := high[name]
		if okA && okB && a.Cmp(b) > 0 {
			errs = append(errs, field.Invalid(path.Child(f).Key(key), a.String(),
				fmt.Sprintf("%s value %s is greater than %s value %s", lowName, a.String(), highName, b.String())))
		}
	}
	order("min", l.Min, l.Max, "min", "max")
	order("defaultRequest", l.Min, l.DefaultRequest, "min", "default request")
	order("defaultRequest", l.DefaultRequest, l.Max, "default request", "max")
	order("defaultRequest", l.DefaultRequest, l.Default, "default request", "default limit")
	order("default", l.Min, l.Default, "min", "default")
	order("default", l.Default, l.Max, "default", "max")
	limit, okLimit := l.Default[name]
	request, okRequest := l.DefaultRequest[name]
	if exact := !nativeResource(name) || isHugePages(name); exact && okLimit && okRequest && limit.Cmp(request) != 0 {
		errs = append(errs, field.Invalid(path.Child("defaultRequest").Key(key), request.String(),
			fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), name)))
	}
	ratio, ok := l.MaxLimitRequestRatio[name]
	if !ok {
		return errs
	}
	p := path.Child("maxLimitRequestRatio").Key(key)
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(p, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	low, okMin := l.Min[name]
	high, okMax := l.Max[name]
	if okMin && okMax && low.Sign() > 0 {
		if most := high.AsApproximateFloat64() / low.AsApproximateFloat64(); ratio.AsApproximateFloat64() > most {
			errs = append(errs, field.Invalid(p, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), most)))
		}
	}
	return errs
}
