// Package rule holds the parts that nftables rules of this project are put
// together from. A rule is a list of expressions over registers of four bytes;
// an address fills one register, or four for IPv6. Everything here is a value:
// nothing talks to the kernel, and no string of a user can become part of a
// rule.
package rule

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Reg is the first register. Matches overwrite it and, for IPv6, the three
// after it.
const Reg = unix.NFT_REG32_00

// Side is the source or the destination of a packet.
type Side bool

// The sides.
const (
	Source      Side = false
	Destination Side = true
)

// Family is the nftables number of an IP family.
func Family(v6 bool) uint32 {
	if v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// AddrRegs is how many registers an address fills.
func AddrRegs(v6 bool) uint32 {
	if v6 {
		return 4
	}
	return 1
}

// AddrType is the set type of an address.
func AddrType(v6 bool) nftables.SetDatatype {
	if v6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// Unspecified is 0.0.0.0 or ::.
func Unspecified(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// Join puts the parts of a rule together.
func Join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Load reads an address of the packet into registers from reg on.
func Load(s Side, v6 bool, reg uint32) expr.Any {
	offset, size := uint32(12), AddrRegs(v6)*4
	if v6 {
		offset = 8
	}
	if s == Destination {
		offset += size
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
}

// LoadPort reads the protocol and the destination port into reg and the next.
// The port's place is the same in TCP, UDP and SCTP.
func LoadPort(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Register: reg, Key: expr.MetaKeyL4PROTO},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// Zero puts the unspecified address into Reg.
func Zero(v6 bool) expr.Any {
	return &expr.Immediate{Register: Reg, Data: make([]byte, AddrRegs(v6)*4)}
}

// OfFamily matches packets of an IP family; what looks at addresses comes after
// it.
func OfFamily(v6 bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Register: Reg, Key: expr.MetaKeyNFPROTO},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg, Data: []byte{byte(Family(v6))}},
	}
}

// InPrefix matches packets with a side in a prefix.
func InPrefix(s Side, p netip.Prefix) []expr.Any {
	return append([]expr.Any{Load(s, p.Addr().Is6(), Reg)}, RegInPrefix(p, expr.CmpOpEq)...)
}

// NotInPrefix matches packets with a side outside a prefix.
func NotInPrefix(s Side, p netip.Prefix) []expr.Any {
	return append([]expr.Any{Load(s, p.Addr().Is6(), Reg)}, RegInPrefix(p, expr.CmpOpNeq)...)
}

// RegInPrefix compares the address in Reg with a prefix.
func RegInPrefix(p netip.Prefix, op expr.CmpOp) []expr.Any {
	p = p.Masked()
	size := p.Addr().BitLen() / 8
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Bitwise{SourceRegister: Reg, DestRegister: Reg, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: Reg, Data: p.Addr().AsSlice()},
	}
}

// ToThisNode matches destinations that are addresses of this node. Loopback
// ones are not matched: what listens there must not become reachable, or
// unreachable, through a rule.
func ToThisNode(v6 bool) []expr.Any {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if v6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	return append([]expr.Any{
		&expr.Fib{Register: Reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg, Data: Words(unix.RTN_LOCAL)},
	}, NotInPrefix(Destination, loopback)...)
}

// DNAT sends the connection to the address and port in registers.
func DNAT(v6 bool, addr, port uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: Family(v6), RegAddrMin: addr, RegProtoMin: port, Specified: true}
}

// Masquerade hides the source behind this node.
func Masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

// Verdict ends a rule; chain is for jump and goto.
func Verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// Each part of a concatenated set key fills whole registers.

// Words encodes numbers that are in the machine's byte order in a register.
func Words(vs ...uint32) []byte {
	var out []byte
	for _, v := range vs {
		out = binary.NativeEndian.AppendUint32(out, v)
	}
	return out
}

// AppendProto appends a protocol number.
func AppendProto(b []byte, proto uint8) []byte { return append(b, proto, 0, 0, 0) }

// AppendPort appends a port.
func AppendPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// SameFamily keeps the valid prefixes of an IP family.
func SameFamily(ps []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if p.IsValid() && p.Addr().Is6() == v6 {
			out = append(out, p)
		}
	}
	return out
}
