package certs_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/certs"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

const (
	node     = "spiffe://switchboard.dev/hub/h/cluster"
	stranger = "spiffe://switchboard.dev/hub/other/cluster"
)

// lay puts a certificate of a CA, its key, and whom to trust into a directory.
func lay(t *testing.T, dir string, ca *throwaway.CA, trusts []byte, names ...string) {
	t.Helper()
	cert, key, err := ca.Issue(time.Now().Add(time.Hour), names...)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"tls.key": key, "tls.crt": cert, "ca.crt": trusts} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMutualStoreIsOneThatItsEqualsAccept(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	for name, tt := range map[string]struct {
		trusts []byte
		names  []string
		want   string
	}{
		"as it has to be":           {ca.PEM(), []string{node}, ""},
		"for more than that":        {append(other.PEM(), ca.PEM()...), []string{"localhost", stranger, node}, ""},
		"for somebody else":         {ca.PEM(), []string{stranger}, `is for ["` + stranger + `"], it has to be for ` + node},
		"for hosts, as for clients": {ca.PEM(), []string{"localhost"}, "incompatible key usage"},
		"trusting nobody":           {[]byte("none"), []string{node}, "no certificate in "},
		"not trusting itself":       {other.PEM(), []string{node}, "tls.crt does not go by ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, ca, tt.trusts, tt.names...)
			var l log
			s := certs.NewMutual(dir, node, l.logger())
			switch err := s.Open(); {
			case tt.want == "" && err != nil:
				t.Errorf("Open = %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Open = %v, want %q in it", err, tt.want)
			}
			if has := s.Config() != nil && s.Dial() != nil; has != (tt.want == "") {
				t.Errorf("there are configs: %v", has)
			}
		})
	}
	dir := t.TempDir()
	lay(t, dir, ca, ca.PEM(), node)
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	var l log
	if err := certs.NewMutual(dir, node, l.logger()).Open(); err == nil || !strings.Contains(err.Error(), "no ca.crt in "+dir+": TLS needs tls.crt and tls.key and ca.crt there") {
		t.Errorf("without ca.crt: Open = %v", err)
	}
}

// handshake makes a connection between two stores and returns what each side says.
func handshake(t *testing.T, accepts, dials *certs.Store) (accepted, dialled error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	done := make(chan error, 1)
	go func() {
		server := tls.Server(a, accepts.Config())
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("x"))
		}
		_ = a.Close()
		done <- err
	}()
	client := tls.Client(b, dials.Dial())
	_, dialled = client.Read(make([]byte, 1))
	_ = b.Close()
	return <-done, dialled
}

// Whom a store trusts follows the file, and so does what it shows, for connections that
// begin from then on.
func TestMutualStoreFollowsItsFiles(t *testing.T) {
	first, second := newCA(t), newCA(t)
	dir, otherDir := t.TempDir(), t.TempDir()
	lay(t, dir, first, first.PEM(), node)
	lay(t, otherDir, second, append(first.PEM(), second.PEM()...), node)
	var l log
	s, other := certs.NewMutual(dir, node, l.logger()), certs.NewMutual(otherDir, node, l.logger())
	if err := errors.Join(s.Open(), other.Open()); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if a, b := handshake(t, s, s); a != nil || b != nil {
		t.Errorf("among equals: %v, %v", a, b)
	}
	if a, _ := handshake(t, s, other); a == nil {
		t.Error("one of another CA is accepted")
	}
	if _, b := handshake(t, other, s); b == nil {
		t.Error("one of another CA is dialled")
	}
	lay(t, dir, first, append(second.PEM(), first.PEM()...), node)
	waitFor(t, "trust in the second CA", func() bool {
		a, b := handshake(t, s, other)
		c, d := handshake(t, other, s)
		return errors.Join(a, b, c, d) == nil
	})
	lay(t, dir, second, second.PEM(), node)
	old := t.TempDir()
	lay(t, old, first, first.PEM(), node)
	outdated := certs.NewMutual(old, node, l.logger())
	if err := outdated.Open(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "end of the trust in the first CA", func() bool {
		a, _ := handshake(t, s, outdated)
		return a != nil
	})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), first.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "staleness", s.Stale)
	if a, b := handshake(t, s, other); a != nil || b != nil {
		t.Errorf("a broken set changes something: %v, %v", a, b)
	}
}
