package proxy

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/google/nftables"

	"coracle/pkg/network/rule"
)

// Set names; each exists per IP family with 4 or 6 at its end.
const (
	frontName    = "front"
	localName    = "local"
	backendName  = "backend"
	liveName     = "live"
	masqName     = "masq"
	hairpinName  = "hairpin"
	affinityName = "affinity"
	planName     = "plan"
	guardName    = "guard"
)

// affinityLimit bounds the clients remembered per family.
const affinityLimit = 1 << 18

func named(base string, v6 bool) string {
	if v6 {
		return base + "6"
	}
	return base + "4"
}

// frontSet is the map that a front is in.
func frontSet(k FrontKey) string {
	if k.Scope == ScopeExternal {
		return named(localName, k.Addr.Is6())
	}
	return named(frontName, k.Addr.Is6())
}

// variant names how a plan's chain finds its front.
func variant(k ChainKey) string {
	s := "any"
	if k.Scope == ScopeExternal {
		s = "ext"
	}
	if k.NodePort {
		s += "node"
	} else {
		s += "addr"
	}
	return named(s, k.V6)
}

// planSet is the verdict map from plans to the chains of a variant.
func planSet(k ChainKey) string { return planName + "-" + variant(k) }

func planChain(k ChainKey) string {
	s := "pick-" + variant(k) + "-" + strconv.Itoa(k.Plan.Backends)
	if k.Plan.Affinity > 0 {
		s += "-" + strconv.Itoa(int(k.Plan.Affinity/time.Second))
	}
	return s
}

// variants lists the chain keys of a family, without a plan.
func variants(v6 bool) []ChainKey {
	return []ChainKey{
		{V6: v6, Scope: ScopeAny}, {V6: v6, Scope: ScopeAny, NodePort: true},
		{V6: v6, Scope: ScopeExternal}, {V6: v6, Scope: ScopeExternal, NodePort: true},
	}
}

func frontBytes(k FrontKey) []byte {
	return rule.AppendPort(rule.AppendProto(k.Addr.AsSlice(), uint8(k.Proto)), k.Port)
}

func addrPortBytes(a netip.AddrPort) []byte { return rule.AppendPort(a.Addr().AsSlice(), a.Port()) }

func liveBytes(k LiveKey) []byte { return append(rule.Words(k.Group), addrPortBytes(k.Backend)...) }

func twice(a netip.Addr) []byte { return append(a.AsSlice(), a.AsSlice()...) }

// addSets queues the maps and sets of one IP family.
func (t *Table) addSets(v6 bool) error {
	addr := rule.AddrType(v6)
	front := nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService)
	endpoint := nftables.MustConcatSetType(addr, nftables.TypeInetService)
	pair := nftables.MustConcatSetType(nftables.TypeMark, nftables.TypeMark)
	sets := []*nftables.Set{
		{Name: named(frontName, v6), IsMap: true, KeyType: front, DataType: pair},
		{Name: named(localName, v6), IsMap: true, KeyType: front, DataType: pair},
		{Name: named(backendName, v6), IsMap: true, KeyType: pair, DataType: endpoint},
		{Name: named(liveName, v6), KeyType: nftables.MustConcatSetType(nftables.TypeMark, addr, nftables.TypeInetService)},
		{Name: named(masqName, v6), KeyType: front},
		{Name: named(guardName, v6), IsMap: true, KeyType: front, DataType: nftables.TypeVerdict},
		{Name: named(hairpinName, v6), KeyType: nftables.MustConcatSetType(addr, addr)},
		{
			Name: named(affinityName, v6), IsMap: true, Dynamic: true, HasTimeout: true, Size: affinityLimit,
			KeyType: nftables.MustConcatSetType(nftables.TypeMark, addr), DataType: endpoint,
		},
	}
	for _, s := range sets {
		s.Concatenation = true
	}
	for _, k := range variants(v6) {
		sets = append(sets, &nftables.Set{Name: planSet(k), IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict})
	}
	for _, s := range sets {
		s.Table = t.table
		s.ID = uint32(len(t.sets) + 1)
		t.sets[s.Name] = s
		if err := t.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}
