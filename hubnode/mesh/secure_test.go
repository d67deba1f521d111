package mesh_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/certs"
	"github.com/switchboardhub/switchboard/hubnode/mesh"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	identity = "spiffe://switchboard.dev/hub/hub/cluster"
	other    = "spiffe://switchboard.dev/hub/other/cluster"
)

func newCA(t *testing.T) *throwaway.CA {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// store returns what a node has whose certificate is of a CA, for one identity.
func store(t *testing.T, ca *throwaway.CA, end time.Time, id string) *certs.Store {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := ca.Issue(end, id)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": ca.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := certs.NewMutual(dir, id, slog.New(slog.DiscardHandler))
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	return s
}

func good(t *testing.T, ca *throwaway.CA) *certs.Store {
	t.Helper()
	return store(t, ca, time.Now().Add(time.Hour), identity)
}

// selfSigned is a certificate for a node that nobody else vouches for.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(identity)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri}}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// secured makes a mesh use TLS.
func secured(s *certs.Store, required bool) func() mesh.TLS {
	return func() mesh.TLS { return mesh.TLS{Accept: s.Config(), Dial: s.Dial(), Required: required} }
}

// pairWith is two nodes that are to link, each with its TLS.
func pairWith(t *testing.T, a, b func() mesh.TLS) (*end, *end) {
	t.Helper()
	ends := []*end{startWith(t, "node-0", 1, a), startWith(t, "node-1", 1, b)}
	for i, e := range ends {
		peer := ends[1-i].peer(1)
		peer.TLS = []func() mesh.TLS{b, a}[i] != nil
		e.mesh.SetPeers([]mesh.Peer{peer})
	}
	return ends[0], ends[1]
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s", what, patience)
		}
	}
}

// Who dials and shows this is refused, whatever it goes on to say, and counted by why.
func TestWhoIsNoNodeOfTheHubIsRefusedByTLS(t *testing.T) {
	ca := newCA(t)
	dialWith := func(s *certs.Store, change func(*tls.Config)) *tls.Config {
		config := s.Dial().Clone()
		// Whom it would refuse itself is not what is tested.
		config.VerifyConnection = nil
		if change != nil {
			change(config)
		}
		return config
	}
	for name, tt := range map[string]struct {
		dial *tls.Config // nil: plain
		why  mesh.Refusal
	}{
		"a plain connection": {nil, mesh.RefusedPlain},
		"a certificate of nobody": {dialWith(good(t, ca), func(c *tls.Config) {
			own := selfSigned(t)
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		}), mesh.RefusedUntrusted},
		"one of another hub's CA":         {dialWith(good(t, newCA(t)), nil), mesh.RefusedUntrusted},
		"one that has expired":            {dialWith(store(t, ca, time.Now().Add(-time.Minute), identity), nil), mesh.RefusedExpired},
		"one for somebody else":           {dialWith(store(t, ca, time.Now().Add(time.Hour), other), nil), mesh.RefusedIdentity},
		"no certificate":                  {dialWith(good(t, ca), func(c *tls.Config) { c.GetClientCertificate = nil }), mesh.RefusedTLS},
		"the right one, but with TLS 1.2": {dialWith(good(t, ca), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), mesh.RefusedTLS},
	} {
		t.Run(name, func(t *testing.T) {
			e := startWith(t, "node-1", 1, secured(good(t, ca), true))
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if tt.dial != nil {
				conn = tls.Client(conn, tt.dial)
			}
			// A client of TLS 1.3 has written before it hears what the server says.
			_, _ = conn.Write(hello("hub", "node-0", wire.Version))
			answer, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			if tt.dial == nil && wire.ParseFault(wire.Frame(answer).Body()).Code != wire.CodeTLSRequired {
				t.Errorf("the answer is %q, want TLSRequired", answer)
			}
			until(t, "count", func() bool { return e.mesh.Refused()[tt.why] == 1 })
			if e.mesh.Links() != 0 || e.refused() != 1 {
				t.Errorf("%d links are up, refused are %v: want none, and one", e.mesh.Links(), e.mesh.Refused())
			}
		})
	}
}

// Who is dialled is looked at as closely, and the dialled one hears of it.
func TestWhoAnswersIsVerified(t *testing.T) {
	ca := newCA(t)
	for name, tt := range map[string]struct {
		answers *certs.Store
		why     mesh.Refusal
	}{
		"with another hub's CA":   {good(t, newCA(t)), mesh.RefusedUntrusted},
		"for somebody else":       {store(t, ca, time.Now().Add(time.Hour), other), mesh.RefusedIdentity},
		"with an expired one":     {store(t, ca, time.Now().Add(-time.Minute), identity), mesh.RefusedExpired},
		"and refuses who dialled": {nil, mesh.RefusedTheirs},
	} {
		t.Run(name, func(t *testing.T) {
			dials, answers := good(t, ca), tt.answers
			if answers == nil {
				dials = store(t, ca, time.Now().Add(-time.Minute), identity)
				answers = good(t, ca)
			}
			a, b := pairWith(t, secured(dials, true), secured(answers, true))
			until(t, "count", func() bool { return a.mesh.Refused()[tt.why] > 0 && b.refused() > 0 })
			if a.mesh.Links()+b.mesh.Links() != 0 {
				t.Error("a link is up")
			}
		})
	}
}

func TestNodesWithAndWithoutTLSLink(t *testing.T) {
	ca := newCA(t)
	optional, required := secured(good(t, ca), false), secured(good(t, ca), true)
	for name, tt := range map[string]struct {
		dials, answers func() mesh.TLS
		encrypted      int
	}{
		"neither":                       {nil, nil, 0},
		"one that is dialled":           {nil, optional, 0},
		"one that dials":                {optional, nil, 0},
		"both":                          {optional, optional, 1},
		"both, one has to":              {optional, required, 1},
		"both, the other one has to":    {required, optional, 1},
		"both have to":                  {required, required, 1},
		"the TLS of before and the new": {optional, secured(store(t, ca, time.Now().Add(2*time.Hour), identity), true), 1},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pairWith(t, tt.dials, tt.answers)
			toB, toA := wait(t, "link", a.linked), wait(t, "link", b.linked)
			until(t, "count", func() bool { return a.mesh.Links() == 1 && b.mesh.Links() == 1 })
			if a.mesh.Encrypted() != tt.encrypted || b.mesh.Encrypted() != tt.encrypted {
				t.Errorf("%d and %d links are encrypted, want %d", a.mesh.Encrypted(), b.mesh.Encrypted(), tt.encrypted)
			}
			large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			toB.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Ref: 1}, "x", "", large))
			toA.Say(wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Ref: 2}, "y", "", large))
			for ref, e := range map[uint32]*end{1: b, 2: a} {
				if f := wait(t, "frame", e.frames); f.Ref() != ref || !bytes.Equal(f.Body(), large) {
					t.Errorf("%s got frame %d of %d bytes, want %d whole", e.name, f.Ref(), len(f), ref)
				}
			}
		})
	}
}

// A node that may not link in the clear neither dials so nor answers.
func TestRequiredLinksToNobodyInTheClear(t *testing.T) {
	required := secured(good(t, newCA(t)), true)
	a, b := pairWith(t, nil, required)
	until(t, "refusal", func() bool { return b.mesh.Refused()[mesh.RefusedPlain] > 0 })
	c, d := pairWith(t, required, nil)
	until(t, "refusal", func() bool { return d.mesh.Refused()[mesh.RefusedNoTLS] > 0 })
	for _, e := range []*end{a, b, c, d} {
		if e.mesh.Links() != 0 {
			t.Errorf("%s has a link", e.name)
		}
	}
}

// Links that are there when TLS becomes required are made again with it.
func TestPlainLinksEndWhenTLSIsRequired(t *testing.T) {
	s := good(t, newCA(t))
	var now atomic.Pointer[mesh.TLS]
	now.Store(&mesh.TLS{})
	settings := func() mesh.TLS { return *now.Load() }
	a, b := pairWith(t, settings, settings)
	wait(t, "link", a.linked)
	wait(t, "link", b.linked)
	now.Store(&mesh.TLS{Accept: s.Config(), Dial: s.Dial()})
	if n := a.mesh.EndPlain(); n != 0 {
		t.Errorf("%d links ended while plain ones are allowed", n)
	}
	now.Store(&mesh.TLS{Accept: s.Config(), Dial: s.Dial(), Required: true})
	a.mesh.EndPlain()
	b.mesh.EndPlain()
	until(t, "encrypted link", func() bool { return a.mesh.Encrypted() == 1 && b.mesh.Encrypted() == 1 })
}

// That a peer has come to speak TLS is for the next link: the one that is there stays.
func TestALinkStaysWhenItsPeerComesToSpeakTLS(t *testing.T) {
	s := good(t, newCA(t))
	a, b := startWith(t, "node-0", 1, secured(s, false)), startWith(t, "node-1", 1, secured(s, false))
	peer := b.peer(1)
	a.mesh.SetPeers([]mesh.Peer{peer})
	b.mesh.SetPeers([]mesh.Peer{a.peer(1)})
	link := wait(t, "link", a.linked)
	peer.TLS = true
	a.mesh.SetPeers([]mesh.Peer{peer})
	if _, err := a.mesh.Ask(t.Context(), "node-1", "how", nil); err != nil {
		t.Error(err)
	}
	select {
	case <-a.unlinked:
		t.Error("the link ended")
	default:
	}
	link.Break()
	until(t, "encrypted link", func() bool { return a.mesh.Encrypted() == 1 })
}

// Who connects and says nothing, or ends in the midst of the handshake, holds up
// neither links nor the end.
func TestHandshakesThatHangHoldUpNobody(t *testing.T) {
	required := secured(good(t, newCA(t)), true)
	a, b := startWith(t, "node-0", 1, required), startWith(t, "node-1", 1, required)
	for _, begins := range [][]byte{nil, {0x16}, {0x16, 3, 1, 2, 0, 1}} {
		for range 20 {
			conn, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := conn.Write(begins); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.mesh.SetPeers([]mesh.Peer{b.peer(1)})
	b.mesh.SetPeers([]mesh.Peer{a.peer(1)})
	wait(t, "link", a.linked)
}

// Many questions both ways at the same time, over one encrypted link.
func TestManyAsksOverTLS(t *testing.T) {
	required := secured(good(t, newCA(t)), true)
	a, b := pairWith(t, required, required)
	wait(t, "link", a.linked)
	wait(t, "link", b.linked)
	body := bytes.Repeat([]byte("x"), 100_000)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var asking sync.WaitGroup
	for i := range 100 {
		for _, e := range []struct{ from, to *end }{{a, b}, {b, a}} {
			asking.Go(func() {
				question := fmt.Append(nil, i, string(body))
				got, err := e.from.mesh.Ask(ctx, e.to.name, "q", question)
				if want := e.to.name + " q " + string(question); string(got) != want || err != nil {
					t.Errorf("an answer of %d bytes, %v; want %d", len(got), err, len(want))
				}
			})
		}
	}
	asking.Wait()
}
