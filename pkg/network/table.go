package network

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"coracle/pkg/network/rule"
)

// tableName is our nftables table. It belongs to this package alone.
const tableName = "coracle_net"

// tableBuffer holds a whole transaction on its way to the kernel, bytes.
const tableBuffer = 16 << 20

// Rules is what the table says. It is made from scratch at each change: it is
// small, and changes with pods that have host ports and with nodes only.
type Rules struct {
	// NodePods are the pod ranges of this node.
	NodePods []netip.Prefix
	// ClusterPods and Nodes are what pods reach under their own address: all
	// pods and all nodes. Whatever else they send to sees the node's address.
	ClusterPods []netip.Prefix
	Nodes       []netip.Addr
	// Ports are the host ports.
	Ports []HostPort
}

// applyRules replaces the table, in the namespace of a descriptor, in one
// transaction.
func applyRules(fd int, r *Rules) error {
	return withTable(fd, func(c *nftables.Conn, table *nftables.Table) error {
		c.AddTable(table)
		for _, v6 := range []bool{false, true} {
			if len(rule.SameFamily(r.NodePods, v6)) > 0 {
				if err := addFamily(c, table, r, v6); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// removeRules deletes the table.
func removeRules(fd int) error {
	return withTable(fd, func(*nftables.Conn, *nftables.Table) error { return nil })
}

// withTable deletes the table and does what fill queues, in one transaction.
func withTable(fd int, fill func(*nftables.Conn, *nftables.Table) error) error {
	c, err := nftables.New(nftables.WithNetNSFd(fd), nftables.WithSockOptions(func(s *netlink.Conn) error {
		return errors.Join(s.SetReadBuffer(tableBuffer), s.SetWriteBuffer(tableBuffer), s.SetDeadline(time.Now().Add(netlinkTimeout)))
	}))
	if err != nil {
		return fmt.Errorf("open nftables over netlink: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(table)
	c.DelTable(table)
	if err := fill(c, table); err != nil {
		return fmt.Errorf("encode pod network rules: %w", err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("send pod network rules to nftables: %w", err)
	}
	return nil
}

// addFamily queues the sets and rules of one IP family.
func addFamily(c *nftables.Conn, table *nftables.Table, r *Rules, v6 bool) error {
	f := familyRules{c: c, table: table, v6: v6, suffix: "4"}
	if v6 {
		f.suffix = "6"
	}
	addr := rule.AddrType(v6)
	ports := &nftables.Set{
		Table: table, ID: f.id(1), Name: "hostports" + f.suffix, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
	}
	hairpins := &nftables.Set{
		Table: table, ID: f.id(2), Name: "hairpins" + f.suffix, Concatenation: true, KeyType: nftables.MustConcatSetType(addr, addr),
	}
	nodes := &nftables.Set{Table: table, ID: f.id(3), Name: "nodes" + f.suffix, KeyType: addr}
	if err := errors.Join(f.addPorts(ports, hairpins, r.Ports), f.addNodes(nodes, r.Nodes)); err != nil {
		return err
	}
	pre := f.chain("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := f.chain("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	n := rule.AddrRegs(v6)
	for _, chain := range []*nftables.Chain{pre, out} {
		for _, key := range []expr.Any{rule.Load(rule.Destination, v6, rule.Reg), rule.Zero(v6)} {
			f.rule(chain, rule.ToThisNode(v6), []expr.Any{key}, rule.LoadPort(rule.Reg+n), []expr.Any{
				&expr.Lookup{SourceRegister: rule.Reg, DestRegister: rule.Reg, IsDestRegSet: true, SetName: ports.Name, SetID: ports.ID},
				rule.DNAT(v6, rule.Reg, rule.Reg+n),
			})
		}
	}
	post := f.chain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	f.rule(post, []expr.Any{
		rule.Load(rule.Source, v6, rule.Reg), rule.Load(rule.Destination, v6, rule.Reg+n),
		&expr.Lookup{SourceRegister: rule.Reg, SetName: hairpins.Name, SetID: hairpins.ID},
	}, rule.Masquerade())
	for _, p := range rule.SameFamily(r.ClusterPods, v6) {
		f.rule(post, rule.InPrefix(rule.Destination, p), rule.Verdict(expr.VerdictReturn, ""))
	}
	f.rule(post, []expr.Any{
		rule.Load(rule.Destination, v6, rule.Reg), &expr.Lookup{SourceRegister: rule.Reg, SetName: nodes.Name, SetID: nodes.ID},
	}, rule.Verdict(expr.VerdictReturn, ""))
	for _, p := range rule.SameFamily(r.NodePods, v6) {
		f.rule(post, rule.InPrefix(rule.Source, p), rule.Masquerade())
	}
	return nil
}

// familyRules queues what belongs to one IP family.
type familyRules struct {
	c      *nftables.Conn
	table  *nftables.Table
	v6     bool
	suffix string
}

// id is a number for a set within the transaction.
func (f *familyRules) id(n uint32) uint32 {
	if f.v6 {
		n += 100
	}
	return n
}

func (f *familyRules) addNodes(set *nftables.Set, nodes []netip.Addr) error {
	var elems []nftables.SetElement
	for _, a := range nodes {
		if a.Is6() == f.v6 {
			elems = append(elems, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return errors.Join(f.c.AddSet(set, nil), f.addElements(set, elems))
}

func (f *familyRules) addPorts(ports, hairpins *nftables.Set, list []HostPort) error {
	var elems, self []nftables.SetElement
	seen := map[netip.Addr]struct{}{}
	for _, p := range list {
		if p.Host.Is6() != f.v6 || p.Pod.Addr().Is6() != f.v6 || p.Host.IsLoopback() {
			continue
		}
		key := rule.AppendPort(rule.AppendProto(p.Host.AsSlice(), p.Proto), p.Port)
		elems = append(elems, nftables.SetElement{Key: key, Val: rule.AppendPort(p.Pod.Addr().AsSlice(), p.Pod.Port())})
		if _, ok := seen[p.Pod.Addr()]; !ok {
			seen[p.Pod.Addr()] = struct{}{}
			self = append(self, nftables.SetElement{Key: append(p.Pod.Addr().AsSlice(), p.Pod.Addr().AsSlice()...)})
		}
	}
	return errors.Join(f.c.AddSet(ports, nil), f.addElements(ports, elems), f.c.AddSet(hairpins, nil), f.addElements(hairpins, self))
}

// addElements sends elements in messages short enough for their length field.
func (f *familyRules) addElements(s *nftables.Set, elems []nftables.SetElement) error {
	const chunk = 400
	for len(elems) > 0 {
		n := min(chunk, len(elems))
		if err := f.c.SetAddElements(s, elems[:n]); err != nil {
			return err
		}
		elems = elems[n:]
	}
	return nil
}

func (f *familyRules) chain(name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return f.c.AddChain(&nftables.Chain{
		Name: name + f.suffix, Table: f.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: prio, Policy: &accept,
	})
}

func (f *familyRules) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	f.c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: append(rule.OfFamily(f.v6), rule.Join(parts...)...)})
}
