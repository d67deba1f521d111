package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

// withoutGuard is the peer of what is guarded: the same servers without.
const withoutGuard = "plain"

// plain is what encrypted, ruled and paced are compared with.
type plain struct{ switchboard }

func (s *plain) name() string { return withoutGuard }

// encrypted runs hubnode processes that require TLS: one of its clients; several of each
// other, so that what links cost is not mixed with what clients do.
type encrypted struct {
	switchboard
	client  *tls.Config  // nil: clients are plain
	resumed atomic.Int64 // connections that did not need the certificate
}

func (s *encrypted) start(ctx context.Context, n int) error {
	ca, err := throwaway.New()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "tls")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := ca.Write(dir, "127.0.0.1", config.ClusterID(benchHub).String()); err != nil {
		return err
	}
	s.tls, s.client = config.Default().TLS, nil
	s.tls.Directory, s.tls.ClusterDirectory = dir, dir
	if n > 1 {
		s.tls.Cluster = config.TLSRequired
		return s.switchboard.start(ctx, n)
	}
	s.tls.Clients = config.TLSRequired
	s.client = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	s.resumed.Store(0)
	return s.switchboard.start(ctx, n)
}

func (s *encrypted) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	if s.client == nil {
		return s.switchboard.connect(ctx, server, id, h)
	}
	raw, err := dialSocket(ctx, s.clients[server])
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw.Conn, s.client)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the first error says more
		return nil, err
	}
	if secured.ConnectionState().DidResume {
		s.resumed.Add(1)
	}
	raw.Conn = secured
	return opened(greetSwitchboard(ctx, raw, id, "", h))
}

// resuming is idle, and looks whether sessions were resumed.
func resuming(ctx context.Context, s system, count int) (result, error) {
	r, err := idle(ctx, s, count)
	if e, ok := s.(*encrypted); ok && err == nil && e.resumed.Load() < int64(count-dialers) {
		r.wrong = fmt.Sprintf("%d of %d connections resumed a session", e.resumed.Load(), count)
	}
	return r, err
}
