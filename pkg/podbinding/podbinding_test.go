package podbinding

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func binding(name string) *corev1.Binding {
	return &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "u"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"},
	}
}

// TestBind: a binding arrives as one request with all that it says, and what the
// server does not agree to is explained by a second one.
func TestBind(t *testing.T) {
	var paths []string
	conflict := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"message":"it has a node"}`
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://api.invalid/prefix", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		obj, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), body)
		if err != nil {
			return nil, err
		}
		b := obj.(*corev1.Binding)
		paths = append(paths, r.URL.String())
		if r.Method != http.MethodPost || b.Target.Name != "n" || b.UID != "u" || b.Name == "" {
			t.Errorf("%s %s: %+v", r.Method, r.URL, b)
		}
		answer := &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: http.NoBody, Request: r}
		if b.Name == "taken" {
			answer.StatusCode, answer.Body = http.StatusConflict, io.NopCloser(strings.NewReader(conflict))
			answer.Header.Set("Content-Type", "application/json")
		}
		return answer, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	b := New(client)
	if b.over == nil {
		t.Fatal("there is a plain connection and it is not used")
	}
	if err := b.Bind(t.Context(), binding("p")); err != nil {
		t.Error(err)
	}
	if len(paths) != 1 || paths[0] != "http://api.invalid/prefix/api/v1/namespaces/ns/pods/p/binding" {
		t.Errorf("requests for %v", paths)
	}
	if err := b.Bind(t.Context(), binding("taken")); !apierrors.IsConflict(err) {
		t.Errorf("refused with %v, want a conflict", err)
	}
	paths = nil
	if err := b.Bind(t.Context(), binding("../x")); err == nil || len(paths) > 0 {
		t.Errorf("a name that leads elsewhere: error %v, requests for %v", err, paths)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	b.limit = func(ctx context.Context) error { return ctx.Err() }
	if err := b.Bind(ended, binding("p")); err == nil {
		t.Error("the client's own limit was not asked")
	}
}

// TestBindWithoutConnection: a client that is none of the library's own is used as
// it is.
func TestBindWithoutConnection(t *testing.T) {
	client := fake.NewClientset()
	if err := New(client).Bind(t.Context(), binding("p")); !apierrors.IsNotFound(err) {
		t.Errorf("error %v, want that there is no such pod", err)
	}
	if n := len(client.Actions()); n != 1 {
		t.Errorf("%d actions", n)
	}
}
