package apiserver_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// loadEnv holds, in a process that a benchmark started, what it is to send.
const loadEnv = "CORACLE_BENCH_LOAD"

// load is what a benchmark's client does. It is a process of its own, so that
// the CPU time of the benchmark's process is the server's.
type load struct {
	URL, Accept string
	Cert, Key   []byte // PEM
	Conns       int
	Workers     int // requests at a time, or open streams
	Requests    int // in all; each is read to its end
	// StreamBytes, when not 0, keeps Workers streams open until that many bytes
	// have come over all of them.
	StreamBytes int64
	// Dead further streams are opened and not read.
	Dead int
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(loadEnv); spec != "" {
		if err := runLoad(spec); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func (l *load) clients() ([]*http.Client, error) {
	pair, err := tls.X509KeyPair(l.Cert, l.Key)
	if err != nil {
		return nil, err
	}
	out := make([]*http.Client, l.Conns)
	for i := range out {
		out[i] = &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}},
		}}
	}
	return out, nil
}

func (l *load) open(c *http.Client) (*http.Response, error) {
	r, err := http.NewRequest(http.MethodGet, l.URL, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", l.Accept)
	resp, err := c.Do(r)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2) {
		body, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("%s %s: %s", resp.Proto, resp.Status, body)
	}
	return resp, err
}

// runLoad says "ready" when its connections are open, works when told to go,
// and says "done".
func runLoad(spec string) error {
	var l load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		return err
	}
	clients, err := l.clients()
	if err != nil {
		return err
	}
	work := l.requests
	if l.StreamBytes > 0 {
		work = l.streams
	}
	return work(clients, func() {
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	})
}

func (l *load) requests(clients []*http.Client, begin func()) error {
	get := func(c *http.Client) error {
		resp, err := l.open(c)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	for _, c := range clients {
		if err := get(c); err != nil {
			return err
		}
	}
	begin()
	var next atomic.Int64
	errs := make(chan error, l.Workers)
	for w := range l.Workers {
		go func() {
			for next.Add(1) <= int64(l.Requests) {
				if err := get(clients[w%len(clients)]); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range l.Workers {
		if err := <-errs; err != nil {
			return err
		}
	}
	fmt.Println("done")
	return nil
}

func (l *load) streams(clients []*http.Client, begin func()) error {
	var bodies []io.ReadCloser
	for i := range l.Workers + l.Dead {
		resp, err := l.open(clients[i%len(clients)])
		if err != nil {
			return err
		}
		if i >= l.Dead {
			bodies = append(bodies, resp.Body)
		}
	}
	var got atomic.Int64
	var once sync.Once
	done := make(chan error, 1)
	for _, b := range bodies {
		go func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := b.Read(buf)
				if got.Add(int64(n)) >= l.StreamBytes || err != nil {
					once.Do(func() { done <- err })
					return
				}
			}
		}()
	}
	begin()
	err := <-done
	fmt.Println("done")
	return err
}

// generator is a running client process.
type generator struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startLoad starts a client and returns when its connections are open.
func startLoad(b *testing.B, l load) *generator {
	b.Helper()
	spec, err := json.Marshal(l)
	if err != nil {
		b.Fatal(err)
	}
	g := &generator{cmd: exec.Command(os.Args[0])}
	g.cmd.Env = append(os.Environ(), loadEnv+"="+string(spec))
	g.cmd.Stderr = os.Stderr
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	g.out = bufio.NewReader(stdout)
	if err := g.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	g.expect(b, "ready")
	return g
}

func (g *generator) expect(b *testing.B, word string) {
	b.Helper()
	line, err := g.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != word {
		b.Fatalf("the client said %q (%v), want %q", line, err, word)
	}
}

func (g *generator) begin(b *testing.B) {
	b.Helper()
	if _, err := io.WriteString(g.in, "go\n"); err != nil {
		b.Fatal(err)
	}
}

// end waits until the client has had everything.
func (g *generator) end(b *testing.B) {
	b.Helper()
	g.expect(b, "done")
	if err := g.cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
