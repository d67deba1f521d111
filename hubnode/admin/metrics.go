package admin

import (
	"cmp"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchboardhub/switchboard/hubnode/hub"
)

// patternsMax bounds the patterns that have a time series of their own: the
// most subscribed ones.
const patternsMax = 50

// namespacesMax bounds the namespaces that have.
const namespacesMax = 50

// durablesMax bounds the durable subscriptions that have.
const durablesMax = 100

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("switchboard_"+name, help, labels, nil)
}

var (
	clients          = describe("clients", "Clients connected to this node.")
	encryptedClients = describe("clients_encrypted", "Of these, clients whose connection is encrypted.")
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
	clientsRefused   = describe("clients_refused_total", "Clients that this node did not let in, because it or their identity had too much.", "reason")
	malformed        = describe("malformed_frames_total", "Frames that ended their connection.")
	throttled        = describe("artifacts_throttled_total", "Artifacts that were held up because the identity of their sender was ahead of its rate.")
	permissionDenied = describe("permission_denied_total", "What this node's clients asked for and no rule allows them, by action.", "action")
	roundTrip        = describe("client_round_trip_seconds", "Round trips of health checks.")
	directoryEntries = describe("directory_entries", "Clients that are known on other nodes.")
	meshLinks        = describe("mesh_links", "Links to other nodes that are up.")
	gossipMembers    = describe("gossip_members", "Nodes that the gossip knows, this one included.")
	gossipHealth     = describe("gossip_health_score", "How late this node's gossip is by its own judgement: 0 is healthy, higher is worse.")
	gossipKeys       = describe("gossip_keys", "Keys by which this node understands gossip: 1, or 2 while one gives way to another; 0 when gossip is not encrypted.")
	gossipKeysStale  = describe("gossip_keys_stale", "1 while the file of the gossip's keys can't be used and older ones stay in use, else 0.")
	meshLinked       = describe("mesh_links_made_total", "Links to other nodes that came up, again or for the first time.")
	meshRefused      = describe("mesh_links_refused_total", "Links to other nodes that were refused, by the reason.", "reason")
	meshEncrypted    = describe("mesh_links_encrypted", "Links to other nodes that are up and encrypted.")
	announceRefused  = describe("directory_refused_total", "Announcements that were malformed or spoke for another node.")
	filterErrors     = describe("filter_errors_total", "Artifacts on which a filter had no answer, as when it reads an attribute that is absent: they don't match.")
	historyArtifacts = describe("history_artifacts", "Artifacts that this node keeps.")
	historyBytes     = describe("history_bytes", "Bytes of artifacts that this node keeps.")
	historyDiskFree  = describe("history_disk_free_bytes", "Bytes free on the disk for history; 0 when it is in memory.")
	historyDiskSize  = describe("history_disk_size_bytes", "Size of the disk for history; 0 when it is in memory.")
	historyReserve   = describe("history_disk_reserve_bytes", "Bytes free on the disk for history below which publishes to topics that this node leads are refused; 0 when it is in memory.")
	historyDiskFull  = describe("history_disk_full", "1 while the disk for history is nearly full and publishes to topics that this node leads are refused, else 0.")
	historyDiskAway  = describe("history_disk_away", "1 while the disk for history can't be opened and the node goes on without its shards, else 0.")
	namespaceHistory = describe("namespace_history_bytes", "Bytes of artifacts that the topics of a namespace keep in the whole hub, as far as this node knows, of the namespaces with most; absent while there is no limit.", "tenant")
	namespaceLimit   = describe("namespace_history_limit_bytes", "Bytes of artifacts that the topics of one namespace may keep in the whole hub; 0: there is no limit.")
	overQuota        = describe("artifacts_over_quota_total", "Artifacts refused because the topics of their namespace keep as much as they may, on the topics that this node leads.")
	memoryUsed       = describe("memory_used_bytes", "Memory of this node that collecting garbage does not give back, after the last collection.")
	memoryLimit      = describe("memory_limit_bytes", "Memory that this node may use before it lets clients go; 0: there is no limit.")
	memoryLevel      = describe("memory_level", "0 while memory is ample, 1 while it is tight and new clients are refused, 2 while it is critical and the slowest clients are let go.")
	durablePending   = describe("durable_pending_artifacts", "Artifacts that wait to be given out, of the durable subscriptions (topic/name) with most, on the topics that this node leads.", "durable")
	durableInFlight  = describe("durable_in_flight_artifacts", "Artifacts that clients are at work on, of the same durable subscriptions.", "durable")
	durableLost      = describe("durable_lost_artifacts_total", "Artifacts that retention took before they were done, of the durable subscriptions (topic/name) that lost most, on the topics that this node leads.", "durable")
	raftLeader       = describe("raft_leader", "1 for the shards that this node leads, 0 for those that it follows.", "shard")
	raftTerm         = describe("raft_term", "The term of each of this node's shards: it rises with each election.", "shard")
	raftApplied      = describe("raft_applied_index", "The last log entry that is in this node's store.", "shard")
	raftCommitted    = describe("raft_committed_index", "The last log entry that this node knows to be with a majority.", "shard")
	raftPending      = describe("raft_pending_bytes", "Bytes published to the shard that wait to be stored by a majority, on its leader.", "shard")
	raftVoters       = describe("raft_voters", "Replicas of the shard that have a vote, by what this node knows.", "shard")
	raftRecovered    = describe("raft_recoveries_total", "Shards that went on with what one replica had, because a majority was lost for good.")
	turnedAway       = describe("connections_turned_away_total", "Connections to the client port that were one too many from their addresses, by the limit.", "limit")
	delayed          = describe("connections_delayed_total", "Connections to the client port that waited because so many came within a second.")
	crowdedOut       = describe("handshakes_crowded_out_total", "Connections to the client port that were ended before they had shaken hands, because too many others had begun.")
	tokenReviews     = describe("token_reviews_total", "Tokens that no key could judge, by what came of asking the API server about them.", "result")
	tlsHandshakes    = describe("tls_handshakes_total", "Handshakes of TLS on the client port.", "result")
	certStart        = describe("certificate_not_before_timestamp_seconds", "Since when the certificate in use on a port is valid, in seconds since 1970; absent without one.", "port")
	certExpiry       = describe("certificate_expiry_timestamp_seconds", "When the certificate in use on a port expires, in seconds since 1970; absent without one.", "port")
	certStale        = describe("certificate_stale", "1 while the files of a port's certificate can't be used and an older one stays in use, else 0.", "port")
	raftRemade       = describe("raft_replicas_remade_total", "Replicas of this node that were damaged and fetched from the others.")
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
	gauge(encryptedClients, float64(m.EncryptedClients))
	gauge(sessions, float64(m.Sessions))
	counter(received, m.ArtifactsReceived)
	counter(delivered, m.ArtifactsDirect, "direct")
	counter(delivered, m.ArtifactsSent-min(m.ArtifactsSent, m.ArtifactsDirect), "topic")
	counter(forwarded, m.ArtifactsForwarded)
	for reason, count := range m.ArtifactsDropped {
		counter(dropped, count, reason)
	}
	counter(bytesReceived, m.BytesReceived)
	for _, p := range highest(m.TopicSubscribers, patternsMax) {
		gauge(topicSubscribers, float64(m.TopicSubscribers[p]), p)
	}
	gauge(pendingBytes, float64(m.PendingBytes))
	counter(slowClients, m.SlowClients)
	counter(unhealthyClients, m.UnhealthyClients)
	counter(clientsJoined, m.ClientsJoined)
	for reason, count := range m.ClientsLeft {
		counter(clientsLeft, count, reason)
	}
	for reason, count := range m.ClientsRefused {
		counter(clientsRefused, count, reason)
	}
	counter(malformed, m.MalformedFrames)
	counter(throttled, m.ArtifactsThrottled)
	for action, count := range m.PermissionsDenied {
		counter(permissionDenied, count, action)
	}
	ch <- prometheus.MustNewConstSummary(roundTrip, m.RoundTrips, m.RoundTripTime.Seconds(), nil)
	gauge(directoryEntries, float64(n.DirectoryEntries))
	gauge(meshLinks, float64(n.MeshLinks))
	gauge(gossipMembers, float64(n.GossipMembers))
	gauge(gossipHealth, float64(n.GossipHealth))
	gauge(gossipKeys, float64(n.GossipKeys))
	gauge(gossipKeysStale, float64(n.GossipKeysStale))
	counter(meshLinked, n.MeshLinked)
	gauge(meshEncrypted, float64(n.MeshEncrypted))
	for reason, count := range n.MeshRefused {
		counter(meshRefused, count, reason)
	}
	counter(announceRefused, n.AnnounceRefused)
	counter(filterErrors, n.FilterErrors)
	gauge(historyArtifacts, float64(m.HistoryArtifacts))
	gauge(historyBytes, float64(m.HistoryBytes))
	gauge(historyDiskFree, float64(n.DiskFree))
	gauge(historyDiskSize, float64(n.DiskSize))
	gauge(historyReserve, float64(n.DiskReserve))
	gauge(historyDiskFull, float64(n.DiskFull))
	gauge(historyDiskAway, float64(n.DiskAway))
	for _, namespace := range highest(n.NamespaceHistory, namespacesMax) {
		gauge(namespaceHistory, float64(n.NamespaceHistory[namespace]), namespace)
	}
	gauge(namespaceLimit, float64(n.NamespaceHistoryLimit))
	counter(overQuota, n.OverQuota)
	gauge(memoryUsed, float64(n.MemoryUsed))
	gauge(memoryLimit, float64(n.MemoryLimit))
	gauge(memoryLevel, float64(n.MemoryLevel))
	for _, d := range highest(n.DurablePending, durablesMax) {
		gauge(durablePending, float64(n.DurablePending[d]), d)
		gauge(durableInFlight, float64(n.DurableInFlight[d]), d)
	}
	for _, d := range highest(n.DurableLost, durablesMax) {
		counter(durableLost, n.DurableLost[d], d)
	}
	for shard := range n.RaftTerm {
		gauge(raftLeader, float64(n.RaftLeader[shard]), shard)
		gauge(raftTerm, float64(n.RaftTerm[shard]), shard)
		gauge(raftApplied, float64(n.RaftApplied[shard]), shard)
		gauge(raftCommitted, float64(n.RaftCommitted[shard]), shard)
		gauge(raftPending, float64(n.RaftPending[shard]), shard)
		gauge(raftVoters, float64(n.RaftVoters[shard]), shard)
	}
	counter(crowdedOut, n.HandshakesCrowded)
	for limit, count := range n.TurnedAway {
		counter(turnedAway, count, limit)
	}
	counter(delayed, n.Delayed)
	for result, count := range n.TokenReviews {
		counter(tokenReviews, count, result)
	}
	for result, count := range n.TLSHandshakes {
		counter(tlsHandshakes, count, result)
	}
	for port, at := range n.CertificateStart {
		gauge(certStart, float64(at), port)
	}
	for port, at := range n.CertificateExpiry {
		gauge(certExpiry, float64(at), port)
	}
	for port, stale := range n.CertificateStale {
		gauge(certStale, float64(stale), port)
	}
	counter(raftRecovered, n.RaftRecovered)
	counter(raftRemade, n.RaftRemade)
}

// highest returns the names with the highest numbers.
func highest[N cmp.Ordered](numbers map[string]N, most int) []string {
	names := slices.SortedFunc(maps.Keys(numbers), func(a, b string) int {
		return cmp.Or(cmp.Compare(numbers[b], numbers[a]), cmp.Compare(a, b))
	})
	return names[:min(len(names), most)]
}
