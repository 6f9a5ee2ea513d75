package resource

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// requestNames are the names of a claim's requests, and of their subrequests as
// "request/sub".
type requestNames map[string]bool

func namesOfRequests(c *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for i := range c.Requests {
		r := &c.Requests[i]
		names[r.Name] = true
		for j := range r.FirstAvailable {
			names[r.Name+"/"+r.FirstAvailable[j].Name] = true
		}
	}
	return names
}

// checkAll checks a list of references to requests.
func (n requestNames) checkAll(path *field.Path, refs []string) field.ErrorList {
	return checkKeyed(path, refs, resourcev1.DeviceRequestsMaxSize, func(s *string) string { return *s },
		func(p *field.Path, s *string) field.ErrorList { return n.check(p, *s) })
}

func (n requestNames) check(path *field.Path, ref string) field.ErrorList {
	const form = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
	parts := strings.Split(ref, "/")
	if len(parts) > 2 {
		return field.ErrorList{field.Invalid(path, ref, form)}
	}
	var errs field.ErrorList
	for _, part := range parts {
		errs = append(errs, invalid(path, part, utilvalidation.IsDNS1123Label(part))...)
	}
	if !n[ref] {
		errs = append(errs, field.Invalid(path, ref, form))
	}
	return errs
}

func checkDeviceClaim(path *field.Path, c *resourcev1.DeviceClaim) field.ErrorList {
	names := namesOfRequests(c)
	errs := checkKeyed(path.Child("requests"), c.Requests, resourcev1.DeviceRequestsMaxSize,
		func(r *resourcev1.DeviceRequest) string { return r.Name }, checkDeviceRequest)
	errs = append(errs, checkList(path.Child("constraints"), c.Constraints, resourcev1.DeviceConstraintsMaxSize,
		func(p *field.Path, d *resourcev1.DeviceConstraint) field.ErrorList {
			errs := names.checkAll(p.Child("requests"), d.Requests)
			switch {
			case d.MatchAttribute != nil:
				return append(errs, checkFullName(p.Child("matchAttribute"), string(*d.MatchAttribute))...)
			case d.DistinctAttribute != nil:
				return append(errs, checkFullName(p.Child("distinctAttribute"), string(*d.DistinctAttribute))...)
			}
			return append(errs, field.Required(p, `exactly one of "matchAttribute" or "distinctAttribute" is required`))
		})...)
	return append(errs, checkList(path.Child("config"), c.Config, resourcev1.DeviceConfigMaxSize,
		func(p *field.Path, d *resourcev1.DeviceClaimConfiguration) field.ErrorList {
			errs := names.checkAll(p.Child("requests"), d.Requests)
			return append(errs, checkDeviceConfiguration(p, &d.DeviceConfiguration)...)
		})...)
}

func checkDeviceRequest(path *field.Path, r *resourcev1.DeviceRequest) field.ErrorList {
	errs := invalid(path.Child("name"), r.Name, utilvalidation.IsDNS1123Label(r.Name))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		e := r.Exactly
		return append(errs, checkDevices(path.Child("exactly"), e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations)...)
	}
	return append(errs, checkKeyed(path.Child("firstAvailable"), r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize,
		func(s *resourcev1.DeviceSubRequest) string { return s.Name },
		func(p *field.Path, s *resourcev1.DeviceSubRequest) field.ErrorList {
			errs := invalid(p.Child("name"), s.Name, utilvalidation.IsDNS1123Label(s.Name))
			return append(errs, checkDevices(p, s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations)...)
		})...)
}

func checkDevices(path *field.Path, class string, selectors []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode,
	n int64, tolerations []resourcev1.DeviceToleration) field.ErrorList {
	errs := checkName(path.Child("deviceClassName"), class, utilvalidation.IsDNS1123Subdomain)
	errs = append(errs, checkDeviceSelectors(path.Child("selectors"), selectors)...)
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && n != 0:
		errs = append(errs, field.Invalid(path.Child("count"), n, "must not be specified when allocationMode is 'All'"))
	case mode == resourcev1.DeviceAllocationModeExactCount && n <= 0:
		errs = append(errs, field.Invalid(path.Child("count"), n, "must be greater than zero"))
	}
	errs = append(errs, checkOptional(path.Child("allocationMode"), &mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	for i := range tolerations {
		errs = append(errs, checkDeviceToleration(path.Child("tolerations").Index(i), &tolerations[i])...)
	}
	return errs
}

// allocatedDevice names a device of an allocation, or a share of one.
type allocatedDevice struct{ driver, pool, device, share string }

func validateResourceClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	path, status, was := field.NewPath("status"), &c.Status, &old.Status
	errs := checkReservedFor(path.Child("reservedFor"), c, old)
	allocated := map[allocatedDevice]bool{}
	if a := status.Allocation; a != nil {
		for _, r := range a.Devices.Results {
			d := allocatedDevice{driver: r.Driver, pool: r.Pool, device: r.Device}
			if r.ShareID != nil {
				d.share = string(*r.ShareID)
			}
			allocated[d] = true
		}
	}
	errs = append(errs, checkKeyed(path.Child("devices"), status.Devices, len(status.Devices), statusDevice,
		func(p *field.Path, d *resourcev1.AllocatedDeviceStatus) field.ErrorList {
			errs := checkDeviceStatus(p, d)
			if key := statusDevice(d); !allocated[key] {
				errs = append(errs, field.Invalid(p, key, "must be an allocated device in the claim"))
			}
			return errs
		})...)
	switch {
	case status.Allocation == nil:
	case was.Allocation != nil:
		// What was allocated before is not held against newer rules.
		errs = append(errs, checkImmutable(path.Child("allocation"), status.Allocation, was.Allocation)...)
	default:
		errs = append(errs, checkAllocation(path.Child("allocation"), status.Allocation, namesOfRequests(&c.Spec.Devices))...)
	}
	return errs
}

func statusDevice(d *resourcev1.AllocatedDeviceStatus) allocatedDevice {
	out := allocatedDevice{driver: d.Driver, pool: d.Pool, device: d.Device}
	if d.ShareID != nil {
		out.share = *d.ShareID
	}
	return out
}

func checkReservedFor(path *field.Path, c, old *resourcev1.ResourceClaim) field.ErrorList {
	list := c.Status.ReservedFor
	errs := checkKeyed(path, list, resourcev1.ResourceClaimReservedForMaxSize,
		func(r *resourcev1.ResourceClaimConsumerReference) string { return string(r.UID) },
		func(p *field.Path, r *resourcev1.ResourceClaimConsumerReference) field.ErrorList {
			errs := required(p.Child("resource"), r.Resource)
			errs = append(errs, required(p.Child("name"), r.Name)...)
			return append(errs, required(p.Child("uid"), string(r.UID))...)
		})
	if len(list) > 0 && c.Status.Allocation == nil {
		return append(errs, field.Forbidden(path, "may not be specified when `allocated` is not set"))
	}
	if c.DeletionTimestamp == nil {
		return errs
	}
	was := map[resourcev1.ResourceClaimConsumerReference]bool{}
	for _, r := range old.Status.ReservedFor {
		was[r] = true
	}
	for _, r := range list {
		if !was[r] {
			return append(errs, field.Forbidden(path, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
		}
	}
	return errs
}

func checkAllocation(path *field.Path, a *resourcev1.AllocationResult, names requestNames) field.ErrorList {
	p := path.Child("devices")
	errs := checkList(p.Child("results"), a.Devices.Results, resourcev1.AllocationResultsMaxSize,
		func(p *field.Path, r *resourcev1.DeviceRequestAllocationResult) field.ErrorList {
			errs := names.check(p.Child("request"), r.Request)
			errs = append(errs, checkDriverName(p.Child("driver"), r.Driver)...)
			errs = append(errs, checkPoolName(p.Child("pool"), r.Pool)...)
			errs = append(errs, invalid(p.Child("device"), r.Device, utilvalidation.IsDNS1123Label(r.Device))...)
			errs = append(errs, checkDeviceBinding(p, r.BindingConditions, r.BindingFailureConditions)...)
			for i := range r.Tolerations {
				errs = append(errs, checkDeviceToleration(p.Child("tolerations").Index(i), &r.Tolerations[i])...)
			}
			if r.ShareID != nil {
				errs = append(errs, checkUUID(p.Child("shareID"), string(*r.ShareID))...)
			}
			return errs
		})
	// A claim's and a class's configuration come together here.
	errs = append(errs, checkList(p.Child("config"), a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize,
		func(p *field.Path, d *resourcev1.DeviceAllocationConfiguration) field.ErrorList {
			errs := checkSet(p.Child("source"), d.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
			errs = append(errs, names.checkAll(p.Child("requests"), d.Requests)...)
			return append(errs, checkDeviceConfiguration(p, &d.DeviceConfiguration)...)
		})...)
	if a.NodeSelector != nil {
		errs = append(errs, checkNodeSelector(path.Child("nodeSelector"), a.NodeSelector)...)
	}
	return errs
}

func checkDeviceStatus(path *field.Path, d *resourcev1.AllocatedDeviceStatus) field.ErrorList {
	errs := checkDriverName(path.Child("driver"), d.Driver)
	errs = append(errs, checkPoolName(path.Child("pool"), d.Pool)...)
	errs = append(errs, invalid(path.Child("device"), d.Device, utilvalidation.IsDNS1123Label(d.Device))...)
	if d.ShareID != nil {
		errs = append(errs, checkUUID(path.Child("shareID"), *d.ShareID)...)
	}
	p := path.Child("conditions")
	if n := len(d.Conditions); n > resourcev1.AllocatedDeviceStatusMaxConditions {
		errs = append(errs, field.TooMany(p, n, resourcev1.AllocatedDeviceStatusMaxConditions))
	}
	errs = append(errs, metav1validation.ValidateConditions(d.Conditions, p)...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, checkRawObject(path.Child("data"), d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength)...)
	}
	if d.NetworkData == nil {
		return errs
	}
	p = path.Child("networkData")
	if len(d.NetworkData.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(p.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(d.NetworkData.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(p.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	return append(errs, checkKeyed(p.Child("ips"), d.NetworkData.IPs, resourcev1.NetworkDeviceDataMaxIPs, func(s *string) string { return *s },
		func(p *field.Path, s *string) field.ErrorList { return utilvalidation.IsValidInterfaceAddress(p, *s) })...)
}
