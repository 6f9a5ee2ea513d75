package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"coracle/pkg/kubelet/logs"
	"coracle/pkg/kubelet/server"
	"coracle/pkg/pki"
)

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

// helloHandler is the web server in every pod.
type helloHandler struct{}

func (helloHandler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "hello from the pod")
}

// hostAddress is an address of this machine that is not on the loopback: the
// API server reaches no node there. Connections to it stay in the machine.
func hostAddress() (net.IP, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP, nil
		}
	}
	return nil, errors.New("these tests need an IPv4 address besides the loopback's: give one to an interface, for example with \"ip link add dummy0 type dummy\" and \"ip addr add\"")
}

// issueNode issues the serving certificate of a node's agent.
func issueNode(dir, name string, ip net.IP, now time.Time, random io.Reader) (*pki.CA, *pki.Pair, error) {
	ca, err := pki.LoadOrCreateCA(dir, "ca", "coracle", now, random)
	if err != nil {
		return nil, nil, err
	}
	pair, err := ca.Issue(pki.Request{CommonName: "system:node:" + name, Organization: []string{"system:nodes"},
		IPs: []net.IP{ip}, ServerAuth: true}, now, random)
	return ca, pair, err
}

// simulated is a node whose containers are goroutines. The real server of the
// node agent and the real streaming server of a runtime stand in front of it.
//
// A container's arguments are its program: "echo WORDS" prints and ends,
// "exit N" ends with a code, "cat" copies its input, "sleep" runs on.
type simulated struct {
	name    string
	client  kubernetes.Interface
	logDir  string
	streams streaming.Server
	port    int // where port-forward ends: an HTTP server

	mu   sync.Mutex
	pods map[types.UID]*corev1.Pod
}

// startNode adds a node to the script's cluster: "node NAME".
func startNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: node NAME")
	}
	c := ts.Value(clusterKey{}).(*testCluster)
	n := &simulated{name: args[0], client: c.client, logDir: filepath.Join(c.dir, "logs"), pods: map[types.UID]*corev1.Pod{}}
	ts.Check(n.start(ts, c))
}

func (n *simulated) start(ts *testscript.TestScript, c *testCluster) error {
	var err error
	cfg := streaming.DefaultConfig
	backend := httptest.NewUnstartedServer(nil)
	cfg.BaseURL = &url.URL{Scheme: "http", Host: backend.Listener.Addr().String(), Path: "/"}
	if n.streams, err = streaming.NewServer(cfg, n); err != nil {
		return err
	}
	backend.Config.Handler = n.streams
	backend.Start()
	web := httptest.NewServer(helloHandler{})
	n.port = web.Listener.Addr().(*net.TCPAddr).Port
	ip, err := hostAddress()
	if err != nil {
		return err
	}
	tlsConfig, err := c.nodeTLS(n.name, ip)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
	if err != nil {
		return err
	}
	agent, err := server.New(server.Config{Listener: listener, TLS: tlsConfig, NodeName: n.name, Pods: n, Runtime: agentRuntime{n}, LogDir: n.logDir,
		Auth: func(context.Context, string, []string, string, string) error { return nil }})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := agent.Run(ctx); err != nil {
			ts.Logf("the node's server: %v", err)
		}
	})
	wg.Go(func() { n.loop(ctx) })
	ts.Defer(func() {
		cancel()
		wg.Wait()
		backend.Close()
		web.Close()
	})
	return n.register(ctx, listener.Addr().(*net.TCPAddr))
}

// register makes the Node, ready.
func (n *simulated) register(ctx context.Context, agent *net.TCPAddr) error {
	resources := corev1.ResourceList{"cpu": quantity("4"), "memory": quantity("8Gi"), "pods": quantity("110")}
	node, err := n.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: n.name, Labels: map[string]string{"kubernetes.io/hostname": n.name}}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	now := metav1.Now()
	node.Status = corev1.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: agent.IP.String()}},
		Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(agent.Port)}},
		NodeInfo:        corev1.NodeSystemInfo{OSImage: "Test OS", OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v1.37.0", ContainerRuntimeVersion: "test://1"},
	}
	if node, err = n.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	// The taint of a node that was not ready yet.
	node.Spec.Taints = nil
	_, err = n.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // the controller was faster
	}
	return err
}

// loop runs the node's pods until ctx ends.
func (n *simulated) loop(ctx context.Context) {
	for ctx.Err() == nil {
		w, err := n.client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.name})
		if err != nil {
			continue
		}
		for e := range w.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				n.sync(ctx, pod)
			}
		}
	}
}

// sync starts a new pod and removes one that is being deleted.
func (n *simulated) sync(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		now := int64(0)
		_ = n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		return
	}
	n.mu.Lock()
	_, known := n.pods[pod.UID]
	if !known {
		n.pods[pod.UID] = pod
	}
	n.mu.Unlock()
	if known {
		return
	}
	pod = pod.DeepCopy()
	pod.Status.Phase, pod.Status.PodIP, pod.Status.HostIP = corev1.PodRunning, "10.244.0.9", "127.0.0.1"
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	ended := 0
	for _, c := range pod.Spec.Containers {
		out, code, done := program(append(c.Command, c.Args...))
		n.writeLog(pod, c.Name, out)
		s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "sha256:test", ContainerID: "test://" + c.Name, Ready: !done}
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Now()}
		if done {
			ended++
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: reason(code), StartedAt: metav1.Now(), FinishedAt: metav1.Now()}}
			pod.Status.Phase = corev1.PodSucceeded
			if code != 0 {
				pod.Status.Phase = corev1.PodFailed
			}
		}
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, s)
	}
	if ended < len(pod.Spec.Containers) || pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
		pod.Status.Phase = corev1.PodRunning
	}
	n.mu.Lock()
	n.pods[pod.UID] = pod
	n.mu.Unlock()
	_, _ = n.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

func reason(code int) string {
	if code == 0 {
		return "Completed"
	}
	return "Error"
}

// program runs what needs no input: what it prints, and how it ends.
func program(args []string) (out string, code int, done bool) {
	if len(args) == 0 {
		return "", 0, false
	}
	switch args[0] {
	case "echo":
		return strings.Join(args[1:], " ") + "\n", 0, true
	case "exit":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			n = 2
		}
		return "", n, true
	case "flash":
		return "a flash\n", 0, false
	case "serve":
		return "line 1\nline 2\nline 3\n", 0, false
	}
	return "", 0, false
}

// writeLog writes a log as a runtime does.
func (n *simulated) writeLog(pod *corev1.Pod, container, text string) {
	dir := filepath.Join(logs.PodDir(n.logDir, pod), container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		panic(err)
	}
	var b strings.Builder
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		fmt.Fprintf(&b, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), sc.Text())
	}
	if err := os.WriteFile(filepath.Join(dir, "0.log"), []byte(b.String()), 0o644); err != nil {
		panic(err)
	}
}

// Pods, Pod, Container and Sandbox are what the node's server asks for.
func (n *simulated) Pods() []*corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(n.pods))
	for _, p := range n.pods {
		out = append(out, p)
	}
	return out
}

func (n *simulated) Pod(namespace, name string) (*corev1.Pod, bool) {
	for _, p := range n.Pods() {
		if p.Namespace == namespace && p.Name == name {
			return p, true
		}
	}
	return nil, false
}

func (n *simulated) Container(_ types.UID, name string, previous bool) (server.Container, bool) {
	if previous {
		return server.Container{}, false
	}
	return server.Container{ID: name, LogName: name + "/0.log", Running: func() bool { return true }}, true
}

func (n *simulated) Sandbox(uid types.UID) (string, bool) { return string(uid), true }

func (r agentRuntime) ContainerStats(context.Context) ([]*runtimeapi.ContainerStats, error) {
	return nil, nil
}

// agentRuntime is the runtime as the node's server sees it.
type agentRuntime struct{ *simulated }

func (r agentRuntime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (string, error) {
	resp, err := r.streams.GetExec(req)
	return resp.GetUrl(), err
}

func (r agentRuntime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (string, error) {
	resp, err := r.streams.GetAttach(req)
	return resp.GetUrl(), err
}

func (r agentRuntime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (string, error) {
	resp, err := r.streams.GetPortForward(req)
	return resp.GetUrl(), err
}

// Exec runs a command line, see simulated.
func (n *simulated) Exec(_ context.Context, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	switch cmd[0] {
	case "cat":
		_, err := io.Copy(out, in)
		return err
	case "where":
		_, err := fmt.Fprintln(out, container)
		return err
	case "complain":
		_, err := fmt.Fprintln(errOut, "it hurts")
		return err
	}
	text, code, done := program(cmd)
	if !done {
		return errors.New("executable file not found: " + cmd[0])
	}
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit %d", code), Code: code}
	}
	return nil
}

// Attach echoes the input; its end is the end of the container.
func (n *simulated) Attach(ctx context.Context, container string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if n.flash(container) {
		// The runtime is quicker than the agent's status.
		return errors.Join(errors.New("no running task found"), n.finish(ctx, container))
	}
	if _, err := fmt.Fprintf(out, "attached to %s\n", container); err != nil || in == nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return n.finish(ctx, container)
}

// flash says whether a container runs the program "flash", which has ended by
// the time anybody attaches, though its status says otherwise.
func (n *simulated) flash(container string) bool {
	return slices.ContainsFunc(n.Pods(), func(p *corev1.Pod) bool {
		c := p.Spec.Containers[0]
		return c.Name == container && slices.Contains(c.Args, "flash")
	})
}

// finish ends the container of a pod that is not restarted, as the end of its
// input does.
func (n *simulated) finish(ctx context.Context, container string) error {
	for _, pod := range n.Pods() {
		if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pod.Spec.Containers[0].Name != container {
			continue
		}
		status := fmt.Appendf(nil, `{"status":{"phase":"Succeeded","containerStatuses":[{"name":%q,"state":{"running":null,"terminated":{"exitCode":0}}}]}}`, container)
		if _, err := n.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
	}
	return nil
}

// PortForward connects every port to one web server.
func (n *simulated) PortForward(_ context.Context, _ string, _ int32, stream io.ReadWriteCloser) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, err = io.Copy(stream, conn)
	return err
}
