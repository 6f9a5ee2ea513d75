package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"coracle/pkg/auth"
)

// Bounds of what is read of a backend.
const (
	maxDiscovery = 1 << 20
	maxIndex     = 1 << 20
	maxResources = 2000 // of a group version, subresources counted
)

// looker is whom the server asks backends as.
func looker() *auth.User {
	return &auth.User{Name: "system:kube-aggregator", Groups: []string{auth.GroupMasters}}
}

// get asks the backend for a path. The caller closes the body.
func (b *backend) get(ctx context.Context, path string) (*http.Response, error) {
	target := &url.URL{Scheme: "https", Host: b.host, Path: path}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := b.send(r, looker())
	if err != nil {
		return nil, fmt.Errorf("failing or missing response from %s: %s", target, plainError(err))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, errors.Join(fmt.Errorf("failing or missing response from %s: bad status from %s: %d", target, target, resp.StatusCode), resp.Body.Close())
	}
	return resp, nil
}

// readBounded reads a body of at most limit bytes.
func readBounded(resp *http.Response, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return body, errors.Join(err, resp.Body.Close())
}

// discover asks the backend what it serves. An error says that it is not
// available; read is false when it answered and what it said makes no sense.
func (b *backend) discover(ctx context.Context) (resources []apidiscoveryv2.APIResourceDiscovery, read bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	resp, err := b.get(ctx, "/apis/"+b.gv.String())
	if err != nil {
		return nil, false, err
	}
	body, err := readBounded(resp, maxDiscovery)
	if err != nil {
		return nil, false, nil //nolint:nilerr // it answered, which is what counts
	}
	resources, err = parseResources(body, b.gv)
	return resources, err == nil, nil
}

// parseResources reads an APIResourceList of a group version in the form that
// aggregated discovery has.
func parseResources(body []byte, gv schema.GroupVersion) ([]apidiscoveryv2.APIResourceDiscovery, error) {
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("the discovery document is not JSON: %w", err)
	}
	if list.Kind != "APIResourceList" || list.GroupVersion != gv.String() {
		return nil, fmt.Errorf("the discovery document is a %s of %q, not an APIResourceList of %s", list.Kind, list.GroupVersion, gv)
	}
	if len(list.APIResources) > maxResources {
		return nil, fmt.Errorf("the discovery document lists %d resources, more than %d", len(list.APIResources), maxResources)
	}
	out := []apidiscoveryv2.APIResourceDiscovery{}
	at := map[string]int{}
	for _, pass := range []bool{false, true} { // subresources after their parents
		for i := range list.APIResources {
			r := &list.APIResources[i]
			name, sub, isSub := strings.Cut(r.Name, "/")
			if isSub != pass || r.Kind == "" || len(utilvalidation.IsDNS1123Subdomain(name)) > 0 || isSub && len(utilvalidation.IsDNS1123Subdomain(sub)) > 0 {
				continue
			}
			parent, known := at[name]
			switch {
			case !isSub && !known:
				at[name] = len(out)
				out = append(out, resourceOf(r, gv))
			case isSub && known:
				out[parent].Subresources = append(out[parent].Subresources,
					apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kindOf(r, gv), Verbs: verbs(r)})
			case isSub:
				at[name] = len(out)
				scope := scopeOf(r)
				out = append(out, apidiscoveryv2.APIResourceDiscovery{Resource: name, Scope: scope, Verbs: []string{}, ResponseKind: &metav1.GroupVersionKind{},
					Subresources: []apidiscoveryv2.APISubresourceDiscovery{{Subresource: sub, ResponseKind: kindOf(r, gv), Verbs: verbs(r)}}})
			}
		}
	}
	return out, nil
}

func resourceOf(r *metav1.APIResource, gv schema.GroupVersion) apidiscoveryv2.APIResourceDiscovery {
	return apidiscoveryv2.APIResourceDiscovery{
		Resource: r.Name, ResponseKind: kindOf(r, gv), Scope: scopeOf(r), SingularResource: r.SingularName,
		Verbs: verbs(r), ShortNames: r.ShortNames, Categories: r.Categories,
	}
}

func scopeOf(r *metav1.APIResource) apidiscoveryv2.ResourceScope {
	if r.Namespaced {
		return apidiscoveryv2.ScopeNamespace
	}
	return apidiscoveryv2.ScopeCluster
}

func kindOf(r *metav1.APIResource, gv schema.GroupVersion) *metav1.GroupVersionKind {
	kind := &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
	if kind.Version == "" {
		kind.Group, kind.Version = gv.Group, gv.Version
	}
	return kind
}

func verbs(r *metav1.APIResource) []string {
	if r.Verbs == nil {
		return []string{}
	}
	return r.Verbs
}

// hashed is the form of the addresses in a list of OpenAPI documents.
var hashed = regexp.MustCompile(`^\?hash=[0-9A-Za-z_%=-]{1,200}$`)

// findOpenAPI returns where the backend describes its group version, empty when
// it does not.
func (b *backend) findOpenAPI(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	resp, err := b.get(ctx, "/openapi/v3")
	if err != nil {
		return ""
	}
	body, err := readBounded(resp, maxIndex)
	if err != nil {
		return ""
	}
	return parseIndex(body, b.gv)
}

// parseIndex finds the address of a group version's document in a list of them.
func parseIndex(body []byte, gv schema.GroupVersion) string {
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return ""
	}
	entry, ok := index.Paths["apis/"+gv.String()]
	if !ok {
		return ""
	}
	path := "/openapi/v3/apis/" + gv.String()
	if hash, ok := strings.CutPrefix(entry.URL, path); ok && hashed.MatchString(hash) {
		return path + hash
	}
	return path
}

// describing serves the backend's own description of its group version. Who
// may see descriptions sees all of them, so that the backend is asked as the
// server itself.
func (b *backend) describing() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.ServeHTTP(w, r.WithContext(auth.WithUser(r.Context(), looker())))
	})
}
