// Package hub is the in-process message hub: it knows clients, subscriptions
// and topics, and routes artifacts between them. It knows nothing of clusters,
// Kubernetes or Raft; a program embeds it alone:
//
//	h, err := hub.New(hub.WithClient("a", conn), hub.WithTopics("a", "news"))
//	…
//	err = h.Start(ctx)
//	n, err := h.Route(ctx, &wire.Artifact{Topic: "news", Payload: []byte("hello")})
//	err = h.Stop(ctx)
//
// A client is any io.ReadWriteCloser. The hub reads frames of package wire from
// it and writes frames to it; there is no handshake, since registering says who
// it is. The hub owns the connection from then on and closes it, once.
//
// A node makes the same hub part of a cluster by giving it a [Remote].
//
// # The path of an artifact
//
// The goroutine that reads a connection routes what it read: it looks the topic
// up in a cache of its own, loads the topic's resolved fan-out with one atomic
// load, and queues the frame, as received, in the outbox of each receiver.
// Patterns are resolved when subscriptions change. The only lock that an
// artifact of a live topic meets is that of the queue it is appended to.
//
// # Lock order
//
// A local keeper's lock of a topic, then subscription.mu or finder.passing, then Hub.sending, then Hub.mu, then session.mu, then the locks
// that call nothing: of outboxes, of the Remote, of listeners to events, of what waits for
// answers and for clients to be found. No lock is held across network I/O or a callback.
//
// # What bounds each queue
//
// A client's queue has Settings.PendingBytes and the policy for slow clients; a
// subscription to a topic with history leaves the queue when it is half full
// and reads from history instead. Control frames may take the queue to twice the
// limit, and so may live ones with Conflate, until what waited before is sorted.
// Frames that wait for a topic's log to
// open, or for a client to be found, are bounded in number and bytes and refused
// beyond that. A link to another node is bounded by whoever made it: what does
// not fit is refused to the publisher or, forwarded, counted as dropped. Events
// that a listener has not heard yet are not bounded: two for each session.
//
// # Who hears of what was not delivered
//
// [Hub.Route] returns who could not be given the artifact: an
// [UndeliveredError]. A client that publishes is not told, since an
// acknowledgement of a live topic says only that the hub has the artifact; a
// client that sends directly is. The receiver is told how many artifacts it was
// too slow for, once there is room to tell it. [Hub.Metrics] counts everything.
//
// # While a client goes away
//
// Routing to a client that is being removed either queues the artifact before
// its Goodbye or finds no client, or the newer session that replaced it; it
// never blocks. Nothing is queued behind the Goodbye.
// Removing is idempotent, and the reason that comes first stays. It is told
// apart with errors.Is and errors.As: see [ClientLeft], which says that nothing
// is routed to the client any more, and [Hub.OnEvent] for what listeners can
// count on.
//
// A hub that stops removes its clients in the same way, but gives them as much
// time to take what is queued as Stop's context has, and says what it dropped:
// see [StopError].
package hub
