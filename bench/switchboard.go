package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
)

// switchboard runs hubnode processes.
type switchboard struct {
	binary, dir string
	servers     []*server
	clients     []string
}

func (s *switchboard) name() string { return "switchboard" }

func (s *switchboard) start(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	configs := make([]config.Config, n)
	var peers []string
	for i := range configs {
		c := config.Default()
		c.Hub, c.Node, c.Replicas, c.Advertise = "bench", fmt.Sprintf("bench-%d", i), n, "127.0.0.1"
		c.Log.Level = "warn"
		for _, into := range []*string{&c.Listen.Client, &c.Listen.Cluster, &c.Listen.Gossip, &c.Listen.HTTP} {
			addr, err := freeAddr()
			if err != nil {
				return err
			}
			*into = addr
		}
		peers = append(peers, c.Listen.Gossip)
		configs[i] = c
	}
	for i, c := range configs {
		c.Peers = peers
		text, err := c.Marshal()
		if err != nil {
			return err
		}
		path := filepath.Join(s.dir, fmt.Sprintf("%s-%s.yaml", c.Node, filepath.Base(c.Listen.Client)))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		p, err := run(s.binary, "--config", path)
		if err != nil {
			return err
		}
		s.servers, s.clients = append(s.servers, p), append(s.clients, configs[i].Listen.Client)
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

func (s *switchboard) processes() []int { return pids(s.servers) }

func pids(servers []*server) []int {
	var all []int
	for _, p := range servers {
		all = append(all, p.cmd.Process.Pid)
	}
	return all
}

func (s *switchboard) stop() {
	for _, p := range s.servers {
		p.stop()
	}
	s.servers, s.clients = nil, nil
}

func (s *switchboard) connect(ctx context.Context, server int) (conn, error) {
	c, err := client.Connect(ctx, s.clients[server], client.WithoutBroadcast())
	if err != nil {
		return nil, err
	}
	return &switchboardConn{c: c}, nil
}

type switchboardConn struct {
	c        *client.Client
	outgoing wire.Artifact // of publish, which one goroutine calls
}

func (c *switchboardConn) subscribe(ctx context.Context, topic string, got func([]byte)) error {
	_, err := c.c.Subscribe(ctx, topic, func(_ context.Context, a *wire.Artifact) error {
		got(a.Payload)
		return nil
	})
	return err
}

func (c *switchboardConn) publish(ctx context.Context, topic string, payload []byte) error {
	c.outgoing = wire.Artifact{Payload: payload}
	_, err := c.c.PublishAsync(ctx, topic, &c.outgoing)
	return err
}

func (c *switchboardConn) flush(ctx context.Context) error { return c.c.Flush(ctx) }

func (c *switchboardConn) serve(context.Context) error {
	c.c.Handle(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		return &wire.Artifact{Payload: a.Payload}, nil
	})
	return nil
}

func (c *switchboardConn) request(ctx context.Context, target string, payload []byte) error {
	_, err := c.c.Request(ctx, target, &wire.Artifact{Payload: payload})
	return err
}

func (c *switchboardConn) id() string { return c.c.ID() }

func (c *switchboardConn) close() { _ = c.c.Close() }
