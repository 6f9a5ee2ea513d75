package aggregate_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"
)

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// version is the group version in the aggregated document.
func (s *site) version() (v apidiscoveryv2.APIVersionDiscovery, place int) {
	s.t.Helper()
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal([]byte(s.must(200, "GET", "/apis", "", "Accept", aggregatedType)), &list); err != nil {
		s.t.Fatal(err)
	}
	place = slices.IndexFunc(list.Items, func(g apidiscoveryv2.APIGroupDiscovery) bool { return g.Name == "wardle.example.com" })
	if place < 0 {
		s.t.Fatal("the group is not in the aggregated document")
	}
	return list.Items[place].Versions[0], place
}

// TestDiscovery: clients find the backend's resources in every document, and
// after its death all others, and that it is gone.
func TestDiscovery(t *testing.T) {
	s := newSite(t)
	v, _ := s.version()
	if v.Freshness != apidiscoveryv2.DiscoveryFreshnessCurrent || len(v.Resources) != 1 || v.Resources[0].Resource != "flunders" ||
		v.Resources[0].Scope != apidiscoveryv2.ScopeNamespace || len(v.Resources[0].Subresources) != 1 {
		t.Errorf("the aggregated document says %+v", v)
	}
	client := discovery.NewDiscoveryClientForConfigOrDie(s.Admin())
	plain := discovery.NewDiscoveryClientForConfigOrDie(s.Admin())
	plain.UseLegacyDiscovery = true
	for name, c := range map[string]*discovery.DiscoveryClient{"aggregated": client, "plain": plain} {
		groups, err := restmapper.GetAPIGroupResources(c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		gvk, err := restmapper.NewDiscoveryRESTMapper(groups).KindFor(schema.GroupVersionResource{Resource: "flunders"})
		if err != nil || gvk.Group != "wardle.example.com" {
			t.Errorf("%s: %v %v", name, gvk, err)
		}
	}
	s.dead.Store(true)
	s.backend.CloseClientConnections()
	s.must(200, "PATCH", "/api/v1/namespaces/default/services/wardle", `{"metadata":{"labels":{"look":"now"}}}`, "Content-Type", "application/merge-patch+json")
	s.untilCondition("FailedDiscoveryCheck")
	s.until(func() bool { v, _ := s.version(); return v.Freshness == apidiscoveryv2.DiscoveryFreshnessStale }, func() string { return "the group is not stale" })
	for name, c := range map[string]*discovery.DiscoveryClient{"aggregated": client, "plain": plain} {
		_, lists, err := c.ServerGroupsAndResources()
		var failed *discovery.ErrGroupDiscoveryFailed
		if !errors.As(err, &failed) || len(failed.Groups) != 1 || failed.Groups[schema.GroupVersion{Group: "wardle.example.com", Version: "v1"}] == nil {
			t.Errorf("%s: with a dead backend discovery says %v", name, err)
		}
		if len(lists) < 20 {
			t.Errorf("%s: only %d group versions are left", name, len(lists))
		}
	}
	if text := s.must(503, "GET", group+"/flunders", ""); !strings.Contains(text, `"reason":"ServiceUnavailable"`) {
		t.Error(text)
	}
	s.dead.Store(false)
	s.untilCondition("Passed")
	s.until(func() bool { v, _ := s.version(); return v.Freshness == apidiscoveryv2.DiscoveryFreshnessCurrent }, func() string { return "the group is still stale" })
}

// TestNonsenseDiscovery: a backend whose discovery is no such document, or has no
// end, is there for its own requests, and stale.
func TestNonsenseDiscovery(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"text": func(w http.ResponseWriter, _ *http.Request) { write(t, w, "no") },
		"other group": func(w http.ResponseWriter, _ *http.Request) {
			write(t, w, strings.ReplaceAll(document, "wardle", "apps"))
		},
		"100 MB": func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.discover(h)
			s.serve(s.echo)
			s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(""))
			s.untilCondition("Passed")
			if v, _ := s.version(); v.Freshness != apidiscoveryv2.DiscoveryFreshnessStale || len(v.Resources) > 0 {
				t.Errorf("discovery says %+v", v)
			}
			s.must(http.StatusTeapot, "GET", group+"/flunders", "")
		})
	}
}

// TestUntrustedBackends: a backend that cannot prove to be the Service gets no
// request, and its condition says why.
func TestUntrustedBackends(t *testing.T) {
	other := base64.StdEncoding.EncodeToString(authority(t, "other").CertPEM())
	for name, change := range map[string]string{
		"another authority":  `,"caBundle":"` + other + `"`,
		"no authority":       `,"caBundle":"aGVsbG8="`,
		"the system's roots": `,"versionPriority":10`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.serve(func(http.ResponseWriter, *http.Request) { t.Error("a request reached the backend") })
			s.discover(func(http.ResponseWriter, *http.Request) { t.Error("a request reached the backend") })
			s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(change))
			s.untilCondition("FailedDiscoveryCheck")
			if text := s.must(200, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example.com", ""); !strings.Contains(text, "certificate") {
				t.Error(text)
			}
			s.must(503, "GET", group+"/flunders", "")
		})
	}
	t.Run("whoever it is", func(t *testing.T) {
		s := start(t)
		s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(`,"insecureSkipTLSVerify":true`))
		s.untilCondition("Passed")
	})
}

// TestBackendElsewhere: addresses of the machine itself are not dialled, by
// whatever name.
func TestBackendElsewhere(t *testing.T) {
	s := start(t)
	s.must(200, "PUT", "/api/v1/namespaces/default/services/wardle", `{"kind":"Service","apiVersion":"v1","metadata":{"name":"wardle"},"spec":{"type":"ExternalName","externalName":"localhost"}}`)
	s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(""))
	s.untilCondition("FailedDiscoveryCheck")
	if text := s.must(200, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example.com", ""); !strings.Contains(text, "nobody is at localhost:443") {
		t.Error(text)
	}
}

// TestOpenAPI: the list of descriptions has the backend's own, and leads to it.
func TestOpenAPI(t *testing.T) {
	s := newSite(t)
	s.serve(s.echo)
	var list struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	s.until(func() bool {
		return json.Unmarshal([]byte(s.must(200, "GET", "/openapi/v3", "")), &list) == nil && list.Paths["apis/wardle.example.com/v1"].URL != ""
	}, func() string { return "the backend's description is not listed" })
	url := list.Paths["apis/wardle.example.com/v1"].URL
	if url != "/openapi/v3/apis/wardle.example.com/v1?hash=AB12" || !strings.HasPrefix(list.Paths["apis/apps/v1"].URL, "/openapi/v3/apis/apps/v1?") {
		t.Errorf("the list says %s and %s", url, list.Paths["apis/apps/v1"].URL)
	}
	if text := s.must(http.StatusTeapot, "GET", url, ""); !strings.Contains(text, `"URI":"/openapi/v3/apis/wardle.example.com/v1?hash=AB12"`) || !strings.Contains(text, "system:kube-aggregator") {
		t.Error(text)
	}
}

// TestRegistrationTakesAndGivesBack: an APIService with a Service takes a group
// version from the server itself, and deleting it gives that back.
func TestRegistrationTakesAndGivesBack(t *testing.T) {
	s := newSite(t)
	s.serve(s.echo)
	s.must(http.StatusTeapot, "GET", group+"/flunders", "")
	s.must(200, "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example.com", "")
	s.until(func() bool {
		resp, _, err := s.do("GET", group+"/flunders", "")
		return err == nil && resp.StatusCode == 404
	}, func() string { return "the group is still served" })
	if text := s.must(200, "GET", "/apis", ""); strings.Contains(text, "wardle") {
		t.Error("the group is still in discovery")
	}
}

// TestMetrics: dashboards see which APIServices are not there.
func TestMetrics(t *testing.T) {
	s := start(t)
	s.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", s.registration(`,"caBundle":"aGVsbG8="`))
	s.untilCondition("FailedDiscoveryCheck")
	s.until(func() bool {
		text := s.must(200, "GET", "/metrics", "")
		return strings.Contains(text, `aggregator_unavailable_apiservice{name="v1.wardle.example.com"} 1`) && strings.Contains(text, `aggregator_unavailable_apiservice{name="v1.apps"} 0`)
	}, func() string { return "the metrics do not say so" })
}

// TestAuthenticationConfig: servers behind this one read in the cluster whom they
// are to believe.
func TestAuthenticationConfig(t *testing.T) {
	s := start(t)
	var m struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(s.must(200, "GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", "")), &m); err != nil {
		t.Fatal(err)
	}
	for key, part := range map[string]string{
		"client-ca-file": string(s.clients.CertPEM()), "requestheader-client-ca-file": "BEGIN CERTIFICATE", "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-group-headers": `["X-Remote-Group"]`,
		"requestheader-uid-headers": `["X-Remote-Uid"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	} {
		if !strings.Contains(m.Data[key], part) {
			t.Errorf("%s is %q, want %q", key, m.Data[key], part)
		}
	}
}
