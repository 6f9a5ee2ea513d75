package apiserver_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
)

const (
	listProtobuf = "application/vnd.kubernetes.protobuf"
	listTable    = "application/json;as=Table;v=v1;g=meta.k8s.io"
	listPartial  = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

// TestListForms: a list that is written in pieces is, in every form, what it
// would be in one piece: empty, small, and of many pieces, a page and the rest,
// compressed and not.
func TestListForms(t *testing.T) {
	s := newServer(t)
	for i := range 200 {
		s.makeConfigMap(t, configMap(fmt.Sprintf("many-%03d", i), "k", strings.Repeat("0: <a>\n- \"b\"\n", 130), "n", fmt.Sprint(i)))
	}
	for _, query := range []string{"", "?limit=3", "?limit=150", "?fieldSelector=metadata.name%3Dnone", "?labelSelector=none"} {
		plain := s.must(t, 200, "GET", configMaps("%s", query), "", accept("application/json")).body
		var want corev1.ConfigMapList
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, plain, "", "  "); err != nil {
			t.Fatal(err)
		}
		sep := "&"
		if query == "" {
			sep = "?"
		}
		if got := s.must(t, 200, "GET", configMaps("%s", query+sep+"pretty=1"), "", accept("application/json")).body; !bytes.Equal(got, indented.Bytes()) {
			t.Errorf("%q: the list for people differs from the list indented: %s", query, cmp.Diff(indented.String(), string(got)))
		}
		inYAML, err := yaml.JSONToYAML(plain)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.must(t, 200, "GET", configMaps("%s", query), "", accept("application/yaml")).body; !bytes.Equal(got, inYAML) {
			t.Errorf("%q: the list in YAML differs: %s", query, cmp.Diff(string(inYAML), string(got)))
		}
		wantProto(t, s, query, &want)
		s.wantTable(t, query, &want)
		for _, media := range []string{"application/json", "application/yaml", listProtobuf, listTable, listPartial, strings.Replace(listPartial, "json", "vnd.kubernetes.protobuf", 1)} {
			s.wantZipped(t, configMaps("%s", query), media)
		}
	}
}

func wantProto(t *testing.T, s *server, query string, want *corev1.ConfigMapList) {
	t.Helper()
	a := s.must(t, 200, "GET", configMaps("%s", query), "", accept(listProtobuf))
	if got := a.header.Get("Content-Length"); got != fmt.Sprint(len(a.body)) {
		t.Errorf("%q: a list of %d bytes in protobuf has Content-Length %s", query, len(a.body), got)
	}
	got, err := s.Client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if query == "" {
		if err != nil {
			t.Fatal(err)
		}
		got.TypeMeta = want.TypeMeta
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the list in protobuf differs: %s", diff)
		}
	}
}

func (s *server) wantTable(t *testing.T, query string, want *corev1.ConfigMapList) {
	t.Helper()
	var table metav1.Table
	s.must(t, 200, "GET", configMaps("%s", query), "", accept(listTable)).decode(t, &table)
	var partial metav1.PartialObjectMetadataList
	s.must(t, 200, "GET", configMaps("%s", query), "", accept(listPartial)).decode(t, &partial)
	if len(table.Rows) != len(want.Items) || len(partial.Items) != len(want.Items) ||
		table.Continue != want.Continue || partial.Continue != want.Continue || len(table.ColumnDefinitions) == 0 {
		t.Fatalf("%q: a table of %d rows, metadata of %d objects, want %d", query, len(table.Rows), len(partial.Items), len(want.Items))
	}
	for i, item := range want.Items {
		var row metav1.PartialObjectMetadata
		if err := json.Unmarshal(table.Rows[i].Object.Raw, &row); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(item.ObjectMeta, row.ObjectMeta); diff != "" || table.Rows[i].Cells[0] != item.Name {
			t.Fatalf("%q: row %d is %v of %s", query, i, table.Rows[i].Cells, diff)
		}
		if diff := cmp.Diff(item.ObjectMeta, partial.Items[i].ObjectMeta); diff != "" {
			t.Fatalf("%q: metadata %d: %s", query, i, diff)
		}
	}
}

// wantZipped: a client that takes gzip gets it for what is large, and the same
// bytes.
func (s *server) wantZipped(t *testing.T, path, media string) {
	t.Helper()
	plain := s.must(t, 200, "GET", path, "", accept(media)).body
	a := s.must(t, 200, "GET", path, "", accept(media), header{"Accept-Encoding", "gzip"})
	// A table has ages: it is compared with one of the same second.
	for range 10 {
		again := s.must(t, 200, "GET", path, "", accept(media)).body
		if bytes.Equal(again, plain) {
			break
		}
		plain = again
		a = s.must(t, 200, "GET", path, "", accept(media), header{"Accept-Encoding", "gzip"})
	}
	if a.header.Get("Content-Encoding") == "" {
		if len(plain) >= 128<<10 || !bytes.Equal(a.body, plain) {
			t.Errorf("%s in %s: %d bytes are not compressed", path, media, len(plain))
		}
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, plain) || len(plain) < 128<<10 || a.header.Get("Content-Length") != "" {
		t.Errorf("%s in %s: %d bytes became %d (%v), %v", path, media, len(plain), len(got), err, a.header)
	}
}

// TestListOverHTTP1 reuses a connection after a list that was written in
// pieces: its deadline for writing is gone.
func TestListOverHTTP1(t *testing.T) {
	s := newServer(t)
	for i := range 20 {
		s.makeConfigMap(t, configMap(fmt.Sprintf("large-%d", i), "k", strings.Repeat("x", 20_000)))
	}
	var written int
	w := &countingWriter{header: http.Header{}, wrote: func(n int) { written += n }}
	apiServer(t, s, nil, func(cfg *apiserver.Config) {
		cfg.Authenticator = auth.AuthenticatorFunc(func(context.Context, *http.Request) (*auth.User, bool, error) {
			return &auth.User{Name: "somebody"}, true, nil
		})
	}).ServeHTTP(w, request(t.Context(), t, "GET", configMaps(""), nil))
	if len(w.limits) < 3 || w.limits[0].IsZero() || !w.limits[len(w.limits)-1].IsZero() {
		t.Errorf("the deadlines for writing were %v", w.limits)
	}
	if most := w.most; most > 200_000 || written < 400_000 {
		t.Errorf("%d bytes were written, at most %d at once", written, most)
	}
}

// countingWriter is an answer that notes sizes and deadlines.
type countingWriter struct {
	header http.Header
	wrote  func(int)
	most   int
	limits []time.Time
}

func (w *countingWriter) Header() http.Header { return w.header }
func (w *countingWriter) WriteHeader(int)     {}
func (w *countingWriter) Write(b []byte) (int, error) {
	w.most = max(w.most, len(b))
	w.wrote(len(b))
	return len(b), nil
}
func (w *countingWriter) SetWriteDeadline(t time.Time) error {
	w.limits = append(w.limits, t)
	return nil
}
