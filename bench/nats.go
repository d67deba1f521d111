package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// natsServer runs nats-server processes.
type natsServer struct {
	binary  string
	servers []*server
	clients []string
}

func (s *natsServer) name() string { return "nats" }

func (s *natsServer) start(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var routes []string
	for range n {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		routes = append(routes, "nats://"+addr)
	}
	for i := range n {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		host, port, _ := strings.Cut(addr, ":")
		args := []string{"-a", host, "-p", port, "-n", fmt.Sprintf("bench-%d", i)}
		if n > 1 {
			args = append(args, "--cluster_name", "bench", "--cluster", routes[i], "--routes", strings.Join(routes, ","))
		}
		p, err := run(s.binary, args...)
		if err != nil {
			return err
		}
		s.servers, s.clients = append(s.servers, p), append(s.clients, "nats://"+addr)
	}
	for i, url := range s.clients {
		err := poll(ctx, func() error {
			c, err := nats.Connect(url)
			if err != nil {
				return err
			}
			defer c.Close()
			if known := len(c.Servers()) + len(c.DiscoveredServers()); n > 1 && known < n {
				return fmt.Errorf("it knows %d of %d servers", known, n)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("nats-server %d does not get ready: %w", i, err)
		}
	}
	return nil
}

func (s *natsServer) processes() []int { return pids(s.servers) }

func (s *natsServer) stop() {
	for _, p := range s.servers {
		p.stop()
	}
	s.servers, s.clients = nil, nil
}

func (s *natsServer) connect(_ context.Context, server int) (conn, error) {
	c, err := nats.Connect(s.clients[server], nats.NoReconnect())
	if err != nil {
		return nil, err
	}
	return &natsConn{c}, nil
}

type natsConn struct{ c *nats.Conn }

func (c *natsConn) subscribe(ctx context.Context, topic string, got func([]byte)) error {
	sub, err := c.c.Subscribe(topic, func(m *nats.Msg) { got(m.Data) })
	if err != nil {
		return err
	}
	// What a subscriber may be behind by; its defaults drop messages under
	// this load.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	return c.c.FlushWithContext(ctx)
}

func (c *natsConn) publish(_ context.Context, topic string, payload []byte) error {
	return c.c.Publish(topic, payload)
}

func (c *natsConn) flush(ctx context.Context) error { return c.c.FlushWithContext(ctx) }

func (c *natsConn) serve(ctx context.Context) error {
	if _, err := c.c.Subscribe(c.id(), func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	return c.c.FlushWithContext(ctx)
}

func (c *natsConn) request(ctx context.Context, topic string, payload []byte) error {
	_, err := c.c.RequestWithContext(ctx, topic, payload)
	return err
}

func (c *natsConn) id() string { return "bench.echo" }

func (c *natsConn) close() { c.c.Close() }
