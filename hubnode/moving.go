package hubnode

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/cluster"
)

const (
	// movePace is how many clients a second are asked to go elsewhere: each costs
	// the nodes two handshakes' work while they serve the others.
	movePace = 2000
	// rebalanceEvery is how often a node compares itself with the others, when it
	// does that by itself.
	rebalanceEvery = 30 * time.Second
	// rebalanceSlack is the part of a fair share that a node may hold beyond it.
	rebalanceSlack = 0.1
)

// spread tells clients where to go: each to the node with the fewest clients,
// those that were sent there before included.
type spread struct {
	to []destination
}

type destination struct {
	address string
	clients int
}

// spreadOut returns where clients can go from here.
func (n *Node) spreadOut() *spread {
	counts := n.view.table.Counts()
	var s spread
	for _, m := range *n.members.Load() {
		if m.State == cluster.Active {
			s.to = append(s.to, destination{m.Client, counts[m.Name]})
		}
	}
	rand.Shuffle(len(s.to), func(i, j int) { s.to[i], s.to[j] = s.to[j], s.to[i] }) //nolint:gosec // so that not all nodes favour the same one among equals
	return &s
}

// next returns the addresses for one more client, best first.
func (s *spread) next() []string {
	slices.SortStableFunc(s.to, func(a, b destination) int { return a.clients - b.clients })
	s.to[0].clients++
	addresses := make([]string, len(s.to))
	for i, d := range s.to {
		addresses[i] = d.address
	}
	return addresses
}

// excess returns how many of own clients are beyond a fair share.
func (s *spread) excess(own int) int {
	total := own
	for _, d := range s.to {
		total += d.clients
	}
	fair := (total + len(s.to)) / (len(s.to) + 1) // rounded up
	return max(0, own-fair)
}

// moveClients asks all clients to go elsewhere, in half of the time that ctx
// leaves them, and waits until they have.
func (n *Node) moveClients(ctx context.Context) {
	to := n.spreadOut()
	if len(to.to) == 0 {
		return
	}
	pace := movePace
	if end, ok := ctx.Deadline(); ok {
		pace = max(pace, int(float64(2*n.hub.Metrics().ActiveClients)/max(time.Until(end).Seconds(), 1)))
	}
	n.hub.Redirect(ctx, math.MaxInt, pace, to.next)
	n.waitForClients(ctx)
}

// Rebalance asks clients that are beyond this node's fair share to go to nodes
// with fewer, at a bounded rate, and returns how many.
func (n *Node) Rebalance(ctx context.Context) int {
	to := n.spreadOut()
	if len(to.to) == 0 || n.draining.Load() {
		return 0
	}
	asked := 0
	if excess := to.excess(n.hub.Metrics().ActiveClients); excess > 0 {
		asked = n.hub.Redirect(ctx, excess, movePace, to.next)
		n.log.Info("clients asked to go to nodes with fewer", slog.Int("clients", asked))
	}
	return asked
}

// keepBalance rebalances from time to time while the settings say so, until ctx
// ends.
func (n *Node) keepBalance(ctx context.Context) error {
	for {
		rest := time.NewTimer(rebalanceEvery/2 + rand.N(rebalanceEvery)) //nolint:gosec // so that the nodes don't all look at once
		select {
		case <-ctx.Done():
			rest.Stop()
			return nil
		case <-rest.C:
		}
		own := n.hub.Metrics().ActiveClients
		if n.Config().Sessions.Rebalance && float64(n.spreadOut().excess(own)) > rebalanceSlack*float64(own) {
			n.Rebalance(ctx)
		}
	}
}
