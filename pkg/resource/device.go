package resource

import (
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const deviceGroup = "resource.k8s.io"

func resourceClaims() *Resource {
	return define(Resource{
		Group: deviceGroup, Version: "v1", Kind: "ResourceClaim", Plural: "resourceclaims",
		Namespaced:          true,
		HasStatus:           true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &resourcev1.ResourceClaim{} },
		NewList:             func() runtime.Object { return &resourcev1.ResourceClaimList{} },
		Columns:             columns("Name", "State", "Age"),
	}, hooks[*resourcev1.ResourceClaim]{
		Default: func(c *resourcev1.ResourceClaim) { defaultDeviceClaim(&c.Spec.Devices) },
		Prepare: func(c, _ *resourcev1.ResourceClaim) { dropAlphaOfClaim(&c.Spec.Devices) },
		// What was stored before is not held against newer rules.
		ValidateCreate: func(c *resourcev1.ResourceClaim) field.ErrorList {
			return checkDeviceClaim(field.NewPath("spec", "devices"), &c.Spec.Devices)
		},
		ValidateUpdate: func(c, old *resourcev1.ResourceClaim) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), c.Spec, old.Spec)
		},
		ValidateStatus: validateResourceClaimStatus,
		Row: func(c *resourcev1.ResourceClaim, now time.Time) []any {
			return []any{c.Name, resourceClaimState(c), age(c.CreationTimestamp, now)}
		},
	})
}

func resourceClaimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	if c.Status.Allocation == nil {
		if c.DeletionTimestamp == nil {
			states = append(states, "pending")
		}
	} else {
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	}
	return strings.Join(states, ",")
}

func resourceClaimTemplates() *Resource {
	return define(Resource{
		Group: deviceGroup, Version: "v1", Kind: "ResourceClaimTemplate", Plural: "resourceclaimtemplates",
		Namespaced:          true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &resourcev1.ResourceClaimTemplate{} },
		NewList:             func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },
		Columns:             columns("Name", "Age"),
	}, hooks[*resourcev1.ResourceClaimTemplate]{
		Default: func(t *resourcev1.ResourceClaimTemplate) { defaultDeviceClaim(&t.Spec.Spec.Devices) },
		Prepare: func(t, _ *resourcev1.ResourceClaimTemplate) { dropAlphaOfClaim(&t.Spec.Spec.Devices) },
		ValidateCreate: func(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
			path := field.NewPath("spec")
			errs := checkTemplateMeta(path.Child("metadata"), &t.Spec.ObjectMeta)
			return append(errs, checkDeviceClaim(path.Child("spec", "devices"), &t.Spec.Spec.Devices)...)
		},
		ValidateUpdate: func(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), t.Spec, old.Spec)
		},
		Row: func(t *resourcev1.ResourceClaimTemplate, now time.Time) []any {
			return []any{t.Name, age(t.CreationTimestamp, now)}
		},
	})
}

func deviceClasses() *Resource {
	return define(Resource{
		Group: deviceGroup, Version: "v1", Kind: "DeviceClass", Plural: "deviceclasses",
		HasGeneration:       true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &resourcev1.DeviceClass{} },
		NewList:             func() runtime.Object { return &resourcev1.DeviceClassList{} },
		Columns:             columns("Name", "Age"),
	}, hooks[*resourcev1.DeviceClass]{
		Validate: validateDeviceClass,
		Row: func(c *resourcev1.DeviceClass, now time.Time) []any {
			return []any{c.Name, age(c.CreationTimestamp, now)}
		},
	})
}

func resourceSlices() *Resource {
	return define(Resource{
		Group: deviceGroup, Version: "v1", Kind: "ResourceSlice", Plural: "resourceslices",
		HasGeneration:       true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &resourcev1.ResourceSlice{} },
		NewList:             func() runtime.Object { return &resourcev1.ResourceSliceList{} },
		FieldNames:          []string{"spec.driver", "spec.nodeName"},
		FieldsRead:          []string{"spec.driver", "spec.nodeName"},
		Columns:             columns("Name", "Node", "Driver", "Pool", "Age"),
	}, hooks[*resourcev1.ResourceSlice]{
		Prepare:        func(s, _ *resourcev1.ResourceSlice) { dropAlphaOfSlice(&s.Spec) },
		ValidateCreate: func(s *resourcev1.ResourceSlice) field.ErrorList { return checkResourceSlice(&s.Spec, nil) },
		ValidateUpdate: func(s, old *resourcev1.ResourceSlice) field.ErrorList {
			return checkResourceSlice(&s.Spec, &old.Spec)
		},
		Fields: func(s *resourcev1.ResourceSlice) map[string]string {
			node := ""
			if s.Spec.NodeName != nil {
				node = *s.Spec.NodeName
			}
			return map[string]string{"spec.driver": s.Spec.Driver, "spec.nodeName": node}
		},
		Row: func(s *resourcev1.ResourceSlice, now time.Time) []any {
			node := ""
			if s.Spec.NodeName != nil {
				node = *s.Spec.NodeName
			}
			return []any{s.Name, node, s.Spec.Driver, s.Spec.Pool.Name, age(s.CreationTimestamp, now)}
		},
	})
}

func deviceTaintRules() *Resource {
	return define(Resource{
		Group: deviceGroup, Version: "v1", Kind: "DeviceTaintRule", Plural: "devicetaintrules",
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &resourcev1.DeviceTaintRule{} },
		NewList:             func() runtime.Object { return &resourcev1.DeviceTaintRuleList{} },
		Columns:             columns("Name", "Age"),
	}, hooks[*resourcev1.DeviceTaintRule]{
		ValidateCreate: func(r *resourcev1.DeviceTaintRule) field.ErrorList { return checkDeviceTaintRule(&r.Spec, nil) },
		ValidateUpdate: func(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
			return checkDeviceTaintRule(&r.Spec, &old.Spec)
		},
		ValidateStatus: validateDeviceTaintRuleStatus,
		Row: func(r *resourcev1.DeviceTaintRule, now time.Time) []any {
			return []any{r.Name, age(r.CreationTimestamp, now)}
		},
	})
}

func defaultDeviceClaim(c *resourcev1.DeviceClaim) {
	request := func(mode *resourcev1.DeviceAllocationMode, n *int64, tolerations []resourcev1.DeviceToleration) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *n == 0 {
			*n = 1
		}
		for i := range tolerations {
			if tolerations[i].Operator == "" {
				tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
			}
		}
	}
	for i := range c.Requests {
		if e := c.Requests[i].Exactly; e != nil {
			request(&e.AllocationMode, &e.Count, e.Tolerations)
		}
		for j := range c.Requests[i].FirstAvailable {
			s := &c.Requests[i].FirstAvailable[j]
			request(&s.AllocationMode, &s.Count, s.Tolerations)
		}
	}
}

// dropAlphaOfClaim drops what only alpha features read, which are off.
func dropAlphaOfClaim(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		if e := c.Requests[i].Exactly; e != nil {
			e.DerivedAttributes = nil
		}
		for j := range c.Requests[i].FirstAvailable {
			c.Requests[i].FirstAvailable[j].DerivedAttributes = nil
		}
	}
}

// dropAlphaOfSlice is dropAlphaOfClaim for a driver's devices.
func dropAlphaOfSlice(s *resourcev1.ResourceSliceSpec) {
	s.PartitionTypeAttribute = nil
	s.SkipNodeOperations = nil
	for i := range s.Devices {
		d := &s.Devices[i]
		d.NodeAllocatableResources = nil
		for j := range d.ConsumesCounters {
			d.ConsumesCounters[j].CompatibilityGroups = nil
		}
		for name, a := range d.Attributes {
			a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	}
}
