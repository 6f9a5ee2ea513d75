// Command floor is what no API server can be cheaper than: Go's HTTP/2 server
// with TLS that reads a request's body and answers bytes it has ready.
//
//	POST, PATCH, DELETE, GET /answer/N[/...]   N bytes of JSON
//	POST, PATCH /publish/N[/...]               the same, and every watcher gets an event of N bytes
//	GET /watch                                 the events that are published from now on
//
// The watchers are a bare broadcaster: events that wait for a watcher go out
// in one write and one flush.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	cert := flag.String("cert", "", "serving certificate")
	key := flag.String("key", "", "its key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *port, *cert, *key)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, port int, cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	// As the API servers do: a client may show its certificate.
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"},
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newFloor(), ReadHeaderTimeout: 10 * time.Second, TLSConfig: config}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() }) // ends Serve
	defer stopped()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxAnswer bounds what one request may ask for.
const maxAnswer = 64 << 20

// floor answers bytes that are ready.
type floor struct {
	mu     sync.Mutex
	ready  map[int][]byte // by size; guarded by mu
	events [][]byte       // all that were published; guarded by mu
	more   chan struct{}  // closed when events grows; guarded by mu
}

func newFloor() *floor { return &floor{ready: map[int][]byte{}, more: make(chan struct{})} }

// ServeHTTP implements http.Handler.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/watch" {
		f.watch(w, r)
		return
	}
	verb, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	number, _, _ := strings.Cut(rest, "/")
	size, err := strconv.Atoi(number)
	if err != nil || size < 2 || size > maxAnswer || verb != "answer" && verb != "publish" {
		http.NotFound(w, r)
		return
	}
	if _, err := io.ReadAll(r.Body); err != nil {
		return // the client has gone
	}
	body := f.body(size)
	if verb == "publish" {
		f.publish(body)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(size))
	if _, err := w.Write(body); err != nil {
		return // the client has gone
	}
}

// body is size bytes of a JSON string on one line.
func (f *floor) body(size int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.ready[size]
	if !ok {
		b = []byte(`"` + strings.Repeat("x", size-2) + "\n")
		f.ready[size] = b
	}
	return b
}

func (f *floor) publish(event []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event)
	close(f.more)
	f.more = make(chan struct{})
}

// since returns the events from one on, and a channel that is closed when
// there are more.
func (f *floor) since(from int) ([][]byte, chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events[from:len(f.events):len(f.events)], f.more
}

func (f *floor) watch(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	at := len(f.events)
	f.mu.Unlock()
	stream := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if stream.Flush() != nil {
		return
	}
	var buf []byte
	for {
		events, more := f.since(at)
		if len(events) == 0 {
			select {
			case <-more:
				continue
			case <-r.Context().Done():
				return
			}
		}
		at += len(events)
		buf = buf[:0]
		for _, e := range events {
			buf = append(buf, e...)
		}
		if _, err := w.Write(buf); err != nil || stream.Flush() != nil {
			return
		}
	}
}
