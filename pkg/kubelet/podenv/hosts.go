package podenv

import (
	"bytes"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Hosts is what a pod's hosts file is made from.
type Hosts struct {
	Pod *corev1.Pod
	// PodIPs are the pod's addresses, the primary one first.
	PodIPs []string
	// ClusterDomain is the suffix of the pod's domain, such as "cluster.local".
	ClusterDomain string
	// NodeHosts is the node's own hosts file, the base for hostNetwork pods.
	NodeHosts []byte
}

// The first lines tell users, and tests, who wrote the file.
const (
	managedHosts     = "# Kubernetes-managed hosts file.\n"
	managedHostsNode = "# Kubernetes-managed hosts file (host network).\n"
)

const loopbackHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// HostsFile computes the content of a pod's /etc/hosts: the pod's own names for
// each of its addresses, or the node's file for a hostNetwork pod, then the
// pod's hostAliases. A container that mounts something at /etc/hosts itself
// must not be given it.
func HostsFile(in Hosts) []byte {
	var b bytes.Buffer
	if in.Pod.Spec.HostNetwork {
		b.WriteString(managedHostsNode)
		b.Write(in.NodeHosts)
		if n := len(in.NodeHosts); n > 0 && in.NodeHosts[n-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString(managedHosts)
		b.WriteString(loopbackHosts)
		hostname, domain := Hostname(in.Pod, in.ClusterDomain)
		for _, ip := range in.PodIPs {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, hostname, domain, hostname)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
			}
		}
	}
	if len(in.Pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range in.Pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
		}
	}
	return b.Bytes()
}

// maxHostname is the longest name that the kernel's hostname and DNS allow.
const maxHostname = 63

// Hostname gives the pod's host name and, for a pod with a subdomain, the
// domain it is found under: <subdomain>.<namespace>.svc.<cluster domain>.
func Hostname(pod *corev1.Pod, clusterDomain string) (hostname, domain string) {
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o, ""
	}
	hostname = pod.Spec.Hostname
	if hostname == "" {
		hostname = pod.Name
		if len(hostname) > maxHostname {
			hostname = strings.TrimRight(hostname[:maxHostname], "-.")
		}
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
	}
	return hostname, domain
}

// SandboxHostname is the name that the kernel of the pod's sandbox reports:
// the host name, with its domain where the pod asks for setHostnameAsFQDN. It
// fails when that is longer than the kernel allows, and is empty for a
// hostNetwork pod, which has the node's name.
func SandboxHostname(pod *corev1.Pod, clusterDomain string) (string, error) {
	if pod.Spec.HostNetwork {
		return "", nil
	}
	hostname, domain := Hostname(pod, clusterDomain)
	if domain == "" || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN {
		return hostname, nil
	}
	full := hostname + "." + domain
	if len(full) > maxHostname+1 {
		return "", fmt.Errorf("the name %q is %d characters long, but a host name has at most %d: shorten hostname or subdomain, or unset setHostnameAsFQDN",
			full, len(full), maxHostname+1)
	}
	return full, nil
}
