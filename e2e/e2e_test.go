//go:build e2e

// Package e2e runs the demo on a real cluster: three nodes with real
// containers, made by bin/ctl, used as a person would, broken, healed and
// deleted, with a look for what is left over. It needs root, the
// distribution's packages (hack/install-packages) and the built programs:
// "make e2e" provides them.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/cluster"
)

// name is the cluster's; another one of a person's own is not touched.
const name = "e2e"

// suite is one cluster and the way to it.
type suite struct {
	t          *testing.T
	root       string // of the checkout
	kubeconfig string
	home       string // of the person who types, for what clients keep there
	client     kubernetes.Interface
}

func TestCluster(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the end-to-end run makes namespaces, mounts and cgroups: run it as root")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{t: t, root: root, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), home: t.TempDir()}
	s.ctl("cluster", "delete", name, "--ignore-not-found")
	s.noLeftovers()
	t.Cleanup(func() {
		s.keepLogs()
		s.ctl("cluster", "delete", name, "--ignore-not-found")
		s.noLeftovers()
	})
	s.create()
	s.quickStart()
	s.tour()
	s.stockClients()
	s.realRuntime()
	s.storage()
	s.demo()
	s.survivesNodeKill()
	s.survivesPartition()
	s.replacesAuthority()
	s.survivesRestart()
	s.survivesPowerCut()
}

// ctl runs the tool and returns what it printed; a failure ends the test.
func (s *suite) ctl(args ...string) string {
	s.t.Helper()
	out, err := s.tryCtl(args...)
	if err != nil {
		s.t.Fatalf("ctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *suite) tryCtl(args ...string) (string, error) {
	return s.program("", "ctl", args...)
}

// commandLimit bounds every command that the run starts.
const commandLimit = 3 * time.Minute

// program runs one of the built programs as a person would, with input on its
// standard input, and returns what it printed.
func (s *suite) program(input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	return s.start(ctx, input, filepath.Join(s.root, "bin", name), args...)
}

func (s *suite) start(ctx context.Context, input, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig, "HOME="+s.home)
	cmd.Dir = s.root
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// eventually polls until ok or the time is up.
func (s *suite) eventually(what string, limit time.Duration, ok func(ctx context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begin := time.Now()
	for {
		err := ok(ctx)
		if err == nil {
			s.t.Logf("%s: after %.1f s", what, time.Since(begin).Seconds())
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *suite) create() {
	begin := time.Now()
	s.t.Log(s.ctl("cluster", "create", name, "--nodes", "3", "--images", filepath.Join(s.root, "bin", "images")))
	s.connect()
	s.run("first", "sleep", "1000000")
	s.eventually("the first pod runs", time.Minute, s.running("default", "first"))
	s.t.Logf("cluster create to first pod Running: %.2f s", time.Since(begin).Seconds())
	// Creating it again is no error with --ensure and changes nothing.
	s.ctl("cluster", "create", name, "--nodes", "3", "--images", filepath.Join(s.root, "bin", "images"), "--ensure")
	if out, err := s.tryCtl("cluster", "create", name); err == nil || !strings.Contains(out, "exists") {
		s.t.Errorf("creating a cluster that exists: %v, %s", err, out)
	}
}

// connect makes the client of the kubeconfig as it is now.
func (s *suite) connect() {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	config.QPS = -1 // what it measures is the cluster, not its own limit
	s.client = kubernetes.NewForConfigOrDie(config)
}

// run makes a bare busybox pod.
func (s *suite) run(pod string, command ...string) {
	s.t.Helper()
	_, err := s.client.CoreV1().Pods("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers:                    []corev1.Container{{Name: "main", Image: "busybox", Command: command}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) running(namespace, pod string) func(context.Context) error {
	return func(ctx context.Context) error {
		p, err := s.client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod %s is %s: %+v", pod, p.Status.Phase, p.Status.ContainerStatuses)
		}
		return nil
	}
}

// quickStart looks at one pod from inside and outside.
func (s *suite) quickStart() {
	s.run("talker", "sh", "-c", "nslookup kubernetes.default.svc.cluster.local && echo token: $(wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token) && echo done && sleep 1000000")
	s.eventually("a pod resolves names and says so in its logs", time.Minute, func(ctx context.Context) error {
		logs, err := s.client.CoreV1().Pods("default").GetLogs("talker", &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(string(logs), "10.96.0.1") || !strings.Contains(string(logs), "done") {
			return fmt.Errorf("logs %q", logs)
		}
		return nil
	})
	if err := s.client.CoreV1().Pods("default").Delete(context.Background(), "talker", metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the pod is gone", time.Minute, func(ctx context.Context) error {
		list, err := s.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=talker"})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("pod talker is still there")
		}
		return err
	})
}

// demo applies the two-tier application and talks to it from the host.
func (s *suite) demo() {
	s.ctl("apply", "-f", "manifests/examples/demo")
	s.eventually("the demo is available", 2*time.Minute, s.available)
	s.eventually("the page answers through a NodePort", 30*time.Second, s.page("Guest book"))
	req, err := http.NewRequest(http.MethodPost, s.url(1), strings.NewReader("hello from the test"))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := httpClient().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		s.t.Fatalf("posting an entry: %s", resp.Status)
	}
	s.eventually("the entry is kept", 30*time.Second, s.page("hello from the test"))
}

func (s *suite) available(ctx context.Context) error {
	for _, d := range []string{"web", "store"} {
		dep, err := s.client.AppsV1().Deployments("demo").Get(ctx, d, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !done(dep) {
			return fmt.Errorf("deployment %s: %+v", d, dep.Status)
		}
	}
	return nil
}

func done(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas
}

// url is the front end on the node of a number.
func (s *suite) url(number int) string {
	nodes, err := s.client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{LabelSelector: fmt.Sprintf("coracle.dev/node-number=%d", number)})
	if err != nil || len(nodes.Items) != 1 {
		s.t.Fatalf("find node %d: %v", number, err)
	}
	for _, a := range nodes.Items[0].Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return "http://" + a.Address + ":30080/"
		}
	}
	s.t.Fatalf("node %d has no address", number)
	return ""
}

// httpClient makes a new connection each time, so that each request may go to
// another endpoint.
func httpClient() *http.Client {
	return &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// page asks the first two nodes and wants the text in both answers.
func (s *suite) page(text string) func(context.Context) error {
	urls := []string{s.url(1), s.url(2)}
	return func(ctx context.Context) error {
		for _, url := range urls {
			resp, err := httpClient().Get(url)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			if closeErr := resp.Body.Close(); err == nil {
				err = closeErr
			}
			if err != nil {
				return err
			}
			if !strings.Contains(string(body), text) {
				return fmt.Errorf("%s: %s without %q", url, resp.Status, text)
			}
		}
		return nil
	}
}

// survivesNodeKill takes the power from the third node: page and data stay,
// its pods are replaced, and it comes back.
func (s *suite) survivesNodeKill() {
	s.ctl("cluster", "node", "kill", name, name+"-3")
	s.eventually("the page and its data answer without the third node", 2*time.Minute, func(ctx context.Context) error {
		for range 20 { // each request may go to any endpoint that is still listed
			if err := s.page("hello from the test")(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	s.eventually("the dead node's pods are replaced", 3*time.Minute, func(ctx context.Context) error {
		pods, err := s.client.CoreV1().Pods("demo").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods.Items {
			p := &pods.Items[i]
			if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && p.Spec.NodeName != name+"-3" {
				ready++
			}
		}
		if ready < 3 {
			return fmt.Errorf("%d of 3 run on living nodes", ready)
		}
		return nil
	})
	s.ctl("cluster", "node", "start", name, name+"-3")
	s.eventually("the third node is back", 2*time.Minute, func(ctx context.Context) error {
		node, err := s.client.CoreV1().Nodes().Get(ctx, name+"-3", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("node conditions %+v", node.Status.Conditions)
	})
}

// survivesRestart stops the whole cluster and starts it again.
func (s *suite) survivesRestart() {
	s.ctl("cluster", "stop", name)
	s.ctl("cluster", "start", name)
	s.eventually("the demo and its data are back", 2*time.Minute, func(ctx context.Context) error {
		if err := s.available(ctx); err != nil {
			return err
		}
		return s.page("hello from the test")(ctx)
	})
}

// noLeftovers fails when the machine still has something of the cluster.
func (s *suite) noLeftovers() {
	s.t.Helper()
	m := &cluster.Machine{}
	left, err := m.Leftovers(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(left) > 0 {
		s.t.Errorf("left over on this machine: %v", left)
	}
}

// keepLogs prints the ends of the cluster's logs when the test failed.
func (s *suite) keepLogs() {
	if !s.t.Failed() {
		return
	}
	files, err := filepath.Glob(filepath.Join(cluster.DefaultRoot, name, "nodes", "*", "root", "var", "log", "*.log"))
	if err != nil {
		s.t.Log(err)
	}
	for _, f := range append(files, filepath.Join(cluster.DefaultRoot, name, "apiserver.log")) {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if len(data) > 4000 {
			data = data[len(data)-4000:]
		}
		s.t.Logf("the end of %s:\n%s", f, data)
	}
}
