package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"

	"github.com/switchboardhub/switchboard/bench/port"
)

// keptTopics is the pattern of the topics that keep keptMax messages.
const (
	keptTopics = "kept.>"
	keptMax    = 2_000_000
)

// switchboard runs hubnode processes.
type switchboard struct {
	binary, dir string
	how         storage
	tls         config.TLS // the zero value: the default
	auth        config.Authentication
	rules       []config.Rule
	takes       int // connections in a second; 0: as many as come
	fleet
}

// benchHub is the identity of the hub.
const benchHub = "bench"

func (s *switchboard) storing(how storage) { s.how = how }

func (s *switchboard) name() string { return ours }

func (s *switchboard) start(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	configs := make([]config.Config, n)
	var peers []string
	for i := range configs {
		c := config.Default()
		c.Hub, c.Node, c.Replicas, c.Advertise = benchHub, fmt.Sprintf("bench-%d", i), n, "127.0.0.1"
		c.Log.Level = "warn"
		if s.tls.Clients != "" {
			c.TLS = s.tls
		}
		c.Authentication, c.Authorization.Rules = s.auth, s.rules
		c.Limits.ConnectionsPerSecond = s.takes
		c.Topics = []config.Topic{{Pattern: keptTopics, History: kept()}}
		if s.how.disk {
			dir, err := os.MkdirTemp(s.dir, "history-")
			if err != nil {
				return err
			}
			c.Storage.Dir, c.Storage.Sync = dir, config.SyncInterval
			if s.how.synced {
				c.Storage.Sync = config.SyncAlways
			}
		}
		for _, into := range []*string{&c.Listen.Client, &c.Listen.Cluster, &c.Listen.Gossip, &c.Listen.HTTP} {
			addr, _, err := port.Free()
			if err != nil {
				return err
			}
			*into = addr
		}
		peers = append(peers, c.Listen.Gossip)
		configs[i] = c
	}
	for _, c := range configs {
		c.Peers = peers
		text, err := c.Marshal()
		if err != nil {
			return err
		}
		path := filepath.Join(s.dir, fmt.Sprintf("%s-%s.yaml", c.Node, filepath.Base(c.Listen.Client)))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if err := s.add(c.Listen.Client, s.binary, "--config", path); err != nil {
			return err
		}
	}
	for _, c := range configs {
		if err := poll(ctx, func() error { return ready(ctx, "http://"+c.Listen.HTTP+"/readyz") }); err != nil {
			return fmt.Errorf("%s does not get ready: %w", c.Node, err)
		}
	}
	return nil
}

func ready(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // only the status counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, resp.Status)
	}
	return nil
}

func (s *switchboard) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	return opened(dialSwitchboard(ctx, s.clients[server], id, h))
}

func (s *switchboard) fill(ctx context.Context, topic string, payload []byte, n int) error {
	c, err := client.Connect(ctx, s.clients[0])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // all was acknowledged
	for range n {
		if _, err := c.PublishAsync(ctx, topic, &wire.Artifact{Payload: payload}); err != nil {
			return err
		}
	}
	return c.Flush(ctx)
}

func (s *switchboard) replay(ctx context.Context, topic string, h handler) (func(), error) {
	c, err := dialSwitchboard(ctx, s.clients[0], "reader", h)
	if err != nil {
		return nil, err
	}
	return c.close, c.subscribeSince(ctx, topic, wire.SinceAll)
}

func kept() *config.TopicHistory {
	artifacts, bytes := keptMax, config.Bytes(keptMax<<10)
	return &config.TopicHistory{MaxArtifacts: &artifacts, MaxBytes: &bytes}
}

// switchboardClient is the same servers with the Go client instead of the
// barest one.
type switchboardClient struct{ switchboard }

func (s *switchboardClient) name() string { return oursWithClient }

func (s *switchboardClient) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	c := &libraryConn{ctx: ctx, delivery: delivery{h: h}}
	var err error
	c.c, err = client.Connect(ctx, s.clients[server], client.WithID(id), client.WithHandler(c.answer))
	return opened(c, err)
}

func (s *switchboardClient) replay(ctx context.Context, topic string, h handler) (func(), error) {
	c, err := s.connect(ctx, 0, "reader", h)
	if err != nil {
		return nil, err
	}
	l, _ := c.(*libraryConn)
	_, err = l.c.Subscribe(ctx, topic, l.got, client.SinceAll())
	return c.close, err
}

// libraryConn is a connection of the Go client.
type libraryConn struct {
	c   *client.Client
	ctx context.Context //nolint:containedctx // of the scenario, which the connection belongs to
	delivery
	err error // the first that publishing met
}

func (c *libraryConn) got(_ context.Context, a *wire.Artifact) error {
	c.deliver(a.Payload)
	return nil
}

func (c *libraryConn) answer(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) {
	return &wire.Artifact{Payload: a.Payload}, c.got(ctx, a)
}

func (c *libraryConn) subscribe(ctx context.Context, topic string) error {
	_, err := c.c.Subscribe(ctx, topic, c.got)
	return err
}

func (c *libraryConn) listen(context.Context) error { return nil }

func (c *libraryConn) publish(topic string, payload []byte, n int) {
	for range n {
		_, err := c.c.PublishAsync(c.ctx, topic, &wire.Artifact{Payload: payload})
		c.err = errors.Join(c.err, err)
	}
}

func (c *libraryConn) send(id string, payload []byte, n int) {
	for range n {
		_, err := c.c.SendAsync(c.ctx, id, &wire.Artifact{Payload: payload})
		c.err = errors.Join(c.err, err)
	}
}

func (c *libraryConn) request(id string, payload []byte) {
	go func() { // one for each question in flight; it ends with the answer or the scenario
		if a, err := c.c.Request(c.ctx, id, &wire.Artifact{Payload: payload}); err == nil {
			_ = c.got(c.ctx, a) // never fails
		}
	}()
}

func (c *libraryConn) reply(message, []byte) {} // answer has done it

func (c *libraryConn) write() error { return c.err }

func (c *libraryConn) sync(ctx context.Context) error { return c.c.Flush(ctx) }

func (c *libraryConn) close() { _ = c.c.Close() }
