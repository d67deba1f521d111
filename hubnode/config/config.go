package config

import (
	"net/url"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

// Config is the whole file. Start from [Default]: the zero value is not valid.
// A Config is not changed once it was handed over; copies share its slices.
type Config struct {
	// Hub is the identity of the hub, such as namespace/name/UID. Nodes of
	// another one are refused. Required.
	Hub string `yaml:"hub"`
	// Node is this node's stable name, which ends in its ordinal. The file
	// may leave it to the command line.
	Node string `yaml:"node,omitempty"`
	// Replicas is how many nodes the hub has: those with the ordinals 0 to
	// Replicas-1. Zero while a hub in memory is scaled to none; one on volumes keeps what it was.
	Replicas int `yaml:"replicas"`
	// Listen are the addresses that the node serves.
	Listen Listen `yaml:"listen"`
	// Advertise is the host under which peers and clients reach the node.
	// Empty: found from the network interfaces.
	Advertise string `yaml:"advertise,omitempty"`
	// Peers are the gossip addresses to join, host:port; names are resolved
	// again at each try. Empty: the node is alone until others join it.
	Peers []string `yaml:"peers,omitempty"`
	// GossipKeyFile holds the keys of the gossip: see [DecodeGossipKeys]. Empty: it is
	// not encrypted.
	GossipKeyFile string `yaml:"gossipKeyFile,omitempty"`

	TLS TLS `yaml:"tls,omitempty"`

	Authentication Authentication `yaml:"authentication,omitempty"`
	// Authorization counts while there is authentication.
	Authorization Authorization `yaml:"authorization,omitempty"`
	// Tenancy says who has names of their own.
	Tenancy Tenancy `yaml:"tenancy,omitempty"`

	HealthCheck HealthCheck `yaml:"healthCheck"`
	// History is what a topic keeps that no element of Topics matches.
	History History `yaml:"history"`
	// Topics have rules of their own; the first that matches wins.
	Topics   []Topic  `yaml:"topics,omitempty"`
	Storage  Storage  `yaml:"storage"`
	Sessions Sessions `yaml:"sessions"`
	Limits   Limits   `yaml:"limits"`
	Drain    Drain    `yaml:"drain"`
	Log      Log      `yaml:"log"`
}

// Listen are addresses in the form host:port; the host may be empty for all
// interfaces, the port 0 for any that is free.
type Listen struct {
	Client  string `yaml:"client"`  // native protocol, TCP
	Cluster string `yaml:"cluster"` // links between nodes, TCP
	Gossip  string `yaml:"gossip"`  // membership, TCP and UDP
	HTTP    string `yaml:"http"`    // probes, metrics, status
}

// TLS is how connections are encrypted.
type TLS struct {
	// Clients says who may connect to the client port.
	Clients TLSPolicy `yaml:"clients"`
	// Directory holds tls.crt and tls.key in PEM, as a kubernetes.io/tls Secret
	// is mounted. It is not looked at while Clients is Disabled.
	Directory string `yaml:"directory"`
	// Cluster says how nodes link to each other. Both sides of an encrypted link
	// show a certificate.
	Cluster TLSPolicy `yaml:"cluster"`
	// ClusterDirectory holds ca.crt, tls.crt and tls.key in PEM, of an authority
	// that issues to nodes of this hub alone. It is not looked at while Cluster is
	// Disabled.
	ClusterDirectory string `yaml:"clusterDirectory"`
}

// ClusterID is the URI by which nodes of a hub know each other: certificates on the
// cluster port have to have it. No certificate for clients has one like it.
func ClusterID(hub string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: "switchboard.dev", Path: "/hub/" + hub + "/cluster"}
}

// IsZero reports whether t is the default, which is not written: nodes of before
// there was TLS refuse a file that names it, and a new operator restarts none.
func (t TLS) IsZero() bool { return t == Default().TLS }

// MarshalYAML leaves out what is the default of the fields that came later than the
// others, for the same reason.
func (t TLS) MarshalYAML() (any, error) {
	written := struct {
		Clients          TLSPolicy `yaml:"clients"`
		Directory        string    `yaml:"directory"`
		Cluster          TLSPolicy `yaml:"cluster,omitempty"`
		ClusterDirectory string    `yaml:"clusterDirectory,omitempty"`
	}{t.Clients, t.Directory, t.Cluster, t.ClusterDirectory}
	if written.Cluster == Default().TLS.Cluster {
		written.Cluster = ""
	}
	if written.ClusterDirectory == Default().TLS.ClusterDirectory {
		written.ClusterDirectory = ""
	}
	return written, nil
}

// TLSPolicy says whether connections are encrypted.
type TLSPolicy string

// The policies.
const (
	TLSDisabled TLSPolicy = "Disabled" // none is
	TLSOptional TLSPolicy = "Optional" // as the one who connects likes, on the same port
	TLSRequired TLSPolicy = "Required" // those that are not are refused
)

// Tenancy says whose clients and topics have names of their own.
type Tenancy string

// What there is.
const (
	TenancyNone      Tenancy = "None"      // nobody's: all share the hub's
	TenancyNamespace Tenancy = "Namespace" // each namespace's: those of ServiceAccounts
)

// IsZero reports whether t is the default, which is not written: nodes of before there was
// tenancy refuse a file that names it.
func (t Tenancy) IsZero() bool { return t == "" || t == Default().Tenancy }

// HealthCheck is how a node finds out that a client is gone.
type HealthCheck struct {
	// Interval is how long a client may be silent before it is pinged. Zero
	// turns health checks off.
	Interval Duration `yaml:"interval"`
	// Timeout is how long an answer may take; at most Interval.
	Timeout Duration `yaml:"timeout"`
	// FailureThreshold is how many pings in a row go unanswered before the
	// client is removed.
	FailureThreshold int `yaml:"failureThreshold"`
}

// History bounds what a topic keeps.
type History struct {
	MaxArtifacts int      `yaml:"maxArtifacts"` // zero keeps none
	MaxBytes     Bytes    `yaml:"maxBytes"`     // zero: no such bound
	MaxAge       Duration `yaml:"maxAge"`       // zero: no such bound
}

// Topic is what holds for the topics that a pattern matches.
type Topic struct {
	Pattern string `yaml:"pattern"`
	// History differs from the hub's in the fields that it has. Nil: it
	// doesn't.
	History *TopicHistory `yaml:"history,omitempty"`
	// Filter is a CEL expression; what does not match it is refused. Empty:
	// everything may be published.
	Filter string `yaml:"filter,omitempty"`
}

// TopicHistory is a [History] with fields that may be absent.
type TopicHistory struct {
	MaxArtifacts *int      `yaml:"maxArtifacts,omitempty"`
	MaxBytes     *Bytes    `yaml:"maxBytes,omitempty"`
	MaxAge       *Duration `yaml:"maxAge,omitempty"`
}

// Storage is how and where topics with history are kept.
type Storage struct {
	// Dir is the directory for history. Empty: it is kept in memory.
	Dir string `yaml:"dir,omitempty"`
	// Sync says when what is published is on disk.
	Sync SyncPolicy `yaml:"sync"`
	// SyncInterval is how often Interval writes to disk.
	SyncInterval Duration `yaml:"syncInterval"`
	// Replicas is how many nodes keep each topic; at most as many as there are.
	Replicas int `yaml:"replicas"`
	// Shards is how many Raft groups the topics are dealt out to. It must not
	// change in a hub's life.
	Shards int `yaml:"shards"`
}

// SyncPolicy says when what is published is on disk.
type SyncPolicy string

// The policies.
const (
	SyncAlways   SyncPolicy = "Always"   // before it is acknowledged
	SyncInterval SyncPolicy = "Interval" // within the interval: a crash of a majority of machines may lose so much
)

// Sessions outlive their connections.
type Sessions struct {
	// ResumeWindow is how long a session waits for its client to reconnect.
	// Zero: it ends with the connection.
	ResumeWindow Duration `yaml:"resumeWindow"`
	// Rebalance moves clients, now and then, from nodes that hold more than
	// their share.
	Rebalance bool `yaml:"rebalance"`
}

// Limits bound what clients can make a node hold.
type Limits struct {
	MaxClients       int              `yaml:"maxClients"`      // connected to this node
	MaxArtifactSize  Bytes            `yaml:"maxArtifactSize"` // content type, attributes and payload of one artifact
	MaxPendingBytes  Bytes            `yaml:"maxPendingBytes"` // waiting for one client
	SlowClientPolicy SlowClientPolicy `yaml:"slowClientPolicy"`
	ConflateKey      string           `yaml:"conflateKey"` // the attribute that Conflate goes by
	// MaxMemory bounds the memory of the whole node: near it newcomers are refused, and
	// then the slowest clients are let go. Zero: as much as GOMEMLIMIT allows, or the container.
	MaxMemory Bytes `yaml:"maxMemory,omitempty"`
	// ConnectionsPerSecond is how many connections to the client port this node takes in a
	// second, from wherever they come; more wait. Zero: as many as come.
	ConnectionsPerSecond int `yaml:"connectionsPerSecond,omitempty"`
	// PerIdentity bounds what the clients of one identity have of this node together.
	PerIdentity Quota `yaml:"perIdentity,omitempty"`
	// PerAddress bounds what comes to this node from one IP address.
	PerAddress AddressQuota `yaml:"perAddress,omitempty"`
	// PerNamespace bounds what the topics of one tenant have of the whole hub together.
	PerNamespace NamespaceQuota `yaml:"perNamespace,omitempty"`
}

// NamespaceQuota bounds what belongs to a tenant: without [TenancyNamespace] nothing does.
// Zero: it does not.
type NamespaceQuota struct {
	HistoryBytes Bytes `yaml:"historyBytes,omitempty"` // in all histories, each counted once and not for each replica
}

// AddressQuota bounds connections. Zero: it does not.
type AddressQuota struct {
	Connections          int `yaml:"connections,omitempty"`          // at a time
	ConnectionsPerSecond int `yaml:"connectionsPerSecond,omitempty"` // with a second's worth at once
}

// Quota bounds something. Zero: it does not.
type Quota struct {
	Clients            int   `yaml:"clients,omitempty"`
	Subscriptions      int   `yaml:"subscriptions,omitempty"`
	ArtifactsPerSecond int   `yaml:"artifactsPerSecond,omitempty"` // sent and published; what is more waits
	BytesPerSecond     Bytes `yaml:"bytesPerSecond,omitempty"`     // likewise
}

// SlowClientPolicy says what happens when MaxPendingBytes wait for a client.
type SlowClientPolicy string

// The policies.
const (
	Disconnect SlowClientPolicy = "Disconnect" // the client is disconnected and told why
	DropOldest SlowClientPolicy = "DropOldest" // what waits longest is dropped
	DropNewest SlowClientPolicy = "DropNewest" // what comes is dropped
	Conflate   SlowClientPolicy = "Conflate"   // of each value of ConflateKey the newest stays, else as DropOldest
)

// Drain is how a node leaves.
type Drain struct {
	// Timeout is how long clients get to move elsewhere. Zero: they are told
	// and disconnected at once.
	Timeout Duration `yaml:"timeout"`
}

// Log is what a node writes to its standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // json or text
}

// Default returns the configuration of a file that says nothing. It lacks the
// required Hub.
func Default() Config {
	return Config{
		Replicas:    1,
		Listen:      Listen{Client: ":7400", Cluster: ":7401", Gossip: ":7402", HTTP: ":7480"},
		TLS:         TLS{Clients: TLSDisabled, Directory: "/etc/switchboard/tls", Cluster: TLSDisabled, ClusterDirectory: "/etc/switchboard/cluster-tls"},
		Tenancy:     TenancyNone,
		HealthCheck: HealthCheck{Interval: Duration(10 * time.Second), Timeout: Duration(5 * time.Second), FailureThreshold: 3},
		History:     History{MaxArtifacts: 0, MaxBytes: 64 << 20, MaxAge: Duration(time.Hour)},
		Storage:     Storage{Sync: SyncAlways, SyncInterval: Duration(100 * time.Millisecond), Replicas: 3, Shards: 16},
		Sessions:    Sessions{ResumeWindow: Duration(30 * time.Second)},
		Limits:      Limits{MaxClients: 100_000, MaxArtifactSize: 1 << 20, MaxPendingBytes: 16 << 20, SlowClientPolicy: Disconnect, ConflateKey: "key"},
		Drain:       Drain{Timeout: Duration(time.Minute)},
		Log:         Log{Level: "info", Format: "json"},
	}
}

// TopicFor returns the first element of Topics that matches a topic's name, ok
// false when none does.
func (c Config) TopicFor(name string) (t Topic, ok bool) {
	for _, t := range c.Topics {
		if topic.Match(t.Pattern, name) {
			return t, true
		}
	}
	return Topic{}, false
}

// HistoryFor returns what a topic keeps.
func (c Config) HistoryFor(name string) History {
	t, _ := c.TopicFor(name)
	return c.History.With(t.History)
}

// With returns h with the fields that o has. o may be nil.
func (h History) With(o *TopicHistory) History {
	if o == nil {
		return h
	}
	if o.MaxArtifacts != nil {
		h.MaxArtifacts = *o.MaxArtifacts
	}
	if o.MaxBytes != nil {
		h.MaxBytes = *o.MaxBytes
	}
	if o.MaxAge != nil {
		h.MaxAge = *o.MaxAge
	}
	return h
}
