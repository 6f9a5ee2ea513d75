package resource

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func runtimeClasses() *Resource {
	return define(Resource{
		Group: "node.k8s.io", Version: "v1", Kind: "RuntimeClass", Plural: "runtimeclasses",
		New:     func() runtime.Object { return &nodev1.RuntimeClass{} },
		NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} },
		Columns: columns("Name", "Handler", "Age"),
	}, hooks[*nodev1.RuntimeClass]{
		Default: func(c *nodev1.RuntimeClass) {
			if c.Overhead != nil {
				roundUp(c.Overhead.PodFixed)
			}
		},
		Validate: func(c *nodev1.RuntimeClass) field.ErrorList {
			errs := checkName(field.NewPath("handler"), c.Handler, utilvalidation.IsDNS1123Label)
			if c.Overhead != nil {
				for _, name := range sortedKeys(c.Overhead.PodFixed) {
					p := field.NewPath("overhead", "podFixed").Key(string(name))
					errs = append(errs, checkContainerResource(p, name)...)
					errs = append(errs, checkQuantity(p, name, c.Overhead.PodFixed[name])...)
				}
			}
			if s := c.Scheduling; s != nil {
				p := field.NewPath("scheduling")
				errs = append(errs, metav1validation.ValidateLabels(s.NodeSelector, p.Child("nodeSelector"))...)
				errs = append(errs, checkTolerations(p.Child("tolerations"), s.Tolerations)...)
				for i, t := range s.Tolerations {
					same := func(other corev1.Toleration) bool {
						return other.Key == t.Key && other.Operator == t.Operator && other.Value == t.Value && other.Effect == t.Effect
					}
					if slices.ContainsFunc(s.Tolerations[:i], same) {
						errs = append(errs, field.Duplicate(p.Child("tolerations").Index(i), t))
					}
				}
			}
			return errs
		},
		ValidateUpdate: func(c, old *nodev1.RuntimeClass) field.ErrorList {
			return checkImmutable(field.NewPath("handler"), c.Handler, old.Handler)
		},
		Row: func(c *nodev1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, age(c.CreationTimestamp, now)}
		},
	})
}
