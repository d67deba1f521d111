package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/switchboardhub/switchboard/bench/port"
)

// natsServer runs nats-server processes.
type natsServer struct {
	binary, dir string
	how         storage
	fleet
}

func (s *natsServer) storing(how storage) { s.how = how }

// natsName is the peer of what is measured beside one only.
const natsName = "nats"

func (s *natsServer) name() string { return natsName }

func (s *natsServer) start(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var routes []string
	for range n {
		addr, _, err := port.Free()
		if err != nil {
			return err
		}
		routes = append(routes, "nats://"+addr)
	}
	for i := range n {
		addr, number, err := port.Free()
		if err != nil {
			return err
		}
		args := []string{"-a", "127.0.0.1", "-p", number, "-n", fmt.Sprintf("bench-%d", i)}
		if n > 1 {
			args = append(args, "--cluster_name", "bench", "--cluster", routes[i], "--routes", strings.Join(routes, ","))
		}
		if n == 1 || s.how.everywhere {
			dir, err := os.MkdirTemp(s.dir, "jetstream-")
			if err != nil {
				return err
			}
			args = append(args, "-js", "-sd", dir)
			if s.how.peersSync {
				file := filepath.Join(dir, "sync.conf")
				if err := os.WriteFile(file, []byte("jetstream { sync_interval: always }\n"), 0o600); err != nil {
					return err
				}
				args = append(args, "-c", file)
			}
		}
		if err := s.add(addr, s.binary, args...); err != nil {
			return err
		}
	}
	for i, addr := range s.clients {
		err := poll(ctx, func() error {
			c, err := nats.Connect("nats://" + addr)
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

func (s *natsServer) connect(ctx context.Context, server int, id string, h handler) (conn, error) {
	return opened(dialNats(ctx, s.clients[server], id, h))
}

// fill publishes to a stream of JetStream.
func (s *natsServer) fill(ctx context.Context, topic string, payload []byte, n int) error {
	c, err := nats.Connect("nats://" + s.clients[0])
	if err != nil {
		return err
	}
	defer c.Close()
	js, err := c.JetStream(nats.PublishAsyncMaxPending(16 << 10))
	if err != nil {
		return err
	}
	as := nats.StreamConfig{Name: stream, Subjects: []string{topic}, Storage: nats.MemoryStorage}
	if s.how.disk {
		as.Storage = nats.FileStorage
	}
	if s.how.everywhere {
		as.Replicas = len(s.clients)
	}
	if err := poll(ctx, func() error { // until the servers have chosen a leader
		_, err := js.AddStream(&as)
		return err
	}); err != nil {
		return err
	}
	for range n {
		if _, err := js.PublishAsync(topic, payload); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const stream = "BENCH"

// replay makes a consumer that pushes the stream without asking for
// acknowledgements.
func (s *natsServer) replay(ctx context.Context, _ string, h handler) (func(), error) {
	reader, err := dialNats(ctx, s.clients[0], "reader", h)
	if err != nil {
		return nil, err
	}
	if err := reader.listen(ctx); err != nil {
		return reader.close, err
	}
	c, err := nats.Connect("nats://" + s.clients[0])
	if err != nil {
		return reader.close, err
	}
	defer c.Close()
	js, err := c.JetStream()
	if err != nil {
		return reader.close, err
	}
	_, err = js.AddConsumer(stream, &nats.ConsumerConfig{DeliverSubject: "client.reader", AckPolicy: nats.AckNonePolicy, DeliverPolicy: nats.DeliverAllPolicy})
	return reader.close, err
}

// natsClient is the same servers with nats.go instead of the barest client.
type natsClient struct{ natsServer }

func (s *natsClient) name() string { return "nats, nats.go" }

func (s *natsClient) connect(_ context.Context, server int, id string, h handler) (conn, error) {
	c, err := nats.Connect("nats://"+s.clients[server], nats.NoReconnect())
	if err != nil {
		return nil, err
	}
	return &natsLibraryConn{c: c, id: id, delivery: delivery{h: h}}, nil
}

func (s *natsClient) replay(_ context.Context, topic string, h handler) (func(), error) {
	c, err := nats.Connect("nats://" + s.clients[0])
	if err != nil {
		return nil, err
	}
	js, err := c.JetStream()
	if err != nil {
		return c.Close, err
	}
	_, err = js.Subscribe(topic, func(m *nats.Msg) {
		h.message(message{payload: m.Data})
		h.drained()
	}, nats.OrderedConsumer())
	return c.Close, err
}

type natsLibraryConn struct {
	c  *nats.Conn
	id string
	delivery
	err error // the first that publishing met
}

func (c *natsLibraryConn) subscribe(ctx context.Context, topic string) error {
	sub, err := c.c.Subscribe(topic, func(m *nats.Msg) {
		c.deliver(m.Data)
		if m.Reply != "" {
			_ = m.Respond(m.Data) // what is missing shows at the asker
		}
	})
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

func (c *natsLibraryConn) listen(ctx context.Context) error { return c.subscribe(ctx, "client."+c.id) }

func (c *natsLibraryConn) publish(topic string, payload []byte, n int) {
	for range n {
		if err := c.c.Publish(topic, payload); err != nil && c.err == nil {
			c.err = err
		}
	}
}

func (c *natsLibraryConn) send(id string, payload []byte, n int) { c.publish("client."+id, payload, n) }

func (c *natsLibraryConn) request(id string, payload []byte) {
	go func() { // one for each question in flight; it ends with the answer
		if m, err := c.c.Request("client."+id, payload, onceTime); err == nil {
			c.deliver(m.Data)
		}
	}()
}

func (c *natsLibraryConn) reply(message, []byte) {} // subscribe has done it

func (c *natsLibraryConn) write() error                   { return c.err }
func (c *natsLibraryConn) sync(ctx context.Context) error { return c.c.FlushWithContext(ctx) }
func (c *natsLibraryConn) close()                         { c.c.Close() }
