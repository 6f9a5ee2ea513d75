package apiserver_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/fairness"
	"coracle/pkg/auth"
	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

const (
	schemaHeader = flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID
	levelHeader  = flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID
)

// fairly is an API server of so many seats over s, with a gate at which writes
// wait.
func fairly(t *testing.T, s *server, seats int, gate slowGate) func(name string, groups ...string) *server {
	t.Helper()
	chain, err := admission.NewChain(gate)
	if err != nil {
		t.Fatal(err)
	}
	api := apiServer(t, s, chain, func(c *apiserver.Config) { c.Fairness = fairness.New(seats) })
	return func(name string, groups ...string) *server {
		return &server{Cluster: s.Cluster, http: api.Transport(&auth.User{Name: name, Groups: append(groups, auth.GroupAuthenticated)})}
	}
}

// TestFlowSchemaApplies: as soon as a flow schema's condition says that its
// level is there, requests are counted with it, and answers name both.
func TestFlowSchemaApplies(t *testing.T) {
	s := newServer(t)
	client := s.Client.FlowcontrolV1()
	level, err := client.PriorityLevelConfigurations().Create(t.Context(), &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "testing"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: new(int32(1)), LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := client.FlowSchemas().Create(t.Context(), &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "testing"},
		Spec: flowcontrolv1.FlowSchemaSpec{
			MatchingPrecedence: 1000, PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "testing"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "noxu"}}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.untilBound(t, "testing")
	as := func(name string) *answer {
		return s.must(t, 200, "GET", "/version", "", header{"Impersonate-User", name})
	}
	if h := as("noxu").header; h.Get(schemaHeader) != string(schema.UID) || h.Get(levelHeader) != string(level.UID) {
		t.Errorf("headers %v, want schema %s and level %s", h, schema.UID, level.UID)
	}
	if h := as("foo").header; h.Get(schemaHeader) == "" || h.Get(levelHeader) == "" || h.Get(levelHeader) == string(level.UID) {
		t.Errorf("another user's headers: %v", h)
	}
	if text := string(s.must(t, 200, "GET", "/metrics", "").body); !strings.Contains(text, `apiserver_flowcontrol_nominal_limit_seats{priority_level="testing"} `) ||
		!strings.Contains(text, `apiserver_flowcontrol_dispatched_requests_total{flow_schema="testing",priority_level="testing"} 1`) {
		t.Error("the metrics do not tell of the level and its request")
	}

	// Without its level the schema is out of use, and says so.
	if err := client.PriorityLevelConfigurations().Delete(t.Context(), "testing", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the schema dangles", func() bool {
		f, err := client.FlowSchemas().Get(t.Context(), "testing", metav1.GetOptions{})
		return err == nil && len(f.Status.Conditions) == 1 && f.Status.Conditions[0].Status == flowcontrolv1.ConditionTrue
	})
	if h := as("noxu").header; h.Get(schemaHeader) == string(schema.UID) {
		t.Error("a schema without its level is in use")
	}
}

// TestDefaultFlowControl: every cluster has the default schemas and levels, in
// use from the first request on.
func TestDefaultFlowControl(t *testing.T) {
	s := newServer(t)
	for _, want := range fairness.DefaultFlowSchemas() {
		got, err := s.Client.FlowcontrolV1().FlowSchemas().Get(t.Context(), want.Name, metav1.GetOptions{})
		if err != nil {
			t.Error(err)
			continue
		}
		if got.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] != "true" || len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Status != flowcontrolv1.ConditionFalse {
			t.Errorf("%s: %v, %+v", want.Name, got.Annotations, got.Status)
		}
	}
	for _, want := range fairness.DefaultPriorityLevels() {
		if _, err := s.Client.FlowcontrolV1().PriorityLevelConfigurations().Get(t.Context(), want.Name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	exempt, err := s.Client.FlowcontrolV1().FlowSchemas().Get(t.Context(), "exempt", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, "the stored schemas are in use", func() bool {
		return s.must(t, 200, "GET", "/api", "").header.Get(schemaHeader) == string(exempt.UID)
	})
}

// TestFloodIsIsolated: while one client's writes have all the seats of their
// level and more of them wait, leases, nodes, service accounts and
// administrators are served as ever, and the flood is told or served in the
// end.
func TestFloodIsIsolated(t *testing.T) {
	gate := slowGate{make(chan struct{}), make(chan struct{})}
	s := newServer(t)
	as := fairly(t, s, 60, gate)
	flood := as("flood")
	const requests = 400
	answers := make(chan *answer, requests)
	for i := range requests {
		go func() {
			answers <- flood.do(t, "POST", configMaps(""), fmt.Sprintf(`{"metadata":{"name":"flood-%d"}}`, i), contentType(jsonBody))
		}()
	}
	<-gate.entered // at least one has its seat and keeps it
	refused := 0
	for refused == 0 { // the queues are full once somebody is refused
		select {
		case <-gate.entered:
		case a := <-answers:
			if status := a.status(t); a.code != http.StatusTooManyRequests || status.Reason != metav1.StatusReasonTooManyRequests || a.header.Get("Retry-After") == "" {
				t.Fatalf("the flood is answered %d %+v", a.code, status)
			}
			refused++
		}
	}
	done := make(chan struct{})
	go func() { // whoever of the flood gets further is let through to the gate
		for {
			select {
			case <-gate.entered:
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	lease := "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	for _, other := range []struct {
		who  *server
		path string
		code int
	}{
		{as("system:node:a", auth.GroupNodes), lease, 200},
		{as("system:node:a", auth.GroupNodes), "/api/v1/pods", 200},
		{as(auth.UserManager), lease + "/none", 404},
		{as(auth.ServiceAccountName("kube-system", "x"), auth.GroupServiceAccounts), "/api/v1/nodes", 200},
		{as(auth.ServiceAccountName("default", "x"), auth.GroupServiceAccounts), configMaps(""), 200},
		{as("root", auth.GroupMasters), configMaps(""), 200},
		{flood, "/readyz", 200},
	} {
		if a := other.who.do(t, "GET", other.path, ""); a.code != other.code {
			t.Errorf("GET %s: %d, want %d: %s", other.path, a.code, other.code, a.body)
		}
	}
	close(gate.open)
	served := 0
	for range requests - refused {
		switch a := <-answers; a.code {
		case 201:
			served++
		case 429:
		default:
			t.Errorf("a request of the flood: %d %s", a.code, a.body)
		}
	}
	if served == 0 {
		t.Error("nothing of the flood was served")
	}
	flood.must(t, 200, "GET", configMaps(""), "")
}

// TestWatchesLeaveTheirSeats: watches cost seats until they have begun only.
func TestWatchesLeaveTheirSeats(t *testing.T) {
	s := newServer(t)
	as := fairly(t, s, 20, slowGate{})
	user := as("watcher")
	for _, query := range []string{"?watch=1", "?watch=1&resourceVersion=0", "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"} {
		for range 40 {
			user.watch(t, configMaps("")+query)
		}
	}
	user.must(t, 200, "GET", configMaps(""), "")
}

// TestMandatoryComesBack: what is mandatory is in use while it is not stored.
func TestMandatoryComesBack(t *testing.T) {
	s := newServer(t)
	schemas := s.Client.FlowcontrolV1().FlowSchemas()
	if err := schemas.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := schemas.Get(t.Context(), "exempt", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("after all were deleted: %v", err)
	}
	s.until(t, "the stored schemas are out of use", func() bool {
		return s.must(t, 200, "GET", "/api", "").header.Get(schemaHeader) == ""
	})
}

// BenchmarkFairness is a get over the in-memory transport, with and without
// priority and fairness.
func BenchmarkFairness(b *testing.B) {
	for name, off := range map[string]bool{"on": false, "off": true} {
		b.Run(name, func(b *testing.B) {
			c := testcluster.Start(b, testcluster.WithConfig(func(cfg *controlplane.Config) { cfg.NoFairness = off }))
			if _, err := c.Client.CoreV1().ConfigMaps("default").Create(b.Context(), configMap("bench"), metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
			transport := c.Admin().Transport
			r := request(b.Context(), b, http.MethodGet, configMaps("/bench"), nil)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := transport.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp.StatusCode, err)
				}
				if err := resp.Body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
