package hub

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// deniedMax is how many bytes of a target are repeated to who may not have it: no name
// that there can be is longer.
const deniedMax = max(wire.MaxTopic, wire.MaxClientID)

// Permit is who a client has proved to be and what it may do. A client without one may
// do everything.
type Permit struct {
	Identity string // as people know it
	// Account is what limits and the log of denials go by: it tells identities apart that
	// people know by the same name. Empty: Identity.
	Account string
	// Allows says whether a client may do something to a client id, topic, pattern or
	// question. It is safe for concurrent use and always says the same.
	Allows func(action wire.Action, target string) bool
	// Own says that the client has names of its own, so that all topics that it may use are
	// its own people's: it may delete those durable subscriptions that it may fetch from.
	// Elsewhere that takes ActionManage.
	Own bool
	// Expires is when the client is disconnected unless it has renewed its proof; the
	// zero time: never.
	Expires time.Time
	// Proof is what the program around the hub knows the identity by.
	Proof any
}

// Renew returns the permit that a client's new token is worth.
type Renew func(ctx context.Context, c *Client, token string) (*Permit, error)

// permitted is a permit in use. What the goroutine that reads from the client has asked of
// it is remembered for that goroutine.
type permitted struct {
	Permit
	expiry *time.Timer // nil: it does not expire

	routes  answers[*route]
	targets answers[string]
}

// answers remember what was allowed.
type answers[K comparable] struct {
	last   K // what was asked last, and the answer
	lastOK bool
	all    map[K]bool
}

// to returns the answer to a question, which is asked when it is not remembered.
func (a *answers[K]) to(key K, ask func() bool) bool {
	if a.last == key {
		return a.lastOK
	}
	ok, found := a.all[key]
	if !found {
		ok = ask()
		if a.all == nil || len(a.all) >= cacheMax {
			a.all = make(map[K]bool)
		}
		a.all[key] = ok
	}
	a.last, a.lastOK = key, ok
	return ok
}

// WithPermit says who the client is and what it may do.
func WithPermit(p *Permit) ClientOption {
	return func(c *Client) { c.permit.Store(&permitted{Permit: *p}) }
}

// WithRenewal lets the client renew its permit.
func WithRenewal(renew Renew) ClientOption { return func(c *Client) { c.renewal = renew } }

// Permit returns what the client may do, nil when it may do everything.
func (c *Client) Permit() *Permit {
	p := c.permit.Load()
	if p == nil {
		return nil
	}
	return &p.Permit
}

// identity is who the client has proved to be, empty when nobody asked.
func (c *Client) identity() string {
	if p := c.permit.Load(); p != nil {
		return p.Identity
	}
	return ""
}

// accountKey is what the client's account is found by, empty when nobody asked who it is.
func (c *Client) accountKey() string {
	if p := c.permit.Load(); p != nil {
		return p.account()
	}
	return ""
}

func (p *Permit) account() string { return cmp.Or(p.Account, p.Identity) }

// SetPermit replaces what a client may do; nil lets it do everything. Subscriptions that
// are not allowed any more end, also those that still read what was published before them
// when that is not, and the client is told. It does nothing when the permit
// is not the old one any more, and reports that.
func (h *Hub) SetPermit(c *Client, old, next *Permit) bool {
	now := c.permit.Load()
	if (now == nil) != (old == nil) || now != nil && &now.Permit != old {
		return false
	}
	var p *permitted
	if next != nil {
		p = &permitted{Permit: *next}
	}
	h.mu.Lock()
	swapped := c.permit.CompareAndSwap(now, p)
	var subs []*subscription
	if swapped {
		h.expireLocked(c)
		if p != nil {
			subs = slices.Collect(maps.Values(c.subs)) // those that come later are looked at by the new permit
		}
	}
	h.mu.Unlock()
	if !swapped {
		return false
	}
	if now != nil && now.expiry != nil {
		now.expiry.Stop()
	}
	// Not with the lock held: a client may have thousands, and may ask for this again and again.
	type ending struct {
		*subscription
		right wire.Action
	}
	var lost []ending
	for _, s := range subs {
		if right := p.endingRight(s, s.replays()); right != "" {
			lost = append(lost, ending{s, right})
		}
	}
	if len(lost) > 0 {
		h.mu.Lock()
		if c.permit.Load() != p { // who replaced it looks at all of them
			lost = nil
		}
		for _, s := range lost {
			h.dropLocked(s.subscription)
		}
		h.mu.Unlock()
	}
	c.pushControl(nil, settingsFrame)
	for _, s := range lost {
		s.replays() // nothing of it comes behind the error
		c.deny(nil, s.id, c.denied(p, s.right, s.pattern))
	}
	return true
}

// endingRight returns the right without which a subscription ends and that the permit does
// not have; empty when there is none. replays says that it reads what was published before
// it. One that the client had before it came back does not end for that, as it would not
// have had the client come back now.
func (p *permitted) endingRight(s *subscription, replays bool) wire.Action {
	switch {
	case s.id == 0: // what it hears without asking
	case !p.Allows(wire.ActionSubscribe, s.pattern):
		return wire.ActionSubscribe
	case replays && !s.again && !p.Allows(wire.ActionHistory, s.pattern):
		return wire.ActionHistory
	}
	return ""
}

// expireLocked sees to it that the client is gone when its permit has expired.
func (h *Hub) expireLocked(c *Client) {
	p := c.permit.Load()
	if p == nil || p.Expires.IsZero() || c.reason != nil {
		return
	}
	p.expiry = time.AfterFunc(time.Until(p.Expires), func() {
		h.spawn(func() {
			if c.permit.Load() == p {
				h.remove(c, &wire.Error{Code: wire.CodeUnauthenticated, Detail: "what proved who this client is has expired: connect again with a new token"})
			}
		})
	})
}

// may returns nil, or why the client may not do something.
func (c *Client) may(action wire.Action, target string) error {
	p := c.permit.Load()
	if p == nil || p.Allows(action, target) {
		return nil
	}
	return c.denied(p, action, target)
}

// allows is may without counting and telling that it is denied.
func (c *Client) allows(action wire.Action, target string) bool {
	p := c.permit.Load()
	return p == nil || p.Allows(action, target)
}

// mayPublish is may for the goroutine that reads from the client, on its way with every
// frame.
func (c *Client) mayPublish(r *route) error {
	p := c.permit.Load()
	if p == nil {
		return nil
	}
	if !p.routes.to(r, func() bool { return p.Allows(wire.ActionPublish, r.topic) }) {
		return c.denied(p, wire.ActionPublish, r.topic)
	}
	return nil
}

// maySend is likewise. Whoever was asked may answer.
func (c *Client) maySend(f wire.Frame) error {
	p := c.permit.Load()
	if p == nil || f.Kind() == wire.KindReply && c.asked.answered(f.Target(), f.Ref()) {
		return nil
	}
	if p.targets.last == string(f.Target()) && p.targets.lastOK { // without making a string of it
		return nil
	}
	target := string(f.Target())
	if len(target) > wire.MaxClientID || // nobody's id, and too long to remember
		!p.targets.to(target, func() bool { return p.Allows(wire.ActionSend, target) }) {
		return c.denied(p, wire.ActionSend, target)
	}
	return nil
}

// mayAsk is may for a question to the hub itself.
func (c *Client) mayAsk(target string, body []byte) error {
	switch strings.TrimPrefix(target, systemPrefix) {
	case systemPurge:
		return c.may(wire.ActionPurge, topicAsked(body))
	case systemDurableDelete:
		if p := c.permit.Load(); p != nil && p.Own {
			return c.mayUse(topicAsked(body))
		}
		return c.may(wire.ActionManage, target)
	}
	return c.may(wire.ActionView, target)
}

// mayUse returns nil, or why the client may not use durable subscriptions of a topic. Whoever
// may can fetch all that one has, and say that it is done.
func (c *Client) mayUse(topic string) error {
	for _, action := range []wire.Action{wire.ActionSubscribe, wire.ActionHistory} {
		if err := c.may(action, topic); err != nil {
			return err
		}
	}
	return nil
}

// denied counts and logs what a client was not allowed, and returns what it hears.
func (c *Client) denied(p *permitted, action wire.Action, target string) error {
	h := c.hub
	h.metrics.deny(action)
	target = target[:min(len(target), deniedMax)]
	err := &wire.PermissionError{Identity: p.Identity, Action: action, Target: target}
	if due, silent := h.denials.Due(p.account()+"\x00"+string(action), time.Now()); due {
		h.log.LogAttrs(h.life, slog.LevelWarn, "denied", slog.String("identity", p.Identity), slog.String("client", c.id),
			slog.String("action", string(action)), slog.String("target", target), slog.Int("more_since_last_told", silent))
	}
	return err
}

// renew takes a client's new token. It may mean to ask the token's issuer, so it does not
// hold up the connection.
func (c *Client) renew(in *intake, f wire.Frame) error {
	var want wire.Renew
	if err := wire.DecodeControl(f, &want); err != nil {
		return err
	}
	ref := f.Ref()
	old := c.Permit()
	if old == nil || c.renewal == nil { // nobody is asked who they are
		c.renewed(in, ref, nil)
		return nil
	}
	if err := c.beginAsking(); err != nil {
		c.deny(in, ref, err)
		return nil
	}
	c.hub.spawn(func() {
		defer c.asking.Add(-1)
		ctx, cancel := context.WithTimeout(c.hub.life, askTime)
		defer cancel()
		for {
			next, err := c.renewal(ctx, c, want.Token)
			if err != nil {
				c.deny(nil, ref, err)
				return
			}
			if c.hub.SetPermit(c, old, next) {
				c.renewed(nil, ref, next)
				return
			}
			// Another one came between: of newer rules and the same old proof, unless it holds
			// for longer.
			if old = c.Permit(); old == nil || old.Expires.IsZero() || old.Expires.After(next.Expires) {
				c.renewed(nil, ref, old)
				return
			}
		}
	})
	return nil
}

// renewed tells the client how long it may stay now; with a nil permit, for ever.
func (c *Client) renewed(in *intake, ref uint32, p *Permit) {
	c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Ref: ref}, "", wire.Renewed{Expires: expiresIn(p)}))
}

// expiresIn is how long a permit holds, in milliseconds; 0: for ever.
func expiresIn(p *Permit) int64 {
	if p == nil || p.Expires.IsZero() {
		return 0
	}
	return max(time.Until(p.Expires).Milliseconds(), 1)
}
