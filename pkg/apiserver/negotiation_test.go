package apiserver_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/resource"
)

// checkAccept: which representation a client gets.
func checkAccept(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("a"))
	const proto = "application/vnd.kubernetes.protobuf"
	for header, want := range map[string]string{
		"": jsonBody, "*/*": jsonBody, "application/*": jsonBody, "application/yaml": yamlBody, proto: proto,
		"application/json;q=0.5,application/yaml": yamlBody, "text/html,application/yaml;q=0.1": yamlBody,
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json":                         jsonBody,
		"application/json;as=Table;v=v2;g=meta.k8s.io,application/yaml":                         yamlBody,
		"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io," + jsonBody:           jsonBody,
		"application/cbor," + proto + "," + jsonBody:                                            proto,
		"application/apidiscovery.v2+json;garbage==;,application/json;q=x,text/plain,*/*;q=0.1": jsonBody,
	} {
		a := s.must(t, 200, "GET", configMaps(""), "", accept(header))
		if got := a.header.Get("Content-Type"); got != want {
			t.Errorf("Accept %q: %s, want %s", header, got, want)
		}
	}
}

// TestCompression: large answers are compressed for those who ask.
func TestCompression(t *testing.T) {
	s := newServer(t)
	s.makeConfigMap(t, configMap("small"))
	s.makeConfigMap(t, configMap("large", "k", strings.Repeat("0123456789abcdef", 20_000)))
	zipped := header{"Accept-Encoding", "deflate, gzip;q=1.0"}
	if a := s.must(t, 200, "GET", configMaps("/small"), "", zipped); a.header.Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
	if a := s.must(t, 200, "GET", configMaps("/large"), "", header{"Accept-Encoding", "gzip;q=0"}); a.header.Get("Content-Encoding") != "" {
		t.Error("an answer is compressed for a client that refuses it")
	}
	plainBody := s.must(t, 200, "GET", configMaps(""), "").body
	a := s.must(t, 200, "GET", configMaps(""), "", zipped)
	if a.header.Get("Content-Encoding") != "gzip" || len(a.body) > len(plainBody)/2 {
		t.Fatalf("%v: %d bytes of %d", a.header, len(a.body), len(plainBody))
	}
	z, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, plainBody) {
		t.Errorf("the compressed answer differs (%v)", err)
	}
}

// TestDiscovery: the plain and the aggregated documents agree with the table.
func TestDiscovery(t *testing.T) {
	s := newServer(t)
	plainGroups, plainLists, err := s.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]string{}
	for _, l := range plainLists {
		for _, r := range l.APIResources {
			served[l.GroupVersion+"/"+r.Name] = strings.Join(r.Verbs, " ")
		}
	}
	for _, g := range plainGroups {
		if g.PreferredVersion.GroupVersion == "" || len(g.Versions) == 0 {
			t.Errorf("group %v", g)
		}
	}
	for _, res := range s.Registry().Table().All() {
		gv := res.GVK().GroupVersion().String()
		if served[gv+"/"+res.Plural] != strings.Join(res.Verbs, " ") {
			t.Errorf("%s/%s has verbs %q, want %q", gv, res.Plural, served[gv+"/"+res.Plural], res.Verbs)
		}
		list := &metav1.APIResourceList{}
		s.must(t, 200, "GET", discoveryPath(res), "").decode(t, list)
		if list.GroupVersion != gv || list.Kind != "APIResourceList" {
			t.Errorf("%s is %s of %s", discoveryPath(res), list.Kind, list.GroupVersion)
		}
		for _, sub := range res.Subresources {
			if _, ok := served[gv+"/"+res.Plural+"/"+sub.Name]; !ok {
				t.Errorf("%s/%s/%s is not in discovery", gv, res.Plural, sub.Name)
			}
		}
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for _, path := range []string{"/api", "/apis"} {
		a := s.must(t, 200, "GET", path, "", accept(aggregated+",application/json"))
		if a.header.Get("Content-Type") != aggregated || plain(t, a.body)["kind"] != "APIGroupDiscoveryList" {
			t.Errorf("%s: %v", path, a.header)
		}
		s.must(t, 304, "GET", path, "", accept(aggregated), header{"If-None-Match", a.header.Get("ETag")})
		if got := s.must(t, 200, "GET", path, "").header.Get("Content-Type"); got != jsonBody {
			t.Errorf("plain %s is %s", path, got)
		}
	}
}

func discoveryPath(res *resource.Resource) string {
	if res.Group == "" {
		return "/api/" + res.Version
	}
	return "/apis/" + res.Group + "/" + res.Version
}

// checkEventViews: INST-002. An event of one group is seen through the other,
// and each has its own field names.
func checkEventViews(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		made, err := s.Client.EventsV1().Events("default").Create(ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), ReportingController: "example.com/c", ReportingInstance: "c-1",
			Action: "Do", Reason: "Because", Type: "Normal", Note: "a note", Regarding: corev1.ObjectReference{Kind: "ConfigMap", Name: "a", Namespace: "default"},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, selector := range []string{"reportingController=example.com/c", "regarding.name=a", "reason=Because,type=Normal"} {
			list, err := s.Client.EventsV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: selector})
			if err != nil || len(list.Items) != 1 || list.Items[0].Note != "a note" {
				t.Errorf("events.k8s.io by %s: %v %v", selector, list, err)
			}
		}
		for _, selector := range []string{"source=example.com/c", "involvedObject.name=a", "reportingComponent=example.com/c"} {
			list, err := s.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: selector})
			if err != nil || len(list.Items) != 1 || list.Items[0].Message != "a note" || list.Items[0].UID != made.UID {
				t.Errorf("core events by %s: %v %v", selector, list, err)
			}
		}
		made.Series = &eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NowMicro()}
		if _, err := s.Client.EventsV1().Events("default").Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		core, err := s.Client.CoreV1().Events("default").Get(ctx, "e", metav1.GetOptions{})
		if err != nil || core.Series == nil || core.Series.Count != 2 {
			t.Errorf("the series through core/v1: %v (%v)", core, err)
		}
		patch := `[{"op":"test","path":"/note","value":"a note"},{"op":"replace","path":"/series/count","value":3}]`
		got := s.must(t, 200, "PATCH", "/apis/events.k8s.io/v1/namespaces/default/events/e", patch, contentType("application/json-patch+json"))
		if e := plain(t, got.body); e["note"] != "a note" || e["series"].(map[string]any)["count"] != 3.0 {
			t.Errorf("a patch in the view's own names gave %s", got.body)
		}
	})
}

// TestReviews: what the reviews say is what requests get.
func TestReviews(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	user, err := kubernetes.NewForConfig(s.As("eve"))
	if err != nil {
		t.Fatal(err)
	}
	ask := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Verb: "list", Resource: "secrets"}}}
	got, err := user.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, ask, metav1.CreateOptions{})
	if err != nil || got.Status.Allowed {
		t.Errorf("may eve list secrets: %v (%v)", got, err)
	}
	_, err = user.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})
	refused(t, err, 403, metav1.StatusReasonForbidden, `secrets is forbidden: User "eve" cannot list resource "secrets" in API group "" in the namespace "default"`)
	who, err := user.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "eve" {
		t.Errorf("who is eve: %v (%v)", who, err)
	}
	if _, err := s.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{}, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an empty review: %v", err)
	}
}

// TestServiceAddresses: addresses and ports are given once, kept and freed.
func TestServiceAddresses(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, services := t.Context(), s.Client.CoreV1().Services("default")
		makeService := func(name, ip string, kind corev1.ServiceType, port int32) (*corev1.Service, error) {
			return services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.ServiceSpec{Type: kind, ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80, NodePort: port}}}}, metav1.CreateOptions{})
		}
		a, err := makeService("a", "", corev1.ServiceTypeNodePort, 0)
		if err != nil || !strings.HasPrefix(a.Spec.ClusterIP, "10.96.") || a.Spec.Ports[0].NodePort < 30000 {
			t.Fatalf("%v (%v)", a, err)
		}
		_, err = makeService("b", a.Spec.ClusterIP, corev1.ServiceTypeClusterIP, 0)
		refused(t, err, 422, metav1.StatusReasonInvalid, "provided IP is already allocated")
		_, err = makeService("b", "", corev1.ServiceTypeNodePort, a.Spec.Ports[0].NodePort)
		refused(t, err, 422, metav1.StatusReasonInvalid, "provided port is already allocated")
		_, err = makeService("b", "192.0.2.1", corev1.ServiceTypeClusterIP, 0)
		refused(t, err, 422, metav1.StatusReasonInvalid, "spec.clusterIP")
		kept, err := services.Update(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: a.ResourceVersion},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.UpdateOptions{})
		if err != nil || kept.Spec.ClusterIP != a.Spec.ClusterIP || kept.Spec.Ports[0].NodePort != a.Spec.Ports[0].NodePort {
			t.Fatalf("an update that names no address: %v (%v)", kept, err)
		}
		if err := services.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := makeService("b", a.Spec.ClusterIP, corev1.ServiceTypeNodePort, a.Spec.Ports[0].NodePort); err != nil {
			t.Errorf("the address and port of a deleted Service: %v", err)
		}
	})
}
