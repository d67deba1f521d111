package hub

import (
	"math/rand/v2"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	expireEvery = 10 * time.Second // how often topics that nobody publishes to lose what is too old
	minTick     = 5 * time.Millisecond
)

// health is what the checker knows of one client.
type health struct {
	due      time.Time // silence until then is fine; then a ping is sent, or the client given up
	failures int       // pings that went unanswered, or still are
}

// keepHouse checks the health of clients and expires histories. It ticks a few
// times in a check's timeout, whatever the number of clients.
func (h *Hub) keepHouse() {
	tick := time.NewTimer(h.tick())
	defer tick.Stop()
	expire := time.Now().Add(expireEvery)
	for {
		select {
		case <-h.life.Done():
			return
		case <-h.retick: // the settings changed
		case now := <-tick.C:
			if s := h.settings.Load(); s.HealthCheck.Interval > 0 {
				h.eachClient(func(c *Client) { h.check(c, now, s.HealthCheck) })
			}
			if now.After(expire) {
				expire = now.Add(expireEvery)
				h.keeper.Retain(now)
			}
		}
		tick.Reset(h.tick())
	}
}

func (h *Hub) tick() time.Duration {
	check := h.settings.Load().HealthCheck
	if check.Interval == 0 {
		return expireEvery
	}
	return min(max(min(check.Interval, check.Timeout)/10, minTick), expireEvery)
}

// silence returns how long a client may say nothing before it is pinged: less
// than the interval by two ticks, since it takes up to one to notice that the
// silence has begun and one that it lasts; and by a random part of it, so that
// clients that came together are not pinged together.
func (h *Hub) silence(check HealthCheck) time.Duration {
	return check.Interval - 2*h.tick() - rand.N(check.Interval/4+1) //nolint:gosec // spreads load, guards nothing
}

// check pings a silent client, or gives it up. The moments are counted from
// each other, not from the tick that noticed them, so that ticks don't add up.
func (h *Hub) check(c *Client, now time.Time, check HealthCheck) {
	s := &c.health
	switch {
	case c.heard.Swap(false) || s.due.IsZero():
		*s = health{due: now.Add(h.silence(check))}
	case s.due.After(now.Add(max(check.Interval, check.Timeout))): // of settings that are no longer
		s.due = now.Add(h.silence(check))
	case now.Before(s.due):
	case s.failures >= check.Failures:
		h.metrics.unhealthy.Add(1)
		h.remove(c, &wire.Error{Code: wire.CodeUnhealthy, Detail: "the client left its health checks unanswered"})
	default:
		s.failures++
		s.due = s.due.Add(check.Timeout)
		c.pinged.Store(now.UnixNano())
		c.pushControl(nil, wire.AppendFrame(nil, wire.Header{Kind: wire.KindPing}, "", "", nil))
	}
}
