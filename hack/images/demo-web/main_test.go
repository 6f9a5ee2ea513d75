package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWebShowsTheStore(t *testing.T) {
	var kept []string
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			kept = append(kept, string(body))
			w.WriteHeader(http.StatusCreated)
			return
		}
		fmt.Fprint(w, `["<b>first</b>"]`)
	}))
	defer store.Close()
	greeting := filepath.Join(t.TempDir(), "greeting")
	if err := os.WriteFile(greeting, []byte("Hello there\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	site := &web{title: "Book", greetingFile: greeting, store: store.URL, token: "secret", pod: "web-1", node: "n1",
		client: &http.Client{Timeout: 5 * time.Second}, log: slog.New(slog.DiscardHandler)}
	front := httptest.NewServer(site.handler())
	defer front.Close()

	get := func() (int, string) {
		resp, err := http.Get(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	code, body := get()
	for _, want := range []string{"<h1>Book</h1>", "Hello there", "&lt;b&gt;first", "web-1 on n1"} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("page: %d, lacks %q:\n%s", code, want, body)
		}
	}
	for contentType, body := range map[string]string{"text/plain": "plain", "application/x-www-form-urlencoded": "entry=from+a+form"} {
		resp, err := http.Post(front.URL, contentType, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("posting %s: %s", contentType, resp.Status)
		}
	}
	if got := strings.Join(kept, "|"); !strings.Contains(got, "plain") || !strings.Contains(got, "from a form") {
		t.Errorf("the store was sent %q", got)
	}
	site.token = "wrong"
	if code, body := get(); code != http.StatusServiceUnavailable || !strings.Contains(body, "401") {
		t.Errorf("with a wrong token: %d %q", code, body)
	}
}
