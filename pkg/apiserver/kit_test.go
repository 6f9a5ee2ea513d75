package apiserver_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/wait"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/registry/fieldtypes"
	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/testcluster"
)

// patience bounds how long a test waits for something that has to come.
const patience = 20 * time.Second

// onBackends runs a test against an API server over each backend.
func onBackends(t *testing.T, test func(t *testing.T, s *server), options ...testcluster.Option) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, newServer(t, options...))
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		test(t, newServer(t, append(options, testcluster.WithBackend(startEtcd(t)))...))
	})
}

func startEtcd(t *testing.T) storage.Backend {
	t.Helper()
	store, err := etcd.StartEmbedded(t.Context(), etcd.Config{DataDir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close the embedded etcd: %v", err)
		}
	})
	return store
}

// server is an API server under test.
type server struct {
	*testcluster.Cluster
	http http.RoundTripper // as an administrator
}

func newServer(t testing.TB, options ...testcluster.Option) *server {
	t.Helper()
	c := testcluster.Start(t, options...)
	return &server{Cluster: c, http: c.Admin().Transport}
}

// answer is a whole HTTP response.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// decode reads the body as JSON.
func (a *answer) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("the answer is not JSON: %v\n%s", err, a.body)
	}
}

func (a *answer) status(t *testing.T) *metav1.Status {
	t.Helper()
	s := &metav1.Status{}
	a.decode(t, s)
	if s.Kind != "Status" || s.APIVersion != "v1" {
		t.Fatalf("the answer (%d) is a %s of %s, want a Status: %s", a.code, s.Kind, s.APIVersion, a.body)
	}
	return s
}

// header is one request header.
type header struct{ name, value string }

func accept(v string) header      { return header{"Accept", v} }
func contentType(v string) header { return header{"Content-Type", v} }

// request builds a request; a nil body sends none.
func request(ctx context.Context, t testing.TB, method, path string, body []byte, headers ...header) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://coracle.invalid"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		r.Header.Set(h.name, h.value)
	}
	return r
}

// do sends a request and reads the whole answer.
func (s *server) do(t testing.TB, method, path, body string, headers ...header) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := s.http.RoundTrip(request(ctx, t, method, path, []byte(body), headers...))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer closeIt(t, resp.Body)
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	return &answer{code: resp.StatusCode, header: resp.Header, body: data}
}

func closeIt(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// must sends a request that has to be answered with code.
func (s *server) must(t testing.TB, code int, method, path, body string, headers ...header) *answer {
	t.Helper()
	a := s.do(t, method, path, body, headers...)
	if a.code != code {
		t.Fatalf("%s %s: answered %d, want %d: %s", method, path, a.code, code, a.body)
	}
	return a
}

// refused checks the code and reason of an error from client-go.
func refused(t *testing.T, err error, code int32, reason metav1.StatusReason, part string) {
	t.Helper()
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		t.Fatalf("got error %v, want a Status of %d %s", err, code, reason)
	}
	got := status.Status()
	if got.Code != code || got.Reason != reason || !strings.Contains(got.Message, part) {
		t.Fatalf("got %d %s %q, want %d %s with %q", got.Code, got.Reason, got.Message, code, reason, part)
	}
}

// revision is an object's or list's resourceVersion as a number.
func revision(t *testing.T, obj runtime.Object) int64 {
	t.Helper()
	acc, err := meta.CommonAccessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(acc.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatalf("resourceVersion %q: %v", acc.GetResourceVersion(), err)
	}
	return n
}

func configMap(name string, data ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		cm.Data[data[i]] = data[i+1]
	}
	return cm
}

// makeConfigMap creates one in namespace default.
func (s *server) makeConfigMap(t testing.TB, cm *corev1.ConfigMap) *corev1.ConfigMap {
	t.Helper()
	out, err := s.Client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// makeNamespace creates a namespace.
func (s *server) makeNamespace(t *testing.T, name string) {
	t.Helper()
	if _, err := s.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok says so.
func eventually(t *testing.T, what string, ok func(ctx context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, patience, true, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// path of ConfigMaps in namespace default, with a query.
func configMaps(query string, args ...any) string {
	return "/api/v1/namespaces/default/configmaps" + fmt.Sprintf(query, args...)
}

// anyone lets everybody do everything.
type anyone struct{}

func (anyone) Authorize(context.Context, auth.Attributes) (auth.Decision, string, error) {
	return auth.Allow, "", nil
}

func (anyone) Authenticate(context.Context, *http.Request) (*auth.User, bool, error) {
	return nil, false, nil
}

// apiServer makes another API server over the cache of s, with a chain and a
// configuration of the test's own, that allows everything.
func apiServer(t testing.TB, s *server, chain *admission.Chain, change func(*apiserver.Config)) *apiserver.Server {
	t.Helper()
	table := s.Registry().Table()
	cfg := apiserver.Config{Authenticator: anyone{}, Authorizer: anyone{}, Registry: registry.New(registry.Config{
		Table: table, Cache: s.Registry().Cache(), Chain: chain, Rand: rand.Reader,
		Types: func() managedfields.TypeConverter { return fieldtypes.New(table.Scheme()) },
	})}
	if change != nil {
		change(&cfg)
	}
	out, err := apiserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
