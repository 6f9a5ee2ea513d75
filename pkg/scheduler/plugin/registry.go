package plugin

import "fmt"

// Handles are what some plugins need of the world beside the Cluster. Each is
// set by the composition; nil means that there is none of it.
type Handles struct {
	// Owners finds what selects a pod, for default topology spread constraints.
	Owners Owners
	// DelegatedResource says that an extended resource is provided by devices
	// that are claimed, for nodes that do not list it.
	DelegatedResource func(name string) bool
	// Volumes shows the claims of pods.
	Volumes Volumes
	// Devices shows the ResourceClaims of pods, and finds devices for them.
	Devices Devices
}

// Factory makes a plugin with arguments of its own type, or the defaults for
// nil.
type Factory func(Args, Handles) (Plugin, error)

// Factories are all plugins by name.
func Factories() map[string]Factory {
	simple := func(p Plugin) Factory {
		return func(args Args, _ Handles) (Plugin, error) {
			if args != nil {
				return nil, wrongArgs(p.Name(), args)
			}
			return p, nil
		}
	}
	return map[string]Factory{
		"NodeName":                        simple(NodeName{}),
		"NodeUnschedulable":               simple(NodeUnschedulable{}),
		"TaintToleration":                 simple(TaintToleration{}),
		"NodeAffinity":                    newNodeAffinity,
		"NodePorts":                       simple(NodePorts{}),
		"NodeResourcesFit":                newNodeResourcesFit,
		"NodeResourcesBalancedAllocation": newBalancedAllocation,
		"PodTopologySpread":               newPodTopologySpread,
		"InterPodAffinity":                newInterPodAffinity,
		"ImageLocality":                   simple(ImageLocality{}),
		"NodeDeclaredFeatures":            simple(NodeDeclaredFeatures{}),
		"VolumeBinding":                   newVolumeBinding,
		"VolumeRestrictions":              newVolumeRestrictions,
		"VolumeZone":                      newVolumeZone,
		"DynamicResources":                newDynamicResources,
	}
}

// Enabled is a plugin in a profile.
type Enabled struct {
	Name string
	// Weight multiplies the score; 0 leaves the plugin out of scoring.
	Weight int64
	// NoFilter leaves the plugin out of filtering.
	NoFilter bool
	Args     Args
}

// Profile is the plugins that decide for one scheduler name.
type Profile struct {
	Filters []Filter
	Scores  []Score
	Weights []int64 // of Scores
}

// NewProfile makes the plugins of a list.
func NewProfile(list []Enabled, h Handles) (*Profile, error) {
	factories, p := Factories(), &Profile{}
	for _, e := range list {
		create, ok := factories[e.Name]
		if !ok {
			return nil, fmt.Errorf("there is no scheduler plugin %q; leave it out of the profile", e.Name)
		}
		made, err := create(e.Args, h)
		if err != nil {
			return nil, fmt.Errorf("make scheduler plugin %s: %w", e.Name, err)
		}
		if f, ok := made.(Filter); ok && !e.NoFilter {
			p.Filters = append(p.Filters, f)
		}
		if s, ok := made.(Score); ok && e.Weight > 0 {
			p.Scores = append(p.Scores, s)
			p.Weights = append(p.Weights, e.Weight)
		}
	}
	return p, nil
}
