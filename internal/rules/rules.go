package rules

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Apply puts a plan in place, and replaces an older one with the same table.
// When it fails, nothing that was not there before is left.
func Apply(p Plan) error {
	p = p.withDefaults()
	if err := p.validate(); err != nil {
		return fmt.Errorf("plan rules: %w", err)
	}
	// The routes go first: without marks they do nothing.
	undo, err := p.addPolicy()
	if err == nil {
		err = p.applyTable()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("apply rules: %w", hint(err)), undo())
	}
	return nil
}

// Remove takes a plan away, also if it is there in part or not at all.
func Remove(p Plan) error {
	p = p.withDefaults()
	// The table goes first: marks without a route would send packets astray.
	if err := errors.Join(p.removeTable(), p.removePolicy()); err != nil {
		return fmt.Errorf("remove rules: %w", hint(err))
	}
	return nil
}

func (p Plan) applyTable() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := p.table()
	// Add and delete in one transaction replace what may be there.
	conn.AddTable(table)
	conn.DelTable(table)
	if err := p.addTable(conn, conn.AddTable(table)); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("add nftables table inet %s: %w", p.Table, err)
	}
	return nil
}

func (p Plan) removeTable() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	// Adding first makes the deletion of a table that is not there no error.
	conn.AddTable(p.table())
	conn.DelTable(p.table())
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("delete nftables table inet %s: %w", p.Table, err)
	}
	return nil
}

func hint(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (CAP_NET_ADMIN is needed)", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w (the kernel may lack nft_tproxy, nft_socket or nft_fib_inet: "+
			"CONFIG_NFT_TPROXY, CONFIG_NFT_SOCKET, CONFIG_NFT_FIB_INET)", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (the kernel may lack nf_tables or its inet family: "+
			"CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_IP_MULTIPLE_TABLES)", err)
	}
	return err
}
