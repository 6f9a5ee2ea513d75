package openapi

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

func get(h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	return do(h, http.MethodGet, path, headers...)
}

func do(h http.Handler, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestNegotiation(t *testing.T) {
	h := New(resource.Builtin, version.Info{GitVersion: "v1"})
	for _, x := range []struct {
		path, accept string
		code         int
		contentType  string
	}{
		{"/openapi/v2", "", 200, "application/json"},
		{"/openapi/v2", "application/json, */*", 200, "application/json"},
		{"/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 200, v2ProtoType},
		{"/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", 200, v2ProtoType},
		{"/openapi/v2", "application/json;q=0.5, " + v2ProtoType, 200, v2ProtoType},
		{"/openapi/v2", v3ProtoType, 406, ""},
		{"/openapi/v2", "text/html", 406, ""},
		{"/openapi/v2", "application/json;q=0", 406, ""},
		{"/openapi/v3", "application/json, */*", 200, "application/json"},
		{"/openapi/v3/apis/apps/v1", "*/*", 200, "application/json"},
		{"/openapi/v3/apis/apps/v1", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", 200, v3ProtoType},
		{"/openapi/v3/apis/apps/v1", v3ProtoType, 200, v3ProtoType},
		{"/openapi/v3/apis/apps/v1", "application/yaml", 406, ""},
		{"/openapi/v3/apis/apps", "", 200, "application/json"},
		{"/openapi/v3/version", "", 200, "application/json"},
		{"/openapi/v3/apis/apps/v9", "", 404, ""},
		{"/openapi/v4", "", 404, ""},
	} {
		w := get(h, x.path, "Accept", x.accept)
		if w.Code != x.code || x.contentType != "" && w.Header().Get("Content-Type") != x.contentType {
			t.Errorf("GET %s for %q: %d %s", x.path, x.accept, w.Code, w.Header().Get("Content-Type"))
		}
		if x.code != 404 && !strings.Contains(w.Header().Get("Vary"), "Accept") {
			t.Errorf("GET %s for %q does not vary by Accept", x.path, x.accept)
		}
	}
	if w := do(h, http.MethodPost, "/openapi/v2"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered with %d", w.Code)
	}
}

func TestCaching(t *testing.T) {
	h := New(resource.Builtin, version.Info{GitVersion: "v1"})
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(get(h, "/openapi/v3").Body.Bytes(), &index); err != nil {
		t.Fatal(err)
	}
	url := index.Paths["apis/batch/v1"].ServerRelativeURL
	w := get(h, url)
	if w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Fatalf("GET %s: %d, Cache-Control %q", url, w.Code, w.Header().Get("Cache-Control"))
	}
	etag := w.Header().Get("ETag")
	for _, header := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		if w := get(h, url, "If-None-Match", header); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("If-None-Match: %s is answered with %d and %d bytes", header, w.Code, w.Body.Len())
		}
	}
	if w := get(h, url, "If-None-Match", `"other"`); w.Code != 200 {
		t.Errorf("another ETag is answered with %d", w.Code)
	}
	plain := get(h, "/openapi/v3/apis/batch/v1")
	if plain.Code != 200 || plain.Header().Get("Cache-Control") != "" {
		t.Errorf("without a hash: %d, Cache-Control %q", plain.Code, plain.Header().Get("Cache-Control"))
	}
	if w := get(h, "/openapi/v3/apis/batch/v1?hash=old"); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != url {
		t.Errorf("an old hash is answered with %d to %q, want a redirection to %q", w.Code, w.Header().Get("Location"), url)
	}
	for _, path := range []string{"/openapi/v2", "/openapi/v3"} {
		etag := get(h, path).Header().Get("ETag")
		if w := get(h, path, "If-None-Match", etag); w.Code != http.StatusNotModified {
			t.Errorf("GET %s with its ETag is answered with %d", path, w.Code)
		}
	}
}

func TestCompression(t *testing.T) {
	h := New(resource.Builtin, version.Info{GitVersion: "v1"})
	plain := get(h, "/openapi/v2")
	packed := get(h, "/openapi/v2", "Accept-Encoding", "deflate, gzip;q=0.5")
	if packed.Header().Get("Content-Encoding") != "gzip" {
		t.Fatal("a client that accepts gzip gets none")
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != plain.Body.String() {
		t.Error("the compressed document is another one")
	}
	if w := get(h, "/openapi/v2", "Accept-Encoding", "gzip;q=0"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a client that refuses gzip gets it")
	}
	head := do(h, http.MethodHead, "/openapi/v2")
	if head.Body.Len() > 0 || head.Header().Get("Content-Length") != plain.Header().Get("Content-Length") {
		t.Errorf("HEAD gives %d bytes, Content-Length %s", head.Body.Len(), head.Header().Get("Content-Length"))
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("application/json;q=0.5, " + v2ProtoType)
	f.Add("application/com.github.proto-openapi.spec.v2@v1.0+protobuf;q=x,,;")
	f.Fuzz(func(t *testing.T, accept string) {
		r := httptest.NewRequest(http.MethodGet, "/openapi/v2", nil)
		r.Header.Set("Accept", accept)
		if got, ok := negotiate(r, v2ProtoType); ok != (got == "application/json" || got == v2ProtoType) {
			t.Errorf("%q is answered with %q, %v", accept, got, ok)
		}
	})
}

func BenchmarkBuildV2(b *testing.B) {
	for b.Loop() {
		if _, err := New(resource.Builtin, version.Info{}).body("", false); err != nil {
			b.Fatal(err)
		}
	}
}
