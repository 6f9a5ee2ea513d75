package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"coracle/pkg/network"
)

const (
	// bridgeName is the bridge's name in the cluster's network namespace.
	bridgeName = "br0"
	// uplinkName is the bridge's end of the link to the host.
	uplinkName = "host0"
	// nodeLink is a node's only interface.
	nodeLink = "eth0"
)

// portName is the bridge's end of the link to the i-th node.
func portName(i int) string { return fmt.Sprintf("node%d", i) }

// connectHost makes the bridge in a namespace of its own and the link from
// it to the host. It is safe to repeat.
func connectHost(f folder, s *Spec) error {
	bridge, err := network.CreateNS(f.bridgeFile())
	if err != nil {
		return err
	}
	defer bridge.Close()
	host, err := network.CurrentNS()
	if err != nil {
		return err
	}
	defer host.Close()
	if err := bridge.EnsureBridge(bridgeName, 0); err != nil {
		return err
	}
	err = network.EnsureVeth(network.VethEnd{NS: host, Name: f.linkName()}, network.VethEnd{NS: bridge, Name: uplinkName}, 0)
	if err != nil {
		return err
	}
	if err := bridge.SetMaster(uplinkName, bridgeName); err != nil {
		return err
	}
	return host.EnsureAddr(f.linkName(), netip.PrefixFrom(s.hostEnd(), s.Subnet.Bits()))
}

// disconnectHost removes what connectHost made. Nothing there is no error.
func disconnectHost(f folder) error {
	host, err := network.CurrentNS()
	if err != nil {
		return err
	}
	defer host.Close()
	return errors.Join(host.DeleteLink(f.linkName()), network.DeleteNS(f.bridgeFile()))
}

// connectNode links the node whose init is pid to the bridge.
func connectNode(f folder, s *Spec, index, pid int) error {
	bridge, err := network.OpenNS(f.bridgeFile())
	if err != nil {
		return err
	}
	defer bridge.Close()
	node, err := network.PIDNS(pid)
	if err != nil {
		return err
	}
	defer node.Close()
	// The link of a node that was killed vanishes a moment after it.
	if err := bridge.DeleteLink(portName(index)); err != nil {
		return err
	}
	err = network.EnsureVeth(network.VethEnd{NS: node, Name: nodeLink}, network.VethEnd{NS: bridge, Name: portName(index)}, 0)
	if err != nil {
		return err
	}
	if err := bridge.SetMaster(portName(index), bridgeName); err != nil {
		return err
	}
	if err := node.SetUp("lo"); err != nil {
		return err
	}
	if err := node.EnsureAddr(nodeLink, netip.PrefixFrom(s.Nodes[index].Address, s.Subnet.Bits())); err != nil {
		return err
	}
	if !s.Egress {
		return nil
	}
	// The route carries no mark of the pod network's, which would remove a
	// marked one that it does not want.
	return node.Do(func() error {
		return run(context.Background(), "", "ip", "route", "replace", "default", "via", s.hostEnd().String(), "dev", nodeLink)
	})
}

// unplug removes a dead node's link. Its network namespace would take the link
// along, but may outlive the node: whoever looks into it keeps it, and the kernel
// removes namespaces one by one when it has time. Until then the dead node's
// addresses would be answered for. After a reboot there is no bridge.
func unplug(f folder, index int) error {
	if mounts, err := mountsBelow(f.bridgeFile()); err != nil || len(mounts) == 0 {
		return err
	}
	bridge, err := network.OpenNS(f.bridgeFile())
	if err != nil {
		return err
	}
	defer bridge.Close()
	return bridge.DeleteLink(portName(index))
}

// portIsUp reports whether a node that runs is connected. A port that cannot be
// looked at carries nothing.
func portIsUp(f folder, index int) bool {
	bridge, err := network.OpenNS(f.bridgeFile())
	if err != nil {
		return false
	}
	defer bridge.Close()
	up := false
	err = bridge.Do(func() error {
		link, err := net.InterfaceByName(portName(index))
		if err == nil {
			up = link.Flags&net.FlagUp != 0
		}
		return err
	})
	return err == nil && up
}

// setPort switches the bridge's end of a node's link.
func setPort(f folder, index int, up bool) error {
	bridge, err := network.OpenNS(f.bridgeFile())
	if err != nil {
		return err
	}
	defer bridge.Close()
	if up {
		return bridge.SetUp(portName(index))
	}
	return bridge.SetDown(portName(index))
}

// hostTable is the name of a cluster's table in the host's nftables.
// Nftables knows no hyphens in names, and a cluster's name has no underscores.
func hostTable(cluster string) string {
	return "coracle_cluster_" + strings.ReplaceAll(cluster, "-", "_")
}

// hostRules is the host's table for a cluster. A closed cluster reaches the
// API server and nothing else: neither what the host serves for itself nor
// what lies behind a host that forwards for others. Connections that the host
// opened are answered.
func hostRules(f folder, s *Spec) string {
	table, link := hostTable(s.Name), f.linkName()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("table inet %s\ndelete table inet %[1]s\ntable inet %[1]s {", table)
	line("\tchain forward {\n\t\ttype filter hook forward priority filter - 1; policy accept;")
	if s.Egress {
		line("\t\toifname %q ct state new drop", link)
		line("\t}\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;")
		line("\t\tiifname %q oifname != %[1]q ip saddr %s masquerade", link, s.Subnet.Masked())
	} else {
		line("\t\tiifname %q drop\n\t\toifname %[1]q drop", link)
		line("\t}\n\tchain input {\n\t\ttype filter hook input priority filter - 1; policy accept;")
		line("\t\tiifname != %q accept", link)
		line("\t\tct state established,related accept")
		line("\t\tip daddr %s tcp dport %d accept", s.hostEnd(), s.Port)
		line("\t\tip daddr %s icmp type echo-request accept", s.hostEnd())
		line("\t\tmeta l4proto tcp reject with tcp reset\n\t\treject")
	}
	line("\t}\n}")
	return b.String()
}

func applyHostRules(ctx context.Context, f folder, s *Spec) error {
	if err := run(ctx, hostRules(f, s), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("write the host's nftables table %s: %w", hostTable(s.Name), err)
	}
	if s.Egress {
		return enableForwarding(f)
	}
	return nil
}

func removeHostRules(ctx context.Context, cluster string) error {
	there, err := hasHostRules(ctx, cluster)
	if err != nil || !there {
		return err
	}
	if err := run(ctx, "", "nft", "delete", "table", "inet", hostTable(cluster)); err != nil {
		return fmt.Errorf("remove the host's nftables table %s: %w", hostTable(cluster), err)
	}
	return nil
}

func hasHostRules(ctx context.Context, cluster string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output()
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[2] == hostTable(cluster) {
			return true, nil
		}
	}
	return false, nil
}

const forwardingFile = "/proc/sys/net/ipv4/ip_forward"

// enableForwarding turns forwarding on and notes in the folder that it was off.
func enableForwarding(f folder) error {
	was, err := os.ReadFile(forwardingFile)
	if err != nil {
		return fmt.Errorf("read %s: %w", forwardingFile, err)
	}
	if strings.TrimSpace(string(was)) == "1" {
		return nil
	}
	if err := writeFile(f.path("forwarding-was-off"), nil, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(forwardingFile, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	return nil
}

// restoreForwarding turns forwarding off again when this cluster turned it
// on, unless another cluster in root needs it; that one then inherits the note.
func restoreForwarding(f folder, others []*Spec, otherFolder func(name string) folder) error {
	note := f.path("forwarding-was-off")
	if _, err := os.Stat(note); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, o := range others {
		if o.Egress {
			if err := writeFile(otherFolder(o.Name).path("forwarding-was-off"), nil, 0o600); err != nil {
				return err
			}
			return os.Remove(note)
		}
	}
	if err := os.WriteFile(forwardingFile, []byte("0"), 0o644); err != nil {
		return fmt.Errorf("turn off forwarding: %w", err)
	}
	return os.Remove(note)
}

// commandTimeout bounds the host's small programs.
const commandTimeout = 20 * time.Second

// run runs a program of the host and turns its complaint into the error.
func run(ctx context.Context, stdin, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
