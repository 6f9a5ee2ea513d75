package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// simulatedLabel marks the Nodes of the simulated nodes.
	simulatedLabel = "coracle.dev/simulated"
	// SimulatedTaint keeps pods off the simulated nodes of a cluster that has
	// others as well.
	SimulatedTaint = simulatedLabel + "=true:NoSchedule"
	// simulatedTimeout bounds the time until all simulated nodes are ready, and
	// simulatedPoll is how often that is looked at: the lists are long.
	simulatedTimeout = 5 * time.Minute
	simulatedPoll    = 500 * time.Millisecond
	// simulatedGrace is how long the process gets to end by itself.
	simulatedGrace = 5 * time.Second
)

// widePods is the pod network of clusters with more nodes than the usual one has
// parts for.
var widePods = netip.MustParsePrefix("10.128.0.0/9")

// completeNodes fills in and checks how many nodes there are to be.
func (o *CreateOptions) completeNodes() error {
	if o.SimulatedNodes < 0 || o.SimulatedNodes > maxSimulated {
		return fmt.Errorf("a cluster of %d simulated nodes cannot be made: use at most %d", o.SimulatedNodes, maxSimulated)
	}
	if o.Nodes == 0 && o.SimulatedNodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 0 || o.Nodes > maxNodes {
		return fmt.Errorf("a cluster of %d nodes cannot be made: use 1 to %d", o.Nodes, maxNodes)
	}
	return nil
}

// simulatedPrefix is before the number in the names of the simulated nodes.
func (s *Spec) simulatedPrefix() string { return s.Name + "-sim" }

// simulatedArgs is the command line of the simulated nodes. They have the
// administrator's credential and act as the node that each request is about.
func simulatedArgs(f folder, s *Spec) []string {
	args := append([]string(nil), s.Programs.KubeletArgs...)
	args = append(args,
		"--simulated="+strconv.Itoa(s.SimulatedNodes),
		"--simulated-prefix="+s.simulatedPrefix(),
		"--kubeconfig="+f.adminKubeconfig(),
	)
	if len(s.Nodes) > 0 {
		args = append(args, "--register-with-taints="+SimulatedTaint)
	}
	return append(args, s.SimulatedFlags...)
}

func (b *boot) simulatedRun(context.Context) (bool, error) {
	p, err := readProcess(b.f.simulatedPID())
	return err == nil && p.alive(), err
}

func (b *boot) startSimulated(context.Context) error {
	if err := trimLog(b.f.simulatedLog()); err != nil {
		return err
	}
	b.simulatedSince = time.Now()
	cmd := exec.Command(b.s.Programs.Kubelet, simulatedArgs(b.f, b.s)...)
	cmd.Env = []string{nodePath, "HOME=" + b.f.control()}
	return b.startBeside(cmd, b.f.simulatedLog(), b.f.simulatedPID())
}

// awaitSimulated returns when all simulated nodes are ready and have renewed
// their leases since they were started.
func (b *boot) awaitSimulated(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, simulatedTimeout)
	defer cancel()
	client, err := adminClient(b.f)
	if err != nil {
		return err
	}
	ready := 0
	var last error
	tick := time.NewTicker(simulatedPoll)
	defer tick.Stop()
	for ready < b.s.SimulatedNodes {
		if p, err := readProcess(b.f.simulatedPID()); err != nil || !p.alive() {
			return errors.Join(err, fmt.Errorf("the simulated nodes ended: %s", lastLines(b.f.simulatedLog(), 3)))
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d of %d simulated nodes are ready after %s; the end of their log: %s",
				ready, b.s.SimulatedNodes, simulatedTimeout, lastLines(b.f.simulatedLog(), 3)), last)
		case <-tick.C:
		}
		var nodes *corev1.NodeList
		var leases *coordinationv1.LeaseList
		if nodes, last = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: simulatedLabel + "=" + b.s.simulatedPrefix()}); last != nil {
			continue
		}
		if leases, last = client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{}); last != nil {
			continue
		}
		ready = b.countSimulated(nodes.Items, leases.Items)
	}
	return nil
}

// countSimulated counts the simulated nodes that are there.
func (b *boot) countSimulated(nodes []corev1.Node, leases []coordinationv1.Lease) int {
	since := map[string]time.Time{}
	want := make([]NodeSpec, len(nodes))
	for i := range nodes {
		want[i].Name = nodes[i].Name
		since[nodes[i].Name] = b.simulatedSince
	}
	missing := notReady(want, since, nodes, leases)
	if missing == "" {
		return len(nodes)
	}
	return len(nodes) - strings.Count(missing, ", ") - 1
}

// endSimulated ends the simulated nodes. None there is no error.
func endSimulated(ctx context.Context, f folder) error {
	p, err := readProcess(f.simulatedPID())
	if err != nil {
		return err
	}
	if err := p.stop(ctx, simulatedGrace); err != nil {
		return fmt.Errorf("end the simulated nodes: %w", err)
	}
	if err := os.Remove(f.simulatedPID()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end the simulated nodes: %w", err)
	}
	return nil
}
