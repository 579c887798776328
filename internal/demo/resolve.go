package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// datagrams asks for a name by UDP, and looks at what both ends saw of it.
func (d *demo) datagrams(ctx context.Context) {
	d.out.step("DNS to the virtual address, and to a server that the client believes to reach directly")
	for _, f := range families {
		e, err := d.resolve(ctx, f.vipDNS)
		if err == nil {
			d.say(f.vipDNS, e)
		}
		d.preserved("udp_vip_source_preserved"+f.suffix, e, err)
	}
	for _, f := range families {
		e, err := d.resolve(ctx, f.foreignDNS)
		if err == nil {
			d.say(f.foreignDNS, e)
			if e.Destination != f.foreignDNS {
				err = fmt.Errorf("the server was spoken to as %s", e.Destination)
			}
		}
		d.preserved("udp_intercept_source_preserved"+f.suffix, e, err)
	}
}

// resolve asks a name server once. The socket is connected, as a resolver's is:
// it takes an answer only from the address that it asked.
func (d *demo) resolve(ctx context.Context, address string) (e exchange, err error) {
	c, err := d.lab.Client.Dial(ctx, "udp", address)
	if err != nil {
		return e, err
	}
	defer c.Close()
	e.client, e.peer = c.LocalAddr().String(), c.RemoteAddr().String()
	if err := c.SetDeadline(time.Now().Add(d.cfg.step)); err != nil {
		return e, err
	}
	id := uint16(rand.Uint32())
	query, err := dnsQuestion(id)
	if err != nil {
		return e, err
	}
	if _, err := c.Write(query); err != nil {
		return e, err
	}
	d.questions.Add(1)
	answer := make([]byte, dnsSize)
	n, err := c.Read(answer)
	if err != nil {
		return e, err
	}
	e.sighting, err = readDNS(answer[:n], id)
	return e, err
}
