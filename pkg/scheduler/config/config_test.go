package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/scheduler/config"
)

const head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func TestDefaultIsTheEmptyFile(t *testing.T) {
	got, warnings, err := config.Parse([]byte(head))
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	if diff := cmp.Diff(config.Default(), got); diff != "" {
		t.Error(diff)
	}
	p := got.Profile("default-scheduler")
	if p == nil || !p.Gates || !p.Preempts || !p.Has("NodeResourcesFit") || got.Profile("other") != nil {
		t.Errorf("default profile %+v", p)
	}
	// The first filter that refuses is the one that users read of.
	filters := []string{
		"NodeName", "NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit", "VolumeRestrictions",
		"NodeVolumeLimits", "VolumeBinding", "VolumeZone", "PodTopologySpread", "InterPodAffinity", "DynamicResources", "NodeDeclaredFeatures",
	}
	if diff := cmp.Diff(filters, p.Filters); diff != "" {
		t.Error(diff)
	}
	want := []config.Score{
		{"TaintToleration", 3}, {"NodeAffinity", 2}, {"NodeResourcesFit", 1}, {"VolumeBinding", 1}, {"PodTopologySpread", 2},
		{"InterPodAffinity", 2}, {"DynamicResources", 2}, {"NodeResourcesBalancedAllocation", 1}, {"ImageLocality", 1},
	}
	if diff := cmp.Diff(want, p.Scores); diff != "" {
		t.Error(diff)
	}
}

func TestProfiles(t *testing.T) {
	cfg, warnings, err := config.Parse([]byte(head + `
percentageOfNodesToScore: 50
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    multiPoint:
      disabled: [{name: ImageLocality}, {name: InterPodAffinity}]
      enabled: [{name: ImageLocality, weight: 7}, {name: TaintToleration}]
    score:
      disabled: [{name: PodTopologySpread}]
      enabled: [{name: NodeResourcesFit, weight: 5}]
    preScore:
      disabled: [{name: PodTopologySpread}]
    postFilter:
      disabled: [{name: '*'}]
    preEnqueue:
      disabled: [{name: SchedulingGates}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}, {name: memory}]}
  - name: DefaultPreemption
    args: {minCandidateNodesPercentage: 0}
- schedulerName: bare
  plugins:
    multiPoint:
      disabled: [{name: '*'}]
      enabled: [{name: DefaultBinder}, {name: PrioritySort}, {name: NodeName}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "percentageOfNodesToScore") {
		t.Errorf("warnings %q", warnings)
	}
	if cfg.InitialBackoff != 2*time.Second || cfg.MaxBackoff != 20*time.Second || len(cfg.Profiles) != 3 {
		t.Errorf("configuration %+v", cfg)
	}
	if diff := cmp.Diff(config.Default().Profiles[0], *cfg.Profile("default-scheduler")); diff != "" {
		t.Error(diff)
	}
	packer := cfg.Profile("packer")
	want := []config.Score{
		{"NodeResourcesFit", 5}, {"TaintToleration", 1}, {"NodeAffinity", 2}, {"VolumeBinding", 1}, {"DynamicResources", 2},
		{"NodeResourcesBalancedAllocation", 1}, {"ImageLocality", 7},
	}
	if diff := cmp.Diff(want, packer.Scores); diff != "" {
		t.Error(diff)
	}
	if packer.Gates || packer.Preempts || packer.Has("InterPodAffinity") || !packer.Has("PodTopologySpread") {
		t.Errorf("packer %+v", packer)
	}
	fit := packer.Args.NodeResourcesFit.ScoringStrategy
	if fit.Type != "MostAllocated" || fit.Resources[0].Weight != 3 || fit.Resources[1].Weight != 1 || *packer.Args.DefaultPreemption.MinCandidateNodesAbsolute != 100 {
		t.Errorf("arguments %+v", packer.Args)
	}
	if bare := cfg.Profile("bare"); !cmp.Equal(bare.Filters, []string{"NodeName"}) || bare.Scores != nil || bare.Preempts {
		t.Errorf("bare %+v", bare)
	}
}

func TestRefused(t *testing.T) {
	profile := func(s string) string { return head + "profiles:\n- " + s + "\n" }
	args := func(plugin, s string) string {
		return profile("pluginConfig: [{name: " + plugin + ", args: {" + s + "}}]")
	}
	for name, test := range map[string]struct{ file, want string }{
		"no type":             {"profiles: []", `apiVersion: "" is not read`},
		"old version":         {strings.Replace(head, "/v1", "/v1beta3", 1), "write kubescheduler.config.k8s.io/v1"},
		"other kind":          {strings.Replace(head, "kind: Kube", "kind: ", 1), "write KubeSchedulerConfiguration"},
		"not an object":       {"[]", "not an object"},
		"duplicate key":       {head + "parallelism: 1\nparallelism: 2\n", "parallelism"},
		"unknown field":       {profile("plugin: {}"), `unknown field "profiles[0].plugin"`},
		"wrong type":          {head + "podMaxBackoffSeconds: soon", "podMaxBackoffSeconds"},
		"extenders":           {head + "extenders: [{urlPrefix: 'http://x', filterVerb: f, enableHTTPS: false}]", "calls no extenders"},
		"parallelism":         {head + "parallelism: 0", "parallelism: 0 must"},
		"percentage":          {head + "percentageOfNodesToScore: 101", "percentageOfNodesToScore: 101"},
		"profile percentage":  {profile("percentageOfNodesToScore: -1"), "profiles[0].percentageOfNodesToScore: -1"},
		"no back-off":         {head + "podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: 0"},
		"back-off overflows":  {head + "podMaxBackoffSeconds: 9223372036854775807", "podMaxBackoffSeconds"},
		"back-off backwards":  {head + "podInitialBackoffSeconds: 11", "podMaxBackoffSeconds: 10 must be at least podInitialBackoffSeconds, which is 11"},
		"no name":             {profile("schedulerName: a\n- {}"), "profiles[1].schedulerName: each"},
		"empty name":          {profile("schedulerName: ''"), "profiles[0].schedulerName"},
		"same name":           {profile("schedulerName: a\n- schedulerName: a"), `profiles[1].schedulerName: "a" is also`},
		"unknown plugin":      {profile("plugins: {filter: {enabled: [{name: X}]}}"), `profiles[0].plugins.filter.enabled[0]: there is no plugin "X"`},
		"unknown disabled":    {profile("plugins: {filter: {disabled: [{name: X}]}}"), "plugins.filter.disabled[0]"},
		"wrong point":         {profile("plugins: {score: {enabled: [{name: NodeName}]}}"), "NodeName has no part in score"},
		"twice":               {profile("plugins: {filter: {enabled: [{name: NodeName}, {name: NodeName}]}}"), "enabled[1]: plugin NodeName is enabled twice"},
		"negative weight":     {profile("plugins: {score: {enabled: [{name: ImageLocality, weight: -1}]}}"), "enabled[0].weight: -1"},
		"no queue":            {profile("plugins: {queueSort: {disabled: [{name: '*'}]}}"), "plugins.queueSort"},
		"no binder":           {profile("plugins: {bind: {disabled: [{name: DefaultBinder}]}}"), "plugins.bind"},
		"half a plugin":       {profile("plugins: {preFilter: {disabled: [{name: InterPodAffinity}]}}"), "plugins.preFilter: InterPodAffinity"},
		"unknown arguments":   {args("NodeName", "a: 1"), `pluginConfig[0].name: there is no plugin "NodeName" with arguments`},
		"arguments twice":     {profile("pluginConfig: [{name: VolumeBinding}, {name: VolumeBinding}]"), "pluginConfig[1].name: VolumeBinding is configured twice"},
		"arguments' field":    {args("VolumeBinding", "timeout: 1"), `pluginConfig[0].args: unknown field "timeout"`},
		"arguments' kind":     {args("VolumeBinding", "kind: NodeAffinityArgs"), "write VolumeBindingArgs"},
		"arguments' version":  {args("VolumeBinding", "apiVersion: v1"), "or leave it out"},
		"strategy":            {args("NodeResourcesFit", "scoringStrategy: {type: Best}"), "profiles[0].pluginConfig[0].args.scoringStrategy.type"},
		"resource weight":     {args("NodeResourcesFit", "scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 101}]}"), "resources[0].weight"},
		"ratio without shape": {args("NodeResourcesFit", "scoringStrategy: {type: RequestedToCapacityRatio}"), "requestedToCapacityRatio"},
		"ratio too much":      {args("NodeResourcesFit", "scoringStrategy: {type: LeastAllocated, requestedToCapacityRatio: {}}"), "requestedToCapacityRatio"},
		"shape":               {args("NodeResourcesFit", "scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 5, score: 11}, {utilization: 5, score: 1}]}}"), "shape[0].score"},
		"ignored group":       {args("NodeResourcesFit", "ignoredResourceGroups: [a/b]"), "ignoredResourceGroups[0]"},
		"ignored resource":    {args("NodeResourcesFit", "ignoredResources: ['a b']"), "ignoredResources[0]"},
		"balanced weight":     {args("NodeResourcesBalancedAllocation", "resources: [{name: cpu, weight: 2}]"), "resources[0].weight"},
		"balanced twice":      {args("NodeResourcesBalancedAllocation", "resources: [{name: cpu}, {name: cpu}]"), "resources[1].name"},
		"hard weight":         {args("InterPodAffinity", "hardPodAffinityWeight: 101"), "hardPodAffinityWeight"},
		"spread type":         {args("PodTopologySpread", "defaultingType: None"), "defaultingType"},
		"system constraints":  {args("PodTopologySpread", "defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]"), "must be List"},
		"constraint":          {args("PodTopologySpread", "defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]"), "defaultConstraints[0].maxSkew"},
		"constraint selector": {args("PodTopologySpread", "defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]"), "defaultConstraints[0].labelSelector"},
		"constraint twice":    {args("PodTopologySpread", "defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]"), "defaultConstraints[1]"},
		"constraint action":   {args("PodTopologySpread", "defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: ''}]"), "whenUnsatisfiable"},
		"volume timeout":      {args("VolumeBinding", "bindTimeoutSeconds: -1"), "bindTimeoutSeconds"},
		"no candidates":       {args("DefaultPreemption", "minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0"), "minCandidateNodesAbsolute"},
		"binding timeout":     {args("DynamicResources", "bindingTimeout: 1ms"), "bindingTimeout"},
		"filter timeout":      {args("DynamicResources", "filterTimeout: -1s"), "filterTimeout"},
		"affinity":            {args("NodeAffinity", "addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Is}]}]}}"), "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator"},
		"too long":            {head + strings.Repeat("# long\n", 1<<18), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.Parse([]byte(test.file))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// FuzzParse: whatever is accepted can be used: names differ, weights count,
// arguments are complete.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head))
	f.Add([]byte(head + "profiles: [{schedulerName: a, plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: DefaultBinder}, {name: PrioritySort}]}}}]"))
	f.Add([]byte(head + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, _, err := config.Parse(data)
		if err != nil {
			return
		}
		if len(cfg.Profiles) == 0 || cfg.InitialBackoff <= 0 || cfg.MaxBackoff < cfg.InitialBackoff {
			t.Fatalf("accepted %+v", cfg)
		}
		for i := range cfg.Profiles {
			p := &cfg.Profiles[i]
			if cfg.Profile(p.SchedulerName) != p || p.Args.DefaultPreemption.MinCandidateNodesAbsolute == nil {
				t.Fatalf("accepted profile %+v", p)
			}
			for _, s := range p.Scores {
				if s.Weight <= 0 {
					t.Fatalf("weight of %s is %d", s.Name, s.Weight)
				}
			}
		}
	})
}

// TestOrderOfFilters: what a section enables anew comes first, what is left of
// multiPoint next, and what only the section enables last.
func TestOrderOfFilters(t *testing.T) {
	for _, c := range []struct{ name, plugins, first, last string }{
		{"anew", "{filter: {enabled: [{name: NodePorts}]}}", "NodePorts", "NodeDeclaredFeatures"},
		{"disabled and enabled", "{filter: {disabled: [{name: NodePorts}], enabled: [{name: NodePorts}]}}", "NodeName", "NodePorts"},
		{"not in multiPoint", "{multiPoint: {disabled: [{name: NodeName}]}, filter: {enabled: [{name: NodeName}]}}", "NodeUnschedulable", "NodeName"},
		{"all disabled", "{filter: {disabled: [{name: '*'}], enabled: [{name: NodePorts}, {name: NodeName}]}}", "NodePorts", "NodeName"},
	} {
		got, _, err := config.Parse([]byte(head + "profiles: [{plugins: " + c.plugins + "}]\n"))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		filters := got.Profiles[0].Filters
		if filters[0] != c.first || filters[len(filters)-1] != c.last {
			t.Errorf("%s: filters %v, want %s first and %s last", c.name, filters, c.first, c.last)
		}
	}
}
