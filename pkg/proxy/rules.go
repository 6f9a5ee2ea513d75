package proxy

import (
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"coracle/pkg/network/rule"
)

// Registers, four bytes each. regKey is where keys are built: a front is an
// address (one register, or four), a protocol and a port. regPick holds group
// . index, or group . endpoint.
const (
	regKey  = rule.Reg
	regPick = unix.NFT_REG32_06
)

// Chain names besides those of plans.
const (
	servicesChain   = "services"
	externalChain   = "external"
	rejectChain     = "reject"
	preroutingChain = "prerouting"
	outputChain     = "output"
	masqChain       = "postrouting"
	guardsChain     = "guards"
)

// conntrackDNAT is the status bit of a connection whose destination was
// translated.
const conntrackDNAT = 1 << 5

// dynsetDelete is the operation of a rule that removes an element; the
// constant is missing from package unix.
const dynsetDelete = 2

// addBaseChains queues the chains that packets enter by and those that hold no
// choice. Only the first packet of a connection gets here: the chains are of
// type nat.
func (t *Table) addBaseChains(facts *Facts) {
	nat := func(name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		accept := nftables.ChainPolicyAccept
		return t.conn.AddChain(&nftables.Chain{
			Name: name, Table: t.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: prio, Policy: &accept,
		})
	}
	reject := t.chain(rejectChain)
	t.rule(reject, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}})
	guards, external, services := t.chain(guardsChain), t.chain(externalChain), t.chain(servicesChain)
	for v6, used := range t.families {
		if used {
			t.addGuardRule(guards, v6 == 1)
			t.addServiceRules(external, services, facts, v6 == 1)
		}
	}
	pre := nat(preroutingChain, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	t.rule(pre, rule.Verdict(expr.VerdictJump, guardsChain))
	t.rule(pre, rule.Verdict(expr.VerdictJump, externalChain))
	t.rule(pre, rule.Verdict(expr.VerdictJump, servicesChain))
	out := nat(outputChain, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	t.rule(out, rule.Verdict(expr.VerdictJump, guardsChain))
	t.rule(out, rule.Verdict(expr.VerdictJump, servicesChain))
	post := nat(masqChain, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(post, []expr.Any{
		&expr.Ct{Register: regKey, Key: expr.CtKeySTATUS},
		&expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: 4, Mask: rule.Words(conntrackDNAT), Xor: rule.Words(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: rule.Words(0)},
		&expr.Verdict{Kind: expr.VerdictReturn},
	})
	for v6, used := range t.families {
		if used {
			t.addMasqueradeRules(post, facts, v6 == 1)
		}
	}
}

func (t *Table) chain(name string) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Name: name, Table: t.table})
}

func (t *Table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: rule.Join(parts...)})
}

// addGuardRule queues the look whether a front is for some clients only.
func (t *Table) addGuardRule(guards *nftables.Chain, v6 bool) {
	set := t.sets[named(guardName, v6)]
	t.rule(guards, rule.OfFamily(v6), t.loadFront(ChainKey{V6: v6}), []expr.Any{
		&expr.Lookup{SourceRegister: regKey, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
	})
}

// guard returns the way to the chain that lets a list of clients go on and
// drops all others, and queues the chain if it is new.
func (t *Table) guard(s Sources) *expr.Verdict {
	name, ok := t.guards[s]
	if !ok {
		name = guardsChain + "-" + strconv.Itoa(len(t.guards))
		t.guards[s] = name
		c := t.chain(name)
		for _, p := range s.prefixes() {
			t.rule(c, rule.OfFamily(p.Addr().Is6()), rule.InPrefix(rule.Source, p), rule.Verdict(expr.VerdictReturn, ""))
		}
		t.rule(c, rule.Verdict(expr.VerdictDrop, ""))
	}
	return &expr.Verdict{Kind: expr.VerdictJump, Chain: name}
}

// addServiceRules queues, for one IP family: traffic from outside to Local
// fronts (external), all fronts, and the rest of the service ranges (services).
func (t *Table) addServiceRules(external, services *nftables.Chain, facts *Facts, v6 bool) {
	isFamily := rule.OfFamily(v6)
	for _, p := range rule.SameFamily(facts.NodePods, v6) {
		t.rule(external, isFamily, rule.InPrefix(rule.Source, p), rule.Verdict(expr.VerdictReturn, ""))
	}
	for _, a := range facts.LocalVIPs {
		if a.Is6() == v6 {
			t.rule(services, isFamily, rule.InPrefix(rule.Destination, netip.PrefixFrom(a, a.BitLen())), rule.Verdict(expr.VerdictReturn, ""))
		}
	}
	for _, k := range variants(v6) {
		chain := services
		if k.Scope == ScopeExternal {
			chain = external
		}
		guard := isFamily
		if k.NodePort {
			guard = rule.Join(isFamily, rule.ToThisNode(v6))
		}
		t.rule(chain, guard, t.loadFront(k), []expr.Any{
			t.lookup(frontMap(k), regKey, regPick),
			&expr.Lookup{SourceRegister: regPick + 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: planSet(k), SetID: t.sets[planSet(k)].ID},
		})
	}
	for _, p := range rule.SameFamily(facts.ServiceCIDRs, v6) {
		t.rule(services, isFamily, rule.InPrefix(rule.Destination, p), rule.Verdict(expr.VerdictGoto, rejectChain))
	}
}

// addMasqueradeRules queues the rules for translated connections of one family
// whose answers would otherwise not come back through this node.
func (t *Table) addMasqueradeRules(post *nftables.Chain, facts *Facts, v6 bool) {
	isFamily, n, masquerade := rule.OfFamily(v6), rule.AddrRegs(v6), rule.Masquerade()
	t.rule(post, isFamily, []expr.Any{
		rule.Load(rule.Source, v6, regKey), rule.Load(rule.Destination, v6, regKey+n),
		&expr.Lookup{SourceRegister: regKey, SetName: named(hairpinName, v6), SetID: t.sets[named(hairpinName, v6)].ID},
	}, masquerade)

	// What the client asked for: the tuple before translation.
	asked := []expr.Any{&expr.Ct{Register: regKey, Key: expr.CtKeyDST, Direction: 0}}
	rest := []expr.Any{
		&expr.Meta{Register: regKey + n, Key: expr.MetaKeyL4PROTO},
		&expr.Ct{Register: regKey + n + 1, Key: expr.CtKeyPROTODST, Direction: 0},
		&expr.Lookup{SourceRegister: regKey, SetName: named(masqName, v6), SetID: t.sets[named(masqName, v6)].ID},
	}
	t.rule(post, isFamily, asked, rest, masquerade)
	t.rule(post, isFamily, []expr.Any{rule.Zero(v6)}, rest, masquerade)

	outside := rule.Join(isFamily)
	pods := rule.SameFamily(facts.ClusterPods, v6)
	for _, p := range pods {
		outside = append(outside, rule.NotInPrefix(rule.Source, p)...)
	}
	if len(pods) == 0 {
		return
	}
	for _, p := range rule.SameFamily(facts.ServiceCIDRs, v6) {
		t.rule(post, outside, asked, rule.RegInPrefix(p, expr.CmpOpEq), masquerade)
	}
}

// addPlanChain queues the chain that carries out a plan, and returns the
// element that leads to it.
func (t *Table) addPlanChain(k ChainKey) nftables.SetElement {
	t.chains[k] = struct{}{}
	name := rejectChain
	if k.Plan.Backends > 0 {
		name = planChain(k)
		c := t.chain(name)
		if k.Plan.Affinity > 0 {
			t.rule(c, t.returning(k))
		}
		t.rule(c, t.choosing(k))
	}
	return nftables.SetElement{Key: rule.Words(k.Plan.id()), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: name}}
}

// choosing draws an endpoint of the front's group at random, notes it if the
// plan has affinity, and translates the destination.
func (t *Table) choosing(k ChainKey) []expr.Any {
	n := rule.AddrRegs(k.V6)
	out := append(t.loadFront(k), t.lookup(frontMap(k), regKey, regPick))
	if k.Plan.Backends == 1 {
		out = append(out, &expr.Immediate{Register: regPick + 1, Data: rule.Words(0)})
	} else {
		out = append(out, &expr.Numgen{Register: regPick + 1, Modulus: uint32(k.Plan.Backends), Type: unix.NFT_NG_RANDOM})
	}
	out = append(out, t.lookup(named(backendName, k.V6), regPick, regPick+1))
	if k.Plan.Affinity > 0 {
		// An update alone would keep an entry's old endpoint.
		out = append(out, t.remember(k, dynsetDelete, unix.NFT_DYNSET_OP_UPDATE)...)
	}
	return append(out, rule.DNAT(k.V6, regPick+1, regPick+1+n))
}

// returning sends a client to the endpoint it had, if that is still one, and
// starts its timeout again.
func (t *Table) returning(k ChainKey) []expr.Any {
	n := rule.AddrRegs(k.V6)
	live := t.sets[named(liveName, k.V6)]
	out := append(t.loadFront(k),
		t.lookup(frontMap(k), regKey, regPick),
		rule.Load(rule.Source, k.V6, regPick+1),
		t.lookup(named(affinityName, k.V6), regPick, regPick+1),
		&expr.Lookup{SourceRegister: regPick, SetName: live.Name, SetID: live.ID},
	)
	return append(append(out, t.remember(k, unix.NFT_DYNSET_OP_UPDATE)...), rule.DNAT(k.V6, regPick+1, regPick+1+n))
}

// remember writes group . client -> endpoint; the endpoint is after regPick,
// and the front in regKey is replaced by the key.
func (t *Table) remember(k ChainKey, ops ...uint32) []expr.Any {
	set := t.sets[named(affinityName, k.V6)]
	out := []expr.Any{t.lookup(frontMap(k), regKey, regKey), rule.Load(rule.Source, k.V6, regKey+1)}
	for _, op := range ops {
		d := &expr.Dynset{SrcRegKey: regKey, SrcRegData: regPick + 1, SetName: set.Name, SetID: set.ID, Operation: op}
		if op == unix.NFT_DYNSET_OP_UPDATE {
			d.Timeout = k.Plan.Affinity
		}
		out = append(out, d)
	}
	return out
}

// loadFront builds the key of the front that a packet is for.
func (t *Table) loadFront(k ChainKey) []expr.Any {
	n := rule.AddrRegs(k.V6)
	addr := rule.Load(rule.Destination, k.V6, regKey)
	if k.NodePort {
		addr = rule.Zero(k.V6)
	}
	return append([]expr.Any{addr}, rule.LoadPort(regKey+n)...)
}

func (t *Table) lookup(set string, from, to uint32) expr.Any {
	return &expr.Lookup{SourceRegister: from, DestRegister: to, IsDestRegSet: true, SetName: set, SetID: t.sets[set].ID}
}

func frontMap(k ChainKey) string {
	return frontSet(FrontKey{Scope: k.Scope, Addr: rule.Unspecified(k.V6)})
}
