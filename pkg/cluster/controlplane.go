package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// apiTimeout bounds the start of the API server, nodesTimeout the time
	// until all nodes are ready.
	apiTimeout   = 60 * time.Second
	nodesTimeout = 90 * time.Second
	// statePoll is how often a starting part is looked at.
	statePoll = 25 * time.Millisecond
	// controlCgroup is the control plane's place beside the nodes', whose
	// names end in a number.
	controlCgroup = "control"
	// controlPlaneGrace is how long the control plane gets to end in order.
	controlPlaneGrace = 15 * time.Second
)

// controlPlaneArgs is the control plane's command line.
func controlPlaneArgs(f folder, s *Spec) []string {
	args := append([]string(nil), s.Programs.APIServerArgs...)
	if s.Hardened {
		args = append(args, "--hardened")
	}
	if n := s.NodeFailure; n != nil {
		args = append(args,
			"--node-monitor-grace-period="+n.Grace.Duration.String(),
			"--node-monitor-period=1s",
			"--default-not-ready-toleration-seconds="+strconv.FormatInt(n.NotReadySeconds, 10),
			"--default-unreachable-toleration-seconds="+strconv.FormatInt(n.UnreachableSeconds, 10),
		)
	}
	return append(args,
		"--all-in-one",
		"--enable-bootstrap-token-auth",
		"--data-dir="+f.control(),
		"--bind-address=127.0.0.1",
		"--advertise-address="+s.hostEnd().String(),
		"--secure-port="+strconv.Itoa(s.Port),
		"--service-cluster-ip-range="+s.ServiceCIDR.String(),
		"--cluster-cidr="+s.PodCIDR.String(),
		"--load-balancer-range="+s.loadBalancers().String(),
	)
}

func (b *boot) controlPlaneRuns(context.Context) (bool, error) {
	p, err := readProcess(b.f.apiserverPID())
	return err == nil && p.alive(), err
}

// startControlPlane does not wait for the API server: the nodes start meanwhile.
func (b *boot) startControlPlane(context.Context) error {
	if err := os.MkdirAll(b.f.control(), 0o700); err != nil {
		return fmt.Errorf("make the control plane's folder: %w", err)
	}
	if err := trimLog(b.f.apiserverLog()); err != nil {
		return err
	}
	cmd := exec.Command(b.s.Programs.APIServer, controlPlaneArgs(b.f, b.s)...)
	// Whoever starts the cluster, the control plane is the same.
	cmd.Env = []string{nodePath, "HOME=" + b.f.control()}
	return b.startBeside(cmd, b.f.apiserverLog(), b.f.apiserverPID())
}

// startBeside starts a program that belongs to no node.
func (b *boot) startBeside(cmd *exec.Cmd, log, pid string) error {
	p, err := startDetached(cmd, log, pid)
	if err != nil {
		return err
	}
	// In the cluster's cgroups it is found even when its process file is lost.
	hierarchies, err := hostHierarchies()
	if err != nil {
		return err
	}
	cgroups, err := createCgroups(hierarchies, b.s.Name, controlCgroup)
	if err != nil {
		return err
	}
	if err := joinCgroups(cgroups, p.PID); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil // one that has ended already is reported when it is waited for
}

func (b *boot) stopControlPlane(ctx context.Context) error {
	err := endControlPlane(ctx, b.f, 5*time.Second)
	return errors.Join(err, removeEmptyCgroups(b.s.Name, controlCgroup))
}

func endControlPlane(ctx context.Context, f folder, grace time.Duration) error {
	p, err := readProcess(f.apiserverPID())
	if err != nil {
		return err
	}
	if err := p.stop(ctx, grace); err != nil {
		return fmt.Errorf("stop the control plane: %w", err)
	}
	if err := os.Remove(f.apiserverPID()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop the control plane: %w", err)
	}
	return nil
}

// awaitAPI returns when the API server says that it is ready, or soon after
// its process has ended.
func (b *boot) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var last error
	err := poll(ctx, func() (bool, error) {
		p, err := readProcess(b.f.apiserverPID())
		if err != nil {
			return false, err
		}
		if !p.alive() {
			return false, fmt.Errorf("the API server ended: %s", lastLines(b.f.apiserverLog(), 3))
		}
		client, err := adminClient(b.f)
		if err != nil {
			last = err
			return false, nil
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(attempt)
		return last == nil, nil
	})
	if err != nil && last != nil && ctx.Err() != nil {
		return fmt.Errorf("the API server was not ready within %s: %w", apiTimeout, last)
	}
	return err
}

// adminClient uses the kubeconfig that the API server wrote.
func adminClient(f folder) (*kubernetes.Clientset, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", f.adminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	// Polling a starting server is not what the rate limit is for.
	cfg.Timeout, cfg.QPS = 10*time.Second, -1
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	return client, nil
}

// awaitNodes returns when every node of the cluster is ready, by a sign of
// life that is newer than its start: what the API server kept from before a
// stop says nothing.
func (b *boot) awaitNodes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nodesTimeout)
	defer cancel()
	client, err := adminClient(b.f)
	if err != nil {
		return err
	}
	var last error
	missing := nodeNames(b.s.Nodes)
	err = poll(ctx, func() (bool, error) {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "!" + simulatedLabel})
		if err != nil {
			last = err
			return false, nil
		}
		leases, err := b.leases(ctx, client)
		if err != nil {
			last = err
			return false, nil
		}
		last = nil
		missing = notReady(b.s.Nodes, b.startTimes(), list.Items, leases)
		return missing == "", nil
	})
	if err != nil && ctx.Err() != nil {
		first := strings.SplitN(missing, ", ", 2)[0]
		return errors.Join(fmt.Errorf("not ready within %s: %s; the end of the log of the agent of %s: %s",
			nodesTimeout, missing, first, lastLines(b.f.rootfs(first, "var/log/kubelet.log"), 3)), last)
	}
	return err
}

// leases are those of the nodes with containers. Where there are simulated ones
// too they are read one by one: the others are thousands.
func (b *boot) leases(ctx context.Context, client kubernetes.Interface) ([]coordinationv1.Lease, error) {
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if b.s.SimulatedNodes == 0 {
		list, err := leases.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	}
	var out []coordinationv1.Lease
	for _, n := range b.s.Nodes {
		lease, err := leases.Get(ctx, n.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, *lease)
	}
	return out, nil
}

// notReady names the wanted nodes that the API server does not show as ready,
// or that have not renewed their lease since the time in since.
func notReady(want []NodeSpec, since map[string]time.Time, nodes []corev1.Node, leases []coordinationv1.Lease) string {
	ready := map[string]bool{}
	for i := range nodes {
		for _, c := range nodes[i].Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready[nodes[i].Name] = true
			}
		}
	}
	renewed := map[string]time.Time{}
	for i := range leases {
		if t := leases[i].Spec.RenewTime; t != nil {
			renewed[leases[i].Name] = t.Time
		}
	}
	var missing []string
	for _, n := range want {
		if !ready[n.Name] || renewed[n.Name].Before(since[n.Name]) {
			missing = append(missing, n.Name)
		}
	}
	return strings.Join(missing, ", ")
}

// poll calls fn until it is done, fails, or ctx ends.
func poll(ctx context.Context, fn func() (bool, error)) error {
	return pollEvery(ctx, statePoll, fn)
}

// pollEvery is poll for what costs more to look at.
func pollEvery(ctx context.Context, every time.Duration, fn func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := fn()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// endpoint is the API server's address on the host.
func (s *Spec) endpoint() string {
	return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
}
