package hub

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// burst is how much of its rate somebody may use at once.
const burst = time.Second

// tenantsIdle is how many tenants without clients may be remembered.
const tenantsIdle = 1000

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

// tenant is the clients of one identity.
type tenant struct {
	clients, subscriptions int // guarded by Hub.mu
	away                   int // sessions that wait for a client; likewise

	mu   sync.Mutex // guards paid
	paid time.Time  // until when what was sent uses up the rates
}

// tenantLocked returns the tenant that a client is one of, nil when nobody asked who it is.
func (h *Hub) tenantLocked(c *Client) *tenant {
	name := c.identity()
	if name == "" {
		return nil
	}
	t := h.tenants[name]
	if t == nil {
		t = &tenant{}
		if h.tenants == nil {
			h.tenants = make(map[string]*tenant)
		}
		if len(h.tenants) > 2*h.clientN+tenantsIdle {
			h.forgetTenantsLocked()
		}
		h.tenants[name] = t
	}
	return t
}

// moveInLocked makes a client that is being admitted one of its tenant's.
func (h *Hub) moveInLocked(c *Client) {
	if c.tenant = h.tenantLocked(c); c.tenant != nil {
		c.tenant.clients++
		c.tenancy = c.identity()
	}
}

// moveOutLocked is the reverse, for one that departs.
func (h *Hub) moveOutLocked(c *Client) {
	if c.tenant == nil {
		return
	}
	if c.tenant.clients--; c.tenant.idle(time.Now()) {
		delete(h.tenants, c.tenancy)
	}
}

// forgetTenantsLocked drops those of whom nothing is to be remembered any more. They were
// kept when they went because they had used up their rates: coming back must not give them
// new ones.
func (h *Hub) forgetTenantsLocked() {
	now := time.Now()
	maps.DeleteFunc(h.tenants, func(_ string, t *tenant) bool { return t.idle(now) })
}

// idle reports whether nothing is to be remembered of a tenant. Hub.mu is held.
func (t *tenant) idle(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clients == 0 && t.away == 0 && !t.paid.After(now)
}

// roomLocked returns nil, or why a client's identity may have no further one.
func (h *Hub) roomLocked(c *Client) error {
	limit := h.settings.Load().PerIdentity.Clients
	t := h.tenants[c.identity()]
	if limit == 0 || t == nil {
		return nil
	}
	has := t.clients + t.away
	if s := h.awaySession(c.id); s != nil && s.tenant == t {
		has-- // it comes back to that, or ends it
	}
	if has < limit {
		return nil
	}
	return &wire.Error{Code: wire.CodeTooManyClients, Detail: fmt.Sprintf("%q has %d clients on this node, those included that may come back, as many as one identity may: raise limits.perIdentity.clients", c.identity(), has)}
}

// pace holds the client's reader up for as long as its identity is ahead of its rates: the
// connection then does the same to the client. By the generic cell rate algorithm, in its
// form as virtual scheduling (ITU-T I.371, annex A).
func (c *Client) pace(in *intake, f wire.Frame) {
	t := c.tenant
	if t == nil {
		return
	}
	quota := c.hub.settings.Load().PerIdentity
	if quota.ArtifactsPerSecond == 0 && quota.BytesPerSecond == 0 {
		return
	}
	wait := t.take(max(cost(f.Count(), quota.ArtifactsPerSecond), cost(len(f), quota.BytesPerSecond)), time.Now())
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

// cost is how long it takes at a rate to earn an amount.
func cost(amount, perSecond int) time.Duration {
	if perSecond == 0 {
		return 0
	}
	return time.Duration(float64(amount) / float64(perSecond) * float64(time.Second))
}

// take notes what is used up, and returns how long to wait before going on.
func (t *tenant) take(cost time.Duration, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paid.Before(now) {
		t.paid = now
	}
	t.paid = t.paid.Add(cost)
	return t.paid.Sub(now) - burst
}
