package podenv

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DNS is what the cluster says about name resolution.
type DNS struct {
	// ClusterDNS are the addresses of the cluster's DNS service. Empty makes
	// pods that ask for cluster DNS use the node's resolver.
	ClusterDNS []string
	// ClusterDomain is the suffix of Service names, such as "cluster.local".
	ClusterDomain string
}

// What resolvers read of a resolv.conf: the rest is cut off.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// ResolvConf computes the resolver configuration of a pod from its dnsPolicy
// and dnsConfig and from the node's resolv.conf. What exceeds the limits of
// resolvers is left out. It fails on a dnsPolicy that is not known and on a
// resolv.conf with a line too long to read.
func ResolvConf(pod *corev1.Pod, hostConf []byte, dns DNS) (*runtimeapi.DNSConfig, error) {
	host, err := parseResolvConf(hostConf)
	if err != nil {
		return nil, err
	}
	var conf *runtimeapi.DNSConfig
	switch policy := effectivePolicy(pod, dns); policy {
	case corev1.DNSNone:
		conf = &runtimeapi.DNSConfig{}
	case corev1.DNSDefault:
		conf = host
	case corev1.DNSClusterFirst:
		conf = clusterConf(pod.Namespace, host, dns)
	default:
		return nil, fmt.Errorf("dnsPolicy %q is not known", policy)
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		conf.Servers = appendNew(conf.Servers, extra.Nameservers)
		conf.Searches = appendNew(conf.Searches, extra.Searches)
		conf.Options = mergeOptions(conf.Options, extra.Options)
	}
	limitConf(conf)
	return conf, nil
}

// effectivePolicy reduces the policies to Default, ClusterFirst and None:
// ClusterFirst means the node's resolver for a hostNetwork pod.
func effectivePolicy(pod *corev1.Pod, dns DNS) corev1.DNSPolicy {
	policy := pod.Spec.DNSPolicy
	switch policy {
	case "", corev1.DNSClusterFirst:
		policy = corev1.DNSClusterFirst
		if pod.Spec.HostNetwork {
			policy = corev1.DNSDefault
		}
	case corev1.DNSClusterFirstWithHostNet:
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && len(dns.ClusterDNS) == 0 {
		return corev1.DNSDefault
	}
	return policy
}

func clusterConf(namespace string, host *runtimeapi.DNSConfig, dns DNS) *runtimeapi.DNSConfig {
	var searches []string
	if domain := dns.ClusterDomain; domain != "" {
		searches = []string{namespace + ".svc." + domain, "svc." + domain, domain}
	}
	return &runtimeapi.DNSConfig{
		Servers:  slices.Clone(dns.ClusterDNS),
		Searches: appendNew(searches, host.Searches),
		// Five dots cover _port._proto.service.namespace.svc, so that all
		// short forms go through the search list first.
		Options: []string{"ndots:5"},
	}
}

// parseResolvConf reads nameservers, the last search or domain line, and
// options. Unknown lines are ignored, as resolvers do.
func parseResolvConf(data []byte) (*runtimeapi.DNSConfig, error) {
	conf := &runtimeapi.DNSConfig{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			conf.Servers = append(conf.Servers, fields[1])
		case "search", "domain":
			conf.Searches = nil
			for _, s := range fields[1:] {
				// A lone dot is the root: it is written as it is, else without its final dot.
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				conf.Searches = append(conf.Searches, s)
			}
		case "options":
			conf.Options = appendNew(conf.Options, fields[1:])
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the node's resolv.conf: %w", err)
	}
	return conf, nil
}

// appendNew appends what is not there yet.
func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// mergeOptions adds options, replacing those of the same name.
func mergeOptions(options []string, more []corev1.PodDNSConfigOption) []string {
	out := slices.Clone(options)
	for _, o := range more {
		text := o.Name
		if o.Value != nil {
			text += ":" + *o.Value
		}
		same := func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == o.Name
		}
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i] = text
		} else {
			out = append(out, text)
		}
	}
	return out
}

func limitConf(conf *runtimeapi.DNSConfig) {
	conf.Servers = conf.Servers[:min(len(conf.Servers), maxNameservers)]
	conf.Searches = conf.Searches[:min(len(conf.Searches), maxSearches)]
	length := 0
	for i, s := range conf.Searches {
		length += len(s)
		if i > 0 {
			length++
		}
		if length > maxSearchLength {
			conf.Searches = conf.Searches[:i]
			return
		}
	}
}
