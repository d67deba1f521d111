package cluster

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"
)

// join finds the peers, and looks for them again from time to time: what DNS
// says changes, and the two sides of a partition have forgotten each other.
func (c *Cluster) join(ctx context.Context) {
	deadline := time.Now().Add(joinGrace)
	for {
		missing, known := c.missing(ctx)
		if len(missing) > 0 {
			if _, err := c.list.Join(missing); err != nil {
				c.cfg.Log.Debug("peers not reached", slog.Any("peers", missing), slog.Any("error", err))
			}
		}
		wait := rejoinMin + rand.N(rejoinMax-rejoinMin) //nolint:gosec // spreads load, guards nothing
		if !c.joined.Load() {
			wait = joinRetry
			c.conclude(known && len(missing) == 0, time.Now().After(deadline))
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// conclude decides whether the node has joined: it sees another one, or it is
// the only one that its configuration names, or nobody answered for long.
func (c *Cluster) conclude(alone, late bool) {
	switch {
	case c.list.NumMembers() > 1:
		c.cfg.Log.Info("joined", slog.Int("members", c.list.NumMembers()))
	case alone:
		c.cfg.Log.Info("alone: no other node is known")
	case late:
		c.cfg.Log.Warn("alone: no configured peer answers", slog.Any("peers", c.cfg.Peers()))
	default:
		return
	}
	c.joined.Store(true)
	c.poke()
}

// missing returns the addresses of configured peers that are not members now,
// this node's own left out. known is false when a name could not be resolved.
func (c *Cluster) missing(ctx context.Context) (addrs []string, known bool) {
	have := make(map[string]bool)
	c.mu.Lock()
	for _, n := range c.nodes { // this one among them
		have[n.addr] = true
	}
	c.mu.Unlock()
	known = true
	for _, peer := range c.cfg.Peers() {
		host, port, err := net.SplitHostPort(peer)
		if err != nil {
			c.cfg.Log.Warn("peer address is wrong", slog.String("peer", peer), slog.Any("error", err))
			continue
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			c.cfg.Log.Debug("peer not resolved", slog.String("peer", peer), slog.Any("error", err))
			known = false
		}
		for _, ip := range ips {
			if addr := net.JoinHostPort(ip, port); !have[addr] {
				have[addr] = true
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, known
}
