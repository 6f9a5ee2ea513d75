package resource

import (
	"slices"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func csiDrivers() *Resource {
	return define(Resource{
		Group: "storage.k8s.io", Version: "v1", Kind: "CSIDriver", Plural: "csidrivers",
		New:     func() runtime.Object { return &storagev1.CSIDriver{} },
		NewList: func() runtime.Object { return &storagev1.CSIDriverList{} },
		Columns: columns("Name", "AttachRequired:boolean", "PodInfoOnMount:boolean", "StorageCapacity:boolean",
			"TokenRequests", "RequiresRepublish:boolean", "Modes", "Age"),
	}, hooks[*storagev1.CSIDriver]{
		Default: defaultCSIDriver,
		Prepare: func(d, old *storagev1.CSIDriver) {
			if old == nil {
				return
			}
			if !equality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests) ||
				!equality.Semantic.DeepEqual(d.Spec.RequiresRepublish, old.Spec.RequiresRepublish) ||
				!equality.Semantic.DeepEqual(d.Spec.SELinuxMount, old.Spec.SELinuxMount) {
				d.Generation = old.Generation + 1
			}
		},
		Validate:       validateCSIDriver,
		ValidateUpdate: validateCSIDriverUpdate,
		Row: func(d *storagev1.CSIDriver, now time.Time) []any {
			set := func(b *bool, unset bool) bool {
				if b == nil {
					return unset
				}
				return *b
			}
			audiences := make([]string, len(d.Spec.TokenRequests))
			for i, t := range d.Spec.TokenRequests {
				audiences[i] = t.Audience
			}
			tokens := "<unset>"
			if len(audiences) > 0 {
				tokens = strings.Join(audiences, ",")
			}
			modes := make([]string, len(d.Spec.VolumeLifecycleModes))
			for i, m := range d.Spec.VolumeLifecycleModes {
				modes[i] = string(m)
			}
			return []any{
				d.Name, set(d.Spec.AttachRequired, true), set(d.Spec.PodInfoOnMount, false), set(d.Spec.StorageCapacity, false),
				tokens, set(d.Spec.RequiresRepublish, false), orNone(strings.Join(modes, ",")), age(d.CreationTimestamp, now),
			}
		},
	})
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	spec := &d.Spec
	for _, f := range []struct {
		field **bool
		value bool
	}{
		{&spec.AttachRequired, true}, {&spec.PodInfoOnMount, false}, {&spec.StorageCapacity, false},
		{&spec.RequiresRepublish, false}, {&spec.SELinuxMount, false},
	} {
		if *f.field == nil {
			*f.field = new(f.value)
		}
	}
	if len(spec.VolumeLifecycleModes) == 0 {
		spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	if spec.FSGroupPolicy == nil {
		spec.FSGroupPolicy = new(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
}

func validateCSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkDriverName(field.NewPath("metadata", "name"), d.Name)
	for _, f := range []struct {
		name string
		set  *bool
	}{
		{"attachedRequired", d.Spec.AttachRequired}, {"podInfoOnMount", d.Spec.PodInfoOnMount},
		{"storageCapacity", d.Spec.StorageCapacity}, {"seLinuxMount", d.Spec.SELinuxMount},
	} {
		if f.set == nil {
			errs = append(errs, field.Required(path.Child(f.name), ""))
		}
	}
	errs = append(errs, checkOptional(path.Child("fsGroupPolicy"), d.Spec.FSGroupPolicy, storagev1.FileFSGroupPolicy,
		storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	for _, m := range d.Spec.VolumeLifecycleModes {
		errs = append(errs, checkOptional(path.Child("volumeLifecycleModes"), &m,
			storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent)...)
	}
	for i, t := range d.Spec.TokenRequests {
		p := path.Child("tokenRequests").Index(i)
		if slices.ContainsFunc(d.Spec.TokenRequests[:i], func(o storagev1.TokenRequest) bool { return o.Audience == t.Audience }) {
			errs = append(errs, field.Duplicate(p.Child("audience"), t.Audience))
			continue
		}
		errs = append(errs, checkTokenSeconds(p.Child("expirationSeconds"), t.ExpirationSeconds)...)
	}
	if d.Spec.ServiceAccountTokenInSecrets != nil && len(d.Spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *d.Spec.ServiceAccountTokenInSecrets, "must not be set when tokenRequests is empty"))
	}
	if s := d.Spec.NodeAllocatableUpdatePeriodSeconds; s != nil && *s < 10 {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *s, "must be greater than or equal to 10 seconds"))
	}
	return errs
}

func validateCSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	path := field.NewPath("spec")
	// The name is not the field's; it is upstream's.
	errs := checkImmutable(path.Child("attachedRequired"), d.Spec.AttachRequired, old.Spec.AttachRequired)
	return append(errs, checkImmutable(path.Child("volumeLifecycleModes"), d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)...)
}
