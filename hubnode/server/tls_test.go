package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/wire"
)

// configs returns a server's and a client's TLS.
func configs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Pair(time.Now().Add(time.Hour), "hub")
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		&tls.Config{RootCAs: ca.Pool(), ServerName: "hub", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
}

// encrypted is a connection that has shaken hands.
func encrypted(t *testing.T, addr string, config *tls.Config) (*raw, error) {
	t.Helper()
	c := dial(t, addr)
	secured := tls.Client(c.conn, config)
	if err := secured.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	c.conn, c.r = secured, wire.NewReader(secured, 1<<20)
	return c, nil
}

func must(t *testing.T, c *raw, err error) *raw {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOnePortServesBothWhereTLSIsOptional(t *testing.T) {
	own, theirs := configs(t)
	h, s, addr := serveTLS(t, hub.Settings{}, func() server.TLS { return server.TLS{Config: own} })
	join(t, addr, "plain")
	for range 2 {
		c, err := encrypted(t, addr, theirs)
		c = must(t, c, err)
		c.send(hello("secret"))
		if f := c.next(); f.Kind() != wire.KindWelcome {
			t.Fatalf("the answer to Hello is of kind %d: %s", f.Kind(), f.Body())
		}
	}
	for id, want := range map[string]bool{"plain": false, "secret": true} {
		if c, ok := h.Client(id); !ok || c.Info().TLS != want {
			t.Errorf("client %s: there %v, or its TLS is not %v", id, ok, want)
		}
	}
	if diff := cmp.Diff(server.Handshakes{Full: 1, Resumed: 1}, s.Handshakes()); diff != "" {
		t.Errorf("handshakes (-want +got):\n%s", diff)
	}
	if m := h.Metrics(); m.EncryptedClients != 1 || m.ActiveClients != 2 {
		t.Errorf("%d of %d clients are encrypted, want 1 of 2", m.EncryptedClients, m.ActiveClients)
	}
}

func TestPlainClientsAreRefusedWhereTLSIsRequired(t *testing.T) {
	own, theirs := configs(t)
	_, _, addr := serveTLS(t, hub.Settings{}, func() server.TLS { return server.TLS{Config: own, Required: true} })
	c := dial(t, addr)
	c.send(hello("plain"))
	c.ends(wire.KindError, wire.CodeTLSRequired)
	c, err := encrypted(t, addr, theirs)
	must(t, c, err).send(hello("secret"))
	if f := c.next(); f.Kind() != wire.KindWelcome {
		t.Errorf("the answer to Hello is of kind %d: %s", f.Kind(), f.Body())
	}
}

// A client that shook hands when plain connections were allowed does not stay when
// they no longer are.
func TestPlainClientIsRefusedWhenTLSBecomesRequiredMeanwhile(t *testing.T) {
	own, _ := configs(t)
	var asked atomic.Int32
	_, _, addr := serveTLS(t, hub.Settings{}, func() server.TLS {
		return server.TLS{Config: own, Required: asked.Add(1) > 1} // after the first look
	})
	c := dial(t, addr)
	c.send(hello("plain"))
	if f := c.next(); f.Kind() != wire.KindWelcome {
		t.Fatalf("the answer to Hello is of kind %d: %s", f.Kind(), f.Body())
	}
	c.ends(wire.KindGoodbye, wire.CodeTLSRequired)
}

func TestTLSClientsHearThatThereIsNone(t *testing.T) {
	_, theirs := configs(t)
	_, _, addr := serveTLS(t, hub.Settings{}, func() server.TLS { return server.TLS{} })
	_, err := encrypted(t, addr, theirs)
	if header, ok := errors.AsType[tls.RecordHeaderError](err); !ok {
		t.Errorf("the handshake fails with %v", err)
	} else if header.RecordHeader[0] != 0 {
		t.Errorf("the answer begins with %x", header.RecordHeader)
	}
}

func TestBadTLSHandshakesAreCountedAndHoldUpNobody(t *testing.T) {
	own, theirs := configs(t)
	_, s, addr := serveTLS(t, hub.Settings{}, func() server.TLS { return server.TLS{Config: own} })
	for range 50 { // that never go on
		dial(t, addr).send([]byte{0x16, 3})
	}
	_, stranger := configs(t)
	older := theirs.Clone()
	older.MaxVersion = tls.VersionTLS12
	elsewhere := theirs.Clone()
	elsewhere.ServerName = "other"
	for name, test := range map[string]struct {
		try  func() error      // returns what is wrong
		want server.Handshakes // what is counted
	}{
		"a client that trusts another CA": {func() error {
			if _, err := encrypted(t, addr, stranger); err == nil {
				return errors.New("the handshake succeeds")
			}
			return nil
		}, server.Handshakes{Refused: 1}},
		"a client that wants another name": {func() error {
			if _, err := encrypted(t, addr, elsewhere); err == nil {
				return errors.New("the handshake succeeds")
			}
			return nil
		}, server.Handshakes{Refused: 1}},
		"a client of TLS 1.2": {func() error {
			if _, err := encrypted(t, addr, older); err == nil || !strings.Contains(err.Error(), "protocol version") {
				return fmt.Errorf("the handshake fails with %w", err)
			}
			return nil
		}, server.Handshakes{Failed: 1}},
		"garbage": {func() error {
			c := dial(t, addr)
			c.send(append([]byte{0x16, 3, 1, 0, 200}, bytes.Repeat([]byte{0xff}, 200)...))
			if _, err := io.ReadAll(c.conn); errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("the connection stays")
			}
			return nil
		}, server.Handshakes{Failed: 1}},
		"a client that hangs up": {func() error {
			c := dial(t, addr)
			c.send([]byte{0x16, 3})
			return c.conn.Close()
		}, server.Handshakes{Failed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			want := s.Handshakes()
			want.Refused += test.want.Refused
			want.Failed += test.want.Failed
			if err := test.try(); err != nil {
				t.Error(err)
			}
			deadline := time.Now().Add(patience)
			for s.Handshakes() != want {
				if time.Now().After(deadline) {
					t.Fatalf("counted %+v, want %+v", s.Handshakes(), want)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	c, err := encrypted(t, addr, theirs)
	must(t, c, err).send(hello("good"))
	if f := c.next(); f.Kind() != wire.KindWelcome {
		t.Errorf("the answer to Hello is of kind %d: %s", f.Kind(), f.Body())
	}
}

// A TLS handshake that is never done takes no more than its time, whether it says
// nothing more or a byte a second, and holds up nobody.
func TestSlowTLSHandshakeIsGivenUp(t *testing.T) {
	own, theirs := configs(t)
	now := time.Now() // the bubble's clock is not the certificate's
	own.Time = func() time.Time { return now }
	theirs.Time = own.Time
	for name, pause := range map[string]time.Duration{"silent": time.Hour, "a byte a second": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, err := hub.New()
				if err != nil {
					t.Fatal(err)
				}
				if err := h.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				ln := &inMemory{conns: make(chan net.Conn), closed: make(chan struct{})}
				s := server.New(server.Config{
					Hub: h, HubName: "test", Node: "node-0", Log: slog.New(slog.DiscardHandler),
					Limits:    func() server.Limits { return server.Limits{MaxArtifact: 1 << 10} },
					Addresses: func() []string { return nil },
					TLS:       func() server.TLS { return server.TLS{Config: own, Required: true} },
				}, ln)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }() // ended below

				slow := ln.dial()
				begun := time.Now()
				written := make(chan struct{})
				go func() { // ends with the connection
					defer close(written)
					for _, b := range []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3} {
						if _, err := slow.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(pause)
					}
				}()
				quick := tls.Client(ln.dial(), theirs)
				if err := quick.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := quick.Write(hello("quick")); err != nil {
					t.Fatal(err)
				}
				f, err := wire.NewReader(quick, 1<<20).Next()
				if err != nil || f.Kind() != wire.KindWelcome || time.Since(begun) != 0 {
					t.Errorf("%v, or a frame of kind %d came after %v; want Welcome at once", err, f.Kind(), time.Since(begun))
				}
				if _, err := slow.Read(make([]byte, 1)); err == nil {
					t.Error("the slow one gets an answer")
				}
				if took := time.Since(begun); took != 5*time.Second {
					t.Errorf("given up after %v, want 5s", took)
				}
				if got := s.Handshakes(); got.TimedOut != 1 {
					t.Errorf("counted %+v", got)
				}
				_, _ = slow.Close(), quick.Close()
				<-written
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run = %v", err)
				}
				_ = h.Stop(context.Background())
			})
		})
	}
}
