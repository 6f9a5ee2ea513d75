package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// startTimeout is how long a program may take until it answers.
	startTimeout = 60 * time.Second
	// stopTimeout is how long a program may take to end when it is asked to.
	stopTimeout = 10 * time.Second
	// logTail is how much of a program's output is shown when it fails.
	logTail = 2000
)

// lab starts the programs of a run and ends them all.
type lab struct {
	options
	dir string // of this run; removed at the end
	id  *identities
	log io.Writer

	serial  int // numbers the programs
	running []*program
}

// program is one process that the lab has started.
type program struct {
	name    string
	cmd     *exec.Cmd
	output  *os.File
	ended   chan struct{} // closed when the process is gone
	address string        // host:port that it listens on
}

func newLab(o options, log io.Writer) (*lab, error) {
	dir, err := os.MkdirTemp(o.dir, "bench-api-")
	if err != nil {
		return nil, err
	}
	id, err := newIdentities(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &lab{options: o, dir: dir, id: id, log: log}, nil
}

// close ends what still runs and removes the run's folder.
func (l *lab) close() error { return errors.Join(l.stopAll(), os.RemoveAll(l.dir)) }

// stopAll ends what runs, last started first.
func (l *lab) stopAll() error {
	var errs []error
	for len(l.running) > 0 {
		errs = append(errs, l.stop(l.running[len(l.running)-1]))
	}
	return errors.Join(errs...)
}

// folder makes an empty folder for a program.
func (l *lab) folder(name string) (string, error) {
	l.serial++
	dir := filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, l.serial))
	return dir, os.MkdirAll(dir, 0o700)
}

// start runs a program. port is put in place of PORT in its arguments.
func (l *lab) start(name, path string, args ...string) (*program, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := l.folder("log-" + name)
	if err != nil {
		return nil, err
	}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	full := make([]string, len(args))
	for i, a := range args {
		full[i] = string(bytes.ReplaceAll([]byte(a), []byte("PORT"), []byte(strconv.Itoa(port))))
	}
	p := &program{name: name, cmd: exec.Command(path, full...), output: output, ended: make(chan struct{}), address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	// Nothing outlives this process, whatever ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w (make bench-api builds it)", name, err), output.Close())
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its output
		close(p.ended)
	}()
	l.running = append(l.running, p)
	return p, nil
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// stop asks a program to end and waits for it.
func (l *lab) stop(p *program) error {
	for i, r := range l.running {
		if r == p {
			l.running = append(l.running[:i], l.running[i+1:]...)
			break
		}
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill() // as above
		<-p.ended
	}
	return p.output.Close()
}

// died is an error with the end of a program's output.
func (p *program) died() error {
	data, err := os.ReadFile(p.output.Name())
	if err != nil {
		return fmt.Errorf("%s has ended, and its output cannot be read: %w", p.name, err)
	}
	return fmt.Errorf("%s has ended:\n%s", p.name, data[max(0, len(data)-logTail):])
}

// freePort is a port of the loopback that was free a moment ago.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// answers waits until a program answers r with 200, each time on a new
// connection, and returns how long that took since began.
func (l *lab) answers(ctx context.Context, p *program, r *request, began time.Time) (time.Duration, error) {
	config := l.id.client(l.id.admin)
	deadline := time.Now().Add(startTimeout)
	for ctx.Err() == nil {
		select {
		case <-p.ended:
			return 0, p.died()
		default:
		}
		if c, err := dial(p.address, config); err == nil {
			a, err := c.do(r, false)
			took := time.Since(began)
			c.close()
			if err == nil && a.status == 200 {
				return took, nil
			}
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s does not answer GET %s with 200 within %s", p.name, r.path, startTimeout)
		}
		time.Sleep(time.Millisecond) // between two tries, nothing depends on it
	}
	return 0, ctx.Err()
}

// etcd starts a stock etcd with an empty store. It syncs every write.
func (l *lab) etcd(ctx context.Context) (*program, error) {
	dir, err := l.folder("etcd")
	if err != nil {
		return nil, err
	}
	p, err := l.start("etcd", filepath.Join(l.bin, "bench", "etcd"), "--data-dir", dir, "--log-level", "error",
		"--listen-client-urls", "http://127.0.0.1:PORT", "--advertise-client-urls", "http://127.0.0.1:PORT",
		"--listen-peer-urls", "http://127.0.0.1:0", "--quota-backend-bytes", strconv.Itoa(8<<30))
	if err != nil {
		return nil, err
	}
	client, err := p.etcdClient()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	wait, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := client.Get(wait, "/"); err != nil {
		return nil, errors.Join(fmt.Errorf("etcd does not answer: %w", err), p.died())
	}
	return p, nil
}

// oursArgs are the flags of the project's server that do not say where the
// store is.
func (l *lab) oursArgs() []string {
	return []string{"--secure-port", "PORT", "--tls-cert-file", l.id.certFile, "--tls-private-key-file", l.id.keyFile,
		"--client-ca-file", l.id.caFile}
}

// ours starts the project's server over an etcd.
func (l *lab) ours(etcd *program, args ...string) (*program, error) {
	return l.start("apiserver", filepath.Join(l.bin, "apiserver"), slices.Concat(l.oursArgs(), []string{"--etcd-servers", "http://" + etcd.address}, args)...)
}

// embedded starts the project's server with its own etcd in dir.
func (l *lab) embedded(dir string) (*program, error) {
	return l.start("apiserver (embedded etcd)", filepath.Join(l.bin, "apiserver"), append(l.oursArgs(), "--data-dir", dir)...)
}

// reference starts the server that the project is compared with.
func (l *lab) reference(etcd *program) (*program, error) {
	return l.start("reference", filepath.Join(l.bin, "bench", "reference"), "-port", "PORT", "-etcd", "http://"+etcd.address,
		"-cert", l.id.certFile, "-key", l.id.keyFile, "-ca", l.id.caFile)
}

// floor starts the server that has its answers ready.
func (l *lab) floor() (*program, error) {
	return l.start("floor", filepath.Join(l.bin, "bench", "floor"), "-port", "PORT", "-cert", l.id.certFile, "-key", l.id.keyFile)
}
