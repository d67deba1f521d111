package hub

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/rate"
	"github.com/switchboardhub/switchboard/wire"
)

// accountsIdle is how many accounts without clients may be remembered.
const accountsIdle = 1000

// Quota is what all clients of one identity may have of a hub together. 0: as much as
// they like.
type Quota struct {
	Clients            int
	Subscriptions      int
	ArtifactsPerSecond int // sent and published
	BytesPerSecond     int // of frames of artifacts
}

func (q Quota) validate() error {
	if q.Clients < 0 || q.Subscriptions < 0 || q.ArtifactsPerSecond < 0 || q.BytesPerSecond < 0 {
		return fmt.Errorf("PerIdentity has a negative number: %+v", q)
	}
	return nil
}

// account is the clients of one identity.
type account struct {
	clients, subscriptions int // guarded by Hub.mu
	away                   int // sessions that wait for a client; likewise

	mu   sync.Mutex // guards used
	used rate.Meter // of the rates
}

// accountLocked returns the account that a client is one of, nil when nobody asked who it is.
func (h *Hub) accountLocked(c *Client) *account {
	name := c.accountKey()
	if name == "" {
		return nil
	}
	a := h.accounts[name]
	if a == nil {
		a = &account{}
		if h.accounts == nil {
			h.accounts = make(map[string]*account)
		}
		if len(h.accounts) > 2*h.clientN+accountsIdle {
			h.forgetAccountsLocked()
		}
		h.accounts[name] = a
	}
	return a
}

// moveInLocked makes a client that is being admitted one of its account's.
func (h *Hub) moveInLocked(c *Client) {
	if c.account = h.accountLocked(c); c.account != nil {
		c.account.clients++
		c.accountName = c.accountKey()
	}
}

// moveOutLocked is the reverse, for one that departs.
func (h *Hub) moveOutLocked(c *Client) {
	if c.account == nil {
		return
	}
	if c.account.clients--; c.account.idle(time.Now()) {
		delete(h.accounts, c.accountName)
	}
}

// forgetAccountsLocked drops those of whom nothing is to be remembered any more. They were
// kept when they went because they had used up their rates: coming back must not give them
// new ones.
func (h *Hub) forgetAccountsLocked() {
	now := time.Now()
	maps.DeleteFunc(h.accounts, func(_ string, a *account) bool { return a.idle(now) })
}

// idle reports whether nothing is to be remembered of an account. Hub.mu is held.
func (a *account) idle(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.clients == 0 && a.away == 0 && a.used.Ahead(now) == 0
}

// roomLocked returns nil, or why a client's identity may have no further one.
func (h *Hub) roomLocked(c *Client) error {
	limit := h.settings.Load().PerIdentity.Clients
	a := h.accounts[c.accountKey()]
	if limit == 0 || a == nil {
		return nil
	}
	has := a.clients + a.away
	if s := h.awaySession(c.id); s != nil && s.account == a {
		has-- // it comes back to that, or ends it
	}
	if has < limit {
		return nil
	}
	return &wire.Error{Code: wire.CodeTooManyClients, Detail: fmt.Sprintf("%q has %d clients on this node, those included that may come back, as many as one identity may: raise limits.perIdentity.clients", c.identity(), has)}
}

// pace holds the client's reader up for as long as its identity is ahead of its rates: the
// connection then does the same to the client.
func (c *Client) pace(in *intake, f wire.Frame) {
	a := c.account
	if a == nil {
		return
	}
	quota := c.hub.settings.Load().PerIdentity
	if quota.ArtifactsPerSecond == 0 && quota.BytesPerSecond == 0 {
		return
	}
	wait := a.take(max(rate.Cost(f.Count(), quota.ArtifactsPerSecond), rate.Cost(len(f), quota.BytesPerSecond)), time.Now())
	if wait <= 0 {
		return
	}
	c.hub.metrics.throttled.Add(uint64(f.Count()))
	in.flush()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.gone:
	}
}

// take notes what is used up, and returns how long to wait before going on.
func (a *account) take(cost time.Duration, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used.Take(cost, now)
}
