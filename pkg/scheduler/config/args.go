package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"
	sigsjson "sigs.k8s.io/json"
)

// readArgs decodes, completes and checks the plugins' arguments.
func (p *Profile) readArgs(given []configv1.PluginConfig) error {
	a := &p.Args
	byName := map[string]any{
		"NodeResourcesFit": &a.NodeResourcesFit, "NodeResourcesBalancedAllocation": &a.NodeResourcesBalancedAllocation,
		"NodeAffinity": &a.NodeAffinity, "InterPodAffinity": &a.InterPodAffinity, "PodTopologySpread": &a.PodTopologySpread,
		"VolumeBinding": &a.VolumeBinding, "DefaultPreemption": &a.DefaultPreemption, "DynamicResources": &a.DynamicResources,
	}
	paths := map[string]*field.Path{}
	for name := range byName {
		paths[name] = field.NewPath("pluginConfig").Key(name)
	}
	seen := map[string]bool{}
	for i, c := range given {
		path := field.NewPath("pluginConfig").Index(i)
		into, ok := byName[c.Name]
		switch {
		case !ok:
			return fmt.Errorf("%s.name: there is no plugin %q with arguments", path, c.Name)
		case seen[c.Name]:
			return fmt.Errorf("%s.name: %s is configured twice: write its arguments once", path, c.Name)
		}
		seen[c.Name], paths[c.Name] = true, path.Child("args")
		if len(c.Args.Raw) == 0 {
			continue
		}
		if err := decodeArgs(c.Args.Raw, c.Name, into); err != nil {
			return fmt.Errorf("%s: %w", paths[c.Name], err)
		}
	}
	a.complete()
	return a.check(paths)
}

// decodeArgs decodes one plugin's arguments. Their type may be left out.
func decodeArgs(raw []byte, plugin string, into any) error {
	if err := strict(raw, into); err != nil {
		return err
	}
	var t metav1.TypeMeta
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(raw, &t); err != nil {
		return err
	}
	if want := configv1.SchemeGroupVersion.String(); t.APIVersion != "" && t.APIVersion != want {
		return fmt.Errorf("apiVersion: %q is not read: write %s, or leave it out", t.APIVersion, want)
	}
	if want := plugin + "Args"; t.Kind != "" && t.Kind != want {
		return fmt.Errorf("kind: %q is not for plugin %s: write %s, or leave it out", t.Kind, plugin, want)
	}
	return nil
}

// complete fills in Kubernetes' defaults.
func (a *Args) complete() {
	fit := &a.NodeResourcesFit
	if fit.ScoringStrategy == nil {
		fit.ScoringStrategy = &configv1.ScoringStrategy{Type: configv1.LeastAllocated}
	}
	fit.ScoringStrategy.Resources = weighed(fit.ScoringStrategy.Resources)
	a.NodeResourcesBalancedAllocation.Resources = weighed(a.NodeResourcesBalancedAllocation.Resources)
	fill(&a.InterPodAffinity.HardPodAffinityWeight, 1)
	if a.PodTopologySpread.DefaultingType == "" {
		a.PodTopologySpread.DefaultingType = configv1.SystemDefaulting
	}
	fill(&a.VolumeBinding.BindTimeoutSeconds, 600)
	if len(a.VolumeBinding.Shape) == 0 {
		a.VolumeBinding.Shape = []configv1.UtilizationShapePoint{{Utilization: 0, Score: 10}, {Utilization: 100, Score: 0}}
	}
	fill(&a.DefaultPreemption.MinCandidateNodesPercentage, 10)
	fill(&a.DefaultPreemption.MinCandidateNodesAbsolute, 100)
	fill(&a.DynamicResources.FilterTimeout, metav1.Duration{Duration: configv1.DynamicResourcesFilterTimeoutDefault})
	fill(&a.DynamicResources.BindingTimeout, metav1.Duration{Duration: configv1.DynamicResourcesBindingTimeoutDefault})
}

func fill[T any](p **T, value T) {
	if *p == nil {
		*p = ptr.To(value)
	}
}

func weighed(list []configv1.ResourceSpec) []configv1.ResourceSpec {
	if len(list) == 0 {
		list = []configv1.ResourceSpec{{Name: string(corev1.ResourceCPU)}, {Name: string(corev1.ResourceMemory)}}
	}
	for i := range list {
		if list[i].Weight == 0 {
			list[i].Weight = 1
		}
	}
	return list
}

// check applies Kubernetes' rules about arguments.
func (a *Args) check(paths map[string]*field.Path) error {
	var errs field.ErrorList
	errs = append(errs, checkFit(paths["NodeResourcesFit"], &a.NodeResourcesFit)...)
	errs = append(errs, checkBalanced(paths["NodeResourcesBalancedAllocation"].Child("resources"), a.NodeResourcesBalancedAllocation.Resources)...)
	errs = append(errs, between(paths["InterPodAffinity"].Child("hardPodAffinityWeight"), *a.InterPodAffinity.HardPodAffinityWeight, 0, 100)...)
	errs = append(errs, checkSpread(paths["PodTopologySpread"], &a.PodTopologySpread)...)
	errs = append(errs, checkVolumes(paths["VolumeBinding"], &a.VolumeBinding)...)
	errs = append(errs, checkPreemption(paths["DefaultPreemption"], &a.DefaultPreemption)...)
	if d := a.DynamicResources.FilterTimeout.Duration; d < 0 {
		errs = append(errs, field.Invalid(paths["DynamicResources"].Child("filterTimeout"), d.String(), "must not be negative"))
	}
	if d := a.DynamicResources.BindingTimeout.Duration; d < time.Second {
		errs = append(errs, field.Invalid(paths["DynamicResources"].Child("bindingTimeout"), d.String(), "must be at least 1 second"))
	}
	if err := errs.ToAggregate(); err != nil {
		return err
	}
	return checkAffinity(paths["NodeAffinity"].Child("addedAffinity"), a.NodeAffinity.AddedAffinity)
}

func between(path *field.Path, v, low, high int32) field.ErrorList {
	if v < low || v > high {
		return field.ErrorList{field.Invalid(path, v, fmt.Sprintf("must be between %d and %d", low, high))}
	}
	return nil
}

func checkFit(path *field.Path, args *configv1.NodeResourcesFitArgs) field.ErrorList {
	var errs field.ErrorList
	for i, name := range args.IgnoredResources {
		errs = append(errs, metav1validation.ValidateLabelName(name, path.Child("ignoredResources").Index(i))...)
	}
	for i, group := range args.IgnoredResourceGroups {
		at := path.Child("ignoredResourceGroups").Index(i)
		if strings.Contains(group, "/") {
			errs = append(errs, field.Invalid(at, group, "is a group of resources and has no '/'"))
			continue
		}
		errs = append(errs, metav1validation.ValidateLabelName(group, at)...)
	}
	s, at := args.ScoringStrategy, path.Child("scoringStrategy")
	for i, r := range s.Resources {
		if r.Weight < 1 || r.Weight > 100 {
			errs = append(errs, field.Invalid(at.Child("resources").Index(i).Child("weight"), r.Weight, "must be between 1 and 100"))
		}
	}
	known := []configv1.ScoringStrategyType{configv1.LeastAllocated, configv1.MostAllocated, configv1.RequestedToCapacityRatio}
	ratio := at.Child("requestedToCapacityRatio")
	switch {
	case !slices.Contains(known, s.Type):
		errs = append(errs, field.NotSupported(at.Child("type"), s.Type, known))
	case s.Type != configv1.RequestedToCapacityRatio && s.RequestedToCapacityRatio != nil:
		errs = append(errs, field.Forbidden(ratio, "is for type RequestedToCapacityRatio only"))
	case s.Type == configv1.RequestedToCapacityRatio && s.RequestedToCapacityRatio == nil:
		errs = append(errs, field.Required(ratio, "type RequestedToCapacityRatio needs its shape"))
	case s.Type == configv1.RequestedToCapacityRatio:
		errs = append(errs, checkShape(ratio.Child("shape"), s.RequestedToCapacityRatio.Shape)...)
	}
	return errs
}

func checkShape(path *field.Path, shape []configv1.UtilizationShapePoint) field.ErrorList {
	if len(shape) == 0 {
		return field.ErrorList{field.Required(path, "needs at least one point")}
	}
	var errs field.ErrorList
	for i, p := range shape {
		errs = append(errs, between(path.Index(i).Child("utilization"), p.Utilization, 0, 100)...)
		errs = append(errs, between(path.Index(i).Child("score"), p.Score, 0, 10)...)
		if i > 0 && shape[i-1].Utilization >= p.Utilization {
			errs = append(errs, field.Invalid(path.Index(i).Child("utilization"), p.Utilization, "must be greater than that of the point before"))
		}
	}
	return errs
}

func checkBalanced(path *field.Path, resources []configv1.ResourceSpec) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range resources {
		if seen[r.Name] {
			errs = append(errs, field.Duplicate(path.Index(i).Child("name"), r.Name))
		}
		seen[r.Name] = true
		if r.Weight != 1 {
			errs = append(errs, field.Invalid(path.Index(i).Child("weight"), r.Weight, "must be 1"))
		}
	}
	return errs
}

func checkSpread(path *field.Path, args *configv1.PodTopologySpreadArgs) field.ErrorList {
	var errs field.ErrorList
	known := []configv1.PodTopologySpreadConstraintsDefaulting{configv1.SystemDefaulting, configv1.ListDefaulting}
	switch {
	case !slices.Contains(known, args.DefaultingType):
		errs = append(errs, field.NotSupported(path.Child("defaultingType"), args.DefaultingType, known))
	case args.DefaultingType == configv1.SystemDefaulting && len(args.DefaultConstraints) > 0:
		errs = append(errs, field.Invalid(path.Child("defaultingType"), args.DefaultingType, "must be List when there are defaultConstraints"))
	}
	type identity struct {
		key  string
		when corev1.UnsatisfiableConstraintAction
	}
	seen := map[identity]bool{}
	for i, c := range args.DefaultConstraints {
		at := path.Child("defaultConstraints").Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than 0"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), ""))
		} else {
			errs = append(errs, metav1validation.ValidateLabelName(c.TopologyKey, at.Child("topologyKey"))...)
		}
		actions := []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}
		if !slices.Contains(actions, c.WhenUnsatisfiable) {
			errs = append(errs, field.NotSupported(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, actions))
		}
		if c.LabelSelector != nil {
			errs = append(errs, field.Forbidden(at.Child("labelSelector"), "is found out for each pod by its services and owner"))
		}
		id := identity{c.TopologyKey, c.WhenUnsatisfiable}
		if seen[id] {
			errs = append(errs, field.Duplicate(at, fmt.Sprintf("{%s, %s}", id.key, id.when)))
		}
		seen[id] = true
	}
	return errs
}

func checkVolumes(path *field.Path, args *configv1.VolumeBindingArgs) field.ErrorList {
	errs := checkShape(path.Child("shape"), args.Shape)
	if s := *args.BindTimeoutSeconds; s < 0 || s > int64(24*time.Hour/time.Second) {
		errs = append(errs, field.Invalid(path.Child("bindTimeoutSeconds"), s, "must be between 0 and a day"))
	}
	return errs
}

func checkPreemption(path *field.Path, args *configv1.DefaultPreemptionArgs) field.ErrorList {
	percent, absolute := *args.MinCandidateNodesPercentage, *args.MinCandidateNodesAbsolute
	errs := between(path.Child("minCandidateNodesPercentage"), percent, 0, 100)
	if absolute < 0 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesAbsolute"), absolute, "must not be negative"))
	}
	if percent == 0 && absolute == 0 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesAbsolute"), absolute, "must not be 0 when minCandidateNodesPercentage is"))
	}
	return errs
}

func checkAffinity(path *field.Path, added *corev1.NodeAffinity) error {
	if added == nil {
		return nil
	}
	if required := added.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		if _, err := nodeaffinity.NewNodeSelector(required, field.WithPath(path.Child("requiredDuringSchedulingIgnoredDuringExecution"))); err != nil {
			return err
		}
	}
	_, err := nodeaffinity.NewPreferredSchedulingTerms(added.PreferredDuringSchedulingIgnoredDuringExecution,
		field.WithPath(path.Child("preferredDuringSchedulingIgnoredDuringExecution")))
	return err
}
