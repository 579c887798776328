package load

import "net/netip"

// send sends n datagrams, a multiple of the burst.
func (c *DatagramClient) send(n int) error {
	for ; n > 0; n -= c.cfg.Burst {
		id := c.next
		if c.cfg.Ask {
			id = c.source
		}
		addr, port := c.place(id)
		if s := c.sockets[port]; s != c.at || c.out.full() {
			if err := c.flush(); err != nil {
				return err
			}
			c.at = s
		}
		c.put(addr, c.next)
		if c.cfg.Ask {
			c.source = (c.source + 1) % (c.hosts * len(c.sockets))
		} else {
			c.next = (c.next + 1) % c.cfg.Flows
		}
	}
	return c.flush()
}

// place is the address and the number of the socket of a source. All sources
// below hosts times sockets differ, and portRun of them in a row have one socket.
func (c *DatagramClient) place(id int) (netip.Addr, int) {
	host, round := id%c.hosts, id/c.hosts
	base := c.cfg.Sources.Masked().Addr().As4()
	host++ // the first address is the net's
	base[2] += byte((int(base[3]) + host) >> 8)
	base[3] += byte(host)
	return netip.AddrFrom4(base), (host/portRun + round) % len(c.sockets)
}

// put adds the flow's next burst to the outbox.
func (c *DatagramClient) put(from netip.Addr, flow int) {
	buf, size := c.bufs[c.out.n], c.cfg.Size
	d := datagram{epoch: c.report.Epoch, flow: uint32(flow), port: c.at.port, seq: c.numbers[flow]}
	if c.cfg.Ask {
		d.kind = kindQuery
	}
	for i := range c.cfg.Burst {
		d.put(buf[i*size:(i+1)*size], c.pattern)
		d.seq++
	}
	c.numbers[flow] = d.seq
	segment := 0
	if c.cfg.Burst > 1 {
		segment = size
	}
	c.out.add(from, c.cfg.Target, segment, buf)
}

func (c *DatagramClient) flush() error {
	n := c.out.n
	if n == 0 {
		return nil
	}
	if err := c.out.flush(c.at.fd); err != nil {
		return err
	}
	c.report.LastSentNS = monotonic()
	if c.report.Sent == 0 {
		c.report.FirstSentNS = c.report.LastSentNS
	}
	c.report.Sent += uint64(n * c.cfg.Burst)
	return nil
}

// take counts an answer, which has to come from where the question went.
func (c *DatagramClient) take(from netip.AddrPort, data []byte, port uint16, now int64) {
	d, err := parseDatagram(data, c.cfg.Size, c.pattern)
	switch {
	case err != nil:
		c.fault(err)
	case from != c.cfg.Target || d.port != port || d.kind != kindReply:
		c.report.Foreign++
		if c.report.ForeignPeer == "" {
			c.report.ForeignPeer = from.String()
		}
	case d.epoch == c.report.Epoch:
		c.tally.add(d.flow, d.seq, now)
	}
}
