package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// limit is how long a test waits for what must happen.
const limit = 20 * time.Second

// start serves a handler with TLS; a nil config means net/http's own HTTP/2.
func start(t *testing.T, cfg *Config, h http.Handler) *httptest.Server {
	t.Helper()
	ts := httptest.NewUnstartedServer(h)
	ts.EnableHTTP2 = true
	ts.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if cfg != nil {
		s := New(*cfg)
		s.Attach(ts.Config)
		t.Cleanup(s.Close)
	}
	ts.StartTLS()
	t.Cleanup(func() {
		ts.Client().CloseIdleConnections()
		ts.CloseClientConnections()
		ts.Close()
	})
	return ts
}

var big = bytes.Repeat([]byte("0123456789abcdef"), 300_000/16)

// deeds are what a handler may do, by path.
var deeds = map[string]http.HandlerFunc{
	"/small": func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "{%q:1}", r.Method) },
	"/echo": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %x %v %d", len(b), sha256.Sum256(b), err, r.ContentLength)
	},
	"/asked": func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %q %q %q %d %v %q %t", r.Method, r.URL, r.RequestURI, r.Proto, r.Header, r.ContentLength, r.TransferEncoding, r.Trailer, r.TLS != nil)
	},
	"/large":        func(w http.ResponseWriter, r *http.Request) { w.Write(big) },
	"/declared":     func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "300000"); w.Write(big) },
	"/nothing":      func(http.ResponseWriter, *http.Request) {},
	"/no-content":   func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
	"/not-modified": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Etag", `"a"`); w.WriteHeader(304) },
	"/no-body-allowed": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(204)
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
			panic("a body was taken")
		}
	},
	"/twice": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
		io.WriteString(w, "once")
	},
	"/late-header": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("X-Many", "a")
		w.Header().Add("X-Many", "b")
		w.WriteHeader(200)
		w.Header().Set("X-Late", "yes")
		io.WriteString(w, "<html>")
	},
	"/flushed": func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "part %d\n", i)
			w.(http.Flusher).Flush()
		}
	},
	"/flushed-first": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x")
		w.(http.Flusher).Flush()
		io.WriteString(w, "later")
	},
	"/trailers": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, Content-Length")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"X-More", "2")
	},
	"/unread": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(413); io.WriteString(w, "no") },
	"/half-read": func(w http.ResponseWriter, r *http.Request) {
		io.CopyN(io.Discard, r.Body, 5)
		io.WriteString(w, "half")
	},
	"/closed": func(w http.ResponseWriter, r *http.Request) {
		r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		fmt.Fprint(w, err != nil)
	},
	"/connection": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	},
	"/encoded": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "x")
		io.WriteString(w, "<html>")
	},
	"/bad-header": func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X Bad"] = []string{"a"}
		w.Header()["X-Value"] = []string{"a\nb", "good"}
		w.Header().Set("Upgrade", "x")
		io.WriteString(w, "x")
	},
	"/panic":      func(w http.ResponseWriter, r *http.Request) { panic("oh") },
	"/abort-late": func(w http.ResponseWriter, r *http.Request) { w.Write(big); panic(http.ErrAbortHandler) },
}

// outcome is what a client sees.
type outcome struct {
	Code            int
	Header, Trailer http.Header
	Length          int64
	Body            string
	Failed          bool
}

func see(t *testing.T, ts *httptest.Server, method, path, body string) outcome {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, ts.URL+path, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Some", "one")
	r.Header.Add("X-Some", "two")
	r.Header.Set("Cookie", "a=b; c=d")
	r.Host = "example.test"
	resp, err := ts.Client().Do(r)
	if err != nil {
		return outcome{Failed: true}
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Fatalf("%s was answered in %s", path, resp.Proto)
	}
	got, err := io.ReadAll(resp.Body)
	resp.Header.Del("Date")
	if len(got) > 1000 {
		got = fmt.Appendf(nil, "%d %x", len(got), sha256.Sum256(got))
	}
	o := outcome{Code: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Length: resp.ContentLength, Body: string(got), Failed: err != nil}
	if o.Failed {
		o.Body = "" // how much came before is chance
	}
	return o
}

// What a client sees is what it sees of net/http's own server.
func TestLikeNetHTTP(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { deeds[r.URL.Path](w, r) })
	ours, theirs := start(t, &Config{}, handler), start(t, nil, handler)
	for path := range deeds {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			for _, body := range []string{"", "hello", string(big), strings.Repeat("x", 3<<20)} {
				if method == "HEAD" && path == "/abort-late" {
					continue // whether its end is seen before the abortion is chance
				}
				if body != "" && (method == "GET" || method == "HEAD") || len(body) > 10 && path != "/echo" && path != "/unread" && path != "/half-read" {
					continue
				}
				got, want := see(t, ours, method, path+"?a=b%20c", body), see(t, theirs, method, path+"?a=b%20c", body)
				if path == "/flushed-first" || want.Length == 300000 || want.Length == -1 {
					// One that is collected for longer may know its length.
					got.Length, want.Length = 0, 0
					got.Header.Del("Content-Length")
					want.Header.Del("Content-Length")
				}
				if path == "/bad-header" {
					want.Header.Del("Upgrade") // ours drops what HTTP/2 forbids
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s %s with %d bytes: net/http -, ours +\n%s", method, path, len(body), diff)
				}
			}
		}
	}
}

// More than was declared is refused at once.
func TestDeclaredLength(t *testing.T) {
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		if _, err := io.WriteString(w, "abc"); err != nil {
			t.Error(err)
		}
		if _, err := io.WriteString(w, "d"); !errors.Is(err, http.ErrContentLength) {
			t.Error("more than was declared: ", err)
		}
	}))
	if o := see(t, ts, "GET", "/", ""); o.Body != "abc" {
		t.Errorf("%+v", o)
	}
}

func TestManyAtOnce(t *testing.T) {
	ts := start(t, &Config{MaxStreams: 10}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			w.Write(b)
		}
	}))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for j := range 20 {
				body := strings.Repeat(fmt.Sprint(i, j), 1+i*j)
				if o := see(t, ts, "POST", "/", body); o.Failed || len(body) <= 1000 && o.Body != body {
					t.Errorf("a body of %d bytes came back as %+v", len(body), o)
				}
			}
		})
	}
	wg.Wait()
}

// A handler learns that its client has gone, and is woken from whatever it
// waits for.
func TestClientGone(t *testing.T) {
	for name, wait := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"context": func(_ http.ResponseWriter, r *http.Request) error { <-r.Context().Done(); return r.Context().Err() },
		"body": func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(r.Body)
			return err
		},
		"window": func(w http.ResponseWriter, r *http.Request) error {
			for {
				if _, err := w.Write(big); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan error, 1)
			ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				close(began)
				ended <- wait(w, r)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body, stuck := io.Pipe()
			defer stuck.Close()
			r, err := http.NewRequestWithContext(ctx, "POST", ts.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := ts.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			<-began
			cancel()
			stuck.CloseWithError(context.Canceled) // the client waits for its own body first
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the handler was not told")
				}
			case <-time.After(limit):
				t.Fatal("the handler still waits")
			}
		})
	}
}

// A reader that takes nothing holds up itself alone, until the deadline.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			return
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		for {
			if _, err := w.Write(big); err != nil {
				ended <- err
				return
			}
		}
	}))
	resp, err := ts.Client().Get(ts.URL + "/stalled")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for len(ended) == 0 {
		if o := see(t, ts, "GET", "/quick", ""); o.Code != 200 {
			t.Fatalf("another request of the connection: %+v", o)
		}
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("an answer that was broken off looks whole")
	}
}

func TestReadDeadline(t *testing.T) {
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	body, stuck := io.Pipe()
	defer stuck.Close()
	resp, err := ts.Client().Post(ts.URL, "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a body that does not come: %d", resp.StatusCode)
	}
}

// A client that asks first is told to go on when the handler wants the body, and
// informed of what the handler says meanwhile.
func TestContinue(t *testing.T) {
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		b, err := io.ReadAll(r.Body)
		fmt.Fprint(w, string(b), err, r.Header["Expect"])
	}))
	var said []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { said = append(said, code); return nil },
	})
	r, err := http.NewRequestWithContext(ctx, "POST", ts.URL, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", "100-continue")
	resp, err := ts.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello<nil> []" {
		t.Errorf("answered %q, %v", b, err)
	}
	if diff := cmp.Diff([]int{103, 100}, said); diff != "" {
		t.Error(diff)
	}
}

// A connection on which a handler asks for its end takes no more requests, and
// those under way end.
func TestConnectionClose(t *testing.T) {
	go_ := make(chan struct{})
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bye" {
			w.Header().Set("Connection", "close")
			return
		}
		w.(http.Flusher).Flush()
		<-go_
		fmt.Fprint(w, r.RemoteAddr)
	}))
	slow, err := ts.Client().Get(ts.URL + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	if o := see(t, ts, "GET", "/bye", ""); o.Code != 200 || o.Header.Get("Connection") != "" {
		t.Fatalf("%+v", o)
	}
	close(go_)
	first, err := io.ReadAll(slow.Body)
	if err != nil {
		t.Fatal("a request under way was broken off: ", err)
	}
	if o := see(t, ts, "GET", "/again", ""); o.Body == string(first) || o.Code != 200 {
		t.Errorf("the next request came over %s as well: %+v", first, o)
	}
}

// When the server shuts down, requests under way are answered.
func TestShutdown(t *testing.T) {
	began, go_ := make(chan struct{}), make(chan struct{})
	ts := start(t, &Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-go_
		fmt.Fprint(w, "whole")
	}))
	answered := make(chan outcome)
	go func() { answered <- see(t, ts, "GET", "/", "") }()
	<-began
	down := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		down <- ts.Config.Shutdown(ctx)
	}()
	close(go_)
	if o := <-answered; o.Body != "whole" {
		t.Errorf("the request under way: %+v", o)
	}
	if err := <-down; err != nil {
		t.Error("the server does not end: ", err)
	}
}
