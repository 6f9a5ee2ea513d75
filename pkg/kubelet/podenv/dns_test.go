package podenv

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const hostConf = "# a comment\nnameserver 192.168.0.53\nnameserver 192.168.0.54\nsearch example.com. corp\noptions ndots:1 rotate\n"

func TestResolvConf(t *testing.T) {
	cluster := DNS{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"}
	clusterSearch := []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com", "corp"}
	host := &runtimeapi.DNSConfig{Servers: []string{"192.168.0.53", "192.168.0.54"}, Searches: []string{"example.com", "corp"}, Options: []string{"ndots:1", "rotate"}}
	own := &corev1.PodDNSConfig{
		Nameservers: []string{"1.1.1.1", "10.96.0.10"}, Searches: []string{"corp", "my.domain"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}, {Name: "edns0"}},
	}
	tests := []struct {
		name    string
		policy  corev1.DNSPolicy
		hostNet bool
		config  *corev1.PodDNSConfig
		dns     DNS
		want    *runtimeapi.DNSConfig
	}{
		{"default policy", "", false, nil, cluster, &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: clusterSearch, Options: []string{"ndots:5"}}},
		{"cluster first", corev1.DNSClusterFirst, false, own, cluster, &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10", "1.1.1.1"}, Searches: append(clusterSearch[:5:5], "my.domain"), Options: []string{"ndots:2", "edns0"}}},
		{"host network", corev1.DNSClusterFirst, true, nil, cluster, host},
		{"with host network", corev1.DNSClusterFirstWithHostNet, true, nil, cluster, &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: clusterSearch, Options: []string{"ndots:5"}}},
		{"default", corev1.DNSDefault, false, nil, cluster, host},
		{"no cluster DNS", corev1.DNSClusterFirst, false, nil, DNS{}, host},
		{"none", corev1.DNSNone, false, own, cluster, &runtimeapi.DNSConfig{Servers: []string{"1.1.1.1", "10.96.0.10"}, Searches: []string{"corp", "my.domain"}, Options: []string{"ndots:2", "edns0"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := testPod(func(p *corev1.Pod) {
				p.Spec.DNSPolicy, p.Spec.HostNetwork, p.Spec.DNSConfig = tt.policy, tt.hostNet, tt.config
			})
			got, err := ResolvConf(pod, []byte(hostConf), tt.dns)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want.Servers, got.Servers); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.want.Searches, got.Searches); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.want.Options, got.Options); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := ResolvConf(testPod(func(p *corev1.Pod) { p.Spec.DNSPolicy = "Odd" }), nil, cluster); err == nil {
		t.Error("an unknown dnsPolicy must be refused")
	}
}

func TestResolvConfLimits(t *testing.T) {
	config := &corev1.PodDNSConfig{}
	for i := range 40 {
		config.Nameservers = append(config.Nameservers, fmt.Sprintf("10.0.0.%d", i))
		config.Searches = append(config.Searches, fmt.Sprintf("%s%d", strings.Repeat("x", 98), i+10))
	}
	pod := testPod(func(p *corev1.Pod) { p.Spec.DNSPolicy, p.Spec.DNSConfig = corev1.DNSNone, config })
	got, err := ResolvConf(pod, nil, DNS{})
	if err != nil {
		t.Fatal(err)
	}
	if n, s := len(got.Servers), len(strings.Join(got.Searches, " ")); n != 3 || s > 2048 || s < 1900 {
		t.Errorf("%d servers, %d characters of search list", n, s)
	}
	for i := range config.Searches {
		config.Searches[i] = fmt.Sprint(i)
	}
	if got, _ = ResolvConf(pod, nil, DNS{}); len(got.Searches) != 32 {
		t.Errorf("%d search domains, want 32", len(got.Searches))
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte(hostConf))
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := ResolvConf(testPod(), data, DNS{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"})
		if err != nil {
			return
		}
		for _, s := range conf.Searches {
			if strings.ContainsAny(s, " \n\t") || s == "" {
				t.Errorf("search domain %q", s)
			}
		}
	})
}

func TestHostsFile(t *testing.T) {
	pod := testPod(func(p *corev1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain = "busy", "sub"
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"foo", "bar"}}}
	})
	want := managedHosts + loopbackHosts +
		"10.0.0.1\tbusy.sub.shop.svc.cluster.local\tbusy\n" +
		"\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n"
	if diff := cmp.Diff(want, string(HostsFile(Hosts{Pod: pod, PodIPs: []string{"10.0.0.1"}, ClusterDomain: "cluster.local"}))); diff != "" {
		t.Error(diff)
	}
	hostNet := testPod(func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	got := string(HostsFile(Hosts{Pod: hostNet, PodIPs: []string{"192.168.0.1"}, NodeHosts: []byte("127.0.0.1 localhost")}))
	if want := managedHostsNode + "127.0.0.1 localhost\n"; got != want {
		t.Errorf("host network: %q, want %q", got, want)
	}
	if strings.Contains(got, "# Kubernetes-managed hosts file.") {
		t.Error("the file of a hostNetwork pod must not claim to be the pod's own")
	}
}

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + ".b"
	if h, d := Hostname(testPod(func(p *corev1.Pod) { p.Name = long }), "c"); h != strings.Repeat("a", 62) || d != "" {
		t.Errorf("a long pod name gives %q, %q", h, d)
	}
	fqdn := testPod(func(p *corev1.Pod) { p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "sub", ptr(true) })
	if h, err := SandboxHostname(fqdn, "cluster.local"); err != nil || h != "web-0.sub.shop.svc.cluster.local" {
		t.Errorf("setHostnameAsFQDN gives %q, %v", h, err)
	}
	fqdn.Spec.Subdomain = strings.Repeat("s", 60)
	if _, err := SandboxHostname(fqdn, "cluster.local"); err == nil {
		t.Error("a name longer than the kernel allows must be refused")
	}
	override := testPod(func(p *corev1.Pod) { p.Spec.HostnameOverride, p.Spec.Subdomain = ptr("own.name"), "sub" })
	if h, d := Hostname(override, "c"); h != "own.name" || d != "" {
		t.Errorf("hostnameOverride gives %q, %q", h, d)
	}
}
