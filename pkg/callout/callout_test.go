package callout

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coracle/pkg/pki"
)

func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, Target) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s, Target{URL: s.URL + "/ask", Authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPost(t *testing.T) {
	_, target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.Path != "/ask" || r.URL.Query().Get("timeout") != "20s" {
			t.Errorf("the request: %s %s %v", r.Method, r.URL, r.Header)
		}
		fmt.Fprintf(w, "%s back", body)
	})
	target.URL = strings.Replace(target.URL, "/ask", "//ask", 1)
	c := &Client{}
	defer c.Close()
	got, err := c.Post(soon(t), target, []byte("there"), 100)
	if err != nil || string(got) != "there back" {
		t.Errorf("answer %q: %v", got, err)
	}
}

func TestPostToAService(t *testing.T) {
	s, target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.URL.Path)
	})
	c := &Client{Dial: func(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
		if namespace != "ns" || name != "svc" {
			return nil, errors.New("there is no such Service")
		}
		if port != 443 {
			t.Errorf("port %d", port)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}
	defer c.Close()
	target.URL, target.Service = "", &Service{Namespace: "ns", Name: "svc", Path: "/p"}
	// The certificate of httptest is for example.com, and not for svc.ns.svc.
	if _, err := c.Post(soon(t), target, nil, 100); err == nil || !strings.Contains(err.Error(), "svc.ns.svc") {
		t.Errorf("a certificate for another name: %v", err)
	}
	target.Service.Name = "other"
	if _, err := c.Post(soon(t), target, nil, 100); err == nil || !strings.Contains(err.Error(), `Post "https://other.ns.svc:443/p?timeout=`) {
		t.Errorf("a Service that is not there: %v", err)
	}

	ca, err := pki.NewCA("authority", time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "svc", DNSNames: []string{"svc.ns.svc"}, ServerAuth: true}, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s.TLS.Certificates = []tls.Certificate{cert}
	target.Service.Name, target.Authority = "svc", ca.CertPEM()
	if got, err := c.Post(soon(t), target, nil, 100); err != nil || string(got) != "svc.ns.svc:443 /p" {
		t.Errorf("the Service answered %q: %v", got, err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	reached := atomic.Bool{}
	elsewhere, _ := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	endless := func(w http.ResponseWriter, r *http.Request) {
		for chunk := []byte(strings.Repeat("x", 1<<16)); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "it answered 307 Temporary Redirect, and redirects are not followed"},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusTeapot) }, "it answered 418 I'm a teapot"},
		{"without end", endless, "its answer is longer than 1000 bytes"},
		{"an error without end", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, r)
		}, "it answered 500 Internal Server Error"},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "server response headers exceeded"},
		{"a hang-up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, target := serve(t, c.handler)
			client := &Client{}
			defer client.Close()
			_, err := client.Post(soon(t), target, nil, 1000)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if reached.Load() {
		t.Error("a redirect was followed")
	}
}

func TestTargetsThatAreNone(t *testing.T) {
	_, good := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := &Client{}
	defer c.Close()
	for name, target := range map[string]Target{
		"a program that nobody vouches for": {URL: good.URL},
		"an authority that is none":         {URL: good.URL, Authority: []byte("x")},
		"no TLS":                            {URL: strings.Replace(good.URL, "https", "http", 1), Authority: good.Authority},
		"nowhere":                           {},
		"no URL":                            {URL: "https://%"},
		"a Service without a resolver":      {Service: &Service{Namespace: "a", Name: "b"}},
	} {
		if _, err := c.Post(soon(t), target, nil, 100); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestHangsDelayNobodyElse: calls beyond the bound wait for one that hangs, no
// longer than they may, and those to another program not at all.
func TestHangsDelayNobodyElse(t *testing.T) {
	var held sync.WaitGroup
	held.Add(maxCalls)
	release := make(chan struct{})
	_, hanging := serve(t, func(http.ResponseWriter, *http.Request) {
		held.Done()
		<-release
	})
	_, quick := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	c := &Client{}
	defer c.Close()
	var calls sync.WaitGroup
	defer calls.Wait()
	defer close(release)
	for range maxCalls {
		calls.Go(func() {
			if _, err := c.Post(soon(t), hanging, nil, 100); err != nil {
				t.Errorf("a call that was released: %v", err)
			}
		})
	}
	held.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Post(ctx, hanging, nil, 100); err == nil || !strings.Contains(err.Error(), "other calls are with it") {
		t.Errorf("one call too many: %v", err)
	}
	if got, err := c.Post(soon(t), quick, nil, 100); err != nil || string(got) != "ok" {
		t.Errorf("another program: %q %v", got, err)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.StartTLS()
	defer s.Close()
	c := &Client{}
	defer c.Close()
	target := Target{URL: s.URL, Authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
	for range 5 {
		if _, err := c.Post(soon(t), target, []byte("{}"), 100); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 5 calls", n)
	}
}
