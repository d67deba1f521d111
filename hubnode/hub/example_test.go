package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// listen tells what a client is sent, until the hub says goodbye.
func listen(conn net.Conn, heard chan<- string) {
	defer close(heard)
	frames := wire.NewReader(conn, wire.MaxFrame(wire.DefaultMaxArtifact))
	defer frames.Close()
	for {
		f, err := frames.Next()
		if err != nil || f.Kind() == wire.KindGoodbye {
			_ = conn.Close()
			return
		}
		artifacts := wire.NewRunReader(f.Body())
		var a wire.Artifact
		for {
			ok, err := artifacts.Next(&a)
			if !ok || err != nil {
				break
			}
			heard <- fmt.Sprintf("%s: %s", f.Target(), a.Payload)
		}
	}
}

// A program that embeds the hub hands it connections and routes artifacts.
func Example() {
	ctx := context.Background()
	ours, theirs := net.Pipe()
	h, err := hub.New(
		hub.WithClient("a", ours), // subscribed to "broadcast", as every client
		hub.WithTopics("a", "news", "orders.>"),
		hub.WithTopicFilter("orders.>", func(a *wire.Artifact) bool { return !strings.Contains(string(a.Payload), "test") }),
		hub.WithHealthCheck(10*time.Second, 3),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	heard := make(chan string)
	go listen(theirs, heard)
	for _, a := range []*wire.Artifact{
		{Topic: "news", Payload: []byte("the hub is up")},
		{Topic: "orders.new", Payload: []byte("order 1")},
		{Topic: "orders.new", Payload: []byte("a test order")},
		{To: "a", Payload: []byte("for you alone")},
		{Topic: hub.Broadcast, Payload: []byte("for everyone")},
		{Topic: "weather", Payload: []byte("nobody listens")},
	} {
		n, err := h.Route(ctx, a)
		switch {
		case err != nil:
			fmt.Println(err)
		case n == 0:
			fmt.Println("no subscriber to", a.Topic)
		default:
			fmt.Println(<-heard)
		}
	}
	if err := h.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	<-heard // the connection has ended
	// Output:
	// news: the hub is up
	// orders.new: order 1
	// the filter of topic "orders.new" does not let this artifact pass (code 10)
	// a: for you alone
	// broadcast: for everyone
	// no subscriber to weather
}

// Errors are types that errors.As finds.
func ExampleHub_Route() {
	h, err := hub.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = h.Route(context.Background(), &wire.Artifact{To: "b", Payload: []byte("hello")})
	if none, ok := errors.AsType[*hub.NoClientError](err); ok {
		fmt.Println("nobody is called", none.ID)
	}
	// Output: nobody is called b
}

// A program follows who comes and goes, and why.
func ExampleWithEvents() {
	h, err := hub.New(hub.WithEvents(func(e hub.Event) {
		switch e := e.(type) {
		case hub.ClientJoined:
			fmt.Println(e.Client.ID(), "joined")
		case hub.ClientLeft:
			if errors.Is(e.Reason, hub.ErrDisconnected) {
				fmt.Println(e.Client.ID(), "was disconnected")
			} else {
				fmt.Println(e.Client.ID(), "left:", e.Reason)
			}
		}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	ours, theirs := net.Pipe()
	if err := h.RegisterClient("a", ours); err != nil {
		fmt.Println(err)
		return
	}
	_ = theirs.Close() // the other side goes away
	a, ok := h.Client("a")
	if ok {
		<-a.Done()
	}
	if err := h.Stop(ctx); err != nil { // returns when everything has been told
		fmt.Println(err)
	}
	// Output:
	// a joined
	// a was disconnected
}

// A late subscriber of a topic with history gets what it missed.
func ExampleWithHistory() {
	ctx := context.Background()
	h, err := hub.New(hub.WithHistory("news", 100))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for _, text := range []string{"one", "two"} {
		a := &wire.Artifact{Topic: "news", Payload: []byte(text)}
		if _, err := h.Route(ctx, a); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("stored as %d\n", a.Sequence)
	}
	ours, theirs := net.Pipe()
	if err := h.RegisterClient("late", ours); err != nil {
		fmt.Println(err)
		return
	}
	subscribe := wire.AppendControl(nil, wire.Header{Kind: wire.KindSubscribe, Ref: 1}, "news", wire.Subscription{Since: wire.SinceAll})
	if _, err := theirs.Write(subscribe); err != nil {
		fmt.Println(err)
	}
	frames := wire.NewReader(theirs, wire.MaxFrame(wire.DefaultMaxArtifact))
	for replayed := 0; replayed < 2; {
		f, err := frames.Next()
		if err != nil {
			fmt.Println(err)
			break
		}
		if f.Kind() == wire.KindPublish {
			fmt.Printf("replayed %d\n", f.Sequence())
			replayed++
		}
	}
	frames.Close()
	_ = theirs.Close()
	if err := h.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// stored as 1
	// stored as 2
	// replayed 1
	// replayed 2
}
