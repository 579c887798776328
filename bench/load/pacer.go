package load

// maxArrears bounds what is sent at once after the sender was held up: a burst
// that fills the receiver's queue would say nothing about the receiver.
const maxArrears = 5e6 // ns

// pacer spreads datagrams over time. What it could not send within maxArrears
// is never sent: the sender's rate is then lower than asked for, and what it
// reports is the truth.
type pacer struct {
	rate  float64 // per second
	start int64   // ns
	given float64 // sent or forgone since start
}

// due is how many to send now, in multiples of the chunk.
func (p *pacer) due(now int64, chunk int) int {
	due := p.rate*float64(now-p.start)/1e9 - p.given
	most := max(p.rate*maxArrears/1e9, float64(chunk))
	if due > most {
		p.given += due - most
		due = most
	}
	n := max(0, int(due))
	n -= n % chunk
	p.given += float64(n)
	return n
}
