package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Defaults of the options.
const (
	DefaultInFlight           = 16 << 10
	DefaultQueueBytes         = 64 << 20
	DefaultConcurrentRequests = 64
	DefaultReconnectWaitMin   = 100 * time.Millisecond
	DefaultReconnectWaitMax   = 5 * time.Second
	// DefaultRequestTimeout is the time a request has whose context has no
	// deadline.
	DefaultRequestTimeout = 30 * time.Second
)

// Option configures a client.
type Option func(*options)

type options struct {
	id            wire.ClientID
	token         string
	tokenFile     string
	name, version string
	tls           *tls.Config
	caFile        string
	certFile      string
	keyFile       string
	noBroadcast   bool
	noSession     bool
	labels        map[string]string
	waitMin       time.Duration
	waitMax       time.Duration
	maxReconnects int // negative: no limit
	retryFirst    bool
	dial          Dialer
	inFlight      int
	queueBytes    int
	requests      int
	handler       RequestHandler
	broadcast     Handler
	onConnect     func(Server)
	onDisconnect  func(error)
	onError       func(error)
}

// Dialer opens a connection; net.Dialer.DialContext is one.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

func newOptions(opts []Option) options {
	o := options{
		name: "switchboard-go", version: "dev",
		waitMin: DefaultReconnectWaitMin, waitMax: DefaultReconnectWaitMax,
		maxReconnects: -1,
		dial:          new(net.Dialer).DialContext,
		inFlight:      DefaultInFlight,
		queueBytes:    DefaultQueueBytes,
		requests:      DefaultConcurrentRequests,
	}
	for _, opt := range opts {
		opt(&o)
	}
	if o.id == "" {
		o.id = randomID()
	}
	return o
}

func randomID() wire.ClientID {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read crashes the program instead
	return "client-" + hex.EncodeToString(b[:])
}

// WithID sets the client's id, unique in the hub: 1 to 128 bytes without white
// space. The default is a random one such as "client-3f9a0c41d2b7".
func WithID(id wire.ClientID) Option { return func(o *options) { o.id = id } }

// WithToken sets the token that proves who the client is, for as long as it lives.
func WithToken(token string) Option { return func(o *options) { o.token = token } }

// WithTokenFile names the file with the token that proves who the client is. It is read at
// each connect, and while a token holds that expires the file is looked at every now and
// then, at least ten times: a new one is sent to the hub without a reconnect. When the file
// can't be read, connecting fails, and later OnError hears of it. Without this option and
// [WithToken] the client takes [DefaultTokenFile] when that is there.
func WithTokenFile(path string) Option { return func(o *options) { o.tokenFile = path } }

// WithTLS encrypts the connection. Where ServerName is empty, nodes at addresses
// that were given have to show a certificate for their host, and those that the hub
// tells of, one for the host of the first address given. Where there is no
// ClientSessionCache, the client has one of its own.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config } }

// WithCAFile encrypts the connection and trusts the CA certificates in a PEM file
// alone. The file is read at each connect, so that a change of it needs no restart;
// when it can't be read then, what it said before counts, and OnError hears of it.
// With WithTLS the rest of the configuration is that one's.
func WithCAFile(path string) Option { return func(o *options) { o.caFile = path } }

// WithCertificateFiles encrypts the connection and proves who the client is by a
// certificate: PEM files of the chain and of its key, read at each connect as the CA's.
func WithCertificateFiles(certFile, keyFile string) Option {
	return func(o *options) { o.certFile, o.keyFile = certFile, keyFile }
}

// WithoutBroadcast leaves the client out of the topic "broadcast", which every
// client hears otherwise.
func WithoutBroadcast() Option { return func(o *options) { o.noBroadcast = true } }

// WithoutSession ends the client's session with each connection: what is in flight
// then, either way, may be lost. Without it the hub keeps what is sent to the
// client, and knows what the client has sent, for the hub's resume window.
func WithoutSession() Option { return func(o *options) { o.noSession = true } }

// WithLabels sets what the hub's list of clients shows about this one.
func WithLabels(labels map[string]string) Option { return func(o *options) { o.labels = labels } }

// WithName sets the program's name and version in the hub's list of clients.
func WithName(name, version string) Option {
	return func(o *options) { o.name, o.version = name, version }
}

// WithReconnectWait sets how long the client waits after all addresses failed:
// at first minimum, then twice as long each time up to maximum, less a random
// part.
func WithReconnectWait(minimum, maximum time.Duration) Option {
	return func(o *options) { o.waitMin, o.waitMax = minimum, max(minimum, maximum) }
}

// WithMaxReconnects ends the client when all addresses failed n times in a row;
// 0: it never reconnects. Without this option it tries forever.
func WithMaxReconnects(n int) Option { return func(o *options) { o.maxReconnects = n } }

// WithRetryFirstConnect lets Connect try until its context ends, for programs
// that start before their hub.
func WithRetryFirstConnect() Option { return func(o *options) { o.retryFirst = true } }

// WithDialer sets how connections are opened. It may be called for several addresses at once.
func WithDialer(dial Dialer) Option { return func(o *options) { o.dial = dial } }

// WithInFlight bounds the artifacts of PublishAsync and SendAsync that are not
// acknowledged; the default is [DefaultInFlight].
func WithInFlight(n int) Option { return func(o *options) { o.inFlight = max(1, n) } }

// WithQueueBytes bounds what waits for the handler of one subscription; the
// default is [DefaultQueueBytes]. Direct artifacts and requests have a queue of
// that size each as well. While calls wait for answers it may be twice as much: see
// "What waits where".
func WithQueueBytes(n int) Option { return func(o *options) { o.queueBytes = max(1, n) } }

// WithConcurrentRequests bounds how many requests are handled at once; the
// default is [DefaultConcurrentRequests].
func WithConcurrentRequests(n int) Option { return func(o *options) { o.requests = max(1, n) } }

// WithHandler is [Client.Handle] from the first moment on: nothing that is sent
// to this client right after it connected finds it without a handler.
func WithHandler(h RequestHandler) Option { return func(o *options) { o.handler = h } }

// OnBroadcast sets the handler of artifacts on the topic "broadcast", which
// need no subscription. Without it they are thrown away, unless the client
// subscribes to "broadcast" itself.
func OnBroadcast(h Handler) Option { return func(o *options) { o.broadcast = h } }

// OnConnect is called after each connect, the first one included.
//
// The callbacks of OnConnect, OnDisconnect and OnError run one after another on
// a goroutine of their own and may call the client, but for Close. While 1024
// of them wait, further ones are dropped.
func OnConnect(f func(Server)) Option { return func(o *options) { o.onConnect = f } }

// OnDisconnect is called with the reason after each loss of the connection.
func OnDisconnect(f func(error)) Option { return func(o *options) { o.onDisconnect = f } }

// OnError is called with what no method returns: errors of handlers, gaps in
// history (unless the subscription has [OnGap]), publishes refused after their
// method returned.
func OnError(f func(error)) Option { return func(o *options) { o.onError = f } }

// SubscribeOption qualifies a subscription.
type SubscribeOption func(*Subscription)

// Since starts at sequence and what follows, on topics with history.
func Since(sequence wire.Sequence) SubscribeOption {
	return func(s *Subscription) { s.want.Since, s.want.Sequence = wire.SinceSequence, sequence }
}

// SinceNew starts at what is published from now on: the default, but for durable
// subscriptions.
func SinceNew() SubscribeOption {
	return func(s *Subscription) { s.want.Since = wire.SinceNew }
}

// SinceAll starts at the oldest artifact that is kept.
func SinceAll() SubscribeOption {
	return func(s *Subscription) { s.want.Since = wire.SinceAll }
}

// SinceLast starts at the newest artifact that is kept.
func SinceLast() SubscribeOption {
	return func(s *Subscription) { s.want.Since = wire.SinceLast }
}

// SinceAge starts at the first artifact that is not older than age.
func SinceAge(age time.Duration) SubscribeOption {
	return func(s *Subscription) { s.want.Since, s.want.Age = wire.SinceAge, age }
}

// Filter lets only artifacts through for which a CEL expression is true.
func Filter(cel string) SubscribeOption {
	return func(s *Subscription) { s.want.Filter = cel }
}

// Group shares the subscription: of all subscriptions to this pattern with
// this name, one gets each artifact. Groups do not replay history.
func Group(name string) SubscribeOption {
	return func(s *Subscription) { s.want.Group = name }
}

// OnGap is called, in order with the artifacts, when the subscription does not get some
// that it should have had: retention took them, or it missed them and the client has no
// right to the topic's history. The default is OnError.
func OnGap(f func(*HistoryGapError)) SubscribeOption {
	return func(s *Subscription) { s.onGap = f }
}
