package cluster

import (
	"crypto/rand"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/nodeconfig"
	"coracle/pkg/pki"
)

// Paths of a node's agent, as it sees them.
const (
	nodeDir        = "/etc/coracle"
	nodeKubeconfig = nodeDir + "/kubeconfig"
	nodeCA         = nodeDir + "/ca.crt"
	// clientPair and servingPair name certificate and key files in nodeDir.
	clientPair  = "client"
	servingPair = "serving"
)

// loadCA reads the cluster's authority in control/pki, which the API server shares.
func loadCA(f folder, s *Spec, now time.Time) (*pki.Authorities, error) {
	return pki.LoadAuthorities(f.control("pki"), pki.ClusterCA, s.Name, now, rand.Reader)
}

// issueNode writes the certificates that a node begins with, its kubeconfig and
// its agent's configuration. Certificates that are good are kept. While the node
// runs, its agent renews its certificates by itself, in a folder of its own; those
// that it begins with spare it the wait, and let in one that was off too long.
func issueNode(f folder, s *Spec, by *pki.Authorities, index int, now time.Time) error {
	n := &s.Nodes[index]
	dir, ca := f.rootfs(n.Name, nodeDir), by.Signer
	_, err := pki.LoadOrCreate(dir, clientPair, ca, pki.Request{
		CommonName:   "system:node:" + n.Name,
		Organization: []string{"system:nodes"},
		ClientAuth:   true,
	}, now, rand.Reader)
	if err != nil {
		return fmt.Errorf("issue the certificates of node %s: %w", n.Name, err)
	}
	_, err = pki.LoadOrCreate(dir, servingPair, ca, pki.Request{
		CommonName:   "system:node:" + n.Name,
		Organization: []string{"system:nodes"},
		DNSNames:     []string{n.Name},
		IPs:          []net.IP{n.Address.AsSlice()},
		ServerAuth:   true,
	}, now, rand.Reader)
	if err != nil {
		return fmt.Errorf("issue the certificates of node %s: %w", n.Name, err)
	}
	if err := writeFile(f.rootfs(n.Name, nodeCA), by.Bundle(), 0o644); err != nil {
		return err
	}
	kubeconfig, err := clientcmd.Write(*nodeClientConfig(s, n))
	if err != nil {
		return fmt.Errorf("write the kubeconfig of node %s: %w", n.Name, err)
	}
	if err := writeFile(f.rootfs(n.Name, nodeKubeconfig), kubeconfig, 0o600); err != nil {
		return err
	}
	cfg := kubeletConfig(s, index)
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration of node %s: %w", n.Name, err)
	}
	return writeJSON(f.rootfs(n.Name, nodeconfig.Path), cfg)
}

// nodeClientConfig names the certificate files instead of holding them, so
// that a renewed certificate needs no new kubeconfig.
func nodeClientConfig(s *Spec, n *NodeSpec) *clientcmdapi.Config {
	user := "system:node:" + n.Name
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[s.Name] = &clientcmdapi.Cluster{
		Server:               "https://" + net.JoinHostPort(s.hostEnd().String(), strconv.Itoa(s.Port)),
		CertificateAuthority: nodeCA,
	}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{
		ClientCertificate: pki.CertFile(nodeDir, clientPair),
		ClientKey:         pki.KeyFile(nodeDir, clientPair),
	}
	cfg.Contexts[s.Name] = &clientcmdapi.Context{Cluster: s.Name, AuthInfo: user}
	cfg.CurrentContext = s.Name
	return cfg
}

func kubeletConfig(s *Spec, index int) *nodeconfig.Kubelet {
	n := &s.Nodes[index]
	return &nodeconfig.Kubelet{
		NodeName:        n.Name,
		NodeIP:          n.Address,
		Kubeconfig:      nodeKubeconfig,
		ClientCAFile:    nodeCA,
		ServingCertFile: pki.CertFile(nodeDir, servingPair),
		ServingKeyFile:  pki.KeyFile(nodeDir, servingPair),

		RotateCertificates: true,

		RuntimeEndpoint: "unix://" + runtimeSocket,
		RootDir:         filepath.Join("/var/lib", "kubelet"),
		ClusterDomain:   s.ClusterDomain,
		ClusterDNS:      s.ClusterDNS,
		ServiceCIDR:     s.ServiceCIDR,
		PodCIDR:         s.PodCIDR,
		CNIConfDir:      cniConfDir,
		CNIBinDir:       cniBinDir,
		NodeLabels:      map[string]string{nodeNumberLabel: strconv.Itoa(index + 1)},
		Closed:          !s.Egress,
		LoadBalancers:   s.loadBalancers(),
	}
}

// nodeNumberLabel lets a manifest pick a node whatever the cluster's name is.
const nodeNumberLabel = "coracle.dev/node-number"
