package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func ExampleConnect() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "agents.default.svc:7400",
		client.WithID("agent-7"),
		client.OnError(func(err error) { log.Print(err) }))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fmt.Println("connected to", c.Server().Node)
}

func ExampleClient_Subscribe() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "localhost:7400")
	if err != nil {
		log.Fatal(err)
	}
	sub, err := c.Subscribe(ctx, "orders.>", func(_ context.Context, a *wire.Artifact) error {
		fmt.Printf("#%d %s from %s: %s\n", a.Sequence, a.Topic, a.From, a.Payload)
		return nil
	}, client.SinceAll(), client.OnGap(func(gap *client.HistoryGapError) {
		fmt.Println("missed", gap.From, "to", gap.To)
	}))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe(ctx) }()
	<-c.Done()
}

func ExampleClient_PublishAsync() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "localhost:7400", client.WithInFlight(10_000))
	if err != nil {
		log.Fatal(err)
	}
	var last client.Ack
	for i := range 1_000_000 {
		a := &wire.Artifact{Payload: fmt.Appendf(nil, "order %d", i)}
		if last, err = c.PublishAsync(ctx, "orders.new", a); err != nil {
			log.Fatal(err)
		}
	}
	if err := c.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	sequence, err := last.Wait(ctx)
	fmt.Println(sequence, err)
}

func ExampleClient_Send() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "localhost:7400")
	if err != nil {
		log.Fatal(err)
	}
	err = c.Send(ctx, "agent-9", &wire.Artifact{Payload: []byte("hello")})
	if noClient, ok := errors.AsType[*client.NoClientError](err); ok {
		fmt.Println(noClient.ID, "is not connected")
	}
}

func ExampleClient_Request() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, "localhost:7400")
	if err != nil {
		log.Print(err)
		return
	}
	answer, err := c.Request(ctx, "agent-9", &wire.Artifact{Payload: []byte("how are you?")})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Printf("%s\n", answer.Payload)
}

func ExampleClient_Handle() {
	c, err := client.Connect(context.Background(), "localhost:7400", client.WithID("agent-9"))
	if err != nil {
		log.Fatal(err)
	}
	c.Handle(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		return &wire.Artifact{Payload: append([]byte("you said: "), a.Payload...)}, nil
	})
	<-c.Done()
}

func ExampleClient_WatchPresence() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "localhost:7400")
	if err != nil {
		log.Fatal(err)
	}
	err = c.WatchPresence(ctx, func(u client.PresenceUpdate) error {
		for _, one := range u.Clients { // of the first update alone
			fmt.Println(one.ID, "is on", one.Node)
		}
		for _, e := range u.Events {
			switch e.Kind {
			case wire.PresenceJoined:
				fmt.Println(e.Client, "joined", e.Node)
			case wire.PresenceMoved:
				fmt.Println(e.Client, "moved from", e.From, "to", e.Node)
			case wire.PresenceLeft:
				fmt.Println(e.Client, "left", e.Node, "because of", e.Reason)
			}
		}
		return nil
	})
	fmt.Println(err)
}
