package fairness

import (
	"fmt"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/auth"
)

func account(namespace, name string) *auth.User {
	return &auth.User{Name: auth.ServiceAccountName(namespace, name), Groups: []string{auth.GroupServiceAccounts, auth.GroupAuthenticated}}
}

// TestDefaultClassification: who belongs where by the default schemas.
func TestDefaultClassification(t *testing.T) {
	c := New(600)
	node := &auth.User{Name: "system:node:a", Groups: []string{auth.GroupNodes, auth.GroupAuthenticated}}
	jane := &auth.User{Name: "jane", Groups: []string{auth.GroupAuthenticated}}
	named := func(n string) *auth.User { return &auth.User{Name: n, Groups: []string{auth.GroupAuthenticated}} }
	lease := Request{Verb: "update", Namespace: "kube-system", Group: "coordination.k8s.io", Plural: "leases", Resource: true}
	pods := Request{Verb: "list", Namespace: "default", Plural: "pods", Resource: true}
	status := Request{Verb: "patch", Plural: "nodes", Sub: "status", Resource: true}
	for _, tc := range []struct {
		user          *auth.User
		r             Request
		schema, level string
	}{
		{&auth.User{Name: "root", Groups: []string{auth.GroupMasters}}, pods, "exempt", "exempt"},
		{jane, Request{Verb: "get", Path: "/healthz"}, "probes", "exempt"},
		{jane, Request{Verb: "get", Path: "/readyz/etcd"}, "probes", "exempt"},
		{jane, Request{Verb: "get", Path: "/readyzoo"}, "global-default", "global-default"},
		{jane, Request{Verb: "post", Path: "/healthz"}, "global-default", "global-default"},
		{named(auth.UserManager), lease, "system-leader-election", "leader-election"},
		{named(auth.UserScheduler), lease, "system-leader-election", "leader-election"},
		{account("kube-system", "x"), lease, "system-leader-election", "leader-election"},
		{account("default", "x"), lease, "service-accounts", "workload-low"},
		{node, lease, "system-node-high", "node-high"},
		{node, status, "system-node-high", "node-high"},
		{node, pods, "system-nodes", "system"},
		{node, Request{Verb: "get", Path: "/version"}, "system-nodes", "system"},
		{named(auth.UserManager), pods, "kube-controller-manager", "workload-high"},
		{named(auth.UserScheduler), pods, "kube-scheduler", "workload-high"},
		{account("kube-system", "x"), pods, "kube-system-service-accounts", "workload-high"},
		{account("kube-systems", "x"), pods, "service-accounts", "workload-low"},
		{jane, pods, "global-default", "global-default"},
		{&auth.User{Name: "nobody"}, pods, "catch-all", "catch-all"},
	} {
		tc.r.User = tc.user
		for range 2 { // the second time from memory
			if f := c.Classify(&tc.r); f.Schema != tc.schema || f.Level != tc.level {
				t.Errorf("%s %s %s%s: %s in %s, want %s in %s", tc.user.Name, tc.r.Verb, tc.r.Plural, tc.r.Path, f.Schema, f.Level, tc.schema, tc.level)
			}
		}
	}
}

// TestRules: what the lists of a rule match.
func TestRules(t *testing.T) {
	r := Request{User: &auth.User{Name: "u"}, Verb: "get", Namespace: "a", Group: "apps", Plural: "deployments", Sub: "scale", Resource: true}
	good := flowcontrolv1.ResourcePolicyRule{Verbs: []string{"get"}, APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, Namespaces: []string{"a"}}
	for name, tc := range map[string]struct {
		change func(*flowcontrolv1.ResourcePolicyRule, *Request)
		want   bool
	}{
		"as it is":               {func(*flowcontrolv1.ResourcePolicyRule, *Request) {}, true},
		"verb":                   {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Verbs = []string{"list"} }, false},
		"any verb":               {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Verbs = []string{"*"} }, true},
		"group":                  {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.APIGroups = []string{""} }, false},
		"resource without sub":   {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Resources = []string{"deployments"} }, false},
		"other of the same size": {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Resources = []string{"deploymentsxscale"} }, false},
		"request without sub":    {func(_ *flowcontrolv1.ResourcePolicyRule, r *Request) { r.Sub = "" }, false},
		"any resource":           {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Resources = []string{"*"} }, true},
		"namespace":              {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Namespaces = []string{"b"} }, false},
		"any namespace":          {func(p *flowcontrolv1.ResourcePolicyRule, _ *Request) { p.Namespaces = []string{"*"} }, true},
		"no namespace":           {func(_ *flowcontrolv1.ResourcePolicyRule, r *Request) { r.Namespace = "" }, false},
		"cluster scope": {func(p *flowcontrolv1.ResourcePolicyRule, r *Request) {
			r.Namespace, p.ClusterScope = "", true
		}, true},
	} {
		p, req := *good.DeepCopy(), r
		tc.change(&p, &req)
		rules := compileRules([]flowcontrolv1.PolicyRulesWithSubjects{{Subjects: users("u"), ResourceRules: []flowcontrolv1.ResourcePolicyRule{p}}})
		if got := matchRules(rules, &req); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for path, want := range map[string]bool{"/a": true, "/a/b": true, "/ab": false, "/x/y": true, "/x": false, "/": false} {
		if got := matchPath([]string{"/a", "/x/*"}, path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}

// TestMemoAgrees: what is remembered is what the rules say, whatever users,
// groups and namespaces come, and whoever pushes whom out of a slot.
func TestMemoAgrees(t *testing.T) {
	c := New(100)
	level, schemas := queued("mine", 1, 0, 4, 1), DefaultFlowSchemas()
	mine := flowSchema("mine", "mine", 50, noDistinction, all(groups("g3", "g7")))
	mine.Spec.Rules[0].ResourceRules[0].Namespaces = []string{"ns5"}
	c.Configure(append(schemas, mine), append(DefaultPriorityLevels(), level), time.Now())
	snap := c.snap.Load()
	seen := map[string]bool{}
	for i := range 20000 {
		r := Request{
			User: &auth.User{Name: fmt.Sprint("u", i%97), Groups: []string{fmt.Sprint("g", i%11), auth.GroupAuthenticated}},
			Verb: "get", Namespace: fmt.Sprint("ns", i%7), Plural: fmt.Sprint("r", i%5), Resource: true,
		}
		want := snap.match(&r)
		if got := c.Classify(&r); got != want {
			t.Fatalf("%+v of %+v: %s, want %s", r, r.User, got.Schema, want.Schema)
		}
		seen[want.Schema] = true
	}
	if !seen["mine"] || !seen["global-default"] {
		t.Errorf("the requests are of %v only", seen)
	}
}

// TestConfigure: schemas without a level are left out, the mandatory are there
// whatever is not, and UIDs are those of the objects.
func TestConfigure(t *testing.T) {
	c := New(10)
	dangling := flowSchema("lost", "nowhere", 5, noDistinction, all(groups(auth.GroupAuthenticated)))
	own := flowSchema("own", "own", 6, noDistinction, all(groups("own")))
	level := queued("own", 1, 0, 2, 1)
	own.UID, level.UID = "schema", "level"
	c.Configure([]*flowcontrolv1.FlowSchema{dangling, own}, []*flowcontrolv1.PriorityLevelConfiguration{level}, time.Now())
	classify := func(groups ...string) *Flow {
		return c.Classify(&Request{User: &auth.User{Name: "u", Groups: groups}, Verb: "get", Plural: "pods", Resource: true})
	}
	if f := classify("own"); f.Schema != "own" || f.SchemaUID[0] != "schema" || f.LevelUID[0] != "level" {
		t.Errorf("%+v", f)
	}
	if f := classify(auth.GroupAuthenticated); f.Schema != "catch-all" {
		t.Errorf("a schema without its level took a request: %s", f.Schema)
	}
	if f := classify(auth.GroupMasters); !f.Exempt() {
		t.Errorf("administrators are in %s", f.Level)
	}
}

// TestUpkeep: the auto-update annotation decides, but for what is mandatory.
func TestUpkeep(t *testing.T) {
	annotated := func(v string, generation int64) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Generation: generation}
		if v != "" {
			m.Annotations = map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: v}
		}
		return m
	}
	for name, tc := range map[string]struct {
		name       string
		meta       metav1.ObjectMeta
		same       bool
		changed    bool
		precedence int32
		annotation string
	}{
		"updates itself":             {"probes", annotated("true", 3), false, true, 2, "true"},
		"as defined":                 {"probes", annotated("true", 3), true, false, 2, "true"},
		"the operator's":             {"probes", annotated("false", 1), false, false, 77, "false"},
		"untouched, not annotated":   {"probes", annotated("", 1), false, true, 2, "true"},
		"touched, not annotated":     {"probes", annotated("", 2), false, true, 77, "false"},
		"mandatory, annotated false": {"exempt", annotated("false", 4), false, true, 1, "true"},
		"garbage":                    {"probes", annotated("maybe", 2), true, true, 2, "false"},
	} {
		var wanted *flowcontrolv1.FlowSchema
		for _, s := range DefaultFlowSchemas() {
			if s.Name == tc.name {
				wanted = s
			}
		}
		stored := wanted.DeepCopy()
		stored.ObjectMeta = tc.meta
		stored.Name = tc.name
		if !tc.same {
			stored.Spec.MatchingPrecedence = 77
		}
		if got := ReviseSchema(stored, wanted); got != tc.changed || stored.Spec.MatchingPrecedence != tc.precedence ||
			stored.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] != tc.annotation {
			t.Errorf("%s: changed %t, precedence %d, annotations %v", name, got, stored.Spec.MatchingPrecedence, stored.Annotations)
		}
		if ReviseSchema(stored, wanted) {
			t.Errorf("%s: revised twice", name)
		}
	}
	exempt := mandatoryLevels()[0]
	chosen := exempt.DeepCopy()
	*chosen.Spec.Exempt.NominalConcurrencyShares = 12
	if ReviseLevel(chosen, exempt) {
		t.Error("the shares of the exempt level are not left to the operator")
	}
	chosen.Spec.Type = flowcontrolv1.PriorityLevelEnablementLimited
	if !ReviseLevel(chosen, exempt) || chosen.Spec.Type != flowcontrolv1.PriorityLevelEnablementExempt || *chosen.Spec.Exempt.NominalConcurrencyShares != 12 {
		t.Errorf("revised to %+v", chosen.Spec)
	}
	old := annotated("true", 1)
	if !Obsolete(&old, false) || Obsolete(&old, true) {
		t.Error("an old default stays")
	}
	theirs, mine := annotated("false", 1), annotated("", 1)
	if Obsolete(&theirs, false) || Obsolete(&mine, false) {
		t.Error("what operators made goes")
	}
}

// TestDangling: the condition follows the level, and is written once.
func TestDangling(t *testing.T) {
	s := flowSchema("a", "b", 5, noDistinction, all(users("x")))
	now := time.Unix(100, 0)
	for _, step := range []struct {
		found, changed bool
		status         flowcontrolv1.ConditionStatus
		reason         string
	}{{true, true, "False", "Found"}, {true, false, "False", "Found"}, {false, true, "True", "NotFound"}, {false, false, "True", "NotFound"}} {
		if got := Dangling(s, step.found, now); got != step.changed {
			t.Errorf("%+v: changed %t", step, got)
		}
		if c := s.Status.Conditions; len(c) != 1 || c[0].Status != step.status || c[0].Reason != step.reason {
			t.Errorf("%+v: %+v", step, c)
		}
	}
}
