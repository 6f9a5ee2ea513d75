package openapi

import (
	"encoding/json"
	"net/http"
	"testing"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

func TestFixed(t *testing.T) {
	const section, text = "apis/example.com/v1", `{"openapi":"3.0.0","info":{"title":"a","version":"v1"},"paths":{}}`
	if _, err := Fixed(section, []byte(`{"openapi":`)); err == nil {
		t.Error("a text that is no document is taken")
	}
	fixed, err := Fixed(section, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	h := New(resource.Builtin, version.Info{GitVersion: "v1"})
	remotes := &Remotes{Sections: map[string]Remote{section: fixed}}
	h.Join(func() *Remotes { return remotes })

	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(get(h, "/openapi/v3").Body.Bytes(), &index); err != nil {
		t.Fatal(err)
	}
	url := index.Paths[section].ServerRelativeURL
	w := get(h, url)
	if w.Code != http.StatusOK || w.Body.String() != text || w.Header().Get("Cache-Control") == "" {
		t.Errorf("GET %s: %d %s, Cache-Control %q", url, w.Code, w.Body, w.Header().Get("Cache-Control"))
	}
	var doc openapi_v3.Document
	if err := proto.Unmarshal(get(h, url, "Accept", v3ProtoType).Body.Bytes(), &doc); err != nil || doc.GetInfo().GetTitle() != "a" {
		t.Errorf("as protobuf it is %v, %v", &doc, err)
	}
	if w := get(h, url, "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("for a client that has it: %d", w.Code)
	}
	if w := get(h, "/openapi/v3/"+section+"?hash=old"); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != url {
		t.Errorf("by an old hash: %d to %s", w.Code, w.Header().Get("Location"))
	}
}
