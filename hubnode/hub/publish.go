package hub

import (
	"context"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Route brings an artifact to the client in To or to the subscribers of Topic
// and returns the number of deliveries: subscriptions on this hub, and other
// nodes. A topic without subscribers is no error.
//
// On a topic with history it is stored first, by the topic's leader. Whoever has
// no room then reads it from history, so that all subscribers that this hub knows
// of count as deliveries.
//
// Route queues and does not wait for receivers to read. It sets ID and Time in
// a when they are zero, and Sequence when it has stored a. Errors:
//   - an [UndeliveredError], with the number of deliveries, when some receivers
//     could not be given the artifact;
//   - a [NoClientError] or a [SlowClientError] of the client in To;
//   - an [ArtifactTooLargeError];
//   - a wire.Error for a bad topic, an artifact that the topic's filter refuses,
//     or a topic whose leader can't take it now;
//   - [ErrNotRunning] after Stop, or ctx's when that has ended.
func (h *Hub) Route(ctx context.Context, a *wire.Artifact) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case <-h.stopped:
		return 0, ErrNotRunning
	default:
	}
	p, err := h.pack(a)
	if err != nil {
		return 0, err
	}
	h.metrics.received.Add(1)
	in := h.newIntake()
	in.missed = new(undelivered)
	defer in.flush()
	if a.To != "" {
		return in.routeDirect(ctx, p)
	}
	return in.routeTopic(ctx, p, a)
}

// pack makes the frame of one artifact.
func (h *Hub) pack(a *wire.Artifact) (*parcel, error) {
	target, kind := a.Topic, wire.KindPublish
	switch {
	case (a.To == "") == (a.Topic == ""):
		return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "an artifact has either a client or a topic to go to"}
	case a.To != "":
		target, kind = a.To, wire.KindSend
	}
	if len(a.From) > wire.MaxClientID || len(target) > wire.MaxTopic {
		return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("route from %.32q to %.32q: name too long", a.From, target)}
	}
	if a.ID.IsZero() {
		a.ID = h.ids.Next()
	}
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	var run wire.Run
	if err := run.Append(a, h.settings.Load().MaxArtifact); err != nil {
		return nil, err
	}
	return &parcel{frame: wire.AppendFrame(nil, wire.Header{Kind: kind, Count: 1}, target, a.From, run.Body())}, nil
}

func (in *intake) routeDirect(ctx context.Context, p *parcel) (int, error) {
	id := string(p.frame.Target())
	var failed error
	if in.handHere(p.frame.Target(), p, origin{failed: &failed}) {
		if failed != nil {
			return 0, failed
		}
		return 1, nil
	}
	node, link, err := in.hub.whereabouts(ctx, id)
	if link != nil {
		in.pass(node, link, p, origin{})
		if err := in.missed.err(*in.hub.peers.Load()); err != nil {
			return 0, err
		}
		return 1, nil
	}
	in.hub.metrics.dropped(dropNoClient, 1)
	if err == nil {
		err = &NoClientError{ID: id}
	}
	return 0, err
}

// whereabouts returns the node that holds a client: as the directory says, or
// as the nodes say when it says nothing. The error is that of whereIs.
func (h *Hub) whereabouts(ctx context.Context, id string) (string, Link, error) {
	if node, link := h.locate(id); link != nil {
		return node, link, nil
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	node, err := h.whereIs(ctx, id)
	return node, h.link(node), err
}

func (in *intake) routeTopic(ctx context.Context, p *parcel, a *wire.Artifact) (int, error) {
	r, err := in.hub.route(a.Topic)
	if err != nil {
		return 0, err
	}
	f := in.hub.resolve(r)
	if f.filter != nil && !f.filter(a) {
		in.hub.metrics.dropped(dropFiltered, 1)
		return 0, refused(a.Topic)
	}
	if !f.keeps {
		n := in.fanOut(r, f, p)
		return n, in.missed.err(*in.hub.peers.Load())
	}
	if err := in.routeStored(ctx, r, p, a); err != nil {
		return 0, err
	}
	return len(f.plain) + len(f.groups) + len(f.links), in.missed.err(*in.hub.peers.Load())
}

// routeStored publishes an artifact to a topic with history. Where this hub is
// the topic's leader it waits until the artifact is stored.
func (in *intake) routeStored(ctx context.Context, r *route, p *parcel, a *wire.Artifact) error {
	if _, self := in.hub.keeper.Leader(r.topic); !self {
		return in.publishStored(r, p, Publisher{}, origin{})
	}
	type outcome struct {
		first wire.Sequence
		err   error
	}
	result := make(chan outcome, 1)
	err := in.hub.keeper.Append(p.frame, 0, Publisher{}, func(_ *Stage, first wire.Sequence, err error) { result <- outcome{first, err} })
	if err != nil {
		return err
	}
	select {
	case got := <-result:
		a.Sequence = got.first
		return got.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unknownFate is what a publisher hears that sends again what may have been delivered,
// to a topic that keeps no history: nobody knows.
func unknownFate(topic string) error {
	return &wire.Error{Code: wire.CodeUnknownFate, Detail: fmt.Sprintf("topic %q keeps no history: what may have been delivered to it before is not delivered again", topic)}
}

// refused is what a publisher hears of a topic's filter.
func refused(topic string) error {
	return &wire.Error{Code: wire.CodeRefused, Detail: fmt.Sprintf("the filter of topic %q does not let this artifact pass", topic)}
}
