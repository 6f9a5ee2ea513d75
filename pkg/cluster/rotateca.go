package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/pki"
)

const (
	// spreadTimeout is how long the API server and the nodes may take to follow one
	// step: it looks at its files every ten seconds, and so do they.
	spreadTimeout = 3 * time.Minute
	spreadPoll    = 500 * time.Millisecond
	dialTimeout   = 5 * time.Second
	// agentPKI is where a node's agent keeps its certificates, as it sees it.
	agentPKI = "var/lib/kubelet/pki"
)

// agentCertificates are the files of those, each with its key.
var agentCertificates = []string{"kubelet-client-current.pem", "kubelet-server-current.pem"}

// replaced are the authorities that are replaced together, in the order in which
// each step is taken.
var replaced = []string{pki.ClusterCA, pki.FrontProxyCA}

// RotateCA replaces the authorities of a cluster. The first call makes new ones,
// has everybody trust both, then has everything issued by the new ones; nobody who
// knows the old one alone is cut off. finish gives the old ones up. A call that was
// interrupted is repeated. force finishes although some node has no certificate of
// the new authority.
func (m *Machine) RotateCA(ctx context.Context, name string, finish, force bool) error {
	b, unlock, err := m.open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	running, err := b.controlPlaneRuns(ctx)
	if err != nil {
		return err
	}
	r := &caRotation{boot: b, running: running}
	if finish {
		return r.finish(ctx, force)
	}
	return r.replace(ctx)
}

// caRotation is one call that takes a replacement on.
type caRotation struct {
	*boot
	running bool // the control plane
}

func (r *caRotation) dir() string { return r.f.control("pki") }

func (r *caRotation) load(name string) (*pki.Authorities, error) {
	return pki.LoadAuthorities(r.dir(), name, r.s.Name, time.Now(), rand.Reader)
}

// phase is that of the authority that comes last, once it has caught up with the
// first: a call that ended in between is gone on with.
func (r *caRotation) phase() (pki.Phase, error) {
	first, err := r.load(replaced[0])
	if err != nil {
		return "", err
	}
	for _, name := range replaced[1:] {
		if err := pki.Rotate(r.dir(), name, first.Phase, time.Now(), rand.Reader); err != nil {
			return "", err
		}
	}
	return first.Phase, nil
}

func (r *caRotation) rotate(to pki.Phase) error {
	for _, name := range replaced {
		if err := pki.Rotate(r.dir(), name, to, time.Now(), rand.Reader); err != nil {
			return err
		}
	}
	return nil
}

func (r *caRotation) say(format string, args ...any) {
	fmt.Fprintf(r.m.out(), format+"\n", args...)
}

func (r *caRotation) replace(ctx context.Context) error {
	phase, err := r.phase()
	if err != nil {
		return err
	}
	if phase == pki.Steady {
		if err := r.rotate(pki.Trusting); err != nil {
			return err
		}
		r.say("Cluster %s has a new authority", r.s.Name)
		phase = pki.Trusting
	}
	if phase == pki.Trusting {
		if err := r.spread(ctx); err != nil {
			return err
		}
		r.say("Everybody is told to trust it beside the old one")
		if err := r.rotate(pki.Issuing); err != nil {
			return err
		}
	}
	if err := r.spread(ctx); err != nil {
		return err
	}
	if r.running {
		if err := r.awaitNodes(ctx); err != nil {
			return err
		}
		if err := r.restartSimulated(ctx); err != nil {
			return err
		}
	}
	r.say("Everything is issued by the new authority; the old one is still trusted")
	r.say("Give it up with \"ctl cluster rotate-ca %s --finish\", once those have the new authority that are not told: copies of the kubeconfig, and pods that read theirs only when they started", r.s.Name)
	return nil
}

func (r *caRotation) finish(ctx context.Context, force bool) error {
	phase, err := r.phase()
	if err != nil {
		return err
	}
	switch phase {
	case pki.Trusting:
		return fmt.Errorf("the new authority of cluster %s is not in use yet: run \"ctl cluster rotate-ca %[1]s\" again first", r.s.Name)
	case pki.Steady:
		r.say("No authority of cluster %s is being replaced", r.s.Name)
		return r.spread(ctx) // an interrupted finish
	}
	if r.running && !force {
		missing, err := r.nodesLeft(ctx)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return fmt.Errorf("the old authority of cluster %s is not given up: no certificate of the new one is seen at %s (bring them up and repeat this, or give them up with --force)", r.s.Name, strings.Join(missing, ", "))
		}
	}
	if err := r.rotate(pki.Steady); err != nil {
		return err
	}
	if err := r.spread(ctx); err != nil {
		return err
	}
	r.say("The old authority of cluster %s is given up: its certificates count no more", r.s.Name)
	return nil
}

// spread has the nodes and the user's kubeconfig follow what is in the folder, and
// waits until the API server does.
func (r *caRotation) spread(ctx context.Context) error {
	a, err := r.load(pki.ClusterCA)
	if err != nil {
		return err
	}
	if r.running {
		waiting, cancel := context.WithTimeout(ctx, spreadTimeout)
		defer cancel()
		var last error
		if err := pollEvery(waiting, spreadPoll, func() (bool, error) { last = r.followed(waiting, a); return last == nil, nil }); err != nil {
			return fmt.Errorf("the API server does not follow the change of its authority (its log says why, and the command can be repeated): %w; the end of the log: %s",
				errors.Join(last, err), lastLines(r.f.apiserverLog(), 3))
		}
	}
	// The nodes come after the server: the first authority in their file is the one
	// that they ask for a certificate. Those that they begin with are issued anew.
	now := time.Now()
	if err := r.eachNode(func(i int) error { return issueNode(r.f, r.s, a, i, now) }); err != nil {
		return err
	}
	if !r.running || r.s.Kubeconfig == "" {
		return nil
	}
	return refreshContext(ctx, r.f, r.s)
}

// followed says whether the API server shows a certificate of the authority that
// signs, and tells everybody of all that are trusted.
func (r *caRotation) followed(ctx context.Context, a *pki.Authorities) error {
	pool := x509.NewCertPool()
	for _, c := range a.Trusted {
		pool.AddCert(c)
	}
	if err := shows(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(r.s.Port)), pool, a.Signer); err != nil {
		return fmt.Errorf("the API server: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.f.adminKubeconfig())
	if err != nil {
		return err
	}
	if string(config.CAData) != string(a.Bundle()) {
		return errors.New("the administrator's kubeconfig has other authorities")
	}
	client, err := adminClient(r.f)
	if err != nil {
		return err
	}
	return published(ctx, client, string(a.Bundle()))
}

// published says whether all namespaces are told of the bundle.
func published(ctx context.Context, client kubernetes.Interface, bundle string) error {
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		ns := &list.Items[i]
		if ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
			continue
		}
		m, err := client.CoreV1().ConfigMaps(ns.Name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if m.Data["ca.crt"] != bundle {
			return fmt.Errorf("ConfigMap kube-root-ca.crt of namespace %s has other authorities", ns.Name)
		}
	}
	return nil
}

// awaitNodes waits until every node that is up has certificates of the new
// authority. One that is not gets them when it starts, if it is this machine's.
func (r *caRotation) awaitNodes(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, spreadTimeout)
	defer cancel()
	var left []string
	err := pollEvery(waiting, spreadPoll, func() (bool, error) {
		var err error
		left, err = r.nodesLeft(waiting)
		return len(left) == 0, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		// No error: it is --finish that must not go on.
		r.say("No certificate of the new authority is seen after %s at %s", spreadTimeout, strings.Join(left, ", "))
		return nil
	}
	return err
}

// nodesLeft are the nodes that are up, or not this machine's, and are not seen with
// a certificate of the new authority.
func (r *caRotation) nodesLeft(ctx context.Context) ([]string, error) {
	a, err := r.load(pki.ClusterCA)
	if err != nil {
		return nil, err
	}
	var left []string
	local := map[string]bool{}
	for _, n := range r.s.Nodes {
		local[n.Name] = true
		if p, err := readProcess(r.f.nodePID(n.Name)); err != nil || !p.alive() {
			continue
		}
		if err := renewedBy(r.f.rootfs(n.Name, agentPKI), a.Signer); err != nil {
			left = append(left, n.Name)
		}
	}
	client, err := adminClient(r.f)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "!" + simulatedLabel})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		n := &list.Items[i]
		if local[n.Name] {
			continue
		}
		if err := shows(ctx, agentAddress(n), a.Signer.Pool(), a.Signer); err != nil {
			left = append(left, n.Name)
		}
	}
	return left, nil
}

// agentAddress is where the agent of a node listens.
func agentAddress(n *corev1.Node) string {
	port := n.Status.DaemonEndpoints.KubeletEndpoint.Port
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return net.JoinHostPort(a.Address, strconv.Itoa(int(port)))
		}
	}
	return net.JoinHostPort("", strconv.Itoa(int(port)))
}

// renewedBy says whether both certificates that an agent keeps are of an authority.
func renewedBy(dir string, ca *pki.CA) error {
	for _, name := range agentCertificates {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		certs, err := pki.ParseCertificates(data)
		if err != nil {
			return err
		}
		if err := certs[0].CheckSignatureFrom(ca.Cert); err != nil {
			return err
		}
	}
	return nil
}

// shows says whether a server shows a certificate that the authority has issued.
func shows(ctx context.Context, address string, pool *x509.CertPool, ca *pki.CA) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].CheckSignatureFrom(ca.Cert)
}

// restartSimulated has the simulated nodes read their kubeconfig again.
func (r *caRotation) restartSimulated(ctx context.Context) error {
	if on, err := r.simulatedRun(ctx); r.s.SimulatedNodes == 0 || err != nil || !on {
		return err
	}
	if err := endSimulated(ctx, r.f); err != nil {
		return err
	}
	return r.startSimulated(ctx)
}
