package proxy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"coracle/pkg/network"
)

// benchService is the i-th of many services with one TCP port.
func benchService(i int) *corev1.Service {
	svc := testService(fmt.Sprintf("s%d", i), fmt.Sprintf("10.%d.%d.%d", 96+i>>16, i>>8&255, i&255))
	svc.Spec.Ports = svc.Spec.Ports[:1]
	return svc
}

func benchSlice(i, endpoints int) *discoveryv1.EndpointSlice {
	var addrs []string
	for e := range endpoints {
		n := i*4 + e
		addrs = append(addrs, fmt.Sprintf("10.%d.%d.%d", 244+n>>16&7, n>>8&255, n&255))
	}
	s := testSlice(addrs...)
	for i := range s.Endpoints {
		s.Endpoints[i].NodeName = nil
	}
	s.Ports = s.Ports[:1]
	return s
}

func benchNode(b *testing.B, services int) *node {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("this benchmark makes network namespaces: run it as root")
	}
	path := filepath.Join(b.TempDir(), "node")
	ns, err := network.CreateNS(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ns.Close()
		if err := network.DeleteNS(path); err != nil {
			b.Error(err)
		}
	})
	table, err := OpenTable(ns.FD())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { table.Close() })
	n := &node{lab: &lab{node: ns}, facts: labFacts(), model: NewModel(), table: table}
	n.facts.LocalVIPs = nil
	for i := range services {
		n.model.Set(Compute(benchService(i), []*discoveryv1.EndpointSlice{benchSlice(i, 2)}, n.facts))
	}
	return n
}

// BenchmarkCold measures a whole table, and for reference the same table
// through the nft program.
func BenchmarkCold(b *testing.B) {
	for _, services := range []int{10_000, 44_000} {
		b.Run(fmt.Sprintf("services=%d/netlink", services), func(b *testing.B) {
			n := benchNode(b, services)
			for b.Loop() {
				state := n.model.TakeAll()
				if err := n.table.Replace(n.facts, &state); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("services=%d/compute", services), func(b *testing.B) {
			for b.Loop() {
				m, facts := NewModel(), labFacts()
				for i := range services {
					m.Set(Compute(benchService(i), []*discoveryv1.EndpointSlice{benchSlice(i, 2)}, facts))
				}
			}
		})
		b.Run(fmt.Sprintf("services=%d/nft", services), func(b *testing.B) {
			n := benchNode(b, services)
			file := filepath.Join(b.TempDir(), "rules")
			if err := os.WriteFile(file, []byte(nftScript(n.model.TakeAll())), 0o600); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				err := n.lab.node.Do(func() error {
					out, err := exec.Command("nft", "-f", file).CombinedOutput()
					if err != nil {
						return fmt.Errorf("%w: %.500s", err, out)
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// nftScript writes the maps of a state in nft's language.
func nftScript(c Changes) string {
	var s strings.Builder
	s.WriteString("add table inet coracle\ndelete table inet coracle\nadd table inet coracle\n" +
		"add map inet coracle front4 { type ipv4_addr . inet_proto . inet_service : mark . mark ; }\n" +
		"add map inet coracle backend4 { type mark . mark : ipv4_addr . inet_service ; }\n")
	s.WriteString("add element inet coracle front4 {\n")
	for _, e := range c.Fronts.Add {
		fmt.Fprintf(&s, "%s . %d . %d : %d . %d,\n", e.Key.Addr, e.Key.Proto, e.Key.Port, e.Value.Group, e.Value.Plan.id())
	}
	s.WriteString("}\nadd element inet coracle backend4 {\n")
	for _, e := range c.Backends.Add {
		fmt.Fprintf(&s, "%d . %d : %s . %d,\n", e.Key.Group, e.Key.Index, e.Value.Addr(), e.Value.Port())
	}
	s.WriteString("}\n")
	return s.String()
}

// BenchmarkChange measures one endpoint added or removed, from the objects to
// the kernel's acknowledgement.
func BenchmarkChange(b *testing.B) {
	for _, services := range []int{10, 10_000, 44_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			n := benchNode(b, services)
			state := n.model.TakeAll()
			if err := n.table.Replace(n.facts, &state); err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			i := 0
			for b.Loop() {
				i++
				start := time.Now()
				n.model.Set(Compute(benchService(i%services), []*discoveryv1.EndpointSlice{benchSlice(i%services, 3-i/services%2)}, n.facts))
				c := n.model.Take()
				if err := n.table.Apply(&c); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}
