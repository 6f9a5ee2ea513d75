// Package config says how the scheduler decides: its profiles, the plugins and
// weights of each, their arguments, and how long pods back off.
//
// Contract: a Config is a value without behaviour. Default is Kubernetes' own;
// Parse reads a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1
// strictly: what it does not know, or what this scheduler could not honour, is
// refused with the path of the field. What is merely without effect here is
// returned as a warning.
package config

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// Config is what all profiles share, and the profiles.
type Config struct {
	// InitialBackoff is how long a pod waits after its first failed attempt;
	// the wait doubles with each further one, up to MaxBackoff.
	InitialBackoff, MaxBackoff time.Duration
	// Profiles has at least one; their names differ.
	Profiles []Profile
}

// Profile decides for the pods of one spec.schedulerName.
type Profile struct {
	SchedulerName string
	// Filters are the names of the filters in force, in their order.
	Filters []string
	// Scores are the scores in force, in their order.
	Scores []Score
	// Gates is whether spec.schedulingGates hold pods back.
	Gates bool
	// Preempts is whether pods may displace others of lower priority.
	Preempts bool
	Args     Args
}

// Score is a score that is in force.
type Score struct {
	Name string
	// Weight multiplies the plugin's score in the sum; it is positive.
	Weight int64
}

// Args are the plugins' arguments, with defaults filled in.
type Args struct {
	NodeResourcesFit                configv1.NodeResourcesFitArgs
	NodeResourcesBalancedAllocation configv1.NodeResourcesBalancedAllocationArgs
	NodeAffinity                    configv1.NodeAffinityArgs
	InterPodAffinity                configv1.InterPodAffinityArgs
	PodTopologySpread               configv1.PodTopologySpreadArgs
	VolumeBinding                   configv1.VolumeBindingArgs
	DefaultPreemption               configv1.DefaultPreemptionArgs
	DynamicResources                configv1.DynamicResourcesArgs
}

// Kubernetes' back-off when the file names none.
const (
	defaultInitialBackoff = time.Second
	defaultMaxBackoff     = 10 * time.Second
)

// Default is the configuration without a file: one profile, default-scheduler.
func Default() Config {
	p, err := newProfile(&configv1.KubeSchedulerProfile{}, corev1.DefaultSchedulerName)
	if err != nil {
		panic("config: the default profile is refused: " + err.Error()) // no input leads here
	}
	return Config{InitialBackoff: defaultInitialBackoff, MaxBackoff: defaultMaxBackoff, Profiles: []Profile{p}}
}

// Profile returns the profile of a spec.schedulerName, or nil.
func (c *Config) Profile(schedulerName string) *Profile {
	i := slices.IndexFunc(c.Profiles, func(p Profile) bool { return p.SchedulerName == schedulerName })
	if i < 0 {
		return nil
	}
	return &c.Profiles[i]
}

// Has says that a filter is in force.
func (p *Profile) Has(filter string) bool { return slices.Contains(p.Filters, filter) }
