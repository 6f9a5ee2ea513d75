package resource

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkResourceSlice checks what a driver says of its devices; old is nil on
// create.
func checkResourceSlice(s, old *resourcev1.ResourceSliceSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkDriverName(path.Child("driver"), s.Driver)
	errs = append(errs, checkPoolName(path.Child("pool", "name"), s.Pool.Name)...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(path.Child("pool", "resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	errs = append(errs, checkNotNegative(path.Child("pool", "generation"), s.Pool.Generation)...)
	if old != nil {
		errs = append(errs, checkImmutable(path.Child("pool", "name"), s.Pool.Name, old.Pool.Name)...)
		errs = append(errs, checkImmutable(path.Child("driver"), s.Driver, old.Driver)...)
		errs = append(errs, checkImmutable(path.Child("nodeName"), s.NodeName, old.NodeName)...)
	}
	errs = append(errs, checkSliceNodes(path, s)...)
	if s.SharedCounters != nil && s.Devices != nil {
		errs = append(errs, field.Invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	limit := resourcev1.ResourceSliceMaxDevices
	for i := range s.Devices {
		if len(s.Devices[i].Taints) > 0 || len(s.Devices[i].ConsumesCounters) > 0 {
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	was := map[string]*resourcev1.Device{}
	if old != nil {
		for i := range old.Devices {
			was[old.Devices[i].Name] = &old.Devices[i]
		}
	}
	perDevice := s.PerDeviceNodeSelection != nil && *s.PerDeviceNodeSelection
	errs = append(errs, checkKeyed(path.Child("devices"), s.Devices, limit, func(d *resourcev1.Device) string { return d.Name },
		func(p *field.Path, d *resourcev1.Device) field.ErrorList {
			return checkDevice(p, d, was[d.Name], perDevice)
		})...)
	return append(errs, checkKeyed(path.Child("sharedCounters"), s.SharedCounters, resourcev1.ResourceSliceMaxCounterSets,
		func(c *resourcev1.CounterSet) string { return c.Name },
		func(p *field.Path, c *resourcev1.CounterSet) field.ErrorList {
			errs := checkName(p.Child("name"), c.Name, utilvalidation.IsDNS1123Label)
			return append(errs, checkCounters(p.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet)...)
		})...)
}

// checkSliceNodes wants one way to say which nodes have the devices.
func checkSliceNodes(path *field.Path, s *resourcev1.ResourceSliceSpec) field.ErrorList {
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	set, errs := checkNodes(path, s.NodeName, s.NodeSelector, s.AllNodes)
	if s.NodeSelector != nil && len(s.NodeSelector.NodeSelectorTerms) != 1 {
		// Of devices that are allocated together the selectors are merged.
		errs = append(errs, field.Invalid(path.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms,
			"must have exactly one node selector term"))
	}
	if p := s.PerDeviceNodeSelection; p != nil && !*p {
		errs = append(errs, field.Invalid(path.Child("perDeviceNodeSelection"), *p, "must be either unset or set to true"))
	} else if p != nil {
		set = append(set, "`perDeviceNodeSelection`")
	}
	switch {
	case len(set) == 0:
		errs = append(errs, field.Required(path, one))
	case len(set) > 1:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(set, ", ")+"}", one+", but multiple fields are set"))
	}
	return errs
}

// checkNodes checks the ways to say which nodes have a device that slices and
// devices share, and returns which are used.
func checkNodes(path *field.Path, name *string, selector *corev1.NodeSelector, all *bool) (set []string, errs field.ErrorList) {
	if name != nil && *name == "" {
		errs = append(errs, field.Invalid(path.Child("nodeName"), *name, "must be either unset or set to a non-empty string"))
	} else if name != nil {
		set = append(set, "`nodeName`")
		errs = append(errs, invalid(path.Child("nodeName"), *name, utilvalidation.IsDNS1123Subdomain(*name))...)
	}
	if selector != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, checkNodeSelector(path.Child("nodeSelector"), selector)...)
	}
	if all != nil && !*all {
		errs = append(errs, field.Invalid(path.Child("allNodes"), *all, "must be either unset or set to true"))
	} else if all != nil {
		set = append(set, "`allNodes`")
	}
	return set, errs
}

// checkDevice: what was stored before in old, nil if there was none, is not
// held against newer rules.
func checkDevice(path *field.Path, d, old *resourcev1.Device, perDevice bool) field.ErrorList {
	errs := invalid(path.Child("name"), d.Name, utilvalidation.IsDNS1123Label(d.Name))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d",
			resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	p := path.Child("attributes")
	for _, name := range sortedKeys(d.Attributes) {
		a := d.Attributes[name]
		errs = append(errs, checkQualifiedName(p, string(name))...)
		errs = append(errs, checkAttribute(p.Key(string(name)), &a)...)
	}
	if old == nil || !equality.Semantic.DeepEqual(old.Capacity, d.Capacity) {
		errs = append(errs, checkDeviceCapacity(path.Child("capacity"), d.Capacity, d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations)...)
	}
	if old == nil || !equality.Semantic.DeepEqual(old.Taints, d.Taints) {
		errs = append(errs, checkList(path.Child("taints"), d.Taints, resourcev1.DeviceTaintsMaxLength,
			func(p *field.Path, t *resourcev1.DeviceTaint) field.ErrorList { return checkDeviceTaint(p, t, false) })...)
	}
	errs = append(errs, checkKeyed(path.Child("consumesCounters"), d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice,
		func(c *resourcev1.DeviceCounterConsumption) string { return c.CounterSet },
		func(p *field.Path, c *resourcev1.DeviceCounterConsumption) field.ErrorList {
			errs := checkName(p.Child("counterSet"), c.CounterSet, utilvalidation.IsDNS1123Label)
			return append(errs, checkCounters(p.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption)...)
		})...)
	errs = append(errs, checkDeviceNodes(path, d, perDevice)...)
	return append(errs, checkDeviceBinding(path, d.BindingConditions, d.BindingFailureConditions)...)
}

func checkDeviceNodes(path *field.Path, d *resourcev1.Device, perDevice bool) field.ErrorList {
	if !perDevice {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			return field.ErrorList{field.Invalid(path, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")}
		}
		return nil
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	set, errs := checkNodes(path, d.NodeName, d.NodeSelector, d.AllNodes)
	switch {
	case len(set) == 0:
		errs = append(errs, field.Required(path, one))
	case len(set) > 1:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(set, ", ")+"}", one))
	}
	return errs
}

func checkCounters(path *field.Path, counters map[string]resourcev1.Counter, limit int) field.ErrorList {
	switch {
	case len(counters) == 0:
		return field.ErrorList{field.Required(path, "")}
	case len(counters) > limit:
		return field.ErrorList{field.TooMany(path, len(counters), limit)}
	}
	var errs field.ErrorList
	for _, name := range sortedKeys(counters) {
		errs = append(errs, invalid(path, name, utilvalidation.IsDNS1123Label(name))...)
	}
	return errs
}

// checkAttribute wants one value. Lists of values are not counted: they are
// dropped before.
func checkAttribute(path *field.Path, a *resourcev1.DeviceAttribute) field.ErrorList {
	var errs field.ErrorList
	n := 0
	for _, set := range []bool{a.BoolValue != nil, a.IntValue != nil, a.StringValue != nil, a.VersionValue != nil} {
		if set {
			n++
		}
	}
	tooLong := func(p *field.Path, s string) {
		if len(s) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(p, "", resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	if s := a.StringValue; s != nil {
		tooLong(path.Child("string"), *s)
	}
	if v := a.VersionValue; v != nil {
		if !semantic(*v) {
			errs = append(errs, field.Invalid(path.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		tooLong(path.Child("version"), *v)
	}
	if n != 1 {
		errs = append(errs, field.Invalid(path, "", "exactly one value must be specified"))
	}
	return errs
}

// semantic says that v is a version of three numbers, with an optional
// pre-release after "-" and build after "+", both divided by dots.
func semantic(v string) bool {
	v, build, hasBuild := strings.Cut(v, "+")
	v, pre, hasPre := strings.Cut(v, "-")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	numbers := strings.Split(v, ".")
	if len(numbers) != 3 {
		return false
	}
	for _, n := range numbers {
		if !digits(n) || (n[0] == '0' && len(n) > 1) {
			return false
		}
	}
	parts := func(s string, zeros bool) bool {
		for part := range strings.SplitSeq(s, ".") {
			if part == "" || (!zeros && digits(part) && part[0] == '0' && len(part) > 1) {
				return false
			}
			for _, c := range part {
				if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
					return false
				}
			}
		}
		return true
	}
	return (!hasPre || parts(pre, false)) && (!hasBuild || parts(build, true))
}
