package ctl

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"coracle/pkg/controlplane"
	"coracle/pkg/storage/memory"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// commandTimeout ends a command line in a script that hangs.
const commandTimeout = 30 * time.Second

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	testscript.Main(m, map[string]func(){
		// For what runs beside other commands: "exec ctlproc get pods -w &".
		"ctlproc": func() {
			args := append([]string{"--kubeconfig=" + os.Getenv("KUBECONFIG"), "--cache-dir=" + os.Getenv("CTL_CACHE")}, os.Args[1:]...)
			ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
			defer cancel()
			os.Exit(Main(ctx, args, Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		},
	})
}

// TestScripts runs each script against a control plane of its own: the real
// one, over TLS on the loopback, with scheduler, controllers and a node whose
// containers are simulated.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup:         func(env *testscript.Env) error { return startCluster(env) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ctl":      runCtl,
			"retry":    retry,
			"node":     startNode,
			"fetch":    fetch,
			"joinline": joinLine,
		},
	})
}

// runCtl runs a command line in this process. "<FILE" gives it an input;
// "ctl:N" expects the exit code N.
func runCtl(ts *testscript.TestScript, neg bool, args []string) {
	code := ctlCode(ts, args, ts.Stdout(), ts.Stderr())
	if (code != 0) != neg {
		ts.Fatalf("ctl %s: exit code %d", strings.Join(args, " "), code)
	}
	ts.Setenv("CODE", fmt.Sprint(code))
}

func ctlCode(ts *testscript.TestScript, args []string, out, errOut io.Writer) int {
	var in io.Reader = strings.NewReader("")
	if len(args) > 0 && strings.HasPrefix(args[0], "<") {
		in, args = strings.NewReader(ts.ReadFile(args[0][1:])), args[1:]
	}
	flags := []string{"--kubeconfig=" + ts.Getenv("KUBECONFIG"), "--cache-dir=" + ts.Getenv("CTL_CACHE")}
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		flags, args = append([]string{args[0]}, flags...), args[1:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return Main(ctx, append(flags, args...), Streams{In: in, Out: out, Err: errOut})
}

// retry runs "retry TEXT ctl ARGS..." until the output has the text, or reads
// "retry TEXT file NAME" until the file does.
func retry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "ctl" && args[1] != "file" {
		ts.Fatalf("usage: retry TEXT ctl ARGS..., or retry TEXT file NAME")
	}
	deadline := time.Now().Add(commandTimeout)
	var out, errOut bytes.Buffer
	for time.Now().Before(deadline) {
		out.Reset()
		errOut.Reset()
		if args[1] == "ctl" {
			ctlCode(ts, args[2:], &out, &errOut)
		} else if data, err := os.ReadFile(ts.MkAbs(args[2])); err == nil {
			out.Write(data)
		}
		if strings.Contains(out.String()+errOut.String(), args[0]) {
			fmt.Fprint(ts.Stdout(), out.String())
			return
		}
		<-time.After(20 * time.Millisecond) // between two looks at a condition
	}
	ts.Fatalf("no %q within %s in:\n%s%s", args[0], commandTimeout, out.String(), errOut.String())
}

// fetch asks the first address in a file, which port-forward wrote, for its page.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fetch FILE")
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(ts.ReadFile(args[0]))
	client := http.Client{Timeout: commandTimeout}
	resp, err := client.Get("http://" + address + "/")
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// joinLine runs "joinline FILE [FLAG=VALUE...]": the command line in a file,
// with other values of its flags; what it writes goes to bootstrap.kubeconfig, or
// to other.kubeconfig when it is expected to fail.
func joinLine(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: joinline FILE [FLAG=VALUE...]")
	}
	line := strings.Fields(ts.ReadFile(args[0]))[1:]
	for _, a := range args[1:] {
		flag, value, _ := strings.Cut(a, "=")
		if flag == "--secret" {
			flag, value = "--token", line[3][:7]+value
		}
		for i := range line[1:] {
			if line[i] == flag {
				line[i+1] = value
			}
		}
	}
	out := "bootstrap.kubeconfig"
	if neg {
		out = "other.kubeconfig"
	}
	runCtl(ts, neg, append(line, "-f", ts.MkAbs(out)))
}

// testCluster is what a script talks to.
type testCluster struct {
	dir    string
	client kubernetes.Interface
}

type clusterKey struct{}

// startCluster starts a control plane that ends with the script.
func startCluster(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, ".cluster")
	ctx, cancel := context.WithCancel(context.Background())
	backend := memory.New(memory.Config{})
	done := make(chan error, 1)
	opts := controlplane.ServeOptions{DataDir: dir, BindAddress: "127.0.0.1"}
	opts.BootstrapTokens, opts.AdvertiseAddress = true, "192.0.2.10"
	opts.Backend, opts.SoleWriter, opts.Roles, opts.Log = backend, true, true, slog.New(slog.DiscardHandler)
	go func() { done <- controlplane.Serve(ctx, opts) }()
	env.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			env.T().Log("the control plane:", err)
		}
		if err := backend.Close(); err != nil {
			env.T().Log("the store:", err)
		}
	})
	kubeconfig := filepath.Join(dir, "admin.kubeconfig")
	client, err := awaitReady(ctx, kubeconfig, done)
	if err != nil {
		return err
	}
	env.Values[clusterKey{}] = &testCluster{dir: dir, client: client}
	env.Setenv("KUBECONFIG", kubeconfig)
	env.Setenv("CTL_CACHE", filepath.Join(env.WorkDir, ".cache"))
	env.Setenv("HOME", env.WorkDir)
	return nil
}

// awaitReady returns a client once the default service account exists.
func awaitReady(ctx context.Context, kubeconfig string, done chan error) (kubernetes.Interface, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the control plane is not ready: %w", last)
		case err := <-done:
			done <- err
			return nil, fmt.Errorf("the control plane ended: %w", err)
		case <-time.After(10 * time.Millisecond): // between two looks at a condition
		}
		cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			last = err
			continue
		}
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			return nil, err
		}
		if err := client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/default/configmaps/kube-root-ca.crt").Do(ctx).Error(); err != nil {
			last = err
			continue
		}
		return client, nil
	}
}

// nodeTLS is the serving side of a node's agent.
func (c *testCluster) nodeTLS(name string, ip net.IP) (*tls.Config, error) {
	ca, pair, err := issueNode(filepath.Join(c.dir, "pki"), name, ip, time.Now(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientCAs: ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}, nil
}
