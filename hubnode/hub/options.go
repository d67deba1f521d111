package hub

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// Option configures a hub that [New] makes.
type Option func(*blueprint)

// blueprint collects the options: clients are registered before their
// subscriptions, in whatever order the options came.
type blueprint struct {
	settings Settings
	remote   Remote
	keeper   Keeper
	log      *slog.Logger
	compile  func(string) (Filter, error)
	system   System
	events   []func(Event)
	clients  []func(*Hub) error
	topics   []func(*Hub) error
}

// WithSettings sets everything that may change later at once; options after it
// add to it.
func WithSettings(s Settings) Option {
	s.Topics = slices.Clip(slices.Clone(s.Topics)) // options append to them
	return func(b *blueprint) { b.settings = s }
}

// WithClient registers a client; see [Hub.RegisterClient].
func WithClient(id wire.ClientID, conn io.ReadWriteCloser, opts ...ClientOption) Option {
	return func(b *blueprint) {
		b.clients = append(b.clients, func(h *Hub) error { return h.RegisterClient(id, conn, opts...) })
	}
}

// WithTopics subscribes a client; New fails with a [NoClientError] when no
// WithClient names it.
func WithTopics(id wire.ClientID, patterns ...string) Option {
	return func(b *blueprint) {
		b.topics = append(b.topics, func(h *Hub) error { return h.Subscribe(id, patterns...) })
	}
}

// WithTopicFilter lets only artifacts that filter accepts be published to the
// topics that match pattern; the first such option whose pattern matches wins.
// It leaves their history alone.
func WithTopicFilter(pattern string, filter Filter) Option {
	return func(b *blueprint) {
		b.settings.Topics = append(b.settings.Topics, Topic{Pattern: pattern, Filter: filter, only: filterOnly})
	}
}

// WithHistory keeps the newest artifacts of each topic that matches pattern;
// the first such option whose pattern matches wins. It leaves their filter
// alone.
func WithHistory(pattern string, artifacts int) Option {
	return func(b *blueprint) {
		limits := history.Limits{MaxArtifacts: artifacts}
		b.settings.Topics = append(b.settings.Topics, Topic{Pattern: pattern, History: limits, only: historyOnly})
	}
}

// WithHealthCheck pings clients that are silent for interval and removes those
// that leave failures pings in a row unanswered, each for half the interval.
func WithHealthCheck(interval time.Duration, failures int) Option {
	return func(b *blueprint) {
		b.settings.HealthCheck = HealthCheck{Interval: interval, Failures: failures}
	}
}

// WithLogger sets where the hub logs; the default is nowhere.
func WithLogger(log *slog.Logger) Option { return func(b *blueprint) { b.log = log } }

// WithEvents calls listen for every client that joins or leaves, those of
// WithClient included; see [Hub.OnEvent].
func WithEvents(listen func(Event)) Option {
	return func(b *blueprint) { b.events = append(b.events, listen) }
}

// WithRemote makes the hub one node of a cluster.
func WithRemote(r Remote) Option { return func(b *blueprint) { b.remote = r } }

// WithKeeper sets what keeps the topics with history; the default is this hub's
// memory.
func WithKeeper(k Keeper) Option { return func(b *blueprint) { b.keeper = k } }

// WithFilterCompiler lets clients subscribe with filter expressions.
func WithFilterCompiler(compile func(expression string) (Filter, error)) Option {
	return func(b *blueprint) { b.compile = compile }
}

// System answers questions about the node that a hub is part of, in JSON; ok is
// false for a question that it does not know. body is the asker's, often empty.
type System func(ctx context.Context, question string, body []byte) (answer []byte, ok bool, err error)

// WithSystem lets clients and other nodes put questions to the node around the
// hub.
func WithSystem(answer System) Option { return func(b *blueprint) { b.system = answer } }

// ClientOption qualifies a client when it is registered.
type ClientOption func(*Client)

// WithoutBroadcast leaves the client out of the topic that it hears unless it says otherwise.
func WithoutBroadcast() ClientOption { return WithBroadcast("") }

// WithBroadcast sets that topic; the default is "broadcast".
func WithBroadcast(topic string) ClientOption { return func(c *Client) { c.broadcast = topic } }

// WithPublisher says by which number the client's frames are told apart from
// those of its other lives; 0: they are not numbered.
func WithPublisher(id uint64) ClientOption { return func(c *Client) { c.publisher = id } }

// WithInfo says what lists of clients show about it.
func WithInfo(info Info) ClientOption { return func(c *Client) { c.info = info } }

// epochMax bounds what clients say of their epochs: those that follow must not run over.
const epochMax = 1 << 62

// WithEpoch says what session the client had before; the new one's epoch is
// higher. One beyond 1<<62 counts as that.
func WithEpoch(epoch uint64) ClientOption {
	return func(c *Client) { c.epoch = min(epoch, epochMax) }
}

// WithClosed calls back once the hub has closed the connection.
func WithClosed(closed func()) ClientOption { return func(c *Client) { c.closed = closed } }

// Greeting is what a client is told of its session.
type Greeting struct {
	Epoch   uint64
	Session string        // the key to come back with; empty: it ends with the connection
	Resumed bool          // it goes on with the session that it had
	Taken   uint64        // how many of its Publish, Send and Reply frames were taken in it
	Window  time.Duration // how long the session waits for it when the connection is lost; 0: it doesn't
	Expires int64         // when what the client may do does, in milliseconds from now; 0: never
}

// WithGreeting queues a frame before anything else, made once the session is
// known: a node's Welcome.
func WithGreeting(greet func(Greeting) []byte) ClientOption {
	return func(c *Client) { c.greet = greet }
}

// Resume says which session a client comes back to.
type Resume struct {
	Key      string // what Greeting.Session was; empty: it has none yet
	Received uint64 // frames that the session kept and the client has
	Node     string // where the session was; empty: not known
	Attempt  uint64 // rises with each connection that the client tries
}

// WithSession lets the session outlive this connection by
// Settings.ResumeWindow.
func WithSession(r Resume) ClientOption { return func(c *Client) { c.resume = &r } }

// WithReader makes the hub go on with a reader that has consumed the handshake.
func WithReader(r *wire.Reader) ClientOption { return func(c *Client) { c.reader = r } }
