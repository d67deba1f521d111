package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/wire"
)

// errNoTLS marks a handshake of TLS that came to nothing: there is no telling the
// client anything more.
var errNoTLS = errors.New("no TLS connection")

// Handshakes are how many handshakes of TLS there were, by how they ended.
type Handshakes struct {
	Full     uint64 // with the certificate
	Resumed  uint64 // with what was agreed on before
	Refused  uint64 // the client ended it: mostly it does not trust the certificate
	TimedOut uint64
	Failed   uint64 // malformed, of another version, or the connection ended
}

type handshakes struct {
	full, resumed, refused, timedOut, failed atomic.Uint64
}

// Handshakes returns the counts so far.
func (s *Server) Handshakes() Handshakes {
	h := &s.handshakes
	return Handshakes{h.full.Load(), h.resumed.Load(), h.refused.Load(), h.timedOut.Load(), h.failed.Load()}
}

// Crowded returns how many connections were ended because so many others began.
func (s *Server) Crowded() uint64 { return s.newcomers.Ended() }

// TurnedAway returns how many connections were one too many from their addresses: at a time,
// and within a second.
func (s *Server) TurnedAway() (number, rate uint64) {
	return s.addresses.Refused()
}

// Delayed returns how many connections had to wait because so many came within a second.
func (s *Server) Delayed() uint64 { return s.pace.delayed.Load() }

// secure encrypts a connection whose client begins with TLS, and leaves others as
// they are: state is nil then. It leaves a deadline for Hello.
func (s *Server) secure(ctx context.Context, conn net.Conn) (secured net.Conn, state *tls.ConnectionState, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return conn, nil, err
	}
	first, conn, err := socket.First(conn)
	if err != nil || first != socket.TLSHandshake {
		return conn, nil, orTimeout(err)
	}
	config := s.cfg.TLS().Config
	if config == nil {
		socket.Skip(conn)
		return nil, nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "the client begins with TLS, and this node has none: connect without, or set tls.clients to Optional or Required"}
	}
	secured, agreed, err := socket.Serve(ctx, conn, config)
	s.handshakes.count(agreed.DidResume, err)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoTLS, err)
	}
	return secured, &agreed, secured.SetDeadline(time.Now().Add(handshakeTime))
}

func (h *handshakes) count(resumed bool, err error) {
	var (
		timeout net.Error
		alert   *net.OpError
	)
	switch {
	case err == nil && resumed:
		h.resumed.Add(1)
	case err == nil:
		h.full.Add(1)
	case errors.As(err, &timeout) && timeout.Timeout():
		h.timedOut.Add(1)
	case errors.As(err, &alert) && alert.Op == "remote error": // so crypto/tls marks an alert of the other side
		h.refused.Add(1)
	default:
		h.failed.Add(1)
	}
}
