package apiserver

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

// Aggregated is what the server knows of APIServices at a moment: which group
// versions other servers serve, and which groups clients should prefer. It
// does not change.
type Aggregated struct {
	// Versions are those that have an APIService.
	Versions map[schema.GroupVersion]AggregatedVersion
}

// AggregatedVersion is a group version with an APIService.
type AggregatedVersion struct {
	// GroupPriority and VersionPriority order discovery, highest first.
	GroupPriority, VersionPriority int32
	// Backend answers the requests of the group version; nil is this server
	// itself, which alone the fields above are for then.
	Backend http.Handler
	// Resources are what the backend said last that it serves, for the
	// aggregated documents. Stale says that it does not answer at present.
	Resources []apidiscoveryv2.APIResourceDiscovery
	Stale     bool
}

// aggregated is the present state, empty where nothing is aggregated.
func (s *Server) aggregated() *Aggregated {
	if s.cfg.Aggregated == nil {
		return nil
	}
	return s.cfg.Aggregated()
}

// backend is who serves a request in this server's place; nil when nobody does.
func (s *Server) backend(info *requestInfo) http.Handler {
	state := s.aggregated()
	if state == nil {
		return nil
	}
	gv := info.gvr.GroupVersion()
	if !info.resource {
		parts := strings.Split(strings.TrimSuffix(info.path, "/"), "/")
		if len(parts) != 4 || parts[0] != "" || parts[1] != "apis" {
			return nil
		}
		gv = schema.GroupVersion{Group: parts[2], Version: parts[3]}
	}
	return state.Versions[gv].Backend
}

// serveAggregated passes a request on. A path that another server could read
// as another one than was authorized is refused.
func serveAggregated(w http.ResponseWriter, r *http.Request, backend http.Handler) {
	for part := range strings.SplitSeq(strings.Trim(r.URL.Path, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			WriteError(w, apierrors.NewBadRequest("the path may not have empty elements, nor . or .."))
			return
		}
	}
	if strings.HasPrefix(r.URL.Path, "//") || strings.HasSuffix(r.URL.Path, "//") {
		WriteError(w, apierrors.NewBadRequest("the path may not have empty elements, nor . or .."))
		return
	}
	backend.ServeHTTP(w, r)
}

// Priorities of groups in discovery (those of kube-apiserver): clients that look
// a resource up by its name alone take the first group that has it.
const (
	registrationPriority = 20000 // apiregistration.k8s.io, which has no APIService itself
	customGroupPriority  = 1000  // groups of custom resources
	customVersion        = 100
	unknownGroupPriority = 15000
	ordinaryVersion      = 15
)

// groupPriorities are those of the built-in groups.
var groupPriorities = map[string]int32{
	"":                             18000,
	"apps":                         17800,
	"events.k8s.io":                17750,
	"authentication.k8s.io":        17700,
	"authorization.k8s.io":         17600,
	"autoscaling":                  17500,
	"batch":                        17400,
	"certificates.k8s.io":          17300,
	"networking.k8s.io":            17200,
	"policy":                       17100,
	"rbac.authorization.k8s.io":    17000,
	"storage.k8s.io":               16800,
	"admissionregistration.k8s.io": 16700,
	"apiextensions.k8s.io":         16700,
	"scheduling.k8s.io":            16600,
	"coordination.k8s.io":          16500,
	"node.k8s.io":                  16300,
	"discovery.k8s.io":             16200,
	"resource.k8s.io":              16200,
	"flowcontrol.apiserver.k8s.io": 16100,
	"storagemigration.k8s.io":      15800,
	"apiregistration.k8s.io":       registrationPriority,
}

// versionPriorities are those of the built-in versions that are not
// ordinaryVersion.
var versionPriorities = map[schema.GroupVersion]int32{
	{Version: "v1"}:                                        1,
	{Group: "autoscaling", Version: "v2"}:                  30,
	{Group: "resource.k8s.io", Version: "v1"}:              21,
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: 21,
	{Group: "scheduling.k8s.io", Version: "v1beta1"}:       9,
}

// LocalPriority is the place in discovery of a group version that this server
// serves itself.
func LocalPriority(table *resource.Table, gv schema.GroupVersion) (group, version int32) {
	if table.IsCustom(gv) {
		return customGroupPriority, customVersion
	}
	group, ok := groupPriorities[gv.Group]
	if !ok {
		group = unknownGroupPriority
	}
	if version, ok = versionPriorities[gv]; !ok {
		version = ordinaryVersion
	}
	return group, version
}

// groupEntry is an API group as discovery shows it.
type groupEntry struct {
	name     string
	priority int32
	versions []versionEntry // preferred first
}

// versionEntry is one version of a group, of the table or of a backend.
type versionEntry struct {
	name     string
	priority int32
	remote   *AggregatedVersion // nil for the table's
}

// groupEntries joins the groups of the table with those of backends, preferred
// first. Where both serve a group version, the backend counts.
func groupEntries(table *resource.Table, state *Aggregated) []groupEntry {
	byName := map[string]*groupEntry{}
	add := func(gv schema.GroupVersion, groupPriority int32, v versionEntry) {
		g := byName[gv.Group]
		if g == nil {
			g = &groupEntry{name: gv.Group}
			byName[gv.Group] = g
		}
		g.priority = max(g.priority, groupPriority)
		g.versions = append(g.versions, v)
	}
	var known map[schema.GroupVersion]AggregatedVersion
	if state != nil {
		known = state.Versions
	}
	for _, g := range table.Groups() {
		for _, name := range g.Versions {
			gv := schema.GroupVersion{Group: g.Group, Version: name}
			v, ok := known[gv]
			if ok && v.Backend != nil {
				continue
			}
			if !ok {
				v.GroupPriority, v.VersionPriority = LocalPriority(table, gv)
			}
			add(gv, v.GroupPriority, versionEntry{name: name, priority: v.VersionPriority})
		}
	}
	for gv, v := range known {
		if v.Backend != nil {
			add(gv, v.GroupPriority, versionEntry{gv.Version, v.VersionPriority, &v})
		}
	}
	out := make([]groupEntry, 0, len(byName))
	for _, g := range byName {
		slices.SortFunc(g.versions, func(a, b versionEntry) int {
			return cmp.Or(cmp.Compare(b.priority, a.priority), version.CompareKubeAwareVersionStrings(b.name, a.name))
		})
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b groupEntry) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.name, b.name))
	})
	return out
}
