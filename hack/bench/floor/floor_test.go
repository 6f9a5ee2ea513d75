package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFloor(t *testing.T) {
	server := httptest.NewServer(newFloor())
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	get := func(method, path string) *http.Response {
		r, err := http.NewRequestWithContext(ctx, method, server.URL+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	whole := func(method, path string, code, size int) {
		t.Helper()
		resp := get(method, path)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != code || size > 0 && len(body) != size {
			t.Errorf("%s %s: %d, %d bytes, %v", method, path, resp.StatusCode, len(body), err)
		}
	}
	whole("GET", "/answer/1400/api/v1", 200, 1400)
	whole("POST", "/answer/20", 200, 20)
	for _, bad := range []string{"/", "/answer/x", "/answer/1", "/answer/99999999999", "/other/5"} {
		whole("GET", bad, 404, 0)
	}
	watch := get("GET", "/watch")
	defer watch.Body.Close()
	whole("PATCH", "/publish/100/x", 200, 100)
	whole("PATCH", "/publish/50/x", 200, 50)
	events := bufio.NewReader(watch.Body)
	for _, size := range []int{100, 50} {
		if line, err := events.ReadString('\n'); err != nil || len(line) != size {
			t.Errorf("an event of %d bytes has %d: %v", size, len(line), err)
		}
	}
}
