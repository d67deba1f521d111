package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// A subscription to more topics than one frame names comes back, and neither misses anything
// nor gets anything twice.
func TestSubscriptionToManyTopicsComesBack(t *testing.T) {
	const topics = 500
	name := func(i int) string { return fmt.Sprintf("orders.%s.%d", strings.Repeat("x", 180), i) }
	i := newIdentities(t)
	for kind, test := range map[string]struct {
		settings func(*config.Config)
		opts     []client.Option
	}{
		"everybody shares the topics":     {keepHistory, nil},
		"a tenant has topics of its own":  {i.tenants(ownWorld), []client.Option{i.of("shop")}},
		"the node takes little at a time": {func(c *config.Config) { keepHistory(c); c.Limits.MaxPendingBytes = 200 << 10 }, nil},
	} {
		t.Run(kind, func(t *testing.T) {
			c := cluster.Start(t, 2, func(cfg *config.Config) {
				test.settings(cfg)
				cfg.Limits.MaxArtifactSize = 4 << 10
			})
			var w wires
			sub := w.connect(t, c.Node(0).Client()+","+c.Node(1).Client(), "sub", test.opts...)
			pub := connect(t, c.Node(1), "pub", test.opts...)
			got := make(inbox, 2*topics)
			s, err := sub.Subscribe(patient(t), "orders.>", got.handle)
			if err != nil {
				t.Fatal(err)
			}
			for round := range wire.Sequence(3) {
				if round > 0 {
					w.cut()
				}
				for i := range topics {
					if _, err := pub.PublishAsync(patient(t), name(i), text("x")); err != nil {
						t.Fatal(err)
					}
				}
				if err := pub.Flush(patient(t)); err != nil {
					t.Fatal(err)
				}
				for range topics {
					if a := got.next(t); a.Sequence != round+1 {
						t.Fatalf("got %d of %s, want %d", a.Sequence, a.Topic, round+1)
					}
				}
			}
			if err := s.Err(); err != nil || len(got) > 0 {
				t.Errorf("Err = %v, and %d artifacts too many", err, len(got))
			}
		})
	}
}
