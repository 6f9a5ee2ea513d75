package resource

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What device classes, claims, slices and taint rules have in common.

func validateDeviceClass(c *resourcev1.DeviceClass) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkDeviceSelectors(path.Child("selectors"), c.Spec.Selectors)
	errs = append(errs, checkList(path.Child("config"), c.Spec.Config, resourcev1.DeviceConfigMaxSize,
		func(p *field.Path, d *resourcev1.DeviceClassConfiguration) field.ErrorList {
			return checkDeviceConfiguration(p, &d.DeviceConfiguration)
		})...)
	if n := c.Spec.ExtendedResourceName; n != nil && !extendedResource(corev1.ResourceName(*n)) {
		errs = append(errs, field.Invalid(path.Child("extendedResourceName"), *n, "must be a valid extended resource name"))
	}
	return errs
}

func validateDeviceTaintRuleStatus(r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
	path := field.NewPath("status", "conditions")
	errs := metav1validation.ValidateConditions(r.Status.Conditions, path)
	if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
		errs = append(errs, field.TooMany(path, n, resourcev1.DeviceTaintRuleStatusMaxConditions))
	}
	return errs
}

// checkDeviceTaintRule: old is nil on create.
func checkDeviceTaintRule(spec, old *resourcev1.DeviceTaintRuleSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if s := spec.DeviceSelector; s != nil {
		p := path.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, checkDriverName(p.Child("driver"), *s.Driver)...)
		}
		if s.Pool != nil {
			errs = append(errs, checkPoolName(p.Child("pool"), *s.Pool)...)
		}
		if s.Device != nil {
			errs = append(errs, invalid(p.Child("device"), *s.Device, utilvalidation.IsDNS1123Label(*s.Device))...)
		}
	}
	keep := old != nil && old.Taint.Effect == spec.Taint.Effect
	return append(errs, checkDeviceTaint(path.Child("taint"), &spec.Taint, keep)...)
}

// checkList wants at most limit items and checks each; of a list that is too
// long nothing else is said.
func checkList[T any](path *field.Path, list []T, limit int, check func(*field.Path, *T) field.ErrorList) field.ErrorList {
	if len(list) > limit {
		return field.ErrorList{field.TooMany(path, len(list), limit)}
	}
	var errs field.ErrorList
	for i := range list {
		errs = append(errs, check(path.Index(i), &list[i])...)
	}
	return errs
}

// checkKeyed is checkList for lists in which no two items have the same key.
func checkKeyed[T any, K comparable](path *field.Path, list []T, limit int, key func(*T) K, check func(*field.Path, *T) field.ErrorList) field.ErrorList {
	errs := checkList(path, list, limit, check)
	if len(list) > limit {
		return errs
	}
	seen := map[K]bool{}
	for i := range list {
		k := key(&list[i])
		if seen[k] {
			errs = append(errs, field.Duplicate(path.Index(i), k))
		}
		seen[k] = true
	}
	return errs
}

// checkDeviceSelectors checks all but the expressions' meaning: an admission
// plugin compiles them.
func checkDeviceSelectors(path *field.Path, list []resourcev1.DeviceSelector) field.ErrorList {
	return checkList(path, list, resourcev1.DeviceSelectorsMaxSize, func(p *field.Path, s *resourcev1.DeviceSelector) field.ErrorList {
		p = p.Child("cel")
		switch {
		case s.CEL == nil:
			return field.ErrorList{field.Required(p, "")}
		case len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength:
			return field.ErrorList{field.TooLong(p.Child("expression"), "", resourcev1.CELSelectorExpressionMaxLength)}
		case strings.TrimSpace(s.CEL.Expression) == "":
			return field.ErrorList{field.Invalid(p.Child("expression"), s.CEL.Expression, "compilation failed: the expression is empty")}
		}
		return nil
	})
}

func checkDeviceConfiguration(path *field.Path, c *resourcev1.DeviceConfiguration) field.ErrorList {
	p := path.Child("opaque")
	if c.Opaque == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	errs := checkDriverName(p.Child("driver"), c.Opaque.Driver)
	return append(errs, checkRawObject(p.Child("parameters"), &c.Opaque.Parameters, resourcev1.OpaqueParametersMaxLength)...)
}

// checkRawObject wants a JSON object of at most limit bytes.
func checkRawObject(path *field.Path, raw *runtime.RawExtension, limit int) field.ErrorList {
	if len(raw.Raw) > limit {
		return field.ErrorList{field.TooLong(path, "", limit)}
	}
	if len(raw.Raw) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var v any
	if err := json.Unmarshal(raw.Raw, &v); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "error parsing data as JSON: "+err.Error())}
	}
	if v == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}

func checkPoolName(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(path, "", resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, invalid(path, part, utilvalidation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func deviceTaintEffects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
}

// checkDeviceTaint lets an effect stay that was stored before: keepEffect.
func checkDeviceTaint(path *field.Path, t *resourcev1.DeviceTaint, keepEffect bool) field.ErrorList {
	errs := checkLabelName(path.Child("key"), t.Key)
	errs = append(errs, invalid(path.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
	if keepEffect {
		return errs
	}
	return append(errs, checkSet(path.Child("effect"), t.Effect, deviceTaintEffects()...)...)
}

func checkDeviceToleration(path *field.Path, t *resourcev1.DeviceToleration) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, checkLabelName(path.Child("key"), t.Key)...)
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, invalid(path.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
	default:
		errs = append(errs, checkSet(path.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
	}
	if t.Effect != "" {
		errs = append(errs, checkSet(path.Child("effect"), t.Effect, deviceTaintEffects()...)...)
	}
	return errs
}

// checkDeviceBinding checks the conditions that a pod waits for before it is bound,
// and those that end the wait: both lists or none, with nothing in common.
func checkDeviceBinding(path *field.Path, conditions, failures []string) field.ErrorList {
	p, fp := path.Child("bindingConditions"), path.Child("bindingFailureConditions")
	name := func(p *field.Path, s *string) field.ErrorList { return checkLabelName(p, *s) }
	self := func(s *string) string { return *s }
	errs := checkKeyed(p, conditions, resourcev1.BindingConditionsMaxSize, self, name)
	errs = append(errs, checkKeyed(fp, failures, resourcev1.BindingFailureConditionsMaxSize, self, name)...)
	for i, f := range failures {
		if slices.Contains(conditions, f) {
			errs = append(errs, field.Invalid(fp.Index(i), f, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch {
	case len(conditions) == 0 && len(failures) > 0:
		errs = append(errs, field.Invalid(p, conditions, "bindingConditions are required to use bindingFailureConditions"))
	case len(failures) == 0 && len(conditions) > 0:
		errs = append(errs, field.Invalid(fp, failures, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

// checkQualifiedName wants an identifier that a driver's domain may precede.
func checkQualifiedName(path *field.Path, name string) field.ErrorList {
	parts := strings.Split(name, "/")
	switch {
	case len(parts) > 2:
		return field.ErrorList{field.Invalid(path, name, "must not contain more than one slash")}
	case len(parts) == 1:
		return checkIdentifier(path, name)
	}
	var errs field.ErrorList
	if parts[0] == "" {
		errs = append(errs, field.Invalid(path, "", "the domain must not be empty"))
	} else {
		errs = append(errs, checkDriverName(path, parts[0])...)
	}
	if parts[1] == "" {
		return append(errs, field.Invalid(path, "", "the name must not be empty"))
	}
	return append(errs, checkIdentifier(path, parts[1])...)
}

// checkFullName is checkQualifiedName for a name that must have its domain.
func checkFullName(path *field.Path, name string) field.ErrorList {
	errs := checkQualifiedName(path, name)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

func checkIdentifier(path *field.Path, id string) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, "", resourcev1.DeviceMaxIDLength))
	}
	return append(errs, invalid(path, id, utilvalidation.IsCIdentifier(id))...)
}

// checkUUID wants a UUID as Go and the API server write it.
func checkUUID(path *field.Path, id string) field.ErrorList {
	ok := len(id) == 36
	for i := 0; ok && i < len(id); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			ok = id[i] == '-'
		} else {
			ok = strings.IndexByte("0123456789abcdef", id[i]) >= 0
		}
	}
	if ok {
		return nil
	}
	return field.ErrorList{field.Invalid(path, id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
}
