package controllers_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// lateWatches delays everything that a watch delivers.
func lateWatches(d time.Duration) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil && r.URL.Query().Get("watch") != "" {
				resp.Body = delayed(resp.Body, d)
			}
			return resp, err
		})
	}
}

// lateBody is a body whose bytes come later than they were sent.
type lateBody struct {
	io.ReadCloser
	delay  time.Duration
	chunks chan chunk
	closed chan struct{}
	rest   []byte
}

type chunk struct {
	data []byte
	sent time.Time
	err  error
}

func delayed(body io.ReadCloser, d time.Duration) *lateBody {
	b := &lateBody{ReadCloser: body, delay: d, chunks: make(chan chunk, 4096), closed: make(chan struct{})}
	go func() {
		for {
			data := make([]byte, 4096)
			n, err := body.Read(data)
			select {
			case b.chunks <- chunk{data[:n], time.Now(), err}:
			case <-b.closed:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return b
}

func (b *lateBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		select {
		case c := <-b.chunks:
			if c.err != nil {
				return 0, c.err
			}
			select {
			case <-time.After(time.Until(c.sent.Add(b.delay))):
			case <-b.closed:
				return 0, io.ErrUnexpectedEOF
			}
			b.rest = c.data
		case <-b.closed:
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *lateBody) Close() error {
	close(b.closed)
	return b.ReadCloser.Close()
}

// countPods counts the pods that are ever created in default, by UID.
func (c *cluster) countPods() func() int {
	c.t.Helper()
	w, err := c.Client.CoreV1().Pods("default").Watch(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[types.UID]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type == watch.Added {
				mu.Lock()
				seen[p.UID] = true
				mu.Unlock()
			}
		}
	}()
	c.t.Cleanup(func() { w.Stop(); <-done })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
}

// lateEcho is how late controllers see changes in tests of late echoes.
const lateEcho = 3 * time.Second

// TestLateEchoMakesNoSurplus lets the controllers see every change, their own
// included, seconds late: still no pod is made or deleted twice.
func TestLateEchoMakesNoSurplus(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateWatches(lateEcho)}))
		made := c.countPods()
		c.deploy("web", "v1", 4)
		if n := made(); n != 4 {
			t.Errorf("%d pods were made for 4 replicas", n)
		}
		c.patchDeployment("web", `{"spec":{"replicas":6}}`)
		c.wantComplete("web")
		c.patchDeployment("web", `{"spec":{"replicas":3}}`)
		c.wantComplete("web")
		c.wantPods(map[string]int{"v1": 3})
		if n := made(); n != 6 {
			t.Errorf("%d pods were made, want 6", n)
		}
		c.setImage("web", "v2")
		c.wantComplete("web")
		c.wantPods(map[string]int{"v2": 3})
		if n := made(); n != 9 {
			t.Errorf("%d pods were made, want 9", n)
		}
	})
}

var errCrash = errors.New("crashed here")

// crasher ends the controllers at their n-th write: before the server sees it,
// or after, so that the answer is lost. Nothing that they send afterwards
// arrives. Without crash, only the answer is lost and they go on.
type crasher struct {
	at    int
	after bool
	crash func()
	only  func(*http.Request) bool // which writes count; nil for all

	mu    sync.Mutex
	count int // guarded by mu
}

func (c *crasher) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet || strings.Contains(r.URL.Path, "/events") || c.only != nil && !c.only(r) {
			return next.RoundTrip(r)
		}
		c.mu.Lock()
		c.count++
		hit, dead := c.count == c.at, c.crash != nil && c.count > c.at
		c.mu.Unlock()
		switch {
		case dead:
			return nil, errCrash
		case !hit:
			return next.RoundTrip(r)
		}
		if c.after {
			if resp, err := next.RoundTrip(r); err == nil {
				resp.Body.Close()
			}
		}
		if c.crash != nil {
			c.crash()
		}
		return nil, errCrash
	})
}

// lateOnly delays the watch of one resource, while all others are prompt.
func lateOnly(resource string) func(http.RoundTripper) http.RoundTripper {
	return lateSome(lateEcho, func(r string) bool { return r == resource })
}

// lateSome delays the watches of some resources.
func lateSome(d time.Duration, which func(resource string) bool) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		late := lateWatches(d)(next)
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if which(path.Base(r.URL.Path)) {
				return late.RoundTrip(r)
			}
			return next.RoundTrip(r)
		})
	}
}

// TestLostAnswersMakeNoSurplus loses the answer to the first create of a pod, while
// the echo of it comes late too: it is not made again.
func TestLostAnswersMakeNoSurplus(t *testing.T) {
	for _, tc := range []struct {
		kind string
		make func(c *cluster)
		want int
	}{
		{"ReplicaSet", func(c *cluster) { c.deploy("web", "v1", 4) }, 4},
		{"Job", func(c *cluster) {
			c.tasks(always(0))
			c.makeJob(newJob(jobOf(3, 3)))
			c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
		}, 3},
		{"DaemonSet", func(c *cluster) {
			c.makeDaemonSet("agent", "v1")
			c.wantDaemons("agent", "v1", "node-1", "node-2", "node-3")
		}, 3},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cluster) {
				k := &crasher{at: 1, after: true, only: func(r *http.Request) bool {
					return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pods")
				}}
				t.Cleanup(c.startControllers(transports{write: k.wrap, read: lateOnly("pods")}))
				made := c.countPods()
				tc.make(c)
				if n := made(); n != tc.want {
					t.Errorf("%d pods were made, want %d", n, tc.want)
				}
			})
		})
	}
}

// crashAt runs body once for every step-th write from first to last: the
// controllers are killed there, before the server sees the write and after it,
// and restarted.
func crashAt(t *testing.T, first, last, step int, body func(t *testing.T, c *cluster)) {
	for at := first; at <= last; at += step {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, done %v", at, after), func(t *testing.T) {
				bubble(t, func(t *testing.T, c *cluster) {
					crashed := make(chan struct{})
					k := &crasher{at: at, after: after, crash: sync.OnceFunc(func() { close(crashed) })}
					stop := c.startControllers(transports{write: k.wrap})
					ended := make(chan struct{})
					over := make(chan struct{})
					go func() {
						defer close(ended)
						select {
						case <-crashed:
							stop()
							stop = c.startControllers(transports{})
						case <-over:
						}
						<-over
						stop()
					}()
					t.Cleanup(func() { close(over); <-ended })
					body(t, c)
					select {
					case <-crashed:
					default:
						t.Error("there were too few writes to crash at this one")
					}
				})
			})
		}
	}
}
