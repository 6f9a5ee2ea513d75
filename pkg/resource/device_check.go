package resource

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxSliceDevices = 128

func checkDeviceClaim(path *field.Path, c *resourcev1.DeviceClaim) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("requests")
	if n := len(c.Requests); n > resourcev1.DeviceRequestsMaxSize {
		errs = append(errs, field.TooMany(p, n, resourcev1.DeviceRequestsMaxSize))
	}
	if n := len(c.Constraints); n > resourcev1.DeviceConstraintsMaxSize {
		errs = append(errs, field.TooMany(path.Child("constraints"), n, resourcev1.DeviceConstraintsMaxSize))
	}
	if n := len(c.Config); n > resourcev1.DeviceConfigMaxSize {
		errs = append(errs, field.TooMany(path.Child("config"), n, resourcev1.DeviceConfigMaxSize))
	}
	names := map[string]bool{}
	for i := range c.Requests {
		r, rp := &c.Requests[i], p.Index(i)
		errs = append(errs, checkName(rp.Child("name"), r.Name, utilvalidation.IsDNS1123Label)...)
		if names[r.Name] {
			errs = append(errs, field.Duplicate(rp.Child("name"), r.Name))
		}
		names[r.Name] = true
		errs = append(errs, checkDeviceRequest(rp, r, names)...)
	}
	for i, constraint := range c.Constraints {
		for j, name := range constraint.Requests {
			if !names[name] {
				errs = append(errs, field.Invalid(path.Child("constraints").Index(i).Child("requests").Index(j), name,
					"must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
			}
		}
	}
	return errs
}

// checkDeviceRequest also notes the names of subrequests, as "request/sub".
func checkDeviceRequest(path *field.Path, r *resourcev1.DeviceRequest, names map[string]bool) field.ErrorList {
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return field.ErrorList{field.Required(path, "exactly one of `exactly` or `firstAvailable` is required")}
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return field.ErrorList{field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required")}
	case r.Exactly != nil:
		e := r.Exactly
		return checkDevices(path.Child("exactly"), e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations)
	}
	var errs field.ErrorList
	p := path.Child("firstAvailable")
	if n := len(r.FirstAvailable); n > resourcev1.FirstAvailableDeviceRequestMaxSize {
		errs = append(errs, field.TooMany(p, n, resourcev1.FirstAvailableDeviceRequestMaxSize))
	}
	for i := range r.FirstAvailable {
		s, sp := &r.FirstAvailable[i], p.Index(i)
		errs = append(errs, checkName(sp.Child("name"), s.Name, utilvalidation.IsDNS1123Label)...)
		if full := r.Name + "/" + s.Name; names[full] {
			errs = append(errs, field.Duplicate(sp.Child("name"), s.Name))
		} else {
			names[full] = true
		}
		errs = append(errs, checkDevices(sp, s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations)...)
	}
	return errs
}

func checkDevices(path *field.Path, class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode,
	n int64, tolerations []resourcev1.DeviceToleration) field.ErrorList {
	errs := checkName(path.Child("deviceClassName"), class, utilvalidation.IsDNS1123Subdomain)
	errs = append(errs, checkDeviceSelectors(path.Child("selectors"), selectors)...)
	errs = append(errs, checkSet(path.Child("allocationMode"), mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && n != 0:
		errs = append(errs, field.Invalid(path.Child("count"), n, "must not be specified when allocationMode is 'All'"))
	case mode == resourcev1.DeviceAllocationModeExactCount && n <= 0:
		errs = append(errs, field.Invalid(path.Child("count"), n, "must be greater than zero"))
	}
	for i, t := range tolerations {
		p := path.Child("tolerations").Index(i)
		errs = append(errs, checkSet(p.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
		if t.Key == "" && t.Operator == resourcev1.DeviceTolerationOpEqual {
			errs = append(errs, field.Required(p.Child("key"), ""))
		} else if t.Key != "" {
			errs = append(errs, checkLabelName(p.Child("key"), t.Key)...)
		}
		if t.Value != "" && t.Operator == resourcev1.DeviceTolerationOpExists {
			errs = append(errs, field.Invalid(p.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	}
	return errs
}

// checkDeviceSelectors checks all but the expressions, which the allocator
// compiles.
func checkDeviceSelectors(path *field.Path, list []resourcev1.DeviceSelector) field.ErrorList {
	var errs field.ErrorList
	if n := len(list); n > resourcev1.DeviceSelectorsMaxSize {
		errs = append(errs, field.TooMany(path, n, resourcev1.DeviceSelectorsMaxSize))
	}
	for i, s := range list {
		if s.CEL == nil || strings.TrimSpace(s.CEL.Expression) == "" {
			errs = append(errs, field.Required(path.Index(i).Child("cel"), ""))
		}
	}
	return errs
}

func checkDeviceTaint(path *field.Path, t *resourcev1.DeviceTaint) field.ErrorList {
	errs := checkLabelName(path.Child("key"), t.Key)
	errs = append(errs, invalid(path.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
	return append(errs, checkSet(path.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute,
		resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
}

func validateResourceClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if n := len(c.Status.ReservedFor); n > resourcev1.ResourceClaimReservedForMaxSize {
		errs = append(errs, field.TooMany(path.Child("reservedFor"), n, resourcev1.ResourceClaimReservedForMaxSize))
	}
	if len(c.Status.ReservedFor) > 0 && c.Status.Allocation == nil {
		errs = append(errs, field.Forbidden(path.Child("reservedFor"), "may not be specified when `allocated` is not set"))
	}
	if c.DeletionTimestamp != nil && len(c.Status.ReservedFor) > len(old.Status.ReservedFor) {
		errs = append(errs, field.Forbidden(path.Child("reservedFor"), "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	if old.Status.Allocation != nil && c.Status.Allocation != nil && !equality.Semantic.DeepEqual(c.Status.Allocation, old.Status.Allocation) {
		errs = append(errs, field.Invalid(path.Child("allocation"), "", "field is immutable"))
	}
	return errs
}

func validateResourceSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	path, spec := field.NewPath("spec"), &s.Spec
	errs := checkDriverName(path.Child("driver"), spec.Driver)
	errs = append(errs, required(path.Child("pool", "name"), spec.Pool.Name)...)
	if spec.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(path.Child("pool", "resourceSliceCount"), spec.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	errs = append(errs, checkNotNegative(path.Child("pool", "generation"), spec.Pool.Generation)...)
	n := 0
	for _, set := range []bool{spec.NodeName != nil, spec.NodeSelector != nil, spec.AllNodes != nil && *spec.AllNodes,
		spec.PerDeviceNodeSelection != nil && *spec.PerDeviceNodeSelection} {
		if set {
			n++
		}
	}
	if n != 1 {
		errs = append(errs, field.Required(path, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"))
	}
	if len(spec.Devices) > maxSliceDevices {
		errs = append(errs, field.TooMany(path.Child("devices"), len(spec.Devices), maxSliceDevices))
	}
	names := map[string]bool{}
	for i := range spec.Devices {
		d, p := &spec.Devices[i], path.Child("devices").Index(i)
		errs = append(errs, checkName(p.Child("name"), d.Name, utilvalidation.IsDNS1123Label)...)
		if names[d.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), d.Name))
		}
		names[d.Name] = true
		for j := range d.Taints {
			errs = append(errs, checkDeviceTaint(p.Child("taints").Index(j), &d.Taints[j])...)
		}
	}
	return errs
}

func validateResourceSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkImmutable(path.Child("driver"), s.Spec.Driver, old.Spec.Driver)
	errs = append(errs, checkImmutable(path.Child("pool", "name"), s.Spec.Pool.Name, old.Spec.Pool.Name)...)
	errs = append(errs, checkImmutable(path.Child("nodeName"), s.Spec.NodeName, old.Spec.NodeName)...)
	return append(errs, checkImmutable(path.Child("allNodes"), s.Spec.AllNodes, old.Spec.AllNodes)...)
}
