package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Checks of single values that many kinds share. Each returns what is wrong
// with the value at path, nil if nothing is.

// invalid makes an Invalid error of each message.
func invalid(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// checkName wants a value that a name rule accepts; empty is Required.
func checkName(path *field.Path, value string, rule func(string) []string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return invalid(path, value, rule(value))
}

// checkSet wants one of the values of an enumeration; empty is Required.
func checkSet[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return checkOptional(path, &value, allowed...)
}

// checkNamed is checkSet where an error of an empty value names the others.
func checkNamed[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q", slices.Sorted(slices.Values(allowed))))}
	}
	return checkOptional(path, &value, allowed...)
}

// checkOptional is checkSet for an optional field.
func checkOptional[T ~string](path *field.Path, value *T, allowed ...T) field.ErrorList {
	if value == nil || slices.Contains(allowed, *value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *value, slices.Sorted(slices.Values(allowed)))}
}

func checkNotNegative[N int32 | int64](path *field.Path, value N) field.ErrorList {
	return validation.ValidateNonnegativeField(int64(value), path)
}

func checkOptionalNotNegative[N int32 | int64](path *field.Path, value *N) field.ErrorList {
	if value == nil {
		return nil
	}
	return checkNotNegative(path, *value)
}

func checkPortNumber(path *field.Path, port int32) field.ErrorList {
	return invalid(path, port, utilvalidation.IsValidPortNum(int(port)))
}

// checkPortRef wants a port's number or name.
func checkPortRef(path *field.Path, port intstr.IntOrString) field.ErrorList {
	if port.Type == intstr.Int {
		return invalid(path, port.IntValue(), utilvalidation.IsValidPortNum(port.IntValue()))
	}
	return invalid(path, port.StrVal, utilvalidation.IsValidPortName(port.StrVal))
}

// checkCountOrPercent wants a number that is not negative, or a percentage.
func checkCountOrPercent(path *field.Path, v intstr.IntOrString) field.ErrorList {
	if v.Type == intstr.Int {
		return checkNotNegative(path, v.IntVal)
	}
	if len(utilvalidation.IsValidPercent(v.StrVal)) > 0 {
		return field.ErrorList{field.Invalid(path, v, "must be an integer or percentage (e.g '5%')")}
	}
	return nil
}

// percentOf is v as a percentage; ok is false for a plain number.
func percentOf(v intstr.IntOrString) (percent int, ok bool) {
	if v.Type != intstr.String || len(utilvalidation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	percent, err := intstr.GetScaledValueFromIntOrPercent(&v, 100, false)
	return percent, err == nil
}

func checkAtMostAll(path *field.Path, v intstr.IntOrString) field.ErrorList {
	if p, ok := percentOf(v); ok && p > 100 {
		return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
	}
	return nil
}

// isZero says whether v is 0 or 0%.
func isZero(v intstr.IntOrString) bool {
	if p, ok := percentOf(v); ok {
		return p == 0
	}
	return v.Type == intstr.Int && v.IntVal == 0
}

func checkLabelSelector(path *field.Path, sel *metav1.LabelSelector) field.ErrorList {
	return metav1validation.ValidateLabelSelector(sel, metav1validation.LabelSelectorValidationOptions{}, path)
}

func checkLabelName(path *field.Path, name string) field.ErrorList {
	return metav1validation.ValidateLabelName(name, path)
}

func checkImmutable(path *field.Path, value, old any) field.ErrorList {
	return validation.ValidateImmutableField(value, old, path)
}

// checkRelativePath wants a path that stays below where it is joined.
func checkRelativePath(path *field.Path, value string) field.ErrorList {
	if strings.HasPrefix(value, "/") {
		return field.ErrorList{field.Invalid(path, value, "must be a relative path")}
	}
	return checkNoBackSteps(path, value)
}

// checkFileName is checkRelativePath for files that are written beside the
// reserved names ..data and the like.
func checkFileName(path *field.Path, value string) field.ErrorList {
	errs := checkRelativePath(path, value)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") && value != ".." {
		errs = append(errs, field.Invalid(path, value, "must not start with '..'"))
	}
	return errs
}

func checkNoBackSteps(path *field.Path, value string) field.ErrorList {
	if slices.Contains(strings.Split(strings.ReplaceAll(value, "\\", "/"), "/"), "..") {
		return field.ErrorList{field.Invalid(path, value, "must not contain '..'")}
	}
	return nil
}

// sortedKeys makes the order of errors about a map's entries stable.
func sortedKeys[K ~string, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
