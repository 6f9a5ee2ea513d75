package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage"
	"coracle/pkg/testcluster"
)

// server is one life of one API server.
type server struct {
	name string // with the number of its life, for example "a2"
	// alive ends with the server: requests on their way then break, and their
	// outcome is unknown.
	alive   context.Context
	kill    context.CancelFunc
	cluster *testcluster.Cluster
	json    rest.Interface
	proto   rest.Interface
}

// slot is a place for one API server after another.
type slot struct {
	name    string
	backend storage.Backend
	plants  Plants
	sole    bool
	lives   int
	now     atomic.Pointer[server]
}

func (s *slot) start(t testing.TB) {
	t.Helper()
	s.lives++
	srv := &server{name: fmt.Sprintf("%s%d", s.name, s.lives)}
	srv.alive, srv.kill = context.WithCancel(context.WithoutCancel(t.Context()))
	srv.cluster = testcluster.Start(t, testcluster.WithBackend(s.plants.backend(s.name, s.backend)),
		testcluster.WithConfig(func(c *controlplane.Config) { c.SoleWriter = s.sole }))
	config := srv.cluster.Admin()
	config.Transport = s.plants.transport(s.name, &fence{alive: srv.alive, below: config.Transport})
	srv.json = restClient(t, config, runtime.ContentTypeJSON)
	srv.proto = restClient(t, config, runtime.ContentTypeProtobuf)
	s.now.Store(srv)
}

func (s *slot) stop() {
	srv := s.now.Load()
	srv.kill()
	srv.cluster.Stop()
}

func restClient(t testing.TB, config *rest.Config, contentType string) rest.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	config.ContentType, config.AcceptContentTypes = contentType, contentType
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	return client
}

// fence cuts all connections to a server that ended. Without it the handler of
// a stopped in-process server would go on answering.
type fence struct {
	alive context.Context
	below http.RoundTripper
}

var errDead = errors.New("the server has ended")

// RoundTrip implements http.RoundTripper.
func (f *fence) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.alive.Err() != nil {
		return nil, errDead
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(f.alive, cancel)
	resp, err := f.below.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &fencedBody{ReadCloser: resp.Body, alive: f.alive, done: func() { stop(); cancel() }}
	return resp, nil
}

type fencedBody struct {
	io.ReadCloser
	alive context.Context
	done  func()
}

func (b *fencedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.alive.Err() != nil {
		err = io.ErrUnexpectedEOF // what the end of a server looks like
	}
	return n, err
}

func (b *fencedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// Plants are where a test puts mistakes between the store, the servers and
// their clients. Nil functions change nothing; the name is the server's slot:
// "a", "b".
type Plants struct {
	Backend   func(slot string, below storage.Backend) storage.Backend
	Transport func(slot string, below http.RoundTripper) http.RoundTripper
}

func (p *Plants) backend(slot string, below storage.Backend) storage.Backend {
	if p.Backend == nil {
		return below
	}
	return p.Backend(slot, below)
}

func (p *Plants) transport(slot string, below http.RoundTripper) http.RoundTripper {
	if p.Transport == nil {
		return below
	}
	return p.Transport(slot, below)
}
