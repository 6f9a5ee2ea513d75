package apiserver_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func gadget(name string) string {
	return fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":%q},"spec":{"size":%q}}`, name, name)
}

// Objects of one list are converted by one call of the webhook.
func TestConversionOfAList(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		var calls, objects atomic.Int64
		s.define(t, gadgets(converter(t, func(r *apiextensionsv1.ConversionResponse) {
			calls.Add(1)
			objects.Add(int64(len(r.ConvertedObjects)))
		}), "v1"))
		const count = 25
		for i := range count {
			s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), gadget(fmt.Sprint("g", i)))
		}
		s.must(t, http.StatusOK, "GET", gadgetPath("v1beta1")+"/g7", "") // this one is known then
		calls.Store(0)
		objects.Store(0)
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", gadgetPath("v1beta1"), "").body); err != nil {
			t.Fatal(err)
		}
		if calls.Load() != 1 || objects.Load() != count-1 {
			t.Errorf("%d objects were converted by %d calls, want %d by one", objects.Load(), calls.Load(), count-1)
		}
		if len(list.Items) != count {
			t.Fatalf("the list has %d items", len(list.Items))
		}
		for _, u := range list.Items {
			if width, _, _ := unstructured.NestedString(u.Object, "spec", "width"); width != u.GetName() || u.GetAPIVersion() != "example.com/v1beta1" {
				t.Errorf("converted: %v", u.Object)
			}
		}
		calls.Store(0)
		var table metav1.Table
		s.must(t, http.StatusOK, "GET", gadgetPath("v1beta1"), "", accept("application/json;as=Table;v=v1;g=meta.k8s.io")).decode(t, &table)
		if len(table.Rows) != count || calls.Load() > 1 {
			t.Errorf("a table of %d rows took %d calls", len(table.Rows), calls.Load())
		}
	})
}

// slowHook is a conversion webhook whose first call does not return before its
// request ends. It says so on the channels.
func slowHook(t *testing.T) (conversion string, called, ended chan struct{}) {
	t.Helper()
	called, ended = make(chan struct{}), make(chan struct{})
	fast := httptest.NewUnstartedServer(nil)
	var first atomic.Bool
	answers := answering(t, func(*apiextensionsv1.ConversionResponse) {})
	fast.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(false, true) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			close(called)
			<-r.Context().Done()
			close(ended)
			return
		}
		answers(w, r)
	})
	fast.StartTLS()
	t.Cleanup(fast.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fast.Certificate().Raw})
	return fmt.Sprintf(`{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":%q,"caBundle":%q}}}`,
		fast.URL, base64.StdEncoding.EncodeToString(ca)), called, ended
}

// A call of a webhook ends with the request that it serves, and a request that
// waited for the same conversion makes it itself then.
func TestConversionEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	conversion, called, ended := slowHook(t)
	s.define(t, gadgets(conversion, "v1"))
	s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), gadget("a"))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		resp, err := s.http.RoundTrip(request(ctx, t, "GET", gadgetPath("v1beta1")+"/a", nil))
		if err == nil {
			closeIt(t, resp.Body)
		}
	}()
	soon(t, called, "the webhook is not called")
	other := make(chan *answer, 1)
	go func() { other <- s.do(t, "GET", gadgetPath("v1beta1")+"/a", "") }()
	cancel()
	soon(t, ended, "the call of the webhook goes on without its request")
	soon(t, gone, "the request goes on")
	select {
	case a := <-other:
		if a.code != http.StatusOK {
			t.Errorf("the other request was answered %d: %s", a.code, a.body)
		}
	case <-time.After(patience):
		t.Error("the other request is not answered")
	}
}

// soon waits for a channel to be closed.
func soon(t *testing.T, c <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal(otherwise)
	}
}

// selectableGadgets are gadgets with a selectable field in each version, which
// the webhook moves: size of v1, which is stored, is width of v1beta1.
func selectableGadgets(conversion string) string {
	out := gadgets(conversion, "v1")
	for _, field := range []string{"size", "width"} {
		schema := `"` + field + `":{"type":"string"}}}}}}`
		out = strings.Replace(out, schema, schema+`,"selectableFields":[{"jsonPath":".spec.`+field+`"}]`, 1)
	}
	return out
}

// Selectors look at objects as the version shows them that was asked for, not as
// they are stored (KEP-4358).
func TestSelectorsSeeConvertedObjects(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		var calls atomic.Int64
		s.define(t, selectableGadgets(converter(t, func(*apiextensionsv1.ConversionResponse) { calls.Add(1) })))
		watch := s.watch(t, gadgetPath("v1beta1")+"?watch=1&fieldSelector=spec.width%3Db")
		stored := s.watch(t, gadgetPath("v1")+"?watch=1&fieldSelector=spec.size%3Db")
		for _, name := range []string{"a", "b", "c", "d"} {
			s.must(t, http.StatusCreated, "POST", gadgetPath("v1"), gadget(name))
		}
		watch.want("ADDED", "b")
		stored.want("ADDED", "b")
		calls.Store(0)
		for query, want := range map[string][]string{
			"v1?fieldSelector=spec.size%3Dc":                {"c"},
			"v1beta1?fieldSelector=spec.width%3Dc":          {"c"},
			"v1beta1?fieldSelector=spec.width!%3Dc":         {"a", "b", "d"},
			"v1beta1?fieldSelector=spec.width!%3Dc&limit=2": {"a", "b"},
			"v1beta1?labelSelector=converted%3Dyes":         {"a", "b", "c", "d"},
			"v1beta1?labelSelector=!converted":              nil,
			"v1?labelSelector=!converted":                   {"a", "b", "c", "d"},
		} {
			version, query, _ := strings.Cut(query, "?")
			got, token := s.names(t, gadgetPath(version)+"?"+query)
			if !slices.Equal(got, want) {
				t.Errorf("%s?%s: %v, want %v", version, query, got, want)
			}
			if token == "" {
				continue
			}
			if got, _ := s.names(t, gadgetPath(version)+"?"+query+"&continue="+token); !slices.Equal(got, []string{"d"}) {
				t.Errorf("the second page of %s has %v", query, got)
			}
		}
		if calls.Load() > 1 { // "b" was converted for its watch
			t.Errorf("7 lists of 4 objects took %d calls of the webhook", calls.Load())
		}
		s.must(t, http.StatusOK, "PATCH", gadgetPath("v1")+"/b", `{"spec":{"size":"x"}}`, header{"Content-Type", "application/merge-patch+json"})
		watch.want("DELETED", "b")
		stored.want("DELETED", "b")
	})
}

// names lists a page of custom resources; more is the token of the next one.
func (s *server) names(t *testing.T, path string) (names []string, more string) {
	t.Helper()
	var list unstructured.UnstructuredList
	if err := list.UnmarshalJSON(s.must(t, http.StatusOK, "GET", path, "").body); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].GetName())
	}
	return names, list.GetContinue()
}
