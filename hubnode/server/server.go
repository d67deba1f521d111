// Package server accepts clients: it listens, shakes hands and hands each
// connection to the hub, which serves it from then on.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/seldom"
	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/wire"
)

// handshakeTime bounds a handshake of TLS, and the wait for a whole Hello.
const handshakeTime = 5 * time.Second

// DefaultNewcomers is the default of Config.Newcomers.
const DefaultNewcomers = 4096

// Config is what a server needs to know. All fields but Door, Newcomers, PerAddress and
// PerSecond are required.
type Config struct {
	Hub     *hub.Hub
	HubName string // shown to clients
	Node    string // shown to clients
	// Limits says what is announced to a client that connects now.
	Limits func() Limits
	// Addresses returns the client addresses of all nodes.
	Addresses func() []string
	// TLS says how a connection that is made now is encrypted.
	TLS func() TLS
	// Door says who may come in; nil: everybody.
	Door Door
	// Newcomers bounds the connections that have not shaken hands yet; 0: DefaultNewcomers.
	// One more ends the one that has had the longest time: honest clients are done within
	// milliseconds, and who holds half-open connections holds up nobody, from however many
	// addresses.
	Newcomers int
	// PerAddress says what is taken from one address now; nil: as much as comes.
	PerAddress func() strangers.PerAddress
	// PerSecond says how many connections are taken in a second now, from wherever they
	// come, with a tenth of that at once; 0, or nil: as many as come. More wait where the
	// kernel keeps them.
	PerSecond func() int
	Log       *slog.Logger
}

// Door says which clients may come in, and what they may do then.
type Door interface {
	// Admit says who a client is by what it shows, or why it may not even connect. The
	// id is the one that it calls itself.
	Admit(ctx context.Context, id wire.ClientID, shown auth.Credentials) (Admitted, error)
	// Renew is Admit for a client that is there and has a new token.
	Renew(ctx context.Context, c *hub.Client, token string) (*hub.Permit, error)
	// Recheck is told of each client that was registered: since it was admitted, the
	// settings may have changed.
	Recheck(c *hub.Client)
}

// Admitted is a client that may come in.
type Admitted struct {
	Permit *hub.Permit    // what it may do; nil where nobody is asked who they are
	Tenant tenancy.Tenant // whose names it speaks by; empty: the hub's
}

// TLS is how connections are encrypted.
type TLS struct {
	Config   *tls.Config // nil: none is
	Required bool        // those that are not are refused
}

// ErrTLSRequired ends a connection that has to be encrypted and is not.
var ErrTLSRequired error = &wire.Error{
	Code:   wire.CodeTLSRequired,
	Detail: "this hub takes encrypted connections only: connect with TLS and the hub's CA (client.WithCAFile, hubctl --ca-file)",
}

// Limits are announced in the handshake.
type Limits struct {
	MaxArtifact  int           // bytes
	MaxSubscribe int           // bytes of the frames of one Subscribe together; 0: it has to be one frame
	PingInterval time.Duration // 0: no health checks
	PingTimeout  time.Duration // silence after which the node gives a client up
}

// Server is a listener for clients. Make it with [New] and run it with Run.
type Server struct {
	cfg Config
	ln  net.Listener

	handshakes handshakes
	newcomers  *strangers.Crowd // those that are not the hub's yet
	addresses  strangers.Addresses
	pace       pace
	refusals   seldom.Log // by address and fault
}

// New returns a server that accepts on ln, which it closes when Run ends.
func New(cfg Config, ln net.Listener) *Server {
	if cfg.PerAddress == nil {
		cfg.PerAddress = func() strangers.PerAddress { return strangers.PerAddress{} }
	}
	if cfg.PerSecond == nil {
		cfg.PerSecond = func() int { return 0 }
	}
	if cfg.Newcomers == 0 {
		cfg.Newcomers = DefaultNewcomers
	}
	return &Server{cfg: cfg, ln: ln, newcomers: strangers.NewCrowd(cfg.Newcomers)}
}

// Run accepts clients until ctx ends. Clients that have been handed to the hub
// stay connected; handshakes under way are cut.
func (s *Server) Run(ctx context.Context) error {
	var shaking sync.WaitGroup
	defer shaking.Wait()
	stop := context.AfterFunc(ctx, s.stop)
	defer stop()
	entrance := strangers.Entrance{Listener: s.ln, Failed: func(err error, silent int) {
		s.cfg.Log.Warn("client not accepted", slog.Any("error", err), slog.Int("more_since_last_told", silent))
	}}
	for {
		conn, err := entrance.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // nobody serves it any more
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept clients: %w", err)
		}
		if !strangers.Rest(ctx, s.pace.take(s.cfg.PerSecond(), time.Now())) {
			_ = conn.Close() // nobody serves it any more
			return nil
		}
		left, err := s.addresses.Enter(conn.RemoteAddr(), s.cfg.PerAddress(), time.Now())
		if err != nil {
			s.turnAway(conn, tooMany(err)) // without a wait: a new connection has room for what it is told
			continue
		}
		conn = socket.Wrap(conn)
		place := s.newcomers.Enter(conn)
		if place == nil {
			left()
			continue
		}
		shaking.Go(func() {
			defer place.Leave()
			s.welcome(ctx, conn, place.Known, left)
		})
	}
}

func (s *Server) stop() {
	_ = s.ln.Close()    // unblocks Accept
	s.newcomers.Close() // unblocks the handshakes
}

// tooMany returns why a connection is one too many from its address, as its client is told.
func tooMany(err error) error {
	if errors.Is(err, strangers.ErrNumber) {
		return &wire.Error{Code: wire.CodeTooManyClients, Detail: "this node holds as many connections from this address as it may: close some, or raise limits.perAddress.connections"}
	}
	return &wire.Error{Code: wire.CodeOverloaded, Detail: "too many connections from this address within a second: try again later, or raise limits.perAddress.connectionsPerSecond"}
}

// turnAway logs why a connection is refused, says so to the client, and closes it.
func (s *Server) turnAway(conn net.Conn, why error) {
	s.logRefused(conn, why)
	refuse(conn, why)
}

// logRefused logs each kind of fault from one address once a minute: whoever makes them by the
// thousand must not fill the log.
func (s *Server) logRefused(conn net.Conn, why error) {
	remote := conn.RemoteAddr()
	site, _ := strangers.SiteOf(remote)
	kind := fmt.Sprint(site, wire.FaultOf(why, 0).Code)
	if due, silent := s.refusals.Due(kind, time.Now()); due {
		s.cfg.Log.Info("client refused", slog.String("remote", remote.String()), slog.Any("error", why), slog.Int("more_since_last_told", silent))
	}
}

// welcome shakes hands and registers the client, or says why not. It calls known when it
// knows who the client is, and sees to it that left is called when the connection has ended.
func (s *Server) welcome(ctx context.Context, conn net.Conn, known, left func()) {
	registered := false
	defer func() {
		if !registered {
			left()
		}
	}()
	remote := conn.RemoteAddr().String()
	secured, state, err := s.secure(ctx, conn)
	if err != nil {
		s.turnAway(conn, err)
		return
	}
	conn = secured
	r := wire.NewReader(conn, wire.MaxHandshakeFrame)
	hello, err := s.shake(conn, r)
	if err == nil && state == nil && s.cfg.TLS().Required { // not before Hello was read: closing would take the answer back
		err = ErrTLSRequired
	}
	var admitted Admitted
	if err == nil {
		admitted, err = s.admit(ctx, remote, hello, state)
	}
	if err == nil {
		known()
		info := hub.Info{Address: remote, Name: hello.Name, Version: hello.Version, Labels: hello.Labels, TLS: state != nil}
		err = s.register(conn, r, hello, info, admitted, left)
		registered = err == nil
	}
	if err != nil {
		r.Close()
		s.turnAway(conn, err)
	}
}

// shake reads Hello, within the deadline that secure has set.
func (s *Server) shake(conn net.Conn, r *wire.Reader) (hello wire.Hello, err error) {
	f, err := r.Next()
	switch {
	case err != nil:
		return hello, orTimeout(err)
	case f.Kind() != wire.KindHello:
		return hello, &wire.Error{Code: wire.CodeUnknownKind, Detail: fmt.Sprintf("the first frame has to be Hello, this one is of kind %d", f.Kind())}
	}
	if err := wire.DecodeControl(f, &hello); err != nil {
		return hello, err
	}
	if _, err := wire.NegotiateVersion(hello.MinVersion, hello.MaxVersion); err != nil {
		return hello, err
	}
	return hello, conn.SetDeadline(time.Time{})
}

// admit finds out who a client is.
func (s *Server) admit(ctx context.Context, remote string, hello wire.Hello, state *tls.ConnectionState) (Admitted, error) {
	if s.cfg.Door == nil {
		return Admitted{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	shown := auth.Credentials{Token: hello.Token, From: remote}
	if state != nil {
		shown.Certificates = state.PeerCertificates
	}
	return s.cfg.Door.Admit(ctx, hello.ID, shown)
}

// orTimeout returns err as the client is told of it.
func orTimeout(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &wire.Error{Code: wire.CodeHandshakeTimeout, Detail: fmt.Sprintf("no whole Hello within %s", handshakeTime)}
	}
	return err
}

// refuse says why a handshake failed and closes the connection.
func refuse(conn net.Conn, err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, errNoTLS) {
		frame := wire.AppendControl(nil, wire.Header{Kind: wire.KindError}, "", wire.FaultOf(err, wire.CodeMalformed))
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // the connection is closed either way
		_, _ = conn.Write(frame)                               // the connection is closed either way
	}
	_ = conn.Close() // nothing more is wanted of it
}

// register hands the connection to the hub, which owns it from then on.
func (s *Server) register(conn net.Conn, r *wire.Reader, hello wire.Hello, info hub.Info, admitted Admitted, left func()) error {
	limits := s.cfg.Limits()
	r.SetLimit(wire.MaxFrame(limits.MaxArtifact))
	id, client := hello.ID, io.ReadWriteCloser(conn)
	if tenant := admitted.Tenant; tenant != "" {
		client = tenancy.Wrap(conn, r, tenant)
		id, r = tenant.ID(id), wire.NewReader(client, math.MaxInt32) // frames are bounded before their names grow
		limits.MaxSubscribe /= 4                                     // which is measured when they have
	}
	opts := []hub.ClientOption{
		hub.WithClosed(left),
		hub.WithReader(r), hub.WithBroadcast(admitted.Tenant.Topic(hub.Broadcast)),
		hub.WithEpoch(hello.Epoch), hub.WithPublisher(hello.Publisher),
		hub.WithInfo(info),
		hub.WithGreeting(func(g hub.Greeting) []byte { return s.greeting(limits, g) }),
	}
	if admitted.Permit != nil {
		opts = append(opts, hub.WithPermit(admitted.Permit), hub.WithRenewal(s.cfg.Door.Renew))
	}
	if hello.Resumable {
		opts = append(opts, hub.WithSession(hub.Resume{Key: hello.Session, Received: hello.Received, Node: hello.Node, Attempt: hello.Attempt}))
	}
	if hello.NoBroadcast {
		opts = append(opts, hub.WithoutBroadcast())
	}
	err := s.cfg.Hub.RegisterClient(id, client, opts...)
	if errors.Is(err, hub.ErrNotRunning) {
		err = &wire.Error{Code: wire.CodeDraining, Detail: "this node is stopping: connect to another one"}
	}
	if c, ok := s.cfg.Hub.Client(id); ok && err == nil {
		s.recheck(c)
	}
	return err
}

// recheck looks at a client that has just registered: the settings may have changed while
// it shook hands.
func (s *Server) recheck(c *hub.Client) {
	switch {
	case !c.Info().TLS && s.cfg.TLS().Required:
		s.cfg.Hub.Expel(c, ErrTLSRequired)
	case s.cfg.Door != nil:
		s.cfg.Door.Recheck(c)
	}
}

func (s *Server) greeting(limits Limits, g hub.Greeting) []byte {
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindWelcome}, "", wire.Welcome{
		Version: wire.Version, Hub: s.cfg.HubName, Node: s.cfg.Node, Epoch: g.Epoch,
		ResumeWindow: g.Window.Milliseconds(), Session: g.Session, Resumed: g.Resumed, Received: g.Taken, Expires: g.Expires,
		MaxArtifact: limits.MaxArtifact, MaxFrame: wire.MaxFrame(limits.MaxArtifact), MaxSubscribe: limits.MaxSubscribe,
		PingInterval: limits.PingInterval.Milliseconds(), PingTimeout: limits.PingTimeout.Milliseconds(),
		Addresses: s.cfg.Addresses(),
	})
}
