package server

import (
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/rate"
)

// paceBurst is how much of its rate a node may use at once: what comes together is what
// others wait behind.
const paceBurst = 100 * time.Millisecond

// pace spreads connections over time. The zero value is ready.
type pace struct {
	used    rate.Meter
	delayed atomic.Uint64
}

// take counts a connection, and returns how long it has to wait so that there are no more
// than so many in a second; 0: no limit. One goroutine calls it.
func (p *pace) take(perSecond int, now time.Time) time.Duration {
	if perSecond <= 0 {
		return 0
	}
	wait := p.used.Ahead(now) - paceBurst
	p.used.Take(rate.Cost(1, perSecond), now)
	if wait <= 0 {
		return 0
	}
	p.delayed.Add(1)
	return wait
}
