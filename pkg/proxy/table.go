package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"coracle/pkg/network/rule"
)

const (
	// tableName is our table; what is in it and not wanted is removed.
	tableName = "coracle"
	// batchTimeout bounds one transaction. The largest take a few seconds.
	batchTimeout = 60 * time.Second
	// socketBuffer must hold a whole transaction on its way to the kernel, and
	// its acknowledgements on the way back.
	socketBuffer = 256 << 20
	// chunk is how many elements go in one message, whose length field has 16
	// bits; an element needs at most 120 bytes.
	chunk = 500
)

// Table is the kernel's side of the rules. Not safe for concurrent use.
type Table struct {
	netns int
	// conn and its socket are nil after a failure: what is left in a socket
	// whose answers were not all read would be taken for the next ones.
	conn   *nftables.Conn
	socket *netlink.Conn
	table  *nftables.Table
	sets   map[string]*nftables.Set
	// chains are the plan chains that exist. One that no front uses any more
	// stays until the next Replace: it costs nothing, and endpoint numbers
	// come and go.
	chains map[ChainKey]struct{}
	// guards are the chains that let some clients through, by name; they stay
	// like the plan chains.
	guards map[Sources]string
	// families in use: index 0 is IPv4, 1 is IPv6.
	families [2]bool
}

// OpenTable connects to the kernel, in the network namespace of a descriptor or
// in the caller's if netns is 0. It changes nothing.
func OpenTable(netns int) (*Table, error) {
	t := &Table{netns: netns, table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	return t, t.connect()
}

// connect opens the socket if there is none, and gives it time for one
// transaction.
func (t *Table) connect() error {
	if t.conn == nil {
		conn, err := nftables.New(append(t.options(&t.socket), nftables.AsLasting())...)
		if err != nil {
			return fmt.Errorf("open nftables over netlink (root and a kernel with nf_tables are needed): %w", err)
		}
		t.conn = conn
	}
	if err := t.socket.SetDeadline(time.Now().Add(batchTimeout)); err != nil {
		return fmt.Errorf("set the deadline of the nftables socket: %w", err)
	}
	return nil
}

// options are those of each connection; socket gets the one it opens.
func (t *Table) options(socket **netlink.Conn) []nftables.ConnOption {
	opts := []nftables.ConnOption{nftables.WithSockOptions(func(c *netlink.Conn) error {
		*socket = c
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer), c.SetDeadline(time.Now().Add(batchTimeout)))
	})}
	if t.netns != 0 {
		opts = append(opts, nftables.WithNetNSFd(t.netns))
	}
	return opts
}

// Close frees the connection; the rules stay.
func (t *Table) Close() error {
	if t.conn == nil {
		return nil
	}
	return t.conn.CloseLasting()
}

// Replace puts the table in the given state in one transaction, whatever was
// there. Packets see the old table or the new one; clients with affinity keep
// their endpoint.
func (t *Table) Replace(facts *Facts, state *Changes) error {
	if err := t.connect(); err != nil {
		return err
	}
	t.sets, t.chains, t.guards = map[string]*nftables.Set{}, map[ChainKey]struct{}{}, map[Sources]string{}
	t.families = usedFamilies(facts, state)
	carried := [2][]nftables.SetElement{t.carryAffinity(state, false), t.carryAffinity(state, true)}
	t.conn.AddTable(t.table)
	t.conn.DelTable(t.table)
	t.conn.AddTable(t.table)
	for v6, used := range t.families {
		if !used {
			continue
		}
		if err := t.addSets(v6 == 1); err != nil {
			return t.abandon(err)
		}
	}
	t.addBaseChains(facts)
	for i, elems := range carried {
		if err := inChunks(t.sets[named(affinityName, i == 1)], elems, t.conn.SetAddElements); err != nil {
			return t.abandon(err)
		}
	}
	if err := t.queue(state); err != nil {
		return t.abandon(err)
	}
	return t.flush()
}

// Apply sends a difference in one transaction. After an error the kernel still
// has the state before, and the caller must Replace. A difference in an IP
// family that the table was not made for is refused with errFamily.
func (t *Table) Apply(c *Changes) error {
	if f := usedFamilies(&Facts{}, c); f[0] && !t.families[0] || f[1] && !t.families[1] {
		return errFamily
	}
	if err := t.connect(); err != nil {
		return err
	}
	if err := t.queue(c); err != nil {
		return t.abandon(err)
	}
	return t.flush()
}

// Remove deletes the table and with it all rules.
func (t *Table) Remove() error {
	if err := t.connect(); err != nil {
		return err
	}
	t.conn.AddTable(t.table)
	t.conn.DelTable(t.table)
	return t.flush()
}

var errFamily = errors.New("the table lacks an IP family that the change needs: replace it")

func (t *Table) flush() error {
	if err := t.conn.Flush(); err != nil {
		return t.abandon(fmt.Errorf("send rules to nftables: %w", err))
	}
	return nil
}

// abandon drops the connection, and with it the messages queued for it.
func (t *Table) abandon(err error) error {
	err = errors.Join(err, t.conn.CloseLasting())
	t.conn, t.socket = nil, nil
	return err
}

// queue turns a difference into messages. What refers to something comes after
// it, and is removed before it.
func (t *Table) queue(c *Changes) error {
	b := batch{table: t, add: map[string][]nftables.SetElement{}, del: map[string][]nftables.SetElement{}}
	for _, k := range c.Fronts.Del {
		b.remove(frontSet(k), nftables.SetElement{Key: frontBytes(k)})
	}
	for _, k := range c.Backends.Del {
		b.remove(named("backend", k.V6), nftables.SetElement{Key: rule.Words(k.Group, k.Index)})
	}
	for _, k := range c.Live.Del {
		b.remove(named("live", k.Backend.Addr().Is6()), nftables.SetElement{Key: liveBytes(k)})
	}
	for _, k := range c.Masquerade.Del {
		b.remove(named("masq", k.Addr.Is6()), nftables.SetElement{Key: frontBytes(k)})
	}
	for _, k := range c.Guards.Del {
		b.remove(named(guardName, k.Addr.Is6()), nftables.SetElement{Key: frontBytes(k)})
	}
	for _, a := range c.Hairpins.Del {
		b.remove(named("hairpin", a.Is6()), nftables.SetElement{Key: twice(a)})
	}
	for _, e := range c.Fronts.Add {
		b.insert(frontSet(e.Key), nftables.SetElement{Key: frontBytes(e.Key), Val: rule.Words(e.Value.Group, e.Value.Plan.id())})
	}
	for _, e := range c.Backends.Add {
		b.insert(named("backend", e.Key.V6), nftables.SetElement{Key: rule.Words(e.Key.Group, e.Key.Index), Val: addrPortBytes(e.Value)})
	}
	for _, e := range c.Live.Add {
		b.insert(named("live", e.Key.Backend.Addr().Is6()), nftables.SetElement{Key: liveBytes(e.Key)})
	}
	for _, e := range c.Masquerade.Add {
		b.insert(named("masq", e.Key.Addr.Is6()), nftables.SetElement{Key: frontBytes(e.Key)})
	}
	for _, e := range c.Guards.Add {
		b.insert(named(guardName, e.Key.Addr.Is6()), nftables.SetElement{Key: frontBytes(e.Key), VerdictData: t.guard(e.Value)})
	}
	for _, e := range c.Hairpins.Add {
		b.insert(named("hairpin", e.Key.Is6()), nftables.SetElement{Key: twice(e.Key)})
	}
	for _, e := range c.Chains.Add {
		if _, ok := t.chains[e.Key]; !ok {
			b.insert(planSet(e.Key), t.addPlanChain(e.Key))
		}
	}
	return b.send()
}

// batch sorts elements by set and operation.
type batch struct {
	table    *Table
	add, del map[string][]nftables.SetElement
}

func (b *batch) insert(set string, e nftables.SetElement) { b.add[set] = append(b.add[set], e) }
func (b *batch) remove(set string, e nftables.SetElement) { b.del[set] = append(b.del[set], e) }

func (b *batch) send() error {
	for name, elems := range b.del {
		if err := inChunks(b.table.sets[name], elems, b.table.conn.SetDeleteElements); err != nil {
			return err
		}
	}
	for name, elems := range b.add {
		if err := inChunks(b.table.sets[name], elems, b.table.conn.SetAddElements); err != nil {
			return err
		}
	}
	return nil
}

func inChunks(set *nftables.Set, elems []nftables.SetElement, send func(*nftables.Set, []nftables.SetElement) error) error {
	for len(elems) > 0 {
		n := min(chunk, len(elems))
		if err := send(set, elems[:n]); err != nil {
			return fmt.Errorf("encode elements of %s: %w", set.Name, err)
		}
		elems = elems[n:]
	}
	return nil
}

// usedFamilies tells which IP families the rules need.
func usedFamilies(facts *Facts, c *Changes) [2]bool {
	var out [2]bool
	note := func(a netip.Addr) {
		if a.Is6() {
			out[1] = true
		} else {
			out[0] = true
		}
	}
	for _, p := range facts.ServiceCIDRs {
		note(p.Addr())
	}
	for _, p := range facts.ClusterPods {
		note(p.Addr())
	}
	for _, e := range c.Fronts.Add {
		note(e.Key.Addr)
	}
	return out
}
