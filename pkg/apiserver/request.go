package apiserver

import (
	"context"
	"net/http"
	"path"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/audit"
	"coracle/pkg/auth"
)

// requestInfo is what the URL and method of a request say.
type requestInfo struct {
	// resource is false for discovery, health and all else outside the API
	// groups; then only path and verb (the lower case method) are set.
	resource bool
	path     string
	verb     string

	gvr       schema.GroupVersionResource
	namespace string
	// within says that the resource is named behind a namespace. A namespace itself
	// is in its own, but never behind one.
	within      bool
	name        string
	subresource string
	// rest is what follows the subresource (a proxied path).
	rest string
	// backend serves the request in this server's place; nil for most. Set once
	// the server has begun with it.
	backend http.Handler
	// series counts the request; set once the server has begun with it.
	series *series
	// seat is what the request holds while it is served; set once it is let in.
	seat seat
	// auditID and received identify the request for the audit log; audit is nil
	// until its sender is known, and where it is not recorded.
	auditID  string
	received time.Time
	audit    *audit.Record
	// remark is what there is to say about the sender's credential; set with the
	// sender, nil for nothing.
	remark *auth.Remark
}

// parseRequest reads a request line. It does not know which resources exist.
func parseRequest(r *http.Request) requestInfo {
	info := requestInfo{path: r.URL.Path, verb: strings.ToLower(r.Method)}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		info.gvr.Version = parts[1]
		parts = parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		info.gvr.Group, info.gvr.Version = parts[1], parts[2]
		parts = parts[3:]
	default:
		return info
	}
	deprecatedWatch := parts[0] == "watch" && len(parts) > 1
	if deprecatedWatch {
		parts = parts[1:]
	}
	// An empty namespace is not all of them: there is no such resource, and none
	// without a name.
	if parts[0] == "" || parts[0] == "namespaces" && len(parts) > 2 && (parts[1] == "" || parts[2] == "") {
		return info
	}
	info.resource = true
	info.place(parts)
	info.verb = apiVerb(r, &info, deprecatedWatch)
	return info
}

// place reads [namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/REST...]]].
func (i *requestInfo) place(parts []string) {
	if parts[0] == "namespaces" && len(parts) > 1 {
		i.namespace = parts[1]
		// A namespace's own subresources look like resources within it.
		own := len(parts) == 2 || len(parts) == 3 && (parts[2] == "status" || parts[2] == "finalize")
		if !own {
			i.within = true
			parts = parts[2:]
		}
	}
	i.gvr.Resource = parts[0]
	if len(parts) > 1 {
		i.name = parts[1]
	}
	if len(parts) > 2 {
		i.subresource = parts[2]
	}
	if len(parts) > 3 {
		i.rest = strings.Join(parts[3:], "/")
	}
}

func apiVerb(r *http.Request, info *requestInfo, deprecatedWatch bool) string {
	switch r.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if info.name == "" {
			return "deletecollection"
		}
		return "delete"
	case http.MethodGet, http.MethodHead:
		if deprecatedWatch || boolParam(r.URL.Query(), "watch") {
			return "watch"
		}
		if info.name == "" {
			return "list"
		}
		return "get"
	}
	return strings.ToLower(r.Method)
}

// attributes are what the authorizer is asked about.
func (i *requestInfo) attributes(u *auth.User, r *http.Request) auth.Attributes {
	a := auth.Attributes{User: u, Verb: i.verb, Path: i.path, ResourceRequest: i.resource}
	if !i.resource {
		return a
	}
	a.Namespace, a.Name = i.namespace, i.name
	a.APIGroup, a.APIVersion = i.gvr.Group, i.gvr.Version
	a.Resource, a.Subresource = i.gvr.Resource, i.subresource
	if i.verb != "list" && i.verb != "watch" && i.verb != "deletecollection" {
		return a
	}
	q := r.URL.Query()
	if len(q.Get("labelSelector")) > maxSelector || len(q.Get("fieldSelector")) > maxSelector {
		return a // the request is refused when it is served
	}
	if sel, err := fields.ParseSelector(q.Get("fieldSelector")); err == nil && q.Has("fieldSelector") {
		a.FieldSelector = sel.Requirements()
		if name, ok := sel.RequiresExactMatch("metadata.name"); ok && a.Name == "" {
			a.Name = name
		}
	}
	if sel, err := labels.Parse(q.Get("labelSelector")); err == nil && q.Has("labelSelector") {
		a.LabelSelector, _ = sel.Requirements()
	}
	return a
}

// opensStream says that a request that reads by its verb runs a command or
// opens a connection to a container, itself or by a path of the node's agent.
// Who may only read is not to do that: it takes the right to create as well.
func (i *requestInfo) opensStream() bool {
	if i.verb != "get" || i.gvr.Group != "" {
		return false
	}
	switch i.gvr.Resource + "/" + i.subresource {
	case "pods/exec", "pods/attach", "pods/portforward":
		return true
	case "nodes/proxy":
		first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+i.rest), "/"), "/")
		switch strings.ToLower(first) {
		case "exec", "attach", "portforward", "run", "cri":
			return true
		}
	}
	return false
}

// contextKey is the type of this package's context keys.
type contextKey int

const (
	infoKey contextKey = iota
	warningsKey
)

func withInfo(ctx context.Context, i *requestInfo) context.Context {
	return context.WithValue(ctx, infoKey, i)
}
