package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/wire"
)

// TLS is how links are encrypted. Its zero value is not at all.
type TLS struct {
	// Accept and Dial are for the two sides of a link, and verify the other one. Nil:
	// links are plain.
	Accept, Dial *tls.Config
	// Required: plain links are refused, and all peers are dialled with TLS.
	Required bool
}

// Refusal is why a link was refused: a word for metrics.
type Refusal string

// The refusals.
const (
	RefusedGreeting  Refusal = "greeting"  // it does not greet as a node of this hub
	RefusedPlain     Refusal = "plain"     // it is not encrypted, and has to be
	RefusedNoTLS     Refusal = "no_tls"    // it begins with TLS, which this node has not
	RefusedUntrusted Refusal = "untrusted" // its certificate is of no authority that nodes trust
	RefusedExpired   Refusal = "expired"   // its certificate has expired, or is not valid yet
	RefusedIdentity  Refusal = "identity"  // its certificate is for somebody else
	RefusedTheirs    Refusal = "theirs"    // the other side refuses this node's certificate
	RefusedRate      Refusal = "rate"      // there were too many from its address within a second
	RefusedCrowded   Refusal = "crowded"   // it had said nothing yet when too many others came
	RefusedTLS       Refusal = "tls"       // the handshake came to nothing: no certificate, another version, malformed
)

// refusals counts them.
type refusals map[Refusal]*atomic.Uint64

func newRefusals() refusals {
	r := make(refusals)
	for _, why := range []Refusal{
		RefusedGreeting, RefusedPlain, RefusedNoTLS, RefusedUntrusted, RefusedExpired, RefusedIdentity, RefusedTheirs, RefusedRate, RefusedCrowded, RefusedTLS,
	} {
		r[why] = new(atomic.Uint64)
	}
	return r
}

// Refused returns how many links were refused so far, by the reason. Links that this
// node dials are among them: it refuses who answers, or is refused.
func (m *Mesh) Refused() map[Refusal]uint64 {
	counts := make(map[Refusal]uint64, len(m.refused))
	for why, n := range m.refused {
		counts[why] = n.Load()
	}
	return counts
}

// refusedError is an error with its reason.
type refusedError struct {
	why Refusal
	err error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// reasonOf finds out why a handshake failed.
func reasonOf(err error) Refusal {
	var (
		known   *refusedError
		alert   *net.OpError
		wrong   interface{ WrongIdentity() }
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &alert) && alert.Op == "remote error": // so crypto/tls marks an alert of the other side
		return RefusedTheirs
	case errors.As(err, &wrong):
		return RefusedIdentity
	case errors.As(err, &unknown):
		return RefusedUntrusted
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return RefusedExpired
	case errors.Is(err, net.ErrClosed): // by this side, which only the crowd does
		return RefusedCrowded
	case errors.As(err, &known):
		return known.why
	}
	return RefusedGreeting
}

func (m *Mesh) tls() TLS {
	if m.cfg.TLS == nil {
		return TLS{}
	}
	return m.cfg.TLS()
}

// admit encrypts a connection that another node opened when it begins with TLS, and
// refuses what may not be.
func (m *Mesh) admit(ctx context.Context, conn net.Conn) (admitted net.Conn, encrypted bool, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return conn, false, err
	}
	first, conn, err := socket.First(conn)
	if err != nil {
		return conn, false, err
	}
	secure := m.tls()
	switch {
	case first != socket.TLSHandshake && !secure.Required:
		return conn, false, nil
	case first != socket.TLSHandshake:
		turnAway(conn, &wire.Error{Code: wire.CodeTLSRequired, Detail: "nodes of this hub link to each other by TLS only"})
		return conn, false, &refusedError{RefusedPlain, errors.New("the connection is not encrypted, and tls.cluster is Required")}
	case secure.Accept == nil:
		turnAway(conn, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "this node's links are not encrypted: set its tls.cluster to Optional or Required"})
		return conn, false, &refusedError{RefusedNoTLS, errors.New("the connection begins with TLS, and tls.cluster is Disabled")}
	}
	secured, _, err := socket.Serve(ctx, conn, secure.Accept)
	if err != nil {
		return conn, false, &refusedError{RefusedTLS, err}
	}
	return secured, true, nil
}

// turnAway says why a connection is refused.
func turnAway(conn net.Conn, why *wire.Error) {
	socket.Skip(conn)
	_, _ = conn.Write(wire.AppendControl(nil, wire.Header{Kind: wire.KindError}, "", wire.FaultOf(why, wire.CodeMalformed))) // it is closed either way
}

// secure encrypts a connection to a peer that is to be.
func (m *Mesh) secure(ctx context.Context, conn net.Conn, p Peer) (secured net.Conn, encrypted bool, err error) {
	secure := m.tls()
	if secure.Dial == nil || !p.TLS && !secure.Required {
		return conn, false, nil
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return conn, false, err
	}
	secured, _, err = socket.Open(ctx, conn, secure.Dial)
	if err != nil {
		return conn, false, fmt.Errorf("encrypt the link to node %q: %w", p.Name, &refusedError{RefusedTLS, err})
	}
	return secured, true, nil
}

// EndPlain ends the links that are not encrypted, once they may no longer be: they are
// made again. It returns how many there were. What is under way on them is lost, as
// when a link breaks.
func (m *Mesh) EndPlain() int {
	if !m.tls().Required {
		return 0
	}
	m.mu.Lock()
	links := slices.Collect(maps.Values(m.links))
	m.mu.Unlock()
	ended := 0
	for _, link := range links {
		if !link.encrypted {
			link.close()
			ended++
		}
	}
	return ended
}

// Encrypted returns the number of links that are up and encrypted.
func (m *Mesh) Encrypted() int { return int(m.encrypted.Load()) }
