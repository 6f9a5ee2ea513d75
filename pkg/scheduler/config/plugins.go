package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	configv1 "k8s.io/kube-scheduler/config/v1"
)

// point is an extension point of the configuration, a set of bits.
type point uint16

const (
	preEnqueue point = 1 << iota
	queueSort
	preFilter
	filter
	postFilter
	preScore
	score
	reserve
	permit
	preBind
	bind
	postBind
	placementGenerate
	placementScore
	podGroupPostFilter
)

// pluginInfo is one plugin as the configuration knows it.
type pluginInfo struct {
	name   string
	points point
	weight int64 // its default weight where it scores
}

// plugins are all that may be named, in the order of the default profile.
func plugins() []pluginInfo {
	const filters, scores = preFilter | filter, preScore | score
	return []pluginInfo{
		{name: "SchedulingGates", points: preEnqueue},
		{name: "PrioritySort", points: queueSort},
		{name: "NodeName", points: filter},
		{name: "NodeUnschedulable", points: filter},
		{name: "TaintToleration", points: filter | scores, weight: 3},
		{name: "NodeAffinity", points: filters | scores, weight: 2},
		{name: "NodePorts", points: filters},
		{name: "NodeResourcesFit", points: filters | scores, weight: 1},
		{name: "VolumeRestrictions", points: filters},
		{name: "NodeVolumeLimits", points: filters},
		{name: "VolumeBinding", points: filters | scores | reserve | preBind, weight: 1},
		{name: "VolumeZone", points: filters},
		{name: "PodTopologySpread", points: filters | scores, weight: 2},
		{name: "InterPodAffinity", points: filters | scores, weight: 2},
		{name: "DynamicResources", points: preEnqueue | filters | postFilter | score | reserve | preBind, weight: 2},
		{name: "DefaultPreemption", points: preEnqueue | postFilter},
		{name: "NodeResourcesBalancedAllocation", points: scores, weight: 1},
		{name: "ImageLocality", points: score, weight: 1},
		{name: "DefaultBinder", points: bind},
		{name: "NodeDeclaredFeatures", points: filters},
		{name: "GangScheduling", points: preEnqueue | reserve | permit},
	}
}

func lookup(name string) (pluginInfo, bool) {
	all := plugins()
	i := slices.IndexFunc(all, func(p pluginInfo) bool { return p.name == name })
	if i < 0 {
		return pluginInfo{}, false
	}
	return all[i], true
}

// section is one extension point of the file.
type section struct {
	name  string
	point point
	set   *configv1.PluginSet
}

func sections(p *configv1.Plugins) []section {
	return []section{
		{"preEnqueue", preEnqueue, &p.PreEnqueue}, {"queueSort", queueSort, &p.QueueSort},
		{"preFilter", preFilter, &p.PreFilter}, {"filter", filter, &p.Filter},
		{"postFilter", postFilter, &p.PostFilter}, {"preScore", preScore, &p.PreScore},
		{"score", score, &p.Score}, {"reserve", reserve, &p.Reserve}, {"permit", permit, &p.Permit},
		{"preBind", preBind, &p.PreBind}, {"bind", bind, &p.Bind}, {"postBind", postBind, &p.PostBind},
		{"placementGenerate", placementGenerate, &p.PlacementGenerate},
		{"placementScore", placementScore, &p.PlacementScore},
		{"podGroupPostFilter", podGroupPostFilter, &p.PodGroupPostFilter},
		{"multiPoint", ^point(0), &p.MultiPoint},
	}
}

// checkPlugins finds names that are not known, are listed twice, or stand at
// an extension point that they do not have.
func checkPlugins(p *configv1.Plugins) error {
	for _, s := range sections(p) {
		seen := map[string]bool{}
		for i, e := range s.set.Enabled {
			at := fmt.Sprintf("plugins.%s.enabled[%d]", s.name, i)
			info, ok := lookup(e.Name)
			switch {
			case !ok:
				return fmt.Errorf("%s: there is no plugin %q: use one of %s", at, e.Name, names())
			case info.points&s.point == 0:
				return fmt.Errorf("%s: plugin %s has no part in %s: leave it out there", at, e.Name, s.name)
			case seen[e.Name]:
				return fmt.Errorf("%s: plugin %s is enabled twice: leave one out", at, e.Name)
			case e.Weight != nil && *e.Weight < 0:
				return fmt.Errorf("%s.weight: %d is negative: give a weight above 0", at, *e.Weight)
			}
			seen[e.Name] = true
		}
		for i, d := range s.set.Disabled {
			if _, ok := lookup(d.Name); !ok && d.Name != "*" {
				return fmt.Errorf("plugins.%s.disabled[%d]: there is no plugin %q: use * or one of %s", s.name, i, d.Name, names())
			}
		}
	}
	return nil
}

func names() string {
	var list []string
	for _, p := range plugins() {
		list = append(list, p.name)
	}
	return strings.Join(list, ", ")
}

func lists(set []configv1.Plugin, name string) bool {
	return slices.ContainsFunc(set, func(p configv1.Plugin) bool { return p.Name == name })
}

// multiPoint is the default plugins as the profile changes them, in order.
func multiPoint(custom *configv1.PluginSet) []Score {
	var out []Score
	for _, p := range plugins() {
		i := slices.IndexFunc(custom.Enabled, func(e configv1.Plugin) bool { return e.Name == p.name })
		disabled := lists(custom.Disabled, "*") || lists(custom.Disabled, p.name)
		switch {
		case disabled:
			// Enabled again, it comes after the defaults.
		case i >= 0:
			out = append(out, Score{p.name, weightOf(custom.Enabled[i])})
		default:
			out = append(out, Score{p.name, max(p.weight, 1)})
		}
	}
	for _, e := range custom.Enabled {
		if !slices.ContainsFunc(out, func(s Score) bool { return s.Name == e.Name }) {
			out = append(out, Score{e.Name, weightOf(e)})
		}
	}
	return out
}

// weightOf is a plugin's weight as given. None and zero are one: a plugin that
// shall not count is disabled.
func weightOf(p configv1.Plugin) int64 {
	if p.Weight == nil || *p.Weight == 0 {
		return 1
	}
	return int64(*p.Weight)
}

// at is the plugins in force at one extension point: those of multiPoint that
// its own section enables anew, the others of multiPoint that the section
// leaves, and at last those that only the section enables.
func at(pt point, own *configv1.PluginSet, multi []Score) []Score {
	var anew, rest, only []Score
	disabled := func(name string) bool { return lists(own.Disabled, "*") || lists(own.Disabled, name) }
	for _, e := range own.Enabled {
		s := Score{e.Name, weightOf(e)}
		if !disabled(e.Name) && slices.ContainsFunc(multi, func(m Score) bool { return m.Name == e.Name }) {
			anew = append(anew, s)
		} else {
			only = append(only, s)
		}
	}
	for _, m := range multi {
		info, _ := lookup(m.Name)
		if info.points&pt != 0 && !lists(own.Enabled, m.Name) && !disabled(m.Name) {
			rest = append(rest, m)
		}
	}
	return slices.Concat(anew, rest, only)
}

// choosePlugins settles which plugins a profile has.
func (p *Profile) choosePlugins(custom *configv1.Plugins) error {
	if custom == nil {
		custom = &configv1.Plugins{}
	}
	if err := checkPlugins(custom); err != nil {
		return err
	}
	multi := multiPoint(&custom.MultiPoint)
	has := func(pt point, own *configv1.PluginSet, name string) bool {
		return slices.ContainsFunc(at(pt, own, multi), func(s Score) bool { return s.Name == name })
	}
	for _, f := range at(filter, &custom.Filter, multi) {
		p.Filters = append(p.Filters, f.Name)
	}
	p.Scores = at(score, &custom.Score, multi)
	p.Gates = has(preEnqueue, &custom.PreEnqueue, "SchedulingGates")
	p.Preempts = has(postFilter, &custom.PostFilter, "DefaultPreemption")
	if !has(queueSort, &custom.QueueSort, "PrioritySort") {
		return errors.New("plugins.queueSort: the order of the queue is that of PrioritySort and cannot be disabled: leave the section out, or enable PrioritySort in it")
	}
	if !has(bind, &custom.Bind, "DefaultBinder") {
		return errors.New("plugins.bind: pods are bound by DefaultBinder and it cannot be disabled: leave the section out, or enable DefaultBinder in it")
	}
	return p.checkParts(custom, multi)
}

// checkParts refuses to take a plugin apart: a filter works with what its own
// preparation found.
func (p *Profile) checkParts(custom *configv1.Plugins, multi []Score) error {
	for _, part := range []struct {
		before, main       point
		beforeSet, mainSet *configv1.PluginSet
		beforeAt, mainAt   string
	}{
		{preFilter, filter, &custom.PreFilter, &custom.Filter, "preFilter", "filter"},
		{preScore, score, &custom.PreScore, &custom.Score, "preScore", "score"},
	} {
		prepared := at(part.before, part.beforeSet, multi)
		for _, m := range at(part.main, part.mainSet, multi) {
			info, _ := lookup(m.Name)
			if info.points&part.before != 0 && !slices.ContainsFunc(prepared, func(s Score) bool { return s.Name == m.Name }) {
				return fmt.Errorf("plugins.%s: %s is disabled here but not in plugins.%s, which needs it: disable it there too, or in multiPoint", part.beforeAt, m.Name, part.mainAt)
			}
		}
	}
	return nil
}
