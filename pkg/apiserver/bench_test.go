package apiserver_test

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/testcluster"
)

const (
	protobufMedia = "application/vnd.kubernetes.protobuf"
	jsonMedia     = "application/json"
	tableMedia    = "application/json;as=Table;v=v1;g=meta.k8s.io"
	partialMedia  = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

// benchServer is a control plane behind TLS and HTTP/2, with client
// certificates and RBAC, and beside it a floor: a handler on a listener of the
// same kind that only writes bytes.
type benchServer struct {
	*server
	cert, key  []byte // of a user that RBAC lets do everything
	url        string
	floor      *httptest.Server
	floorServe http.HandlerFunc // set before each use
}

func newBenchServer(b *testing.B) *benchServer {
	b.Helper()
	now := time.Now()
	ca, err := pki.NewCA("bench", time.Hour, now, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "bench", ClientAuth: true}, now, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	pool := &pki.LivePool{}
	if err := pool.Set(ca.CertPEM()); err != nil {
		b.Fatal(err)
	}
	c := testcluster.Start(b, testcluster.WithConfig(func(cfg *controlplane.Config) {
		cfg.Identity = &controlplane.Identity{Clients: pool}
	}))
	s := &benchServer{server: &server{Cluster: c, http: c.Admin().Transport}, cert: pair.CertPEM, key: pair.KeyPEM}
	if _, err := c.Client.RbacV1().ClusterRoleBindings().Create(b.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "bench"}},
	}, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	s.url = listen(b, c.Handler()).URL
	s.floor = listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.floorServe(w, r) }))
	return s
}

func listen(b *testing.B, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	b.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// fill makes ConfigMaps of about 1.4 KB as stored.
func (s *benchServer) fill(b *testing.B, n int) {
	b.Helper()
	var wg sync.WaitGroup
	const writers = 8
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				cm := configMap(fmt.Sprintf("bench-%06d", i), "text", strings.Repeat("some text \"quoted\" ", 55))
				cm.Labels = map[string]string{"app": "bench", "part": fmt.Sprint(i % 10)}
				if _, err := s.Client.CoreV1().ConfigMaps("default").Create(b.Context(), cm, metav1.CreateOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// answer is what the API answers, read through the in-memory transport.
func (s *benchServer) answer(b *testing.B, path, media string) []byte {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://coracle.invalid"+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept", media)
	resp, err := s.http.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("GET %s: %s %v", path, resp.Status, err)
	}
	return body
}

// read measures the server's CPU time per request of a path: ours, and that of
// the floor, which answers the same bytes.
func (s *benchServer) read(b *testing.B, path, media string, workers int) {
	canned := s.answer(b, path, media)
	s.floorServe = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(canned)
	}
	for _, side := range []struct{ name, url string }{{"ours", s.url}, {"floor", s.floor.URL}} {
		b.Run(side.name, func(b *testing.B) {
			g := startLoad(b, load{
				URL: side.url + path, Accept: media, Cert: s.cert, Key: s.key, Conns: 4, Workers: workers, Requests: b.N,
			})
			b.ReportAllocs()
			runtime.GC()
			b.ResetTimer()
			before := cpuTime(b)
			g.begin(b)
			g.end(b)
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
	b.Run("memory", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(canned)))
		for b.Loop() {
			s.drain(b, path, media)
		}
	})
}

// drain reads a path through the in-memory transport without keeping it.
func (s *benchServer) drain(b *testing.B, path, media string) {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://coracle.invalid"+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept", media)
	resp, err := s.http.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadOne reads one object. The goal is 2.2 times the floor.
func BenchmarkReadOne(b *testing.B) {
	s := newBenchServer(b)
	s.fill(b, 100)
	for _, media := range []string{jsonMedia, protobufMedia} {
		b.Run(media[len("application/"):], func(b *testing.B) {
			s.read(b, configMaps("/bench-000042"), media, 32)
		})
	}
}

// BenchmarkReadList lists 10,000 objects. The goal is 1.5 times the floor.
func BenchmarkReadList(b *testing.B) {
	s := newBenchServer(b)
	s.fill(b, 10_000)
	for name, media := range map[string]string{"json": jsonMedia, "protobuf": protobufMedia, "table": tableMedia, "partial": partialMedia} {
		b.Run(name, func(b *testing.B) { s.read(b, configMaps(""), media, 2) })
	}
}

// BenchmarkLargeLists reads ten lists of 100 MB at once, and reports how much
// anonymous memory that takes beside what the objects take. The goal is 64 MB.
func BenchmarkLargeLists(b *testing.B) {
	s := newBenchServer(b)
	const objects, lists = 1000, 10
	text := strings.Repeat("0123456789abcdef", 100<<10/16)
	for i := range objects {
		s.makeLarge(b, fmt.Sprintf("large-%04d", i), text)
	}
	for name, media := range map[string]string{"json": jsonMedia, "protobuf": protobufMedia} {
		b.Run(name, func(b *testing.B) {
			var most int
			for b.Loop() {
				g := startLoad(b, load{URL: s.url + configMaps(""), Accept: media, Cert: s.cert, Key: s.key, Conns: 5, Workers: lists, Requests: lists})
				debug.FreeOSMemory()
				before := anonymous(b)
				done := make(chan int)
				go func() {
					peak := 0
					for {
						select {
						case <-done:
							done <- peak
							return
						case <-time.After(2 * time.Millisecond):
							peak = max(peak, anonymous(b)-before)
						}
					}
				}()
				g.begin(b)
				g.end(b)
				done <- 0
				most = max(most, <-done)
			}
			b.ReportMetric(float64(most)/1024, "MiB-more")
		})
	}
}

func (s *benchServer) makeLarge(b *testing.B, name, text string) {
	if _, err := s.Client.CoreV1().ConfigMaps("default").Create(b.Context(), configMap(name, "text", text), metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// anonymous is the process's anonymous memory in KiB.
func anonymous(b *testing.B) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Error(err)
		return 0
	}
	var kib int
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			return kib
		}
	}
	b.Error("the kernel does not tell the anonymous memory")
	return 0
}

// BenchmarkFanOut makes 500 patches by 16 writers with 200 watchers over 4
// connections: with nobody watching, with watchers of the API, with watchers
// of a bare broadcaster of the same bytes. The goal is 1.5 times the
// broadcaster, what the patches cost themselves left out.
func BenchmarkFanOut(b *testing.B) {
	const patches, watchers = 500, 200
	s := newBenchServer(b)
	s.fill(b, 100)
	frame := fmt.Appendf(nil, `{"type":"MODIFIED","object":%s}`+"\n", strings.TrimSpace(string(s.answer(b, configMaps("/bench-000000"), jsonMedia))))
	hub := &broadcaster{}
	s.floorServe = hub.serve
	path := configMaps("?watch=1&resourceVersion=%s", "")
	for _, pace := range []time.Duration{0, 20 * time.Millisecond} {
		var idle float64
		for _, side := range []struct{ name, url string }{{"idle", ""}, {"ours", s.url}, {"floor", s.floor.URL}} {
			b.Run(fmt.Sprintf("pace-%s/%s", pace, side.name), func(b *testing.B) {
				var spent time.Duration
				for b.Loop() {
					b.StopTimer()
					var g *generator
					if side.url != "" {
						rv := s.makeTick(b)
						g = startLoad(b, load{
							URL: side.url + path + rv, Accept: jsonMedia, Cert: s.cert, Key: s.key, Conns: 4, Workers: watchers,
							StreamBytes: int64(patches * watchers * (len(frame) - 64)),
						})
						g.begin(b)
					}
					runtime.GC()
					b.StartTimer()
					before := cpuTime(b)
					s.patches(b, patches, pace, func() {
						if side.name == "floor" {
							hub.publish(frame)
						}
					})
					if g != nil {
						g.end(b)
					}
					spent += cpuTime(b) - before
				}
				each := float64(spent.Microseconds()) / float64(b.N) / patches
				if side.name == "idle" {
					idle = each
					b.ReportMetric(each, "cpu-us/patch")
					return
				}
				b.ReportMetric((each-idle)/watchers, "cpu-us/delivery")
			})
		}
	}
}

// makeTick changes an object and returns its revision, from where to watch.
func (s *benchServer) makeTick(b *testing.B) string {
	b.Helper()
	return s.patch(b, 99, "begin").ResourceVersion
}

func (s *benchServer) patch(b *testing.B, i int, value string) *corev1.ConfigMap {
	cm, err := s.Client.CoreV1().ConfigMaps("default").Patch(b.Context(), fmt.Sprintf("bench-%06d", i), types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{"tick":"%s-%d"}}}`, value, time.Now().UnixNano()), metav1.PatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return cm
}

// patches are made by 16 writers, or one every pace.
func (s *benchServer) patches(b *testing.B, n int, pace time.Duration, after func()) {
	const writers = 16
	var wg sync.WaitGroup
	work := make(chan int)
	for range writers {
		wg.Go(func() {
			for i := range work {
				s.patch(b, i%96, "t")
				after()
			}
		})
	}
	for i := range n {
		if pace > 0 {
			time.Sleep(pace)
		}
		work <- i
	}
	close(work)
	wg.Wait()
}

// broadcaster sends the same bytes to all its streams: what waits for a stream
// goes out in one write and one flush.
type broadcaster struct {
	mu   sync.Mutex
	wake chan struct{}
	sent [][]byte
}

func (h *broadcaster) publish(frame []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = append(h.sent, frame)
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
	}
}

func (h *broadcaster) serve(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	h.mu.Lock()
	pos := len(h.sent)
	h.mu.Unlock()
	var buf []byte
	for {
		h.mu.Lock()
		if h.wake == nil {
			h.wake = make(chan struct{})
		}
		wake, news := h.wake, h.sent[pos:]
		h.mu.Unlock()
		pos += len(news)
		buf = buf[:0]
		for _, f := range news {
			buf = append(buf, f...)
		}
		if len(buf) > 0 {
			if _, err := w.Write(buf); err != nil || flush.Flush() != nil {
				return
			}
			continue
		}
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		}
	}
}
