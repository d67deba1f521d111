package hub

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Reasons for artifacts that reached nobody; the keys of Metrics.Dropped.
const (
	dropSlowClient = "slow_client"
	dropLinkFull   = "link_full"
	dropNoClient   = "no_client"

	dropSessionEnded = "session_ended"
	dropFiltered     = "filtered"
	dropGivenUp      = "given_up"
)

// counters are what the message path counts: once for each frame, not for
// each artifact.
type counters struct {
	received      atomic.Uint64
	bytesReceived atomic.Uint64
	sent          atomic.Uint64
	direct        atomic.Uint64
	forwarded     atomic.Uint64
	malformed     atomic.Uint64
	slow          atomic.Uint64
	unhealthy     atomic.Uint64
	rttCount      atomic.Uint64
	rttNanos      atomic.Uint64
	joined        atomic.Uint64
	throttled     atomic.Uint64
	left          departureCounts
	refused       [refusals]atomic.Uint64
	denied        [len(actions)]atomic.Uint64 // in the order of actions

	dropSlow, dropLink, dropClient, dropFilter, dropSession, dropDead atomic.Uint64
}

func (m *counters) dropped(reason string, artifacts int) {
	n := uint64(artifacts)
	switch reason {
	case dropSlowClient:
		m.dropSlow.Add(n)
	case dropLinkFull:
		m.dropLink.Add(n)
	case dropNoClient:
		m.dropClient.Add(n)
	case dropFiltered:
		m.dropFilter.Add(n)
	case dropGivenUp:
		m.dropDead.Add(n)
	case dropSessionEnded:
		m.dropSession.Add(n)
	}
}

func (m *counters) roundTrip(d time.Duration) {
	m.rttCount.Add(1)
	m.rttNanos.Add(uint64(d.Nanoseconds()))
}

// Metrics is a moment's view of a hub.
type Metrics struct {
	ActiveClients      int
	EncryptedClients   int               // of these, with TLS
	Sessions           int               // of clients that are here, and of those that may come back
	ArtifactsReceived  uint64            // from this hub's clients and from Route
	ArtifactsSent      uint64            // queued for this hub's clients, counted for each
	ArtifactsDirect    uint64            // of those sent: to a client by name
	ArtifactsForwarded uint64            // that came from other nodes
	ArtifactsDropped   map[string]uint64 // by reason: slow_client, link_full, no_client, filtered, session_ended
	BytesReceived      uint64            // frames of artifacts from this hub's clients
	MalformedFrames    uint64            // malformed, too large, of an unknown kind or from another sender: each ended a connection
	SlowClients        uint64            // disconnected for being slow
	UnhealthyClients   uint64            // disconnected for leaving health checks unanswered
	PermissionsDenied  map[string]uint64 // by action
	ArtifactsThrottled uint64            // held up because their sender's identity was ahead of its rate
	ClientsJoined      uint64
	ClientsLeft        map[string]uint64 // by reason: goodbye, disconnected, connection_fault, bad_input, slow, unhealthy, replaced, removed, stopped, resumed, unauthenticated, shed
	ClientsRefused     map[string]uint64 // by reason: memory, max_clients, per_identity
	TopicSubscribers   map[string]int    // pattern → subscriptions of this hub's clients
	PendingBytes       int64             // what waits for this hub's clients
	RoundTrips         uint64            // answered health checks
	RoundTripTime      time.Duration     // of all of them together
	HistoryArtifacts   int
	HistoryBytes       int64
}

// Metrics counts what there is and returns it with the counters so far. It
// takes longer the more clients and topics there are, and holds up no message.
func (h *Hub) Metrics() Metrics {
	c := &h.metrics
	m := Metrics{
		ArtifactsReceived: c.received.Load(), ArtifactsSent: c.sent.Load(),
		ArtifactsDirect: c.direct.Load(), ArtifactsForwarded: c.forwarded.Load(),
		ArtifactsDropped: map[string]uint64{
			dropSlowClient: c.dropSlow.Load(), dropLinkFull: c.dropLink.Load(),
			dropNoClient: c.dropClient.Load(), dropFiltered: c.dropFilter.Load(),
			dropSessionEnded: c.dropSession.Load(),
			dropGivenUp:      c.dropDead.Load(),
		},
		BytesReceived: c.bytesReceived.Load(), MalformedFrames: c.malformed.Load(),
		SlowClients: c.slow.Load(), UnhealthyClients: c.unhealthy.Load(),
		PermissionsDenied: c.deniedByAction(), ArtifactsThrottled: c.throttled.Load(),
		ClientsJoined:    c.joined.Load(),
		ClientsLeft:      c.left.byName(),
		ClientsRefused:   c.refusedByName(),
		TopicSubscribers: make(map[string]int),
		RoundTrips:       c.rttCount.Load(),
		RoundTripTime:    time.Duration(c.rttNanos.Load()),
	}
	h.mu.Lock()
	m.ActiveClients = h.clientN
	m.Sessions = h.clientN + int(h.awayN.Load())
	for name, n := range h.interests {
		pattern, _ := splitInterest(name)
		m.TopicSubscribers[pattern] += n
	}
	h.mu.Unlock()
	h.eachClient(func(c *Client) {
		m.PendingBytes += int64(c.PendingBytes())
		if c.info.TLS {
			m.EncryptedClients++
		}
	})
	m.HistoryArtifacts, m.HistoryBytes = h.keeper.Size()
	return m
}

// Stopped returns a channel that is closed when the hub has stopped.
func (h *Hub) Stopped() <-chan struct{} { return h.stopped }

// actions are what can be denied, in the order of counters.denied.
var actions = [...]wire.Action{
	wire.ActionConnect, wire.ActionSend, wire.ActionPublish, wire.ActionSubscribe, wire.ActionHistory, wire.ActionView, wire.ActionManage, wire.ActionPurge,
}

func (m *counters) deny(action wire.Action) {
	if i := slices.Index(actions[:], action); i >= 0 {
		m.denied[i].Add(1)
	}
}

func (m *counters) deniedByAction() map[string]uint64 {
	counts := make(map[string]uint64, len(actions))
	for i, action := range actions {
		counts[string(action)] = m.denied[i].Load()
	}
	return counts
}
