package hub_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// A receiver that does not read costs itself artifacts, and nobody else.
func ExampleUndeliveredError() {
	ours, theirs := net.Pipe() // nobody reads theirs
	h, err := hub.New(
		hub.WithSettings(hub.Settings{PendingBytes: 10_000, SlowClient: hub.DropNewest}),
		hub.WithClient("sleepy", ours), hub.WithTopics("sleepy", "news"),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for range 4 {
		n, err := h.Route(ctx, &wire.Artifact{Topic: "news", Payload: make([]byte, 3000)})
		if missed, ok := errors.AsType[*hub.UndeliveredError](err); ok {
			fmt.Println(n, "deliveries; missed by", missed.Clients)
			continue
		}
		fmt.Println(n, err)
	}
	sleepy, _ := h.Client("sleepy")
	fmt.Println("dropped:", sleepy.DroppedArtifacts())

	inAHurry, cancel := context.WithCancel(ctx)
	cancel()
	err = h.Stop(inAHurry)
	if unsent, ok := errors.AsType[*hub.StopError](err); ok {
		fmt.Println("stopped before", unsent.Clients, "client took what waited for it:", unsent.Err)
	}
	_ = theirs.Close()
	// Output:
	// 1 <nil>
	// 1 <nil>
	// 1 <nil>
	// 0 deliveries; missed by [sleepy]
	// dropped: 1
	// stopped before 1 client took what waited for it: context canceled
}

// Of a stream of updates, a client that is slow gets the newest of each key.
func ExamplePolicy() {
	ours, theirs := net.Pipe()
	h, err := hub.New(
		hub.WithSettings(hub.Settings{PendingBytes: 10_000, SlowClient: hub.Conflate, ConflateKey: "symbol"}),
		hub.WithClient("screen", ours), hub.WithTopics("screen", "prices"),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for price := range 1000 { // while the screen reads nothing
		for _, symbol := range []string{"ACME", "INIT"} {
			a := &wire.Artifact{Topic: "prices", Payload: fmt.Append(nil, symbol, " ", price), Attributes: map[string]string{"symbol": symbol}}
			if _, err := h.Route(ctx, a); err != nil {
				fmt.Println(err)
			}
		}
	}
	heard := make(chan string)
	go listen(theirs, heard)
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(ctx) }() // writes what waits
	var last [2]string
	n := 0
	for text := range heard {
		last[0], last[1] = last[1], text
		n++
	}
	fmt.Println("got few of 2000:", n < 500)
	fmt.Println(last[0])
	fmt.Println(last[1])
	if err := <-stopped; err != nil {
		fmt.Println(err)
	}
	// Output:
	// got few of 2000: true
	// prices: ACME 999
	// prices: INIT 999
}
