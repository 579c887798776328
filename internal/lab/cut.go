package lab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// CutClient makes the wire between client and proxy swallow every packet both
// ways, with no error to anybody, until restore is called.
func (l *Lab) CutClient() (restore func() error, err error) {
	return cut(end{l.Client, EndLink}, end{l.Proxy, ClientLink})
}

// CutServer does the same between proxy and server.
func (l *Lab) CutServer() (restore func() error, err error) {
	return cut(end{l.Server, EndLink}, end{l.Proxy, ServerLink})
}

type end struct {
	host *Host
	link string
}

// cut drops what comes in at both ends. Dropping what goes out would give the
// sender EPERM, and a link that is down would take its routes along.
func cut(ends ...end) (restore func() error, err error) {
	restore = func() error {
		var errs []error
		for _, e := range ends {
			errs = append(errs, e.uncut())
		}
		return errors.Join(errs...)
	}
	for _, e := range ends {
		if err := e.cut(); err != nil {
			return nil, errors.Join(err, restore())
		}
	}
	return restore, nil
}

func (e end) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: "lab-cut-" + e.link}
}

func (e end) cut() error {
	conn, err := e.host.nft()
	if err != nil {
		return err
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, e.link)
	table := conn.AddTable(e.table())
	chain := conn.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		// Neighbour discovery goes on, as ARP does, which nftables' inet family
		// does not see: a neighbour that fails would be an error to the sender.
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("cut link %s of the %s: %w", e.link, e.host.Name, err)
	}
	return nil
}

func (e end) uncut() error {
	conn, err := e.host.nft()
	if err != nil {
		return err
	}
	conn.DelTable(e.table())
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("restore link %s of the %s: %w", e.link, e.host.Name, err)
	}
	return nil
}
