package audit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"coracle/pkg/auth"
)

// webhookTo is a webhook whose kubeconfig names a server.
func webhookTo(t *testing.T, server *httptest.Server, path string, change func(*WebhookConfig)) *Webhook {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: c, context: {cluster: a, user: u}}]
current-context: c
`, server.URL+path, base64.StdEncoding.EncodeToString(authority))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := WebhookConfig{Kubeconfig: file, Backoff: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	w, err := NewWebhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWebhook: events come in batches, in their order, each a whole Event; a
// batch that was refused for now comes again.
func TestWebhook(t *testing.T) {
	lists, tries := make(chan auditv1.EventList, 10), 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var list auditv1.EventList
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&list); err != nil || list.Kind != "EventList" || list.APIVersion != "audit.k8s.io/v1" {
			t.Errorf("%v: %+v", err, list)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("the kubeconfig's user is not shown: %q", got)
		}
		if r.URL.Path != "/events" {
			t.Errorf("the path is %s", r.URL.Path)
		}
		lists <- list
	}))
	defer server.Close()
	hook := webhookTo(t, server, "/events", func(c *WebhookConfig) { c.Batch = 4 })
	l, err := New(Config{Webhook: hook})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	for i := range 5 {
		r := begin(t, l, Request{ID: fmt.Sprint(i), URI: "/x", Attributes: resource(&auth.User{Name: "jane"}, "create", "pods"), Received: received})
		r.End(StageResponseComplete, Status{Code: 201}, received)
	}
	first := <-lists // full, so that it does not wait
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	close(lists)
	all := first.Items
	for list := range lists {
		all = append(all, list.Items...)
	}
	if len(first.Items) != 4 || int64(len(all)) != l.Events() || l.Dropped() != 0 {
		t.Fatalf("%d events in the first batch, %d in all of %d, %d dropped", len(first.Items), len(all), l.Events(), l.Dropped())
	}
	for i, e := range all {
		if want := fmt.Sprint(i); string(e.AuditID) != want {
			t.Errorf("event %d is of %s, want %s", i, e.AuditID, want)
		}
	}
}

// TestWebhookIsNotWaitedFor: one that hangs, refuses or sends elsewhere loses
// events within a bound, and holds up nobody.
func TestWebhookIsNotWaitedFor(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("events were sent elsewhere") }))
	defer elsewhere.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	hook := webhookTo(t, server, "", func(c *WebhookConfig) { c.Buffer, c.Batch = 10, 10 })
	l, err := New(Config{Webhook: hook})
	if err != nil {
		t.Fatal(err)
	}
	for range 25 { // nobody takes them yet
		_ = l.write(func(b []byte) []byte { return append(b, "{}\n"...) })
	}
	if l.Dropped() != 15 {
		t.Errorf("%d dropped of 25 with room for 10", l.Dropped())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if l.Dropped() != 25 {
		t.Errorf("%d dropped after all were refused", l.Dropped())
	}
}

// TestBadWebhooks: what cannot work is refused at the start.
func TestBadWebhooks(t *testing.T) {
	if _, err := NewWebhook(WebhookConfig{Kubeconfig: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a kubeconfig that is not there is taken")
	}
	if _, err := NewWebhook(WebhookConfig{Buffer: 1, Batch: 2}); err == nil {
		t.Error("a batch larger than the buffer is taken")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a log without a file or a webhook is taken")
	}
}
