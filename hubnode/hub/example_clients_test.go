package hub_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// Clients come and go while the hub runs.
func ExampleHub_RegisterClient() {
	ctx := context.Background()
	h, err := hub.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	ours, theirs := net.Pipe()
	heard := make(chan string)
	go listen(theirs, heard)

	labels := map[string]string{"team": "billing"}
	if err := h.RegisterClient("invoices", ours, hub.WithInfo(hub.Info{Labels: labels}), hub.WithoutBroadcast()); err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Subscribe("invoices", "orders.>", "refunds.*"); err != nil {
		fmt.Println(err)
	}
	for _, c := range h.Clients() {
		topics := c.Topics()
		slices.Sort(topics)
		fmt.Println(c.ID(), c.Info().Labels["team"], topics)
	}
	if _, err := h.Route(ctx, &wire.Artifact{From: "shop", Topic: "orders.eu.new", Payload: []byte("order 1")}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-heard)

	if err := h.UnregisterClient("invoices"); err != nil { // closes the connection
		fmt.Println(err)
	}
	_, there := <-heard
	fmt.Println("still connected:", there)
	if err := h.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// invoices billing [orders.> refunds.*]
	// orders.eu.new: order 1
	// still connected: false
}

// What a topic's filter does not let pass is refused to the publisher.
func ExampleWithTopicFilter() {
	signed := func(a *wire.Artifact) bool { return a.Attributes["signature"] != "" }
	h, err := hub.New(hub.WithTopicFilter("payments.>", signed))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, a := range []*wire.Artifact{
		{Topic: "payments.eu", Attributes: map[string]string{"signature": "…"}},
		{Topic: "payments.eu"},
		{Topic: "weather"},
	} {
		n, err := h.Route(ctx, a)
		fmt.Println(n, err)
	}
	if err := h.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 0 <nil>
	// 0 the filter of topic "payments.eu" does not let this artifact pass (code 10)
	// 0 <nil>
}

// A client may filter what it subscribes to, in whatever language the program
// compiles; a node compiles CEL.
func ExampleWithFilterCompiler() {
	contains := func(expression string) (hub.Filter, error) {
		return func(a *wire.Artifact) bool { return strings.Contains(string(a.Payload), expression) }, nil
	}
	ours, theirs := net.Pipe()
	h, err := hub.New(hub.WithFilterCompiler(contains), hub.WithClient("a", ours))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	frames := wire.NewReader(theirs, wire.MaxFrame(wire.DefaultMaxArtifact))
	subscribe := wire.AppendControl(nil, wire.Header{Kind: wire.KindSubscribe, Ref: 1}, "log.*", wire.Subscription{Filter: "error"})
	if _, err := theirs.Write(subscribe); err != nil {
		fmt.Println(err)
	}
	if f, err := frames.Next(); err != nil || f.Kind() != wire.KindAck {
		fmt.Println("not subscribed:", err)
	}
	go func() { // until the hub says goodbye
		for _, text := range []string{"all is well", "an error", "another error"} {
			if _, err := h.Route(ctx, &wire.Artifact{Topic: "log.disk", Payload: []byte(text)}); err != nil {
				fmt.Println(err)
			}
		}
		if err := h.Stop(ctx); err != nil {
			fmt.Println(err)
		}
	}()
	for {
		f, err := frames.Next()
		if err != nil || f.Kind() == wire.KindGoodbye {
			break
		}
		var a wire.Artifact
		artifacts := wire.NewRunReader(f.Body())
		if _, err := artifacts.Next(&a); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%s: %s\n", f.Target(), a.Payload)
	}
	frames.Close()
	_ = theirs.Close()
	<-h.Stopped()
	// Output:
	// log.disk: an error
	// log.disk: another error
}

// One client asks another one by name. The time that the answer may take comes
// with the question, and the answer goes by the question's ref.
func Example_request() {
	ctx := context.Background()
	askersEnd, asker := net.Pipe()
	clocksEnd, clock := net.Pipe()
	h, err := hub.New(hub.WithClient("asker", askersEnd), hub.WithClient("clock", clocksEnd))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := h.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}

	answering := make(chan struct{})
	go func() { // the clock
		defer close(answering)
		frames := wire.NewReader(clock, wire.MaxFrame(wire.DefaultMaxArtifact))
		defer frames.Close()
		f, err := frames.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s wants an answer within %d ms\n", f.From(), f.Sequence())
		reply := wire.Header{Kind: wire.KindReply, Count: 1, Ref: f.Ref()}
		if _, err := clock.Write(direct(reply, string(f.From()), "clock", "half past nine")); err != nil {
			fmt.Println(err)
		}
	}()

	frames := wire.NewReader(asker, wire.MaxFrame(wire.DefaultMaxArtifact))
	for ref, to := range []string{"clock", "calendar"} {
		ask := wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Count: 1, Ref: uint32(ref + 1), Sequence: 500}
		if _, err := asker.Write(direct(ask, to, "asker", "what time is it?")); err != nil {
			fmt.Println(err)
		}
		f, err := frames.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		if f.Kind() == wire.KindError {
			fmt.Println(f.Ref(), wire.ParseFault(f.Body()).Err())
			continue
		}
		var a wire.Artifact
		artifacts := wire.NewRunReader(f.Body())
		if _, err := artifacts.Next(&a); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%d %s: %s\n", f.Ref(), f.From(), a.Payload)
	}
	<-answering
	frames.Close()
	_, _ = asker.Close(), clock.Close()
	if err := h.Stop(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// asker wants an answer within 500 ms
	// 1 clock: half past nine
	// 2 no client "calendar" in the hub
}

// direct returns a frame with one artifact from one client for another.
func direct(h wire.Header, to, from, text string) []byte {
	var one wire.Run
	if err := one.Append(&wire.Artifact{ID: ids.Next(), Time: time.Now(), Payload: []byte(text)}, wire.DefaultMaxArtifact); err != nil {
		panic(err) // it is small
	}
	return wire.AppendFrame(nil, h, to, from, one.Body())
}
