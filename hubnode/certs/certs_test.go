package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/certs"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// log keeps what is logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func newCA(t *testing.T) *throwaway.CA {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// mount lays out a version of a Secret as the kubelet does: the files are links
// through ..data, and ..data one to a folder that is replaced whole.
func mount(t *testing.T, dir, version string, cert, key []byte) {
	t.Helper()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, version), 0o700),
		os.WriteFile(filepath.Join(dir, version, "tls.crt"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, version, "tls.key"), key, 0o600),
		os.Symlink(version, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
}

func issue(t *testing.T, ca *throwaway.CA, end time.Time) (cert, key []byte) {
	t.Helper()
	cert, key, err := ca.Issue(end, "hub")
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// run follows the files until the test ends.
func run(t *testing.T, s *certs.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	cert, key := issue(t, newCA(t), time.Now().Add(time.Hour))
	_, otherKey := issue(t, newCA(t), time.Now().Add(time.Hour))
	for name, test := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"no files":                   {nil, "no tls.crt in "},
		"no key":                     {map[string][]byte{"tls.crt": cert}, "no tls.key in "},
		"a key of another":           {map[string][]byte{"tls.crt": cert, "tls.key": otherKey}, "are not a certificate and its key: tls: private key does not match public key"},
		"files swapped":              {map[string][]byte{"tls.crt": key, "tls.key": cert}, "are not a certificate and its key"},
		"a file that is cut off":     {map[string][]byte{"tls.crt": cert[:100], "tls.key": key}, "are not a certificate and its key"},
		"a directory in the way":     {map[string][]byte{"tls.crt/x": cert, "tls.key": key}, "read the certificate: "},
		"nothing missing, for proof": {map[string][]byte{"tls.crt": cert, "tls.key": key}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range test.files {
				path := filepath.Join(dir, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			s := certs.New(dir, slog.New(slog.DiscardHandler))
			err := s.Open()
			if test.want == "" {
				if err != nil || s.Config() == nil {
					t.Errorf("Open = %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("Open = %v, want %q and the directory", err, test.want)
			}
			if s.Config() != nil || !s.Expiry().IsZero() || !s.Since().IsZero() {
				t.Error("there is a certificate")
			}
		})
	}
}

func TestRunFollowsASecret(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	first, second := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(2*time.Hour).Truncate(time.Second)
	cert, key := issue(t, ca, first)
	mount(t, dir, "..1", cert, key)
	var l log
	s := certs.New(dir, l.logger())
	run(t, s)
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	before := s.Config()
	if !s.Expiry().Equal(first) {
		t.Errorf("expires %v, want %v", s.Expiry(), first)
	}
	if block, _ := pem.Decode(cert); block != nil {
		if leaf, err := x509.ParseCertificate(block.Bytes); err != nil || !s.Since().Equal(leaf.NotBefore) {
			t.Errorf("valid since %v, want that of %v, %v", s.Since(), leaf, err)
		}
	}
	cert, key = issue(t, ca, second)
	mount(t, dir, "..2", cert, key)
	waitFor(t, "new certificate", func() bool { return s.Expiry().Equal(second) })
	if s.Config() == before || s.Stale() {
		t.Errorf("the configuration is that of before, or stale: %v", s.Stale())
	}
}

// What is broken changes nothing, is told once, and is over with the next good pair.
func TestTheLastGoodPairStays(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	good := time.Now().Add(time.Hour).Truncate(time.Second)
	cert, key := issue(t, ca, good)
	mount(t, dir, "..1", cert, key)
	var l log
	s := certs.New(dir, l.logger())
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	config := s.Config()

	mount(t, dir, "..2", []byte("nonsense"), key)
	waitFor(t, "complaint", func() bool { return s.Stale() })
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil { // looked at again
		t.Fatal(err)
	}
	expired, expiredKey := issue(t, ca, time.Now().Add(-time.Minute))
	mount(t, dir, "..3", expired, expiredKey)
	waitFor(t, "complaint about the expired one", func() bool { return l.count("the certificate expired on ") == 1 })
	if s.Config() != config || !s.Expiry().Equal(good) || !s.Stale() {
		t.Errorf("the good one did not stay: expires %v, stale %v", s.Expiry(), s.Stale())
	}
	if n := l.count("not a certificate and its key"); n != 1 {
		t.Errorf("told %d times", n)
	}

	cert, key = issue(t, ca, good.Add(time.Hour))
	mount(t, dir, "..4", cert, key)
	waitFor(t, "new certificate", func() bool { return !s.Stale() && s.Expiry().Equal(good.Add(time.Hour)) })
}

// One that is not valid yet, as on a machine whose clock is behind, has to wait until
// it is; nothing tells of that moment.
func TestACertificateIsUsedOnceItIsValid(t *testing.T) {
	ca := newCA(t)
	for name, open := range map[string]func(dir string, log *slog.Logger) *certs.Store{
		"of clients": certs.New,
		"of links":   func(dir string, log *slog.Logger) *certs.Store { return certs.NewMutual(dir, "spiffe://hub/node", log) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			good := time.Now().Add(time.Hour).Truncate(time.Second)
			cert, key, err := ca.Issue(good, "spiffe://hub/node")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			mount(t, dir, "..1", cert, key)
			var l log
			s := open(dir, l.logger())
			if err := s.Open(); err != nil {
				t.Fatal(err)
			}
			run(t, s)

			cert, key, err = ca.IssueFrom(time.Now().Add(2*time.Second), good.Add(time.Hour), "spiffe://hub/node")
			if err != nil {
				t.Fatal(err)
			}
			mount(t, dir, "..2", cert, key)
			waitFor(t, "complaint", func() bool { return l.count("the certificate is not valid before ") == 1 })
			waitFor(t, "new certificate", func() bool { return !s.Stale() && s.Expiry().Equal(good.Add(time.Hour)) })
		})
	}
}

func TestAFolderThatGoesAwayChangesNothing(t *testing.T) {
	for name, gone := range map[string]func(t *testing.T, s *certs.Store, l *log, dir string){
		"while it is followed": func(t *testing.T, s *certs.Store, l *log, dir string) {
			t.Helper()
			run(t, s)
			cert, key := issue(t, newCA(t), time.Now().Add(2*time.Hour))
			mount(t, dir, "..2", cert, key)
			waitFor(t, "new certificate", func() bool { return l.count("certificate loaded") == 2 })
			remove(t, dir)
		},
		"before it is": func(t *testing.T, s *certs.Store, _ *log, dir string) {
			t.Helper()
			remove(t, dir)
			run(t, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tls")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cert, key := issue(t, newCA(t), time.Now().Add(time.Hour))
			mount(t, dir, "..1", cert, key)
			var l log
			s := certs.New(dir, l.logger())
			if err := s.Open(); err != nil {
				t.Fatal(err)
			}
			gone(t, s, &l, dir)
			config := s.Config()
			waitFor(t, "complaint", func() bool { return l.count("the folder "+dir+" is gone") == 1 && s.Stale() })
			if config == nil || s.Config() != config {
				t.Error("the certificate did not stay")
			}
		})
	}
}

func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func TestAnExpiredCertificateIsServedWhereThereIsNoBetterOne(t *testing.T) {
	dir := t.TempDir()
	cert, key := issue(t, newCA(t), time.Now().Add(-time.Minute))
	mount(t, dir, "..1", cert, key)
	var l log
	s := certs.New(dir, l.logger())
	if err := s.Open(); err != nil || s.Config() == nil {
		t.Fatalf("Open = %v", err)
	}
	if l.count("nobody will trust the certificate") != 1 {
		t.Error("nobody is told")
	}
}

// Sessions resume on every node that has the key, and with a new key on none.
func TestSessionsResumeAcrossNodes(t *testing.T) {
	ca := newCA(t)
	nodes := make([]*certs.Store, 3)
	cert, key := issue(t, ca, time.Now().Add(time.Hour))
	for i := range nodes {
		if i == 2 {
			cert, key = issue(t, ca, time.Now().Add(time.Hour))
		}
		dir := t.TempDir()
		mount(t, dir, "..1", cert, key)
		nodes[i] = certs.New(dir, slog.New(slog.DiscardHandler))
		if err := nodes[i].Open(); err != nil {
			t.Fatal(err)
		}
	}
	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "hub", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	for i, node := range []int{0, 0, 1, 0, 2} {
		state, err := shake(t, nodes[node].Config(), client)
		if err != nil {
			t.Fatal(err)
		}
		if want := i > 0 && node != 2; state.DidResume != want {
			t.Errorf("connection %d, to node %d: resumed %v, want %v", i, node, state.DidResume, want)
		}
	}
	old := client.Clone()
	old.MaxVersion = tls.VersionTLS12
	if _, err := shake(t, nodes[0].Config(), old); err == nil {
		t.Error("a client of TLS 1.2 is served")
	}
}

// shake returns what a client knows after a byte from a server.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c := tls.Server(a, server)
		_, _ = c.Write([]byte{1}) // with what comes before it, the ticket
		_ = c.Close()
	}()
	c := tls.Client(b, client)
	_, err := c.Read(make([]byte, 1))
	state := c.ConnectionState()
	_ = b.Close()
	<-served
	return state, err
}
