package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxClassParameters     = 512
	maxClassParametersSize = 256 * 1024
	maxNodeID              = 256
)

func storageClasses() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "StorageClass", Plural: "storageclasses", ShortNames: []string{"sc"},
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &storagev1.StorageClass{} },
		NewList:             func() runtime.Object { return &storagev1.StorageClassList{} },
		Columns: columns("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode",
			"AllowVolumeExpansion:boolean", "Age"),
	}, hooks[*storagev1.StorageClass]{
		Default: func(c *storagev1.StorageClass) {
			if c.ReclaimPolicy == nil {
				c.ReclaimPolicy = new(corev1.PersistentVolumeReclaimDelete)
			}
			if c.VolumeBindingMode == nil {
				c.VolumeBindingMode = new(storagev1.VolumeBindingImmediate)
			}
		},
		Validate:       validateStorageClass,
		ValidateUpdate: validateStorageClassUpdate,
		Row: func(c *storagev1.StorageClass, now time.Time) []any {
			name, policy, mode := c.Name, corev1.PersistentVolumeReclaimDelete, "<unset>"
			if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
				name += " (default)"
			}
			if c.ReclaimPolicy != nil {
				policy = *c.ReclaimPolicy
			}
			if c.VolumeBindingMode != nil {
				mode = string(*c.VolumeBindingMode)
			}
			expand := c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion
			return []any{name, c.Provisioner, string(policy), mode, expand, age(c.CreationTimestamp, now)}
		},
	})
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := checkProvisioner(field.NewPath("provisioner"), c.Provisioner)
	errs = append(errs, checkParameters(field.NewPath("parameters"), c.Parameters)...)
	if p := c.ReclaimPolicy; p != nil && *p != "" {
		errs = append(errs, checkSet(field.NewPath("reclaimPolicy"), *p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	}
	errs = append(errs, checkOptional(field.NewPath("volumeBindingMode"), c.VolumeBindingMode,
		storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	return append(errs, checkTopologies(field.NewPath("allowedTopologies"), c.AllowedTopologies)...)
}

func checkProvisioner(path *field.Path, name string) field.ErrorList {
	return checkName(path, name, func(s string) []string { return utilvalidation.IsQualifiedName(strings.ToLower(s)) })
}

func checkParameters(path *field.Path, params map[string]string) field.ErrorList {
	if len(params) > maxClassParameters {
		return field.ErrorList{field.TooLong(path, "Provisioner Parameters exceeded max allowed", maxClassParameters)}
	}
	var errs field.ErrorList
	size := 0
	for _, key := range sortedKeys(params) {
		if key == "" {
			errs = append(errs, field.Invalid(path, key, "field can not be empty."))
		}
		size += len(key) + len(params[key])
	}
	if size > maxClassParametersSize {
		errs = append(errs, field.TooLong(path, "", maxClassParametersSize))
	}
	return errs
}

func validateStorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	var errs field.ErrorList
	forbid := func(name string, same bool) {
		if !same {
			errs = append(errs, field.Forbidden(field.NewPath(name), "updates to "+name+" are forbidden."))
		}
	}
	forbid("parameters", equality.Semantic.DeepEqual(c.Parameters, old.Parameters))
	forbid("provisioner", c.Provisioner == old.Provisioner)
	forbid("reclaimPolicy", equality.Semantic.DeepEqual(c.ReclaimPolicy, old.ReclaimPolicy))
	return append(errs, checkImmutable(field.NewPath("volumeBindingMode"), c.VolumeBindingMode, old.VolumeBindingMode)...)
}

func volumeAttributesClasses() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttributesClass", Plural: "volumeattributesclasses", ShortNames: []string{"vac"},
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &storagev1.VolumeAttributesClass{} },
		NewList:             func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		Columns:             columns("Name", "DriverName", "Age"),
	}, hooks[*storagev1.VolumeAttributesClass]{
		Validate: func(c *storagev1.VolumeAttributesClass) field.ErrorList {
			errs := checkProvisioner(field.NewPath("driverName"), c.DriverName)
			if len(c.Parameters) == 0 {
				errs = append(errs, field.Required(field.NewPath("parameters"), "must contain at least one key/value pair"))
			}
			return append(errs, checkParameters(field.NewPath("parameters"), c.Parameters)...)
		},
		ValidateUpdate: func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			var errs field.ErrorList
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !equality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return errs
		},
		Row: func(c *storagev1.VolumeAttributesClass, now time.Time) []any {
			return []any{c.Name, c.DriverName, age(c.CreationTimestamp, now)}
		},
	})
}

func csiStorageCapacities() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "CSIStorageCapacity", Plural: "csistoragecapacities",
		Namespaced:          true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &storagev1.CSIStorageCapacity{} },
		NewList:             func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		Columns:             columns("Name", "StorageClassName", "Capacity"),
	}, hooks[*storagev1.CSIStorageCapacity]{
		Validate: func(c *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := invalid(field.NewPath("storageClassName"), c.StorageClassName, utilvalidation.IsDNS1123Subdomain(c.StorageClassName))
			if c.Capacity != nil && c.Capacity.Sign() < 0 {
				errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), "must be greater than or equal to 0"))
			}
			return append(errs, checkLabelSelector(field.NewPath("nodeTopology"), c.NodeTopology)...)
		},
		ValidateUpdate: func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := checkImmutable(field.NewPath("nodeTopology"), c.NodeTopology, old.NodeTopology)
			return append(errs, checkImmutable(field.NewPath("storageClassName"), c.StorageClassName, old.StorageClassName)...)
		},
		Row: func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		},
	})
}

func csiNodes() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "CSINode", Plural: "csinodes",
		New:     func() runtime.Object { return &storagev1.CSINode{} },
		NewList: func() runtime.Object { return &storagev1.CSINodeList{} },
		Columns: columns("Name", "Drivers:integer", "Age"),
	}, hooks[*storagev1.CSINode]{
		// What drivers report of their storage's health is of an alpha feature.
		Prepare:        func(n, _ *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} },
		Validate:       validateCSINode,
		ValidateUpdate: validateCSINodeUpdate,
		Row: func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), age(n.CreationTimestamp, now)}
		},
	})
}

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	for i := range n.Spec.Drivers {
		d, p := &n.Spec.Drivers[i], field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, checkDriverName(p.Child("name"), d.Name)...)
		errs = append(errs, required(p.Child("nodeID"), d.NodeID)...)
		if len(d.NodeID) > maxNodeID {
			errs = append(errs, field.Invalid(p.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if slices.ContainsFunc(n.Spec.Drivers[:i], func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name }) {
			errs = append(errs, field.Duplicate(p.Child("name"), d.Name))
		}
		if d.Allocatable != nil {
			errs = append(errs, checkOptionalNotNegative(p.Child("allocatable", "count"), d.Allocatable.Count)...)
		}
		// Upstream reports a driver's keys at the driver; so does this.
		for j, key := range d.TopologyKeys {
			errs = append(errs, checkName(p, key, utilvalidation.IsQualifiedName)...)
			if slices.Index(d.TopologyKeys, key) < j {
				errs = append(errs, field.Duplicate(p, key))
			}
		}
	}
	return errs
}

// validateCSINodeUpdate: of a driver that stays only its limits change.
func validateCSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	for _, was := range old.Spec.Drivers {
		for _, is := range n.Spec.Drivers {
			if is.Name == was.Name {
				is.Allocatable, was.Allocatable = nil, nil
				errs = append(errs, checkImmutable(field.NewPath("spec", "drivers"), is, was)...)
			}
		}
	}
	return errs
}
