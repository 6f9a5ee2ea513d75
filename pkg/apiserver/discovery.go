package apiserver

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// discovery holds the discovery documents, which follow from the table and from
// what is known of other servers.
type discovery struct {
	table *resource.Table
	state *Aggregated // nil where nothing is aggregated
	// docs are the plain documents by path, aggregated the APIGroupDiscoveryList
	// for /api and /apis.
	docs       map[string]any
	aggregated map[string]aggregatedDoc
}

type aggregatedDoc struct {
	body []byte
	etag string
}

func newDiscovery(table *resource.Table, state *Aggregated) *discovery {
	d := &discovery{table: table, state: state, docs: map[string]any{}, aggregated: map[string]aggregatedDoc{}}
	var groups []metav1.APIGroup
	core, named := apidiscoveryv2.APIGroupDiscoveryList{}, apidiscoveryv2.APIGroupDiscoveryList{}
	for _, g := range groupEntries(table, state) {
		item := apidiscoveryv2.APIGroupDiscovery{}
		item.Name = g.name
		for _, v := range g.versions {
			item.Versions = append(item.Versions, d.addVersion(schema.GroupVersion{Group: g.name, Version: v.name}, v.remote))
		}
		if g.name == "" {
			var versions []string
			for _, v := range g.versions {
				versions = append(versions, v.name)
			}
			d.docs["/api"] = &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: versions,
				ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}}
			core.Items = append(core.Items, item)
			continue
		}
		group := apiGroup(g)
		groups = append(groups, group)
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		d.docs["/apis/"+g.name] = &group
		named.Items = append(named.Items, item)
	}
	d.docs["/apis"] = &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: groups}
	d.aggregated["/api"] = makeAggregated(core)
	d.aggregated["/apis"] = makeAggregated(named)
	return d
}

// addVersion adds the plain document of a group version, where this server has
// it, and returns its part of the aggregated one.
func (d *discovery) addVersion(gv schema.GroupVersion, remote *AggregatedVersion) apidiscoveryv2.APIVersionDiscovery {
	if remote != nil {
		out := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Resources: remote.Resources, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		if remote.Stale {
			out.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
		}
		return out
	}
	path := "/apis/" + gv.String()
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	d.docs[path] = resourceList(d.table, gv)
	return aggregate(d.table, gv)
}

func makeAggregated(list apidiscoveryv2.APIGroupDiscoveryList) aggregatedDoc {
	list.TypeMeta = metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}
	body, err := json.Marshal(list)
	if err != nil {
		panic(fmt.Sprintf("discovery cannot be encoded: %v", err)) // plain structs of strings always encode
	}
	return aggregatedDoc{body: body, etag: fmt.Sprintf("%q", fmt.Sprintf("%X", sha512.Sum512(body)))}
}

func apiGroup(g groupEntry) metav1.APIGroup {
	group := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.name + "/" + v.name, Version: v.name})
	}
	group.PreferredVersion = group.Versions[0]
	return group
}

// entry is a resource as one group version shows it.
type entry struct {
	res  *resource.Resource
	kind string
}

func entries(table *resource.Table, gv schema.GroupVersion) []entry {
	var out []entry
	for _, res := range table.All() {
		if res.Group == gv.Group && res.Version == gv.Version {
			out = append(out, entry{res, res.Kind})
		}
		for _, v := range res.Views {
			if v.Group == gv.Group && v.Version == gv.Version {
				out = append(out, entry{res, v.Kind})
			}
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.res.Plural, b.res.Plural) })
	return out
}

func resourceList(table *resource.Table, gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: gv.String(),
		APIResources: []metav1.APIResource{},
	}
	for _, e := range entries(table, gv) {
		r := metav1.APIResource{
			Name: e.res.Plural, SingularName: e.res.Singular, Namespaced: e.res.Namespaced, Kind: e.kind,
			Verbs: e.res.Verbs, ShortNames: e.res.ShortNames, Categories: e.res.Categories,
		}
		if e.res.Stored() {
			r.StorageVersionHash = storageHash(e.res)
		}
		list.APIResources = append(list.APIResources, r)
		for _, sub := range subresources(e.res) {
			s := metav1.APIResource{Name: e.res.Plural + "/" + sub.Name, Namespaced: e.res.Namespaced, Kind: e.kind, Verbs: sub.Verbs}
			if sub.Kind.Kind != "" {
				s.Kind, s.Group, s.Version = sub.Kind.Kind, sub.Kind.Group, sub.Kind.Version
			}
			list.APIResources = append(list.APIResources, s)
		}
	}
	return list
}

func subresources(res *resource.Resource) []resource.Subresource {
	subs := slices.Clone(res.Subresources)
	if status, ok := res.Subresource("status"); ok && res.HasStatus {
		subs = append(subs, status)
	}
	slices.SortFunc(subs, func(a, b resource.Subresource) int { return strings.Compare(a.Name, b.Name) })
	return subs
}

// storageHash tells clients when the stored version of a resource changes.
func storageHash(res *resource.Resource) string {
	stored := res.GVK().GroupVersion().String()
	if res.Group == "" {
		stored = "/" + res.Version
	}
	if res.Custom != nil {
		stored = res.Custom.StoredVersion
	}
	sum := sha512.Sum512([]byte(stored + "/" + res.Kind))
	return encodeHash(sum[:8])
}

func aggregate(table *resource.Table, gv schema.GroupVersion) apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	for _, e := range entries(table, gv) {
		r := apidiscoveryv2.APIResourceDiscovery{
			Resource: e.res.Plural, SingularResource: e.res.Singular, Scope: apidiscoveryv2.ScopeCluster,
			ResponseKind: &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: e.kind},
			Verbs:        e.res.Verbs, ShortNames: e.res.ShortNames, Categories: e.res.Categories,
		}
		if e.res.Namespaced {
			r.Scope = apidiscoveryv2.ScopeNamespace
		}
		for _, sub := range subresources(e.res) {
			kind := &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: e.kind}
			if sub.Kind.Kind != "" {
				kind = &metav1.GroupVersionKind{Group: sub.Kind.Group, Version: sub.Kind.Version, Kind: sub.Kind.Kind}
			}
			r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: sub.Name, ResponseKind: kind, Verbs: sub.Verbs})
		}
		out.Resources = append(out.Resources, r)
	}
	return out
}

// serve answers a discovery path; false means that it is none.
func (d *discovery) serve(w http.ResponseWriter, r *http.Request, path string) bool {
	doc, ok := d.docs[path]
	if !ok {
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		WriteError(w, pathMethodNotSupported())
		return true
	}
	if agg, ok := d.aggregated[path]; ok && wantsAggregated(r) {
		w.Header().Set("Vary", "Accept")
		w.Header().Set("ETag", agg.etag)
		if r.Header.Get("If-None-Match") == agg.etag {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
		w.Header().Set("Content-Type", aggregatedType)
		writeAll(w, agg.body)
		return true
	}
	if err := sendDocument(w, r, doc); err != nil {
		WriteError(w, err)
	}
	return true
}

// sendDocument answers with a discovery document in the encoding asked for.
func sendDocument(w http.ResponseWriter, r *http.Request, doc any) error {
	rep, err := negotiate(r, false)
	if err != nil {
		return err
	}
	obj, isObject := doc.(runtime.Object)
	if !isObject {
		return fmt.Errorf("a discovery document is a %T", doc)
	}
	gvk := schema.FromAPIVersionAndKind("v1", obj.GetObjectKind().GroupVersionKind().Kind)
	body, err := encodeDocument(rep.media, gvk, obj)
	if err != nil {
		return err
	}
	send(w, http.StatusOK, rep, body)
	return nil
}

// encodeDocument is encodeObject of a document that all requests share, which
// already says what it is.
func encodeDocument(media registry.MediaType, gvk schema.GroupVersionKind, doc runtime.Object) ([]byte, error) {
	if media == registry.Protobuf {
		return registry.Envelope(gvk, doc)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if media == registry.YAML {
		return yaml.JSONToYAML(body)
	}
	return append(body, '\n'), nil
}

// wantsAggregated says that the client asked for the aggregated form before
// any plain one.
func wantsAggregated(r *http.Request) bool {
	for _, clause := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		clause = strings.ReplaceAll(clause, " ", "")
		if strings.Contains(clause, "as=APIGroupDiscoveryList") && strings.Contains(clause, "g=apidiscovery.k8s.io") && strings.Contains(clause, "v=v2") &&
			!strings.Contains(clause, "v=v2beta1") {
			return true
		}
	}
	return false
}

// paths lists what a GET of / shows.
func (d *discovery) paths(openapi bool) []string {
	out := []string{"/healthz", "/livez", "/metrics", "/readyz", "/version"}
	for p := range d.docs {
		out = append(out, p)
	}
	if openapi {
		out = append(out, "/openapi/v2", "/openapi/v3")
	}
	slices.Sort(out)
	return out
}
