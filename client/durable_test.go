package client

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

func fetchOf(t *testing.T, f wire.Frame) wire.Fetch {
	t.Helper()
	var q wire.Fetch
	if err := wire.DecodeControl(f, &q); err != nil {
		t.Fatal(err)
	}
	return q
}

func TestHandlerOfADurableSubscriptionEndsIt(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	subscriptions, ended := make(chan *Subscription, 1), make(chan error, 1)
	subscribed := background(func() error {
		s, err := c.Subscribe(t.Context(), "jobs", func(ctx context.Context, _ *wire.Artifact) error {
			ctx, cancel := context.WithTimeout(ctx, time.Hour) // one of its own, from the handler's
			defer cancel()
			ended <- (<-subscriptions).Unsubscribe(ctx)
			return nil
		}, Durable("d"))
		subscriptions <- s
		subscriptions <- s
		return err
	})
	f := p.want(wire.KindFetch)
	p.artifacts(wire.Header{Kind: wire.KindPublish, Ref: f.Ref(), Sequence: 1}, "jobs", "x", "one", "two")
	p.control(wire.Header{Kind: wire.KindAck, Ref: f.Ref()}, wire.Fetched{Given: []wire.Work{{Range: wire.Range{From: 1, To: 2}, Deliveries: 1}}})
	var acked []wire.Range
	for left := false; !left; {
		f := p.want(wire.KindFetch)
		q := fetchOf(t, f)
		acked, left = append(acked, q.Acked...), q.Leave
		p.ack(f, 0, 0)
	}
	if err := got(t, ended); err != nil {
		t.Errorf("Unsubscribe = %v", err)
	}
	if diff := cmp.Diff([]wire.Range{{From: 1, To: 1}}, acked); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
	if err := got(t, subscribed); err != nil {
		t.Error(err)
	}
	s := got(t, subscriptions)
	got(t, s.Done())
	if s.Err() != nil {
		t.Errorf("Err = %v", s.Err())
	}
}
