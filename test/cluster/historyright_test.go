package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// stuck is a subscriber that handles its first artifact for as long as a test says. Its
// connection takes little, so that most of what it subscribed to stays in the hub.
type stuck struct {
	sub     *client.Subscription
	begun   chan struct{}
	heard   atomic.Int64
	release chan struct{}
}

func stick(t *testing.T, n *cluster.Node, id string, token client.Option, opts ...client.SubscribeOption) *stuck {
	t.Helper()
	s := &stuck{begun: make(chan struct{}), release: make(chan struct{})}
	c := connect(t, n, id, token, client.WithQueueBytes(32<<10), client.WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(32 << 10)
		}
		return conn, err
	}))
	var err error
	s.sub, err = c.Subscribe(patient(t), "orders.new", func(ctx context.Context, _ *wire.Artifact) error {
		if s.heard.Add(1) == 1 {
			close(s.begun)
		}
		select {
		case <-s.release:
		case <-ctx.Done():
		}
		return nil
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A right to history that is taken away ends what is read by it, on every node: on the one
// that leads the topic, and on those that read from it. Who hears what is published goes on,
// however late.
func TestHistoryIsTakenAwayInPlace(t *testing.T) {
	const artifacts = 3000 // of 4 KiB: more than the sockets take
	i := newIdentities(t)
	rule := config.Rule{Name: "all", ConnectAs: []string{"*"}, Publish: []string{">"}, Subscribe: []string{"orders.>"}, History: []string{"orders.>"}}
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		cfg.History = config.History{MaxArtifacts: 2 * artifacts, MaxBytes: 64 << 20}
		cfg.Limits.MaxArtifactSize, cfg.Limits.MaxPendingBytes = 16<<10, 64<<10
		i.set(rule)(cfg)
	})
	publisher := connect(t, c.Node(0), "publisher", i.pod("publisher"))
	publish := func(n int) {
		t.Helper()
		for range n {
			if _, err := publisher.PublishAsync(patient(t), "orders.new", &wire.Artifact{Payload: make([]byte, 4<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := publisher.Flush(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
	var live, replaying []*stuck
	for n := range 3 {
		live = append(live, stick(t, c.Node(n), fmt.Sprint("live-", n), i.pod("live")))
	}
	publish(artifacts)
	for n := range 3 {
		replaying = append(replaying, stick(t, c.Node(n), fmt.Sprint("replaying-", n), i.pod("replaying"), client.SinceAll()))
		<-replaying[n].begun
		<-live[n].begun
	}
	durable := stick(t, c.Node(1), "durable", i.pod("durable"), client.Durable("d"), client.SinceAll())
	<-durable.begun

	rule.History = nil
	configure(t, c, 3, i.set(rule))
	for n, s := range append(replaying, durable) {
		close(s.release)
		c.WaitFor(fmt.Sprintf("end of subscription %d", n), func() bool { return s.sub.Err() != nil })
		denied, _ := errors.AsType[*wire.PermissionError](s.sub.Err())
		if denied == nil || denied.Action != wire.ActionHistory || denied.Target != "orders.new" {
			t.Errorf("subscription %d ended with %v, want that it may not read history", n, s.sub.Err())
		}
		if heard := s.heard.Load(); heard >= artifacts {
			t.Errorf("subscription %d heard all of %d", n, heard)
		}
	}
	publish(1)
	for n, s := range live {
		close(s.release)
		c.WaitFor(fmt.Sprintf("artifacts of live subscription %d", n), func() bool { return s.heard.Load() == artifacts+1 || s.sub.Err() != nil })
		if err := s.sub.Err(); err != nil {
			t.Errorf("live subscription %d ended with %v", n, err)
		}
	}
}
