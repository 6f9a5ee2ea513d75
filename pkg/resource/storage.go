package resource

import (
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
	errs := checkName(field.NewPath("provisioner"), c.Provisioner, func(s string) []string {
		return utilvalidation.IsQualifiedName(strings.ToLower(s))
	})
	errs = append(errs, checkParameters(field.NewPath("parameters"), c.Parameters)...)
	errs = append(errs, checkOptional(field.NewPath("reclaimPolicy"), c.ReclaimPolicy,
		corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	}
	errs = append(errs, checkOptional(field.NewPath("volumeBindingMode"), c.VolumeBindingMode,
		storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	return append(errs, checkTopologies(field.NewPath("allowedTopologies"), c.AllowedTopologies)...)
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

func volumeAttachments() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttachment", Plural: "volumeattachments",
		HasStatus:     true,
		ReturnDeleted: true,
		New:           func() runtime.Object { return &storagev1.VolumeAttachment{} },
		NewList:       func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Columns:       columns("Name", "Attacher", "PV", "Node", "Attached:boolean", "Age"),
	}, hooks[*storagev1.VolumeAttachment]{
		Validate: func(a *storagev1.VolumeAttachment) field.ErrorList {
			path := field.NewPath("spec")
			errs := checkDriverName(path.Child("attacher"), a.Spec.Attacher)
			errs = append(errs, checkName(path.Child("nodeName"), a.Spec.NodeName, utilvalidation.IsDNS1123Subdomain)...)
			switch src := &a.Spec.Source; {
			case src.InlineVolumeSpec == nil && src.PersistentVolumeName == nil:
				errs = append(errs, field.Required(path.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
			case src.InlineVolumeSpec != nil && src.PersistentVolumeName != nil:
				errs = append(errs, field.Forbidden(path.Child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
			case src.PersistentVolumeName != nil:
				errs = append(errs, required(path.Child("source", "persistentVolumeName"), *src.PersistentVolumeName)...)
			}
			return errs
		},
		ValidateUpdate: func(a, old *storagev1.VolumeAttachment) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), a.Spec, old.Spec)
		},
		Row: func(a *storagev1.VolumeAttachment, now time.Time) []any {
			pv := ""
			if a.Spec.Source.PersistentVolumeName != nil {
				pv = *a.Spec.Source.PersistentVolumeName
			}
			return []any{a.Name, a.Spec.Attacher, pv, a.Spec.NodeName, a.Status.Attached, age(a.CreationTimestamp, now)}
		},
	})
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
			errs := checkName(field.NewPath("driverName"), c.DriverName, utilvalidation.IsQualifiedName)
			if len(c.Parameters) == 0 {
				errs = append(errs, field.Required(field.NewPath("parameters"), "must contain at least one key/value pair"))
			}
			return append(errs, checkParameters(field.NewPath("parameters"), c.Parameters)...)
		},
		ValidateUpdate: func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			errs := checkImmutable(field.NewPath("driverName"), c.DriverName, old.DriverName)
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
			errs := checkName(field.NewPath("storageClassName"), c.StorageClassName, utilvalidation.IsDNS1123Subdomain)
			if c.Capacity != nil && c.Capacity.Sign() < 0 {
				errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), "must be greater than or equal to 0"))
			}
			if c.MaximumVolumeSize != nil && c.MaximumVolumeSize.Sign() < 0 {
				errs = append(errs, field.Invalid(field.NewPath("maximumVolumeSize"), c.MaximumVolumeSize.String(), "must be greater than or equal to 0"))
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
		Validate: func(n *storagev1.CSINode) field.ErrorList {
			var errs field.ErrorList
			for i := range n.Spec.Drivers {
				d, p := &n.Spec.Drivers[i], field.NewPath("spec", "drivers").Index(i)
				errs = append(errs, checkDriverName(p.Child("name"), d.Name)...)
				errs = append(errs, required(p.Child("nodeID"), d.NodeID)...)
				if slices.ContainsFunc(n.Spec.Drivers[:i], func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name }) {
					errs = append(errs, field.Duplicate(p.Child("name"), d.Name))
				}
				if d.Allocatable != nil {
					errs = append(errs, checkOptionalNotNegative(p.Child("allocatable", "count"), d.Allocatable.Count)...)
				}
				for j, key := range d.TopologyKeys {
					errs = append(errs, checkName(p.Child("topologyKeys").Index(j), key, utilvalidation.IsQualifiedName)...)
				}
			}
			return errs
		},
		Row: func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), age(n.CreationTimestamp, now)}
		},
	})
}
