package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"coracle/pkg/auth"
)

// begin is Begin of a log that makes nobody wait.
func begin(t testing.TB, l *Log, req Request) *Record {
	r, err := l.Begin(req)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func resource(user *auth.User, verb, resource string) auth.Attributes {
	r, sub, _ := strings.Cut(resource, "/")
	return auth.Attributes{User: user, Verb: verb, Resource: r, Subresource: sub, Namespace: "default", Name: "a", ResourceRequest: true, APIVersion: "v1"}
}

// TestDefaultPolicy: who changes what is recorded, and who reads secrets; no
// rule records a body.
func TestDefaultPolicy(t *testing.T) {
	jane := &auth.User{Name: "jane"}
	node := &auth.User{Name: "system:node:a", Groups: []string{auth.GroupNodes}}
	p := DefaultPolicy()
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Rules {
		if r.Level != LevelNone && r.Level != LevelMetadata {
			t.Errorf("a rule records bodies: %+v", r)
		}
	}
	lease := resource(node, "update", "leases")
	lease.APIGroup = "coordination.k8s.io"
	for _, c := range []struct {
		a    auth.Attributes
		want Level
	}{
		{resource(jane, "create", "pods"), LevelMetadata},
		{resource(jane, "get", "secrets"), LevelMetadata},
		{resource(jane, "watch", "secrets"), LevelMetadata},
		{resource(jane, "create", "serviceaccounts/token"), LevelMetadata},
		{resource(jane, "watch", "pods"), LevelNone},
		{resource(jane, "create", "events"), LevelNone},
		{resource(node, "get", "secrets"), LevelNone},
		{resource(node, "patch", "pods/status"), LevelNone},
		{resource(node, "delete", "pods"), LevelMetadata},
		{lease, LevelNone},
		{auth.Attributes{Verb: "get", Path: "/readyz"}, LevelNone},
		{auth.Attributes{Verb: "get", Path: "/debug/pprof/heap"}, LevelMetadata},
		{resource(nil, "list", "pods"), LevelMetadata},
	} {
		if got := p.decide(&c.a).level; got != c.want {
			t.Errorf("%s %s%s of %v: %s, want %s", c.a.Verb, c.a.Resource, c.a.Path, c.a.User, got, c.want)
		}
	}
}

func TestRules(t *testing.T) {
	jane := &auth.User{Name: "jane", Groups: []string{"devs"}}
	get := resource(jane, "get", "pods/log")
	path := auth.Attributes{User: jane, Verb: "get", Path: "/metrics/x"}
	for _, c := range []struct {
		rule string
		a    auth.Attributes
		want bool
	}{
		{"{}", get, true},
		{"{users: [bob]}", get, false},
		{"{userGroups: [devs]}", get, true},
		{"{verbs: [list]}", get, false},
		{"{resources: [{resources: [pods]}]}", get, false},
		{"{resources: [{resources: ['pods/log']}]}", get, true},
		{"{resources: [{resources: ['pods/*']}]}", get, true},
		{"{resources: [{resources: ['pods/*']}]}", resource(jane, "get", "pods"), false},
		{"{resources: [{resources: ['*/log']}]}", get, true},
		{"{resources: [{resources: ['*']}]}", get, true},
		{"{resources: [{group: apps}]}", get, false},
		{"{resources: [{resources: ['pods/log'], resourceNames: [b]}]}", get, false},
		{"{namespaces: [default]}", get, true},
		{"{namespaces: ['']}", get, false},
		{"{namespaces: [default]}", path, false},
		{"{nonResourceURLs: ['/metrics*']}", path, true},
		{"{nonResourceURLs: [/metrics]}", path, false},
		{"{nonResourceURLs: ['*']}", get, false},
	} {
		p, err := ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [" + strings.Replace(c.rule, "{", "{level: Metadata, ", 1) + "]"))
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		if got := p.decide(&c.a).level != LevelNone; got != c.want {
			t.Errorf("%s: %t, want %t", c.rule, got, c.want)
		}
	}
}

func TestBadPolicies(t *testing.T) {
	head := "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for text, want := range map[string]string{
		"kind: Pod":                    "want apiVersion",
		head:                           "no rules",
		head + "rule: 1":               "unknown field",
		head + "rules: [{level: All}]": "use one of",
		head + "rules: [{level: None, omitStages: [Later]}]":                    "is not one of",
		head + "rules: [{level: None, nonResourceURLs: ['/a*b']}]":              "at its end only",
		head + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [x]}]": "make two rules",
		strings.Repeat("#", maxPolicyBytes+1):                                   "larger than",
	} {
		if _, err := ParsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	data, err := yaml.Marshal(DefaultPolicy())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		a := resource(nil, "get", "pods")
		p.decide(&a)
	})
}

var received = time.Date(2026, 1, 2, 3, 4, 5, 6789000, time.UTC)

// TestEvent: a line is an Event that the API's own type reads without a field
// too many, with what was given.
func TestEvent(t *testing.T) {
	level := &Policy{APIVersion: "audit.k8s.io/v1", Kind: "Policy", OmitManagedFields: true, Rules: []Rule{{Level: LevelRequestResponse}}}
	l := &Log{cfg: Config{Path: "audit.log"}, policy: level, wake: make(chan struct{}, 1)}
	user := &auth.User{Name: "ja\"ne\n", UID: "u", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v", "\x00\xff"}}}
	r := begin(t, l, Request{ID: "id", URI: "/api/v1/x?a=<b>", Attributes: resource(user, "update", "pods/status"), SourceIPs: []string{"10.0.0.1"}, UserAgent: "go", Received: received})
	r.Impersonate(&auth.User{Name: "bob"})
	r.Annotate("a/b", "first")
	r.Annotate("a/b", "second")
	r.Annotate("c", "\u2028")
	r.SetRequest([]byte("{\"metadata\": {\"managedFields\": [1], \"generation\": 9007199254740993}}"))
	r.SetResponse([]byte("not json"))
	r.End(StageResponseComplete, Status{Code: 404, Reason: "NotFound", Message: "no"}, received.Add(time.Second))
	lines := bytes.Split(bytes.TrimSuffix(l.buf, []byte("\n")), []byte("\n"))
	if len(lines) != 2 || l.Events() != 2 {
		t.Fatalf("%d lines, %d events", len(lines), l.Events())
	}
	var events []auditv1.Event
	for _, line := range lines {
		var e auditv1.Event
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		events = append(events, e)
	}
	if events[0].Stage != auditv1.StageRequestReceived || events[0].ResponseStatus != nil {
		t.Errorf("first: %+v", events[0])
	}
	e := events[1]
	if e.Level != "RequestResponse" || e.Stage != "ResponseComplete" || e.AuditID != "id" || e.RequestURI != "/api/v1/x?a=<b>" || e.UserAgent != "go" || e.ImpersonatedUser.Username != "bob" {
		t.Errorf("event %+v", e)
	}
	if got, want := e.User.Username, user.Name; got != want || e.User.Extra["k"][1] != "\x00\ufffd" || e.User.UID != "u" {
		t.Errorf("user %+v", e.User)
	}
	if diff := cmp.Diff(map[string]string{"a/b": "first", "c": "\u2028"}, e.Annotations); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&auditv1.ObjectReference{Resource: "pods", Subresource: "status", Namespace: "default", Name: "a", APIVersion: "v1"}, e.ObjectRef); diff != "" {
		t.Error(diff)
	}
	if e.ResponseStatus.Code != 404 || e.ResponseStatus.Reason != "NotFound" || e.ResponseStatus.Message != "no" || e.ResponseStatus.Status != "Failure" {
		t.Errorf("status %+v", e.ResponseStatus)
	}
	if got := string(e.RequestObject.Raw); got != `{"metadata":{"generation":9007199254740993}}` || e.ResponseObject != nil {
		t.Errorf("bodies %s, %v", got, e.ResponseObject)
	}
	if !e.RequestReceivedTimestamp.Time.Equal(received) || !e.StageTimestamp.Time.Equal(received.Add(time.Second)) {
		t.Errorf("times %v, %v", e.RequestReceivedTimestamp, e.StageTimestamp)
	}
}

// FuzzQuote: every text becomes one JSON string on one line.
func FuzzQuote(f *testing.F) {
	f.Add("a\"\\\n\x7f\xff\u2029é")
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(nil, s)
		var back string
		if err := json.Unmarshal(q, &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") && back != string([]rune(s)) {
			t.Errorf("%q became %s, %v", s, q, err)
		}
		if bytes.ContainsAny(q, "\n\r\u2028\u2029") {
			t.Errorf("%q breaks the line: %s", s, q)
		}
	})
}

// TestRotation: a full file is put aside, too many and too old ones are
// deleted, and other files left alone.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	clk := clocktesting.NewFakeClock(received)
	l, err := New(Config{Path: filepath.Join(dir, "audit", "audit.log"), MaxBytes: 100, MaxBackups: 2, MaxAge: time.Hour, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "audit", "audit-notes.log")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	names := func() []string {
		entries, err := os.ReadDir(filepath.Join(dir, "audit"))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v", e.Name(), info.Mode())
			}
			out = append(out, e.Name())
		}
		return out
	}
	put := func() {
		_ = l.write(func(b []byte) []byte { return append(b, strings.Repeat("x", 79)+"\n"...) })
		l.flush(nil)
	}
	for range 5 {
		put()
		clk.SetTime(clk.Now().Add(time.Minute))
	}
	want := []string{"audit-2026-01-02T03-07-05.006789.log", "audit-2026-01-02T03-08-05.006789.log", "audit-notes.log", "audit.log"}
	if diff := cmp.Diff(want, names()); diff != "" {
		t.Error(diff)
	}
	clk.SetTime(clk.Now().Add(2 * time.Hour))
	put()
	want = []string{"audit-2026-01-02T05-09-05.006789.log", "audit-notes.log", "audit.log"}
	if diff := cmp.Diff(want, names()); diff != "" {
		t.Error(diff)
	}
}

// TestOut: what is given to a writer is not put aside, however much it is.
func TestOut(t *testing.T) {
	for _, mode := range []Mode{ModeBatch, ModeBlockingStrict} {
		var out bytes.Buffer
		l, err := New(Config{Out: &out, Mode: mode, MaxBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.write(func(b []byte) []byte { return append(b, "x\n"...) }); err != nil {
				t.Fatal(err)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		end()
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if out.String() != "x\nx\n" || l.Dropped() != 0 {
			t.Errorf("%s: wrote %q and lost %d", mode, out.String(), l.Dropped())
		}
	}
}

// TestFullDisk: events that the disk does not take are counted within a bound,
// nobody waits for them, and writing goes on once it can.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := New(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.file.Close(); err != nil {
		t.Fatal(err)
	}
	line := func(b []byte) []byte { return append(b, "line\n"...) }
	_ = l.write(line)
	l.flush(nil)
	if l.Dropped() != 1 {
		t.Errorf("dropped %d", l.Dropped())
	}
	l.file = nil
	_ = l.write(line)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "line\n" {
		t.Errorf("%q, %v", data, err)
	}
	for l.Dropped() == 1 {
		_ = l.write(func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		if len(l.buf) > maxBuffered+1<<20 {
			t.Fatal("without bound")
		}
	}
}

// BenchmarkMetadata is what a recorded request costs.
func BenchmarkMetadata(b *testing.B) {
	l := &Log{policy: DefaultPolicy(), wake: make(chan struct{}, 1)}
	req := Request{
		ID: "4b2d1c1e-7b5e-4a0e-9c3f-0f3a5d6c7e8f", URI: "/api/v1/namespaces/default/pods?fieldManager=kubectl", UserAgent: "kubectl/v1.37.0",
		Attributes: resource(&auth.User{Name: "jane", Groups: []string{"devs", auth.GroupAuthenticated}}, "create", "pods"), SourceIPs: []string{"127.0.0.1"}, Received: received,
	}
	b.ReportAllocs()
	for b.Loop() {
		r := begin(b, l, req)
		r.Annotate("authorization.k8s.io/decision", "allow")
		r.Annotate("authorization.k8s.io/reason", "RBAC: allowed by ClusterRoleBinding \"x\"")
		r.End(StageResponseComplete, Status{Code: 201}, received)
		l.buf = l.buf[:0]
	}
}
