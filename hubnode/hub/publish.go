package hub

import (
	"context"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Route brings an artifact to the client in To or to the subscribers of Topic
// and returns the number of deliveries: subscriptions on this hub, and other
// nodes. On a topic with history it is stored as well, by its home, and the
// deliveries are not counted when that is another node.
//
// It queues and does not wait for receivers to read. It sets ID and Time in a
// when they are zero. Errors: a [NoClientError], an [ArtifactTooLargeError], a
// wire.Error for a bad topic or an artifact that the topic's filter refuses,
// [ErrNotRunning] after Stop, or ctx's when that has ended.
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
	defer in.flush()
	if a.To != "" {
		return in.routeDirect(p)
	}
	return in.routeTopic(p, a)
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

func (in *intake) routeDirect(p *parcel) (int, error) {
	id := string(p.frame.Target())
	if c, ok := in.hub.Client(id); ok {
		in.hand(c, p, origin{})
		return 1, nil
	}
	if node, _, ok := in.hub.remote.Locate(id); ok {
		if link := in.hub.link(node); link != nil {
			in.pass(node, link, p, origin{})
			return 1, nil
		}
	}
	in.hub.metrics.dropped(dropNoClient, 1)
	return 0, &NoClientError{ID: id}
}

func (in *intake) routeTopic(p *parcel, a *wire.Artifact) (int, error) {
	r, err := in.hub.route(a.Topic)
	if err != nil {
		return 0, err
	}
	f := in.hub.resolve(r)
	if f.filter != nil && !f.filter(a) {
		in.hub.metrics.dropped(dropFiltered, 1)
		return 0, &wire.Error{Code: wire.CodeRefused, Detail: fmt.Sprintf("the filter of topic %q does not let this artifact pass", a.Topic)}
	}
	if f.keeps {
		in.publishStored(r, f, p, origin{})
		a.Sequence = p.seq
		return len(f.plain) + len(f.groups) + len(f.links), nil
	}
	return in.fanOut(r, f, p), nil
}
