// Package client connects a program to a Switchboard hub: it subscribes to
// topics, publishes to them, sends to other clients by name and asks them.
//
//	c, err := client.Connect(ctx, "agents.default.svc:7400", client.WithID("agent-7"))
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//
//	sub, err := c.Subscribe(ctx, "orders.>", func(ctx context.Context, a *wire.Artifact) error {
//		return handleOrder(ctx, a.Topic, a.Payload)
//	}, client.SinceAll())
//
//	seq, err := c.Publish(ctx, "orders.new", &wire.Artifact{Payload: order})
//	err = c.Send(ctx, "agent-9", &wire.Artifact{Payload: hello})
//
// # Connections
//
// A client holds one connection to one node and makes a new one by itself when
// that is lost, to another node when there is one. Subscriptions go with it: on
// topics with history they go on after the last artifact received, so that
// nothing is missed and nothing comes twice; on live topics what was published
// in between is lost. Publishes that were not acknowledged are sent again;
// topics with history store them once. A [Client.Send] or [Client.Request] whose fate is
// unknown fails with a [ConnectionLostError], and so does a [Client.Publish] to a live
// topic: it is delivered at most once.
//
// To go on in topics with history a subscription keeps its position in each: 32 bytes or
// so and the name, up to 16 MiB of them, which is a few hundred thousand topics. When it is
// restored they are all named to the node, in several frames if need be. A subscription to more
// topics, or to more than the node takes (one of an earlier version takes what fits into one
// frame, 1 MiB by default), can't be restored: it ends, and [Subscription.Err] says so. Have
// several then, each to a part of the topics. From 1 MiB on, positions in topics that the
// hub does not list any more are forgotten.
//
// Connections are encrypted with [WithCAFile] or [WithTLS]; a new one resumes the TLS
// session of the one before, on whichever node.
//
// A client whose id connects elsewhere ends with a [SessionReplacedError]; it
// does not come back by itself, or two processes with one id would fight for
// it forever.
//
// # History
//
// A subscription replays what a topic keeps with [SinceAll], [Since], [SinceAge]
// or [SinceLast], and goes on live. [Client.History] reads a part of it and ends.
//
// With [Durable] the hub keeps the position, under a name: an artifact is done when
// the handler has returned nil, and whoever subscribes by that name goes on behind
// it. With [Shared] as well, several clients work a topic off together; what one of
// them fails at, or had when it vanished, is given to another ([AckWait],
// [MaxDeliveries]).
//
// # Who is there
//
// [Client.Presence] lists who is connected, and on which node.
// [Client.WatchPresence] goes on with who joins, leaves and moves, and why they
// leave. A leave is told a second after it happened, as who comes back by then
// has moved.
//
// # What waits where
//
// Every queue is bounded in bytes. What is published waits in memory while the
// node reads slowly or is away, up to 4 MiB, and 64 MiB that are not yet
// acknowledged; then publishing blocks until its context ends. Of what nobody
// acknowledges, answers and artifacts on live topics, the client keeps up to 1 MiB more
// that are written, to send them again when its session goes on over another connection
// and the node did not take them; it asks the node every 128 KiB what it has, and writes
// nothing while it keeps more. (Without a session it keeps none.) Each
// subscription has a queue of its own for its handler (64 MiB, see
// [WithQueueBytes]), so a slow handler delays nobody else; when that queue is
// full the client stops reading from the node, which then applies its policy
// for slow clients.
//
// While a call waits for an answer of the hub, which may be that of a handler whose own
// queue is full, or nothing is written before there is one, the client reads on, and up to
// twice as much may wait. Beyond that a subscription is paused until half of its queue is
// free, and goes on where it was in topics with history. Live artifacts, and those for a [Group], have nothing to go on
// from: what finds no room is dropped, and so are the live ones of a pattern that is
// paused; a [DroppedError] goes to [OnError]. What is sent to this client stays with its
// node for as long as its queue is over the limit: the node keeps a few MiB and then
// refuses more with a [SlowClientError]. (Without a session it is dropped as well.)
//
// # Handlers
//
// The handler of one subscription is called for one artifact after another, in
// order; those of different subscriptions run side by side. Handlers may call
// every method of the client but [Client.Close]. They own the artifact they
// are given. The payloads of artifacts that travelled in one frame lie in one
// block of at most 64 KiB: who keeps a few of many for long should copy them.
//
// The package does no routing and keeps no history; it knows nothing of
// Kubernetes.
package client
