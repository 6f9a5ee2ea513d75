package scheduler

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"coracle/pkg/scheduler/config"
	"coracle/pkg/scheduler/plugin"
)

// profile decides for the pods of one schedulerName.
type profile struct {
	config.Profile
	decider *decider // looks at the cluster, under its lock
	// hinters are the filters that know what helps, by name; nil for those that
	// may be helped by anything.
	hinters map[string]plugin.Hinter
}

// newProfiles makes what decides, by schedulerName.
func newProfiles(cfg config.Config, c *cluster, r *rand.Rand) (map[string]*profile, error) {
	out := make(map[string]*profile, len(cfg.Profiles))
	for _, p := range cfg.Profiles {
		plugins, err := plugin.NewProfile(enabled(&p), plugin.Handles{Owners: c.owners, Volumes: c.volumes, Devices: c.devices})
		if err != nil {
			return nil, fmt.Errorf("make the plugins of profile %s: %w", p.SchedulerName, err)
		}
		made := &profile{Profile: p, decider: newDecider(plugins, c.records, r), hinters: map[string]plugin.Hinter{}}
		for _, f := range plugins.Filters {
			hinter, _ := f.(plugin.Hinter)
			made.hinters[f.Name()] = hinter
		}
		out[p.SchedulerName] = made
	}
	return out, nil
}

// defaultPlugins are those of the default profile.
func defaultPlugins() []plugin.Enabled { return enabled(&config.Default().Profiles[0]) }

// enabled is the plugins of a profile, filters first. Names of the
// configuration that are no plugin of their own (VolumeRestrictions of a
// cluster without such volumes, say) have nothing to do.
func enabled(p *config.Profile) []plugin.Enabled {
	weights := map[string]int64{}
	for _, s := range p.Scores {
		weights[s.Name] = s.Weight
	}
	factories, args := plugin.Factories(), arguments(&p.Args)
	var out []plugin.Enabled
	for _, name := range p.Filters {
		if factories[name] != nil {
			out = append(out, plugin.Enabled{Name: name, Weight: weights[name], Args: args[name]})
		}
	}
	for _, s := range p.Scores {
		if factories[s.Name] != nil && !p.Has(s.Name) {
			out = append(out, plugin.Enabled{Name: s.Name, Weight: s.Weight, NoFilter: true, Args: args[s.Name]})
		}
	}
	return out
}

// arguments are the configuration's arguments as the plugins take them.
func arguments(a *config.Args) map[string]plugin.Args {
	strategy := a.NodeResourcesFit.ScoringStrategy
	fit := plugin.NodeResourcesFitArgs{
		IgnoredResources: a.NodeResourcesFit.IgnoredResources, IgnoredResourceGroups: a.NodeResourcesFit.IgnoredResourceGroups,
		Strategy: plugin.Strategy{Type: plugin.StrategyType(strategy.Type), Resources: resourceWeights(strategy.Resources)},
	}
	if ratio := strategy.RequestedToCapacityRatio; ratio != nil {
		for _, p := range ratio.Shape {
			fit.Strategy.Shape = append(fit.Strategy.Shape, plugin.Point{Utilization: int64(p.Utilization), Score: int64(p.Score)})
		}
	}
	hard := int64(*a.InterPodAffinity.HardPodAffinityWeight)
	return map[string]plugin.Args{
		"InterPodAffinity": plugin.InterPodAffinityArgs{
			HardPodAffinityWeight: &hard, IgnorePreferredTermsOfExistingPods: a.InterPodAffinity.IgnorePreferredTermsOfExistingPods,
		},
		"PodTopologySpread": plugin.PodTopologySpreadArgs{
			DefaultConstraints: a.PodTopologySpread.DefaultConstraints, List: a.PodTopologySpread.DefaultingType == configv1.ListDefaulting,
		},
		"NodeResourcesFit":                fit,
		"NodeResourcesBalancedAllocation": plugin.BalancedAllocationArgs{Resources: resourceWeights(a.NodeResourcesBalancedAllocation.Resources)},
		"NodeAffinity":                    plugin.NodeAffinityArgs{AddedAffinity: a.NodeAffinity.AddedAffinity},
	}
}

func resourceWeights(list []configv1.ResourceSpec) []plugin.ResourceWeight {
	out := make([]plugin.ResourceWeight, 0, len(list))
	for _, r := range list {
		out = append(out, plugin.ResourceWeight{Name: corev1.ResourceName(r.Name), Weight: r.Weight})
	}
	return out
}

// mayHelp says that an event may help a pod that a filter refused.
func (c *cluster) mayHelp(filter string, p *plugin.Pod, e *plugin.Event) bool {
	if filter == gangPlugin {
		return false // the group wakes its members by name
	}
	hinter := c.profiles[p.Shape.Scheduler].hinters[filter]
	return hinter == nil || hinter.MayHelp(p, e)
}

// concerns says that a filter could be helped by a kind of event at all. The
// most frequent events are pods that come and go.
func concerns(filter string, e *plugin.Event) bool {
	switch filter {
	case gangPlugin:
		return false
	case "NodeName", "NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodeDeclaredFeatures":
		switch e.Kind {
		case plugin.NodeAdded, plugin.NodeUpdated, plugin.OwnPodUpdated:
			return true
		}
		return false
	case "VolumeBinding", "VolumeZone":
		switch e.Kind {
		case plugin.NodeAdded, plugin.NodeUpdated, plugin.ObjectChanged:
			return true
		}
		return false
	case "NodeResourcesFit", "NodePorts":
		return e.Kind != plugin.PodAdded && e.Kind != plugin.PodRelabelled
	}
	return true
}
