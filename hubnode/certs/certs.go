package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/follow"
)

// The files in the directory, as a Secret of type kubernetes.io/tls has them.
const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// Store is the certificate in a directory. Its methods are safe for concurrent
// use, but for Run, which runs once.
type Store struct {
	dir     string
	id      string // of a mutual store; empty: the other side shows nothing
	log     *slog.Logger
	wanted  chan struct{} // closed once there is something to follow
	current atomic.Pointer[edition]
	stale   atomic.Bool

	mu    sync.Mutex  // is held while the files are read; guards the fields below
	told  string      // the last error that was logged, empty since the files are good
	again *time.Timer // reads files that are not valid yet once they are; nil: there are none
}

// edition is a certificate and what follows from it on one day.
type edition struct {
	pair   tls.Certificate
	secret []byte
	mutual *mutual // nil: the other side shows nothing
	day    int64
	config *tls.Config
	dial   *tls.Config // nil when mutual is
}

// New returns a store that reads nothing before Open.
func New(dir string, log *slog.Logger) *Store {
	return &Store{dir: dir, log: log, wanted: make(chan struct{})}
}

// Open loads the certificate unless it is loaded, and makes Run follow the files
// from then on. The error names the file that is missing or wrong.
func (s *Store) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != nil {
		return nil
	}
	next, err := load(s.dir, s.id)
	if err != nil {
		return err
	}
	s.serveLocked(next)
	close(s.wanted)
	return nil
}

// Run follows the files until ctx ends, from the first successful Open on.
func (s *Store) Run(ctx context.Context) error {
	select {
	case <-s.wanted:
	case <-ctx.Done():
		return nil
	}
	follow.Always(ctx, s.dir, s.reread, s.trouble)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitLocked(0)
	return nil
}

// waitLocked lets the files be read again after a while; none: no more.
func (s *Store) waitLocked(after time.Duration) {
	if s.again != nil {
		s.again.Stop()
		s.again = nil
	}
	if after > 0 {
		s.again = time.AfterFunc(after, s.reread)
	}
}

// Config returns what connections that begin now are to be served with, nil
// before Open: TLS 1.3, and sessions that resume on every node that has the same
// key. It must not be changed.
//
// TLS 1.2 is left out: what its resumed sessions say can be read by who gets hold
// of the ticket keys later.
func (s *Store) Config() *tls.Config {
	e := s.current.Load()
	if e == nil {
		return nil
	}
	today := dayOf(time.Now())
	if e.day == today {
		return e.config
	}
	next := newEdition(e.pair, e.secret, e.mutual, today)
	s.current.CompareAndSwap(e, next)
	return next.config
}

// Expiry returns when the certificate in use expires, the zero time before Open.
func (s *Store) Expiry() time.Time {
	e := s.current.Load()
	if e == nil {
		return time.Time{}
	}
	return e.pair.Leaf.NotAfter
}

// Since returns since when the certificate in use is valid, the zero time before Open.
func (s *Store) Since() time.Time {
	e := s.current.Load()
	if e == nil {
		return time.Time{}
	}
	return e.pair.Leaf.NotBefore
}

// Stale reports whether the files can't be used, so that an older certificate is
// in use.
func (s *Store) Stale() bool { return s.stale.Load() }

// reread takes over what the files say when that is good and new.
func (s *Store) reread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitLocked(0)
	next, err := load(s.dir, s.id)
	if err == nil && s.current.Load().validity() == nil {
		rest := time.Until(next.pair.Leaf.NotBefore) // taken first, or it may have passed
		if err = next.validity(); err != nil {
			err = fmt.Errorf("%s: %w", filepath.Join(s.dir, certFile), err)
			s.waitLocked(rest)
		}
	}
	if err != nil {
		s.stale.Store(true)
		s.troubleLocked(err)
		return
	}
	s.stale.Store(false)
	s.told = ""
	if old := s.current.Load(); !next.same(old) {
		s.serveLocked(next)
	}
}

// serveLocked makes an edition the one in use.
func (s *Store) serveLocked(next *edition) {
	s.current.Store(next)
	leaf := next.pair.Leaf
	log := s.log.With(slog.String("directory", s.dir), slog.Any("names", leaf.DNSNames), slog.Time("expires", leaf.NotAfter))
	if err := next.validity(); err != nil {
		log.Error("nobody will trust the certificate", slog.Any("error", err))
		return
	}
	log.Info("certificate loaded")
}

func (s *Store) trouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubleLocked(err)
}

// troubleLocked logs an error that was not the last one to be logged.
func (s *Store) troubleLocked(err error) {
	if text := err.Error(); text != s.told {
		s.told = text
		s.log.Error("certificate refused: the last good one stays", slog.Any("error", err))
	}
}

// load reads the directory.
func load(dir, id string) (*edition, error) {
	var files [3][]byte
	names := []string{certFile, keyFile}
	if id != "" {
		names = append(names, caFile)
	}
	for i, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // the operator of the node names the directory
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no %s in %s: TLS needs %s there, as a Secret of type kubernetes.io/tls has them: %w", name, dir, strings.Join(names, " and "), err)
		}
		if err != nil {
			return nil, fmt.Errorf("read the certificate: %w", err)
		}
		files[i] = content
	}
	pair, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("%s and %s in %s are not a certificate and its key: %w", certFile, keyFile, dir, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, keyFile), err)
	}
	var m *mutual
	if id != "" {
		if m, err = newMutual(id, files[2], dir, pair.Leaf, pair.Certificate); err != nil {
			return nil, err
		}
	}
	return newEdition(pair, secret, m, dayOf(time.Now())), nil
}

func newEdition(pair tls.Certificate, secret []byte, m *mutual, day int64) *edition {
	e := &edition{pair: pair, secret: secret, mutual: m, day: day}
	if m != nil {
		e.config, e.dial = m.configs(pair)
		return e
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		DynamicRecordSizingDisabled: true, // what is written is whole frames, and much at a time
	}
	config.SetSessionTicketKeys(ticketKeys(secret, day))
	e.config = config
	return e
}

// validity returns why the certificate is not valid now, nil when it is.
func (e *edition) validity() error {
	now, leaf := time.Now(), e.pair.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired on %s", leaf.NotAfter.UTC().Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: if that is past, this machine's clock is slow", leaf.NotBefore.UTC().Format(time.DateTime))
	}
	return nil
}

// same reports whether both serve the same chain with the same key, and trust the
// same.
func (e *edition) same(other *edition) bool {
	if e.mutual != nil && !bytes.Equal(e.mutual.text, other.mutual.text) {
		return false
	}
	if len(e.pair.Certificate) != len(other.pair.Certificate) || string(e.secret) != string(other.secret) {
		return false
	}
	for i, der := range e.pair.Certificate {
		if string(der) != string(other.pair.Certificate[i]) {
			return false
		}
	}
	return true
}
