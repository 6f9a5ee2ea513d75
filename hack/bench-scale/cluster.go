package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/hack/lab"
)

const (
	// startTimeout bounds the start of the API server, nodesTimeout that of all
	// nodes, stopTimeout the end of a program.
	startTimeout = time.Minute
	nodesTimeout = 10 * time.Minute
	stopTimeout  = 20 * time.Second
	// logTail is how much of a program's output is shown when it fails.
	logTail = 2000
)

// cluster is the programs of a run.
type cluster struct {
	options
	log    io.Writer
	folder string
	client kubernetes.Interface

	apiserver, kubelet *program
}

// program is one process.
type program struct {
	name   string
	cmd    *exec.Cmd
	output *os.File
	ended  chan struct{} // closed when it is gone
}

// start starts the control plane and then the nodes. The cluster is returned
// with an error too, to be closed.
func start(ctx context.Context, o options, log io.Writer) (*cluster, error) {
	folder, err := os.MkdirTemp(o.dir, "bench-scale-")
	if err != nil {
		return nil, err
	}
	c := &cluster{options: o, log: log, folder: folder}
	port, err := freePort()
	if err != nil {
		return c, err
	}
	c.apiserver, err = c.launch("apiserver", "--all-in-one", "--data-dir="+folder, "--secure-port="+strconv.Itoa(port), "--cluster-cidr=10.128.0.0/9")
	if err != nil {
		return c, err
	}
	kubeconfig := filepath.Join(folder, "admin.kubeconfig")
	err = lab.Until(ctx, "the API server is ready", startTimeout, 20*time.Millisecond, func(ctx context.Context) (bool, error) {
		if err := c.apiserver.alive(); err != nil {
			return false, err
		}
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return false, err
		}
		config.QPS, config.ContentType = -1, "application/vnd.kubernetes.protobuf"
		config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		if c.client, err = kubernetes.NewForConfig(config); err != nil {
			return false, err
		}
		_, err = c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	})
	if err != nil {
		return c, err
	}
	c.kubelet, err = c.launch("kubelet", "--simulated="+strconv.Itoa(o.nodes), "--kubeconfig="+kubeconfig)
	if err != nil {
		return c, err
	}
	return c, lab.Until(ctx, "all nodes are there", nodesTimeout, 200*time.Millisecond, func(ctx context.Context) (bool, error) {
		if err := errors.Join(c.apiserver.alive(), c.kubelet.alive()); err != nil {
			return false, err
		}
		list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return false, err
		}
		n := len(list.Items)
		if list.RemainingItemCount != nil {
			n += int(*list.RemainingItemCount)
		}
		return n >= o.nodes, nil
	})
}

// launch starts a program that does not outlive this one.
func (c *cluster) launch(name string, args ...string) (*program, error) {
	output, err := os.Create(filepath.Join(c.folder, name+".log"))
	if err != nil {
		return nil, err
	}
	p := &program{name: name, cmd: exec.Command(filepath.Join(c.bin, name), args...), output: output, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w (\"make build\" builds it)", name, err), output.Close())
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its output
		close(p.ended)
	}()
	return p, nil
}

// alive is an error with the end of the output when the program has ended.
func (p *program) alive() error {
	select {
	case <-p.ended:
	default:
		return nil
	}
	data, err := os.ReadFile(p.output.Name())
	if err != nil {
		return fmt.Errorf("%s has ended, and its output cannot be read: %w", p.name, err)
	}
	return fmt.Errorf("%s has ended:\n%s", p.name, data[max(0, len(data)-logTail):])
}

func (p *program) stop() error {
	if p == nil {
		return nil
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

// close ends the programs and removes what they kept.
func (c *cluster) close() error {
	return errors.Join(c.kubelet.stop(), c.apiserver.stop(), os.RemoveAll(c.folder))
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
