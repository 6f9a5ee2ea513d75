package resource

import (
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateWorkload(w *schedulingv1beta1.Workload) field.ErrorList {
	path, spec := field.NewPath("spec"), &w.Spec
	var errs field.ErrorList
	if ref, p := spec.ControllerRef, path.Child("controllerRef"); ref != nil {
		if ref.APIGroup != "" {
			errs = append(errs, invalid(p.Child("apiGroup"), ref.APIGroup, utilvalidation.IsDNS1123Subdomain(ref.APIGroup))...)
		}
		errs = append(errs, checkName(p.Child("kind"), ref.Kind, content.IsPathSegmentName)...)
		errs = append(errs, checkName(p.Child("name"), ref.Name, content.IsPathSegmentName)...)
	}
	if len(spec.CompositePodGroupTemplates) > 0 {
		errs = append(errs, field.Forbidden(path.Child("compositePodGroupTemplates"), "groups of groups are not served"))
	}
	p := path.Child("podGroupTemplates")
	if len(spec.PodGroupTemplates) == 0 {
		return append(errs, field.Required(p, "at least one template is needed"))
	}
	if n := len(spec.PodGroupTemplates); n > schedulingv1beta1.WorkloadMaxPodGroupTemplates {
		errs = append(errs, field.TooMany(p, n, schedulingv1beta1.WorkloadMaxPodGroupTemplates))
	}
	names := map[string]bool{}
	for i := range spec.PodGroupTemplates {
		t := &spec.PodGroupTemplates[i]
		if names[t.Name] {
			errs = append(errs, field.Duplicate(p.Index(i), t.Name))
		}
		names[t.Name] = true
		errs = append(errs, checkName(p.Index(i).Child("name"), t.Name, utilvalidation.IsDNS1123Label)...)
		errs = append(errs, checkGang(p.Index(i), groupOfTemplate(t))...)
	}
	return errs
}

// group is what a PodGroup and a template of one have in common.
type group struct {
	policy      *schedulingv1beta1.PodGroupSchedulingPolicy
	constraints *schedulingv1beta1.PodGroupSchedulingConstraints
	claims      []schedulingv1beta1.PodGroupResourceClaim
	disruption  *schedulingv1beta1.DisruptionMode
	class       string
	priority    *int32
	preemption  *schedulingv1beta1.PreemptionPolicy
}

func groupOfTemplate(t *schedulingv1beta1.PodGroupTemplate) group {
	return group{&t.SchedulingPolicy, t.SchedulingConstraints, t.ResourceClaims, t.DisruptionMode, t.PriorityClassName, t.Priority, t.PreemptionPolicy}
}

func groupOf(s *schedulingv1beta1.PodGroupSpec) group {
	return group{&s.SchedulingPolicy, s.SchedulingConstraints, s.ResourceClaims, s.DisruptionMode, s.PriorityClassName, s.Priority, s.PreemptionPolicy}
}

func checkGang(path *field.Path, g group) field.ErrorList {
	p := path.Child("schedulingPolicy")
	errs := checkOneOf(p, "basic", g.policy.Basic != nil, "gang", g.policy.Gang != nil)
	if gang := g.policy.Gang; gang != nil && gang.MinCount < 1 {
		errs = append(errs, field.Invalid(p.Child("gang", "minCount"), gang.MinCount, "must be greater than or equal to 1"))
	}
	if c, p := g.constraints, path.Child("schedulingConstraints", "topology"); c != nil {
		if n := len(c.Topology); n > 1 {
			errs = append(errs, field.TooMany(p, n, 1))
		}
		for i, t := range c.Topology {
			errs = append(errs, checkName(p.Index(i).Child("key"), t.Key, utilvalidation.IsQualifiedName)...)
		}
	}
	errs = append(errs, checkGroupClaims(path.Child("resourceClaims"), g.claims)...)
	if d := g.disruption; d != nil {
		errs = append(errs, checkOneOf(path.Child("disruptionMode"), "single", d.Single != nil, "all", d.All != nil)...)
	}
	if g.class != "" {
		errs = append(errs, invalid(path.Child("priorityClassName"), g.class, utilvalidation.IsDNS1123Subdomain(g.class))...)
	}
	if g.priority != nil && *g.priority > highestUserPriority {
		errs = append(errs, field.Invalid(path.Child("priority"), *g.priority, "must be less than or equal to 1000000000"))
	}
	if g.preemption != nil {
		errs = append(errs, field.Forbidden(path.Child("preemptionPolicy"), "a pod group preempts as its priority class says"))
	}
	return errs
}

// checkOneOf wants one of the two members of a union.
func checkOneOf(path *field.Path, a string, hasA bool, b string, hasB bool) field.ErrorList {
	switch {
	case hasA && hasB:
		return field.ErrorList{field.Invalid(path, "{"+a+", "+b+"}", "must specify exactly one of: `"+a+"`, `"+b+"`")}
	case !hasA && !hasB:
		return field.ErrorList{field.Invalid(path, "", "must specify one of: `"+a+"`, `"+b+"`")}
	}
	return nil
}

func checkGroupClaims(path *field.Path, claims []schedulingv1beta1.PodGroupResourceClaim) field.ErrorList {
	var errs field.ErrorList
	if n := len(claims); n > schedulingv1beta1.MaxPodGroupResourceClaims {
		errs = append(errs, field.TooMany(path, n, schedulingv1beta1.MaxPodGroupResourceClaims))
	}
	names := map[string]bool{}
	for i := range claims {
		c, p := &claims[i], path.Index(i)
		if names[c.Name] {
			errs = append(errs, field.Duplicate(p, c.Name))
		}
		names[c.Name] = true
		errs = append(errs, checkName(p.Child("name"), c.Name, utilvalidation.IsDNS1123Label)...)
		errs = append(errs, checkOneOf(p, "resourceClaimName", c.ResourceClaimName != nil, "resourceClaimTemplateName", c.ResourceClaimTemplateName != nil)...)
		if n := c.ResourceClaimName; n != nil {
			errs = append(errs, invalid(p.Child("resourceClaimName"), *n, utilvalidation.IsDNS1123Subdomain(*n))...)
		}
		if n := c.ResourceClaimTemplateName; n != nil {
			errs = append(errs, invalid(p.Child("resourceClaimTemplateName"), *n, utilvalidation.IsDNS1123Subdomain(*n))...)
		}
	}
	return errs
}

func validateWorkloadUpdate(w, old *schedulingv1beta1.Workload) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkImmutable(path.Child("controllerRef"), w.Spec.ControllerRef, old.Spec.ControllerRef)
	p := path.Child("podGroupTemplates")
	had := map[string]*schedulingv1beta1.PodGroupTemplate{}
	for i := range old.Spec.PodGroupTemplates {
		had[old.Spec.PodGroupTemplates[i].Name] = &old.Spec.PodGroupTemplates[i]
	}
	for i := range w.Spec.PodGroupTemplates {
		t := &w.Spec.PodGroupTemplates[i]
		if was, ok := had[t.Name]; ok {
			errs = append(errs, checkGangUpdate(p.Index(i), groupOfTemplate(t), groupOfTemplate(was))...)
			delete(had, t.Name)
		} else {
			errs = append(errs, field.Forbidden(p.Index(i), "items may not be added"))
		}
	}
	if len(had) > 0 {
		errs = append(errs, field.Forbidden(p, "items may not be removed"))
	}
	return errs
}

// checkGangUpdate lets nothing change but the size of a gang.
func checkGangUpdate(path *field.Path, g, old group) field.ErrorList {
	p := path.Child("schedulingPolicy")
	errs := checkImmutable(p.Child("basic"), g.policy.Basic, old.policy.Basic)
	if (g.policy.Gang == nil) != (old.policy.Gang == nil) {
		errs = append(errs, field.Invalid(p.Child("gang"), g.policy.Gang, "field cannot be set or cleared once the object was created"))
	}
	errs = append(errs, checkImmutable(path.Child("schedulingConstraints"), g.constraints, old.constraints)...)
	errs = append(errs, checkImmutable(path.Child("resourceClaims"), g.claims, old.claims)...)
	errs = append(errs, checkImmutable(path.Child("disruptionMode"), g.disruption, old.disruption)...)
	errs = append(errs, checkImmutable(path.Child("priorityClassName"), g.class, old.class)...)
	errs = append(errs, checkImmutable(path.Child("priority"), g.priority, old.priority)...)
	return append(errs, checkImmutable(path.Child("preemptionPolicy"), g.preemption, old.preemption)...)
}

func validatePodGroup(g *schedulingv1beta1.PodGroup) field.ErrorList {
	path, spec := field.NewPath("spec"), &g.Spec
	var errs field.ErrorList
	if spec.ParentCompositePodGroupName != nil {
		errs = append(errs, field.Forbidden(path.Child("parentCompositePodGroupName"), "groups of groups are not served"))
	}
	if ref, p := spec.WorkloadRef, path.Child("workloadRef"); ref != nil {
		errs = append(errs, checkName(p.Child("workloadName"), ref.WorkloadName, utilvalidation.IsDNS1123Subdomain)...)
		errs = append(errs, checkName(p.Child("templateName"), ref.TemplateName, utilvalidation.IsDNS1123Label)...)
	}
	return append(errs, checkGang(path, groupOf(spec))...)
}

func validatePodGroupUpdate(g, old *schedulingv1beta1.PodGroup) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkImmutable(path.Child("parentCompositePodGroupName"), g.Spec.ParentCompositePodGroupName, old.Spec.ParentCompositePodGroupName)
	errs = append(errs, checkImmutable(path.Child("workloadRef"), g.Spec.WorkloadRef, old.Spec.WorkloadRef)...)
	return append(errs, checkGangUpdate(path, groupOf(&g.Spec), groupOf(&old.Spec))...)
}

func checkPodGroupStatus(g *schedulingv1beta1.PodGroup) field.ErrorList {
	path, s := field.NewPath("status"), &g.Status
	errs := metav1validation.ValidateConditions(s.Conditions, path.Child("conditions"))
	p := path.Child("resourceClaimStatuses")
	if n := len(s.ResourceClaimStatuses); n > schedulingv1beta1.MaxPodGroupResourceClaims {
		errs = append(errs, field.TooMany(p, n, schedulingv1beta1.MaxPodGroupResourceClaims))
	}
	claims, names := map[string]bool{}, map[string]bool{}
	for _, c := range g.Spec.ResourceClaims {
		claims[c.Name] = true
	}
	for i, c := range s.ResourceClaimStatuses {
		switch {
		case names[c.Name]:
			errs = append(errs, field.Duplicate(p.Index(i), c.Name))
		case !claims[c.Name]:
			errs = append(errs, field.Invalid(p.Index(i).Child("name"), c.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		names[c.Name] = true
		if n := c.ResourceClaimName; n != nil {
			errs = append(errs, invalid(p.Index(i).Child("resourceClaimName"), *n, utilvalidation.IsDNS1123Subdomain(*n))...)
		}
	}
	return errs
}
