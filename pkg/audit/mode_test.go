package audit

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"coracle/pkg/auth"
)

// everything records both stages of all requests.
func everything() *Policy {
	return &Policy{APIVersion: "audit.k8s.io/v1", Kind: "Policy", Rules: []Rule{{Level: LevelMetadata}}}
}

// TestBlockingFile: an event is in the file when End returns, without anybody
// running the log; files are put aside as they become large.
func TestBlockingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := New(Config{Path: path, Mode: ModeBlocking, Policy: everything(), MaxBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	lines := func() int {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n")
	}
	r := begin(t, l, Request{ID: "a", URI: "/x", Attributes: resource(&auth.User{Name: "jane"}, "get", "pods"), Received: received})
	if lines() != 1 {
		t.Errorf("as the request begins there are %d events", lines())
	}
	r.End(StageResponseComplete, Status{Code: 200}, received)
	if lines() != 2 || l.Events() != 2 || l.Dropped() != 0 {
		t.Errorf("%d lines, %d events, %d lost", lines(), l.Events(), l.Dropped())
	}
	for range 20 {
		begin(t, l, Request{ID: "a", URI: "/x", Attributes: resource(nil, "get", "pods"), Received: received})
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) < 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestStrict: a request whose arrival cannot be recorded is refused, unless the
// policy leaves that stage out; in blocking mode it goes on, and the loss is
// counted in both.
func TestStrict(t *testing.T) {
	for _, c := range []struct {
		mode    Mode
		omit    []Stage
		refused bool
		lost    int64
	}{
		{ModeBlockingStrict, nil, true, 1},
		{ModeBlocking, nil, false, 2},
		{ModeBlockingStrict, []Stage{StageRequestReceived}, false, 1},
	} {
		path := filepath.Join(t.TempDir(), "audit", "audit.log")
		policy := everything()
		policy.OmitStages = c.omit
		l, err := New(Config{Path: path, Mode: c.mode, Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		// The file is gone, and its folder is no folder any more.
		if err := l.closeFile(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := l.Begin(Request{ID: "a", Attributes: resource(nil, "get", "pods"), Received: received})
		if (err != nil) != c.refused {
			t.Errorf("%s without %v: %v", c.mode, c.omit, err)
		}
		if err == nil {
			r.End(StageResponseComplete, Status{Code: 200}, received)
		}
		if l.Dropped() != c.lost {
			t.Errorf("%s without %v: %d lost, want %d", c.mode, c.omit, l.Dropped(), c.lost)
		}
	}
}

// TestBlockingWebhook: the webhook has an event before the request goes on, one
// that is busy is asked again, and one that refuses costs a strict log the
// request.
func TestBlockingWebhook(t *testing.T) {
	var stages []auditv1.Stage
	tries, code := 0, http.StatusOK
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil || len(list.Items) != 1 {
			t.Errorf("%v: %+v", err, list)
			return
		}
		stages = append(stages, list.Items[0].Stage)
		w.WriteHeader(code)
	}))
	defer server.Close()
	hook := webhookTo(t, server, "", func(c *WebhookConfig) { c.Mode = ModeBlockingStrict })
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := New(Config{Path: path, Webhook: hook, Policy: everything()})
	if err != nil {
		t.Fatal(err)
	}
	r := begin(t, l, Request{ID: "a", Attributes: resource(nil, "get", "pods"), Received: received})
	if len(stages) != 1 || stages[0] != auditv1.StageRequestReceived {
		t.Errorf("as the request goes on the webhook has %v", stages)
	}
	r.End(StageResponseComplete, Status{Code: 200}, received)
	if len(stages) != 2 || tries != 3 {
		t.Errorf("at its end the webhook has %v after %d tries", stages, tries)
	}
	code = http.StatusForbidden
	if _, err := l.Begin(Request{ID: "a", Attributes: resource(nil, "get", "pods"), Received: received}); err == nil || l.Dropped() != 1 {
		t.Errorf("a webhook that refuses: %v, %d lost", err, l.Dropped())
	}
	// The file beside it is in batch mode, and gets all of them.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || strings.Count(string(data), "\n") != 3 {
		t.Errorf("the file has %q, %v", data, err)
	}
}

func TestParseMode(t *testing.T) {
	for name, want := range map[string]Mode{"": ModeBatch, "batch": ModeBatch, "blocking": ModeBlocking, "blocking-strict": ModeBlockingStrict} {
		if m, err := ParseMode(name); err != nil || m != want {
			t.Errorf("%q: %q, %v", name, m, err)
		}
	}
	if _, err := ParseMode("later"); err == nil {
		t.Error("an unknown mode is taken")
	}
}
