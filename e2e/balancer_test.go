//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/cluster"
	"coracle/pkg/network"
)

// pair is a cluster of two nodes.
const pair = "e2e-pair"

// TestLoadBalancer reaches a Service of type LoadBalancer from the host, from a
// node and from a pod, and takes the power from the node that answers for it.
func TestLoadBalancer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the end-to-end run makes namespaces, mounts and cgroups: run it as root")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{t: t, root: root, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), home: t.TempDir()}
	s.ctl("cluster", "delete", pair, "--ignore-not-found")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.tryCtl("get", "nodes,pods,services,events", "-A", "-o", "wide")
			t.Log(out)
			s.announced(pair)
		}
		s.ctl("cluster", "delete", pair, "--ignore-not-found")
		left, err := (&cluster.Machine{}).Leftovers(context.Background(), pair)
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	})
	s.ctl("cluster", "create", pair, "--nodes", "2", "--images", filepath.Join(s.root, "bin", "images"))
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s.client = kubernetes.NewForConfigOrDie(config)
	nodes := []string{pair + "-1", pair + "-2"}
	for _, node := range nodes {
		s.server(node)
	}
	address := s.balancer()
	url := "http://" + address.String() + "/"
	s.eventually("the host is answered by the pods of both nodes", 30*time.Second, answeredBy(url, nodes...))
	for _, node := range nodes {
		s.fromNode(node, url)
	}
	s.run("client", "sh", "-c", "until printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 "+address.String()+" 80 | grep pair; do sleep 1; done; sleep 1000000")
	s.eventually("a pod is answered", time.Minute, func(ctx context.Context) error {
		logs, err := s.client.CoreV1().Pods("default").GetLogs("client", &corev1.PodLogOptions{}).DoRaw(ctx)
		if err == nil && !strings.Contains(string(logs), pair) {
			err = fmt.Errorf("logs %q", logs)
		}
		return err
	})
	// With policy Local the node that answers for the address has the endpoint.
	if _, err := s.client.CoreV1().Services("default").Patch(context.Background(), "echo", types.MergePatchType, []byte(`{"spec":{"externalTrafficPolicy":"Local"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	holder := s.holder(nodes, address)
	other := nodes[1-slices.Index(nodes, holder)]
	s.eventually("policy Local is in force", 30*time.Second, onlyBy(url, holder))
	s.ctl("cluster", "node", "kill", pair, holder)
	s.eventually("the other node answers after "+holder+" lost its power", 15*time.Second, answeredBy(url, other))
	s.ctl("cluster", "node", "start", pair, holder)
	s.eventually("the node that is back answers again", 2*time.Minute, onlyBy(url, holder))
	if err := s.client.CoreV1().Services("default").Delete(context.Background(), "echo", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.eventually("nobody has the address of a deleted service", 30*time.Second, func(context.Context) error {
		for _, node := range nodes {
			if s.hasAddress(node, address) {
				return fmt.Errorf("node %s has %s", node, address)
			}
		}
		return nil
	})
}

// announced logs what the nodes' agents said of addresses.
func (s *suite) announced(cluster string) {
	files, err := filepath.Glob("/var/lib/coracle/clusters/" + cluster + "/nodes/*/root/var/log/kubelet.log")
	if err != nil {
		s.t.Error(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			s.t.Error(err)
		}
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, "part=announce") {
				s.t.Log(file, line)
			}
		}
	}
}

// server is a pod on a node that says the node's name over HTTP.
func (s *suite) server(node string) {
	s.t.Helper()
	_, err := s.client.CoreV1().Pods("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo-" + node, Labels: map[string]string{"app": "echo"}},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: new(int64),
			// It is to be back with its node.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "main", Image: "busybox",
				Command: []string{"sh", "-c", "mkdir -p /www && echo " + node + " > /www/index.html && exec httpd -f -p 8080 -h /www"},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the server of "+node+" runs", time.Minute, s.running("default", "echo-"+node))
}

// balancer makes the Service and returns its address.
func (s *suite) balancer() (address netip.Addr) {
	s.t.Helper()
	none := false
	_, err := s.client.CoreV1().Services("default").Create(context.Background(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "echo"}, AllocateLoadBalancerNodePorts: &none,
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the service has an address", 10*time.Second, func(ctx context.Context) error {
		svc, err := s.client.CoreV1().Services("default").Get(ctx, "echo", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(svc.Status.LoadBalancer.Ingress) != 1 {
			return fmt.Errorf("status %+v", svc.Status)
		}
		address, err = netip.ParseAddr(svc.Status.LoadBalancer.Ingress[0].IP)
		return err
	})
	return address
}

// ask is one request.
func ask(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	return strings.TrimSpace(string(body)), err
}

// answeredBy wants answers of all the pods in some requests.
func answeredBy(url string, nodes ...string) func(context.Context) error {
	return func(context.Context) error {
		seen := map[string]bool{}
		for range 20 {
			body, err := ask(httpClient(), url)
			if err != nil {
				return err
			}
			seen[body] = true
			if !slices.ContainsFunc(nodes, func(n string) bool { return !seen[n] }) {
				return nil
			}
		}
		return fmt.Errorf("answered by %v, want %v", seen, nodes)
	}
}

// onlyBy wants answers of one pod and of no other.
func onlyBy(url, node string) func(context.Context) error {
	return func(context.Context) error {
		for range 10 {
			if body, err := ask(httpClient(), url); err != nil || body != node {
				return fmt.Errorf("answered by %q, %v, want %s", body, err, node)
			}
		}
		return nil
	}
}

// fromNode asks from a node's own network.
func (s *suite) fromNode(node, url string) {
	s.t.Helper()
	ns, err := network.PIDNS(s.nodeInit(pair, node))
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	client := httpClient()
	client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
		err = ns.Do(func() (err error) {
			conn, err = net.DialTimeout(network, address, client.Timeout)
			return err
		})
		return conn, err
	}}
	s.eventually("node "+node+" is answered", 30*time.Second, func(context.Context) error {
		body, err := ask(client, url)
		if err == nil && !strings.HasPrefix(body, pair) {
			err = fmt.Errorf("answered by %q", body)
		}
		return err
	})
}

// holder is the one node whose interface has an address.
func (s *suite) holder(nodes []string, address netip.Addr) string {
	s.t.Helper()
	var have []string
	for _, node := range nodes {
		if s.hasAddress(node, address) {
			have = append(have, node)
		}
	}
	if len(have) != 1 {
		s.t.Fatalf("%s is on the interfaces of %v, want one node", address, have)
	}
	return have[0]
}

func (s *suite) hasAddress(node string, address netip.Addr) bool {
	s.t.Helper()
	ns, err := network.PIDNS(s.nodeInit(pair, node))
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	all, err := ns.Addrs()
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.Contains(all, netip.PrefixFrom(address, 32))
}
