package admin

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchboardhub/switchboard/hubnode/hub"
)

// patternsMax bounds the patterns that have a time series of their own: the
// most subscribed ones.
const patternsMax = 50

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("switchboard_"+name, help, labels, nil)
}

var (
	clients          = describe("clients", "Clients connected to this node.")
	sessions         = describe("sessions", "Sessions that this node holds.")
	received         = describe("artifacts_received_total", "Artifacts taken from this node's clients.")
	delivered        = describe("artifacts_delivered_total", "Artifacts queued for this node's clients, each counted for each of them.", "route")
	forwarded        = describe("artifacts_forwarded_total", "Artifacts that came from other nodes.")
	dropped          = describe("artifacts_dropped_total", "Artifacts that reached nobody or not everybody.", "reason")
	bytesReceived    = describe("bytes_received_total", "Bytes of artifact frames taken from this node's clients.")
	topicSubscribers = describe("topic_subscribers", "Subscriptions of this node's clients to the patterns that most subscribe to.", "pattern")
	pendingBytes     = describe("pending_bytes", "Bytes that wait to be written to this node's clients.")
	slowClients      = describe("slow_clients_total", "Clients disconnected for reading too slowly.")
	unhealthyClients = describe("unhealthy_clients_total", "Clients disconnected for leaving health checks unanswered.")
	clientsJoined    = describe("clients_joined_total", "Clients that were registered on this node, each session counted.")
	clientsLeft      = describe("clients_left_total", "Clients that left this node, by what ended their session.", "reason")
	malformed        = describe("malformed_frames_total", "Frames that ended their connection.")
	roundTrip        = describe("client_round_trip_seconds", "Round trips of health checks.")
	directoryEntries = describe("directory_entries", "Clients that are known on other nodes.")
	meshLinks        = describe("mesh_links", "Links to other nodes that are up.")
	gossipMembers    = describe("gossip_members", "Nodes that the gossip knows, this one included.")
	gossipHealth     = describe("gossip_health_score", "How late this node's gossip is by its own judgement: 0 is healthy, higher is worse.")
	meshLinked       = describe("mesh_links_made_total", "Links to other nodes that came up, again or for the first time.")
	meshRefused      = describe("mesh_links_refused_total", "Connections to the cluster port that did not greet as a node of this hub.")
	announceRefused  = describe("directory_refused_total", "Announcements that were malformed or spoke for another node.")
	filterErrors     = describe("filter_errors_total", "Artifacts on which a filter had no answer, as when it reads an attribute that is absent: they don't match.")
	historyArtifacts = describe("history_artifacts", "Artifacts that this node keeps.")
	historyBytes     = describe("history_bytes", "Bytes of artifacts that this node keeps.")
)

// collector makes the hub's and the node's numbers metrics when they are asked
// for, so that the message path pays nothing.
type collector struct {
	hub  func() hub.Metrics
	node func() Counts
}

func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c collector) Collect(ch chan<- prometheus.Metric) {
	m, n := c.hub(), c.node()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(clients, float64(m.ActiveClients))
	gauge(sessions, float64(m.Sessions))
	counter(received, m.ArtifactsReceived)
	counter(delivered, m.ArtifactsDirect, "direct")
	counter(delivered, m.ArtifactsSent-min(m.ArtifactsSent, m.ArtifactsDirect), "topic")
	counter(forwarded, m.ArtifactsForwarded)
	for reason, count := range m.ArtifactsDropped {
		counter(dropped, count, reason)
	}
	counter(bytesReceived, m.BytesReceived)
	for _, p := range mostSubscribed(m) {
		gauge(topicSubscribers, float64(m.TopicSubscribers[p]), p)
	}
	gauge(pendingBytes, float64(m.PendingBytes))
	counter(slowClients, m.SlowClients)
	counter(unhealthyClients, m.UnhealthyClients)
	counter(clientsJoined, m.ClientsJoined)
	for reason, count := range m.ClientsLeft {
		counter(clientsLeft, count, reason)
	}
	counter(malformed, m.MalformedFrames)
	ch <- prometheus.MustNewConstSummary(roundTrip, m.RoundTrips, m.RoundTripTime.Seconds(), nil)
	gauge(directoryEntries, float64(n.DirectoryEntries))
	gauge(meshLinks, float64(n.MeshLinks))
	gauge(gossipMembers, float64(n.GossipMembers))
	gauge(gossipHealth, float64(n.GossipHealth))
	counter(meshLinked, n.MeshLinked)
	counter(meshRefused, n.MeshRefused)
	counter(announceRefused, n.AnnounceRefused)
	counter(filterErrors, n.FilterErrors)
	gauge(historyArtifacts, float64(m.HistoryArtifacts))
	gauge(historyBytes, float64(m.HistoryBytes))
}

func mostSubscribed(m hub.Metrics) []string {
	patterns := make([]string, 0, len(m.TopicSubscribers))
	for p := range m.TopicSubscribers {
		patterns = append(patterns, p)
	}
	slices.SortFunc(patterns, func(a, b string) int {
		if d := m.TopicSubscribers[b] - m.TopicSubscribers[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return patterns[:min(len(patterns), patternsMax)]
}
