package rules

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	preroutingChain = "prerouting"
	outputChain     = "output"
	divertChain     = "divert"
	defragChain     = "defrag"
)

// reg is the one register that rules are written with: NFT_REG_1.
const reg = unix.NFT_REG_1

func (p Plan) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: p.Table}
}

// addTable fills an empty table. The doc of the package shows it in nft's
// language.
func (p Plan) addTable(conn *nftables.Conn, table *nftables.Table) error {
	// Nothing jumps there: that the rule exists makes the kernel put fragments
	// together before they meet any rule, nft_tproxy_init(). Only the first of
	// them has ports to find a socket by.
	defrag := conn.AddChain(&nftables.Chain{Name: defragChain, Table: table})
	add(conn, defrag, isProtocol(unix.IPPROTO_UDP), Intercept{ToPort: 1}.tproxy())

	divert := conn.AddChain(&nftables.Chain{Name: divertChain, Table: table})
	// A socket in TIME_WAIT has no such property: the expression then ends its
	// rule, and the packet is marked by the next.
	add(conn, divert, socket(expr.NFT_SOCKET_WILDCARD), verdict(expr.VerdictReturn))
	add(conn, divert, p.setMark(), accept())

	pre := conn.AddChain(&nftables.Chain{
		Name: preroutingChain, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
	})
	p.addExemptMark(conn, pre)
	// An ICMP error belongs to the socket of the packet that it quotes:
	// nf_sk_lookup_slow_v4(). It is addressed to the client, and would not be
	// heard of here.
	add(conn, pre, socket(expr.NFT_SOCKET_TRANSPARENT), jump(divertChain))
	// Only now: a packet to a local address may be a transparent socket's.
	if err := addOwnAddresses(conn, pre); err != nil {
		return err
	}
	return p.addIntercepts(conn, pre)
}

func (p Plan) addIntercepts(conn *nftables.Conn, pre *nftables.Chain) (err error) {
	var out *nftables.Chain
	for _, in := range p.Intercepts {
		chain := conn.AddChain(&nftables.Chain{Name: in.Name, Table: pre.Table})
		p.addIntercept(conn, chain, in)
		for _, match := range in.destinations() {
			add(conn, pre, isIif(in.IifName), match, jump(in.Name))
			if !in.LocalOutput {
				continue
			}
			if in.IifName != "" {
				// What this host sends comes back by the loopback interface.
				add(conn, pre, isIif("lo"), match, jump(in.Name))
			}
			if out == nil {
				if out, err = p.addOutput(conn, pre.Table); err != nil {
					return err
				}
			}
			for _, packets := range in.packets() {
				add(conn, out, match, packets, p.setMark(), accept())
			}
		}
	}
	return nil
}

// addOutput adds the chain for packets of this host. A mark that is set there
// makes the kernel look for the route again.
func (p Plan) addOutput(conn *nftables.Conn, table *nftables.Table) (*nftables.Chain, error) {
	out := conn.AddChain(&nftables.Chain{
		Name: outputChain, Table: table, Type: nftables.ChainTypeRoute,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle,
	})
	p.addExemptMark(conn, out)
	return out, addOwnAddresses(conn, out)
}

func (p Plan) addExemptMark(conn *nftables.Conn, chain *nftables.Chain) {
	if p.ExemptMark != 0 {
		add(conn, chain, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
			equal(binaryutil.NativeEndian.PutUint32(p.ExemptMark)),
		}, accept())
	}
}

// addOwnAddresses accepts, before any intercept, what goes to this host. UDP
// also goes to several at once, as DHCP and mDNS do, and no proxy can answer
// from such an address.
func addOwnAddresses(conn *nftables.Conn, chain *nftables.Chain) error {
	own := &nftables.Set{
		Table: chain.Table, Anonymous: true, Constant: true,
		KeyType: nftables.TypeFIBAddr, KeyByteOrder: binaryutil.NativeEndian,
	}
	var types []nftables.SetElement
	for _, t := range []uint32{unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_MULTICAST} {
		types = append(types, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(t)})
	}
	if err := conn.AddSet(own, types); err != nil {
		return fmt.Errorf("add nftables set of address types: %w", err)
	}
	add(conn, chain, []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Lookup{SourceRegister: reg, SetName: own.Name, SetID: own.ID},
	}, accept())
	return nil
}

func (p Plan) addIntercept(conn *nftables.Conn, chain *nftables.Chain, in Intercept) {
	for _, packets := range in.packets() {
		add(conn, chain, packets, in.tproxy(), p.setMark(), accept())
		if in.OnFailure == Block {
			add(conn, chain, packets, []expr.Any{&expr.Counter{}}, verdict(expr.VerdictDrop))
		}
	}
}

// tproxy assigns the packet to the listener. Without one it ends its rule.
func (in Intercept) tproxy() []expr.Any {
	const portReg = unix.NFT_REG_2
	t := &expr.TProxy{Family: unix.NFPROTO_UNSPEC, RegPort: portReg}
	exprs := []expr.Any{
		&expr.Immediate{Register: portReg, Data: binaryutil.BigEndian.PutUint16(in.ToPort)},
	}
	if in.To.IsValid() {
		t.Family, t.RegAddr = nfproto(in.To), reg
		exprs = append(exprs, &expr.Immediate{Register: reg, Data: in.To.AsSlice()})
	}
	return append(exprs, t)
}

// destinations returns a match for each destination of an intercept.
func (in Intercept) destinations() [][]expr.Any {
	if len(in.DestPrefixes) == 0 {
		if in.To.IsValid() {
			return [][]expr.Any{isFamily(in.To)}
		}
		return [][]expr.Any{nil}
	}
	var out [][]expr.Any
	for _, prefix := range in.DestPrefixes {
		out = append(out, isDestination(prefix))
	}
	return out
}

// packets returns a match for each protocol and range of ports of an
// intercept.
func (in Intercept) packets() [][]expr.Any {
	var out [][]expr.Any
	for _, number := range in.Protocol.numbers() {
		if len(in.DestPorts) == 0 {
			out = append(out, isProtocol(number))
		}
		for _, r := range in.DestPorts {
			out = append(out, append(isProtocol(number), hasPort(r)...))
		}
	}
	return out
}

// hasPort looks at the destination port, which has the same place in TCP and
// UDP headers: RFC 9293, RFC 768.
func hasPort(r Ports) []expr.Any {
	first, last := binaryutil.BigEndian.PutUint16(r.First), binaryutil.BigEndian.PutUint16(r.Last)
	match := equal(first)
	if r.First != r.Last {
		match = &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: first, ToData: last}
	}
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		match,
	}
}

func add(conn *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	rule := &nftables.Rule{Table: chain.Table, Chain: chain}
	for _, part := range parts {
		rule.Exprs = append(rule.Exprs, part...)
	}
	conn.AddRule(rule)
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func isProtocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal([]byte{number})}
}

func isIif(name string) []expr.Any {
	if name == "" {
		return nil
	}
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, equal(padded)}
}

func nfproto(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func isFamily(a netip.Addr) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal([]byte{nfproto(a)})}
}

// isDestination compares the masked destination address, which is at offset 16
// of an IPv4 header and 24 of an IPv6 header: RFC 791, RFC 8200.
func isDestination(prefix netip.Prefix) []expr.Any {
	prefix = prefix.Masked()
	addr := prefix.Addr().AsSlice()
	size, offset := uint32(len(addr)), uint32(16)
	if prefix.Addr().Is6() {
		offset = 24
	}
	return append(isFamily(prefix.Addr()),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: size,
			Mask: mask(prefix.Bits(), len(addr)), Xor: make([]byte, size),
		},
		equal(addr))
}

func mask(bits, size int) []byte {
	m := make([]byte, size)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// socket matches packets whose socket here has a property.
func socket(key expr.SocketKey) []expr.Any {
	return []expr.Any{&expr.Socket{Key: key, Register: reg}, equal([]byte{1})}
}

func (p Plan) setMark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.NativeEndian.PutUint32(p.Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func accept() []expr.Any { return verdict(expr.VerdictAccept) }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
