// Package nodeconfig is the configuration file of a node's agent: the one
// thing that whoever makes a node (a local cluster, a join) and the kubelet
// must agree on. It imports nothing but the standard library, so that neither
// side drags the other along.
//
// The file is JSON. Unknown fields are errors, for they are misspelt settings.
package nodeconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
)

// Path is where a node of a local cluster has its agent's configuration.
const Path = "/etc/coracle/kubelet.json"

// maxBytes bounds the file; a real one is below 4 KiB.
const maxBytes = 1 << 20

// Kubelet is what a node's agent has to be told. All paths are as the agent
// sees them.
type Kubelet struct {
	// NodeName is the name of the node object, a DNS subdomain.
	NodeName string `json:"nodeName"`
	// NodeIP is the address that other nodes reach this one at.
	NodeIP netip.Addr `json:"nodeIP"`
	// Kubeconfig is the file with the API server's address and the node's
	// identity (system:node:NAME in group system:nodes). Where it does not exist
	// yet, the agent makes it out of BootstrapKubeconfig.
	Kubeconfig string `json:"kubeconfig"`
	// BootstrapKubeconfig is the file with the identity under which the agent asks
	// for its first client certificate, commonly a bootstrap token. It needs
	// RotateCertificates. An agent that has one keeps the authorities in ClientCAFile
	// and Kubeconfig up to date when the cluster replaces its own.
	BootstrapKubeconfig string `json:"bootstrapKubeconfig,omitempty"`
	// RotateCertificates has the agent ask for its certificates, and for new ones
	// in time. Those of Kubeconfig and ServingCertFile are then what it begins with,
	// and may be missing.
	RotateCertificates bool `json:"rotateCertificates,omitempty"`
	// CertDir is where the agent keeps certificates; empty means pki in RootDir.
	CertDir string `json:"certDir,omitempty"`
	// ClientCAFile verifies who calls the agent's own server. Of several authorities
	// the first signs: certificates of the others are renewed. The file is followed.
	ClientCAFile string `json:"clientCAFile"`
	// ServingCertFile and ServingKeyFile are what that server shows; the
	// certificate names NodeName and NodeIP.
	ServingCertFile string `json:"servingCertFile,omitempty"`
	ServingKeyFile  string `json:"servingKeyFile,omitempty"`
	// Port is the agent's own server's; zero means 10250.
	Port int `json:"port,omitempty"`
	// RuntimeEndpoint is the CRI socket as a unix:// address.
	RuntimeEndpoint string `json:"runtimeEndpoint"`
	// RootDir holds volumes and checkpoints; empty means /var/lib/kubelet.
	RootDir string `json:"rootDir,omitempty"`
	// ClusterDomain is the DNS suffix of services, for example cluster.local.
	ClusterDomain string `json:"clusterDomain"`
	// ClusterDNS is the address at which the agent serves DNS.
	ClusterDNS netip.Addr `json:"clusterDNS"`
	// ServiceCIDR is the range of service addresses, PodCIDR that of all pods.
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	PodCIDR     netip.Prefix `json:"podCIDR"`
	// CNIConfDir and CNIBinDir are the runtime's folders for the pod network.
	CNIConfDir string `json:"cniConfDir,omitempty"`
	CNIBinDir  string `json:"cniBinDir,omitempty"`
	// CgroupRoot is the cgroup below which the pods' cgroups are made, as
	// seen in the agent's cgroup namespace; empty means the top.
	CgroupRoot string `json:"cgroupRoot,omitempty"`
	// NodeLabels are set on the node object when the agent registers it.
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
	// Closed says that the node has no way out of its cluster, so that a
	// failed image pull can name the remedy.
	Closed bool `json:"closed,omitempty"`
	// LoadBalancers are addresses of NodeIP's network that the nodes answer for
	// on behalf of Services; the zero prefix means that somebody else does.
	LoadBalancers netip.Prefix `json:"loadBalancers,omitzero"`
}

// Read reads and checks a configuration file.
func Read(path string) (*Kubelet, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read node configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read node configuration: %w", err)
	}
	k, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("node configuration %s: %w", path, err)
	}
	return k, nil
}

// Parse decodes and checks a configuration.
func Parse(data []byte) (*Kubelet, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxBytes)
	}
	k := new(Kubelet)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(k); err != nil {
		return nil, err
	}
	return k, k.Validate()
}

// Validate names every required field that is missing and every one that
// contradicts another.
func (k *Kubelet) Validate() error {
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"nodeName", k.NodeName},
		{"kubeconfig", k.Kubeconfig},
		{"clientCAFile", k.ClientCAFile},
		{"runtimeEndpoint", k.RuntimeEndpoint},
		{"clusterDomain", k.ClusterDomain},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", f.name))
		}
	}
	if !k.RotateCertificates && (k.ServingCertFile == "" || k.ServingKeyFile == "") {
		errs = append(errs, errors.New("servingCertFile and servingKeyFile are missing, and rotateCertificates does not say to ask for them"))
	}
	if k.BootstrapKubeconfig != "" && !k.RotateCertificates {
		errs = append(errs, errors.New("bootstrapKubeconfig needs rotateCertificates"))
	}
	if !k.NodeIP.IsValid() {
		errs = append(errs, errors.New("nodeIP is missing"))
	}
	if !k.ServiceCIDR.IsValid() {
		errs = append(errs, errors.New("serviceCIDR is missing"))
	}
	if !k.PodCIDR.IsValid() {
		errs = append(errs, errors.New("podCIDR is missing"))
	}
	if k.ServiceCIDR.IsValid() && !k.ServiceCIDR.Contains(k.ClusterDNS) {
		errs = append(errs, fmt.Errorf("clusterDNS %s is not in serviceCIDR %s", k.ClusterDNS, k.ServiceCIDR))
	}
	if k.ServiceCIDR.IsValid() && k.PodCIDR.IsValid() && k.ServiceCIDR.Overlaps(k.PodCIDR) {
		errs = append(errs, fmt.Errorf("serviceCIDR %s and podCIDR %s overlap", k.ServiceCIDR, k.PodCIDR))
	}
	if k.LoadBalancers.IsValid() && k.LoadBalancers.Contains(k.NodeIP) {
		errs = append(errs, fmt.Errorf("nodeIP %s is in loadBalancers %s", k.NodeIP, k.LoadBalancers))
	}
	if k.Port < 0 || k.Port > 65535 {
		errs = append(errs, fmt.Errorf("port %d is not a port", k.Port))
	}
	return errors.Join(errs...)
}
