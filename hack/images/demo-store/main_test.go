package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func send(t *testing.T, h http.Handler, method, token, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, "/entries", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestStoreKeepsEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	b, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	h := handler(b, "secret")
	for _, c := range []struct {
		method, token, body string
		code                int
		want                string
	}{
		{"POST", "secret", " two\nwords ", 201, "1"},
		{"POST", "secret", "second", 201, "2"},
		{"POST", "secret", "", 422, "an entry is"},
		{"POST", "secret", strings.Repeat("x", maxEntry+1), 422, "an entry is"},
		{"POST", "wrong", "third", 401, "token"},
		{"GET", "", "", 401, "token"},
		{"GET", "secret", "", 200, `["two words","second"]`},
	} {
		code, body := send(t, h, c.method, c.token, c.body)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s with %q: %d %q, want %d with %q", c.method, c.body, code, body, c.code, c.want)
		}
	}
	b.file.Close()

	// A crash in the middle of a write leaves half a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("hal"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	b, err = openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.file.Close()
	if _, err := b.add("third"); err != nil {
		t.Fatal(err)
	}
	if got, want := b.all(), []string{"two words", "second", "third"}; !slices.Equal(got, want) {
		t.Errorf("after a crash: %q, want %q", got, want)
	}
}
