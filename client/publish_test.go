package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

type sequenced struct {
	Seq wire.Sequence
	Err error
}

func publish(t *testing.T, c *Client, topic, payload string) <-chan sequenced {
	t.Helper()
	return background(func() sequenced {
		seq, err := c.Publish(t.Context(), topic, &wire.Artifact{Payload: []byte(payload)})
		return sequenced{seq, err}
	})
}

func TestPublishWaitsForTheAcknowledgement(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	result := publish(t, c, "orders.new", "x")
	f := p.want(wire.KindPublish)
	if f.Flags()&wire.FlagAck == 0 || string(f.Target()) != "orders.new" || string(f.From()) != "me" || f.Count() != 1 {
		t.Errorf("publish frame: header %+v, target %q, from %q", f.Header(), f.Target(), f.From())
	}
	p.ack(f, 12, 0)
	if r := got(t, result); r.Err != nil || r.Seq != 12 {
		t.Errorf("Publish = %d, %v, want 12", r.Seq, r.Err)
	}
}

func TestPublishAsyncPacksWhileTheWriterIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		var acks []Ack
		for i := range 100 {
			ack, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{Payload: fmt.Appendf(nil, "%d", i)})
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
			if i == 0 {
				synctest.Wait() // the writer has the first one, and nobody reads it yet
			}
		}
		first, rest := p.want(wire.KindPublish), p.want(wire.KindPublish)
		if first.Count() != 1 || rest.Count() != 99 {
			t.Fatalf("frames of %d and %d artifacts, want 1 and 99", first.Count(), rest.Count())
		}
		p.ack(rest, 8, 0) // the answers may come in any order
		p.ack(first, 7, 0)
		for i, ack := range acks {
			seq, err := ack.Wait(t.Context())
			if want := wire.Sequence(7 + i); err != nil || seq != want {
				t.Errorf("artifact %d: Wait = %d, %v, want %d", i, seq, err, want)
			}
		}
		if texts := payloads(t, rest); texts[0] != "1" || texts[98] != "99" {
			t.Errorf("frame holds %s … %s, want 1 … 99", texts[0], texts[98])
		}
	})
}

func TestPublishStartsANewFrameWhenTheRunIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		for range 5 {
			if _, err := c.PublishAsync(t.Context(), "big", &wire.Artifact{Payload: make([]byte, 30<<10)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for i, want := range []int{1, 2, 2} {
			if f := p.want(wire.KindPublish); f.Count() != want {
				t.Errorf("frame %d holds %d artifacts, want %d", i, f.Count(), want)
			}
		}
	})
}

func TestLiveTopicNeedsNoAcknowledgementUntilSettingsChange(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	result := publish(t, c, "live", "1")
	p.ack(p.want(wire.KindPublish), 0, wire.FlagLive)
	if r := got(t, result); r.Err != nil || r.Seq != 0 {
		t.Fatalf("Publish = %d, %v", r.Seq, r.Err)
	}

	if r := got(t, publish(t, c, "live", "2")); r.Err != nil { // returns without an answer
		t.Fatal(r.Err)
	}
	if f := p.want(wire.KindPublish); f.Flags()&wire.FlagAck != 0 || f.Ref() == 0 {
		t.Errorf("second publish asks for an acknowledgement, or has no ref: %+v", f.Header())
	}

	p.control(wire.Header{Kind: wire.KindSettings}, nil)
	p.control(wire.Header{Kind: wire.KindPing, Ref: 3}, nil) // its answer says that Settings is read
	if f := p.want(wire.KindPong); f.Ref() != 3 {
		t.Errorf("Pong with ref %d, want 3", f.Ref())
	}
	result = publish(t, c, "live", "3")
	f := p.want(wire.KindPublish)
	if f.Flags()&wire.FlagAck == 0 {
		t.Error("publish after Settings asks for no acknowledgement")
	}
	p.ack(f, 1, 0)
	if r := got(t, result); r.Err != nil || r.Seq != 1 {
		t.Errorf("Publish = %d, %v, want 1", r.Seq, r.Err)
	}
}

func TestPublishRetriesWhatIsTemporary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		result := publish(t, c, "orders", "x")
		for range 2 {
			p.refuse(p.want(wire.KindPublish), &wire.Error{Code: wire.CodeUnavailable, Detail: "home is away"})
		}
		p.ack(p.want(wire.KindPublish), 5, 0)
		if r := got(t, result); r.Err != nil || r.Seq != 5 {
			t.Errorf("Publish = %d, %v, want 5", r.Seq, r.Err)
		}
	})
}

func TestPublishReturnsRefusals(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	result := publish(t, c, "orders", "x")
	p.refuse(p.want(wire.KindPublish), &wire.Error{Code: wire.CodeRefused, Detail: "filter"})
	var refused *Error
	if r := got(t, result); !errors.As(r.Err, &refused) || refused.Code != wire.CodeRefused {
		t.Errorf("Publish = %v, want code %d", r.Err, wire.CodeRefused)
	}
	result = publish(t, c, "orders", "x")
	p.refuse(p.want(wire.KindPublish), &wire.Error{Code: wire.CodeStorageFull, Detail: "no room"})
	if r := got(t, result); !errors.As(r.Err, &refused) || refused.Code != wire.CodeStorageFull {
		t.Errorf("Publish to a full disk = %v, want code %d at once", r.Err, wire.CodeStorageFull)
	}

	_, err := c.Publish(t.Context(), "orders", &wire.Artifact{Payload: make([]byte, 2<<20)})
	var large *ArtifactTooLargeError
	if !errors.As(err, &large) || large.Size != 2<<20 || large.Limit != 1<<20 {
		t.Errorf("Publish of 2 MiB = %v, want an ArtifactTooLargeError with both sizes", err)
	}
	if _, err := c.Publish(t.Context(), strings.Repeat("x", 300), &wire.Artifact{}); err == nil {
		t.Error("a topic of 300 bytes was accepted")
	}
}

func TestRefusedPublishThatNobodyWaitsForGoesToOnError(t *testing.T) {
	failures := make(chan error, 10)
	c, p := connect(t, newNetwork("a:1"), OnError(func(err error) { failures <- err }))
	result := publish(t, c, "live", "1")
	p.ack(p.want(wire.KindPublish), 0, wire.FlagLive)
	got(t, result)
	got(t, publish(t, c, "live", "2"))
	p.refuse(p.want(wire.KindPublish), &wire.Error{Code: wire.CodeRefused, Detail: "filter"})
	var refused *Error
	if err := got(t, failures); !errors.As(err, &refused) {
		t.Errorf("OnError got %v, want the refusal", err)
	}
}

func TestPublishAsyncBlocksAtTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"), WithInFlight(2))
		for range 2 {
			if _, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		third := background(func() error {
			_, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{})
			return err
		})
		synctest.Wait()
		select {
		case <-third:
			t.Fatal("a third artifact was accepted with two in flight")
		default:
		}
		p.ack(p.want(wire.KindPublish), 1, 0)
		if err := got(t, third); err != nil {
			t.Error(err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		blocked := background(func() error {
			_, err := c.PublishAsync(ctx, "orders", &wire.Artifact{})
			return err
		})
		synctest.Wait()
		cancel()
		if err := got(t, blocked); !errors.Is(err, context.Canceled) {
			t.Errorf("PublishAsync = %v, want its context's error", err)
		}
	})
}

func TestFlushWaitsForAcknowledgementsAndTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		ack, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{})
		if err != nil {
			t.Fatal(err)
		}
		flushed := background(func() error { return c.Flush(t.Context()) })
		f, ping := p.want(wire.KindPublish), p.want(wire.KindPing)
		p.control(wire.Header{Kind: wire.KindPong, Ref: ping.Ref()}, nil)
		synctest.Wait()
		select {
		case <-flushed:
			t.Fatal("Flush returned before the acknowledgement")
		case <-ack.Done():
			t.Fatal("acknowledged by nobody")
		default:
		}
		p.ack(f, 1, 0)
		if err := got(t, flushed); err != nil {
			t.Error(err)
		}
	})
}

func TestUnacknowledgedPublishesAreSentAgainInOrder(t *testing.T) {
	n := newNetwork("a:1")
	c, p := connect(t, n)
	var acks []Ack
	for _, text := range []string{"1", "2", "3"} {
		ack, err := c.PublishAsync(t.Context(), "t"+text, &wire.Artifact{Payload: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	var sent []string
	for range acks {
		f := p.want(wire.KindPublish)
		sent = append(sent, payloads(t, f)...)
		if string(f.Target()) == "t2" {
			p.ack(f, 1, 0)
		}
	}
	if _, err := acks[1].Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.hangUp()
	ack, err := c.PublishAsync(t.Context(), "t4", &wire.Artifact{Payload: []byte("4")})
	if err != nil {
		t.Fatal(err)
	}
	acks = append(acks, ack)

	p = n.welcome(t, "a:1")
	for range 3 {
		f := p.want(wire.KindPublish)
		sent = append(sent, payloads(t, f)...)
		p.ack(f, 9, 0)
	}
	for i, ack := range acks {
		if _, err := ack.Wait(t.Context()); err != nil {
			t.Errorf("artifact %d: %v", i, err)
		}
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "1", "3", "4"}, sent); diff != "" {
		t.Errorf("artifacts on the wire (-want +got):\n%s", diff)
	}
}

func TestPublishOnALiveTopicDoesNotAllocate(t *testing.T) {
	for name, welcome := range map[string][]func(*wire.Welcome){"with a session": sessions, "without": nil} {
		t.Run(name, func(t *testing.T) {
			c, p := connectAs(t, newNetwork("a:1"), welcome)
			goLive(t, c, p)
			p.behave()
			a := &wire.Artifact{Payload: make([]byte, 100)}
			n := testing.AllocsPerRun(50_000, func() { // more than is kept
				if _, err := c.PublishAsync(t.Context(), "live", a); err != nil {
					t.Error(err)
				}
			})
			if n > 1 { // the peer's side is counted as well
				t.Errorf("%.1f allocations for each artifact, want at most 1", n)
			}
		})
	}
}

func TestWhoWaitsForRoomGoesOnWhileOtherPublishesAreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const inFlight = 8
		c, p := connect(t, newNetwork("a:1"), WithInFlight(inFlight))
		for range inFlight { // to a topic whose shard has no quorum: nothing comes of it
			if _, err := c.PublishAsync(t.Context(), "stuck", &wire.Artifact{}); err != nil {
				t.Fatal(err)
			}
		}
		const publishes = 16
		done := make(chan error, publishes)
		for i := range publishes { // more than may be queued
			go func() {
				_, err := c.Publish(t.Context(), fmt.Sprintf("fine.%d", i), &wire.Artifact{Payload: make([]byte, 512<<10)})
				done <- err
			}()
		}
		async := background(func() error {
			_, err := c.PublishAsync(t.Context(), "more", &wire.Artifact{})
			return err
		})
		synctest.Wait() // some wait for room
		var stuck []wire.Frame
		for fine := 0; fine < publishes; {
			f := p.want(wire.KindPublish)
			if string(f.Target()) == "stuck" {
				stuck = append(stuck, f)
				continue
			}
			p.ack(f, 1, 0)
			fine++
		}
		for range publishes {
			if err := got(t, done); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		select {
		case <-async:
			t.Error("another artifact is in flight beyond the bound")
		default:
		}
		for _, f := range stuck {
			p.ack(f, 1, 0)
		}
		p.ack(p.want(wire.KindPublish), 1, 0)
		if err := got(t, async); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoWaitsForRoomGoesOnWhileMuchIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		const stuck, publishes = 50, 16 // more than three quarters of what may be held, and more than may be queued
		for range stuck {
			if _, err := c.PublishAsync(t.Context(), "stuck", &wire.Artifact{Payload: make([]byte, 1<<20)}); err != nil {
				t.Fatal(err)
			}
			p.want(wire.KindPublish) // nothing comes of it
		}
		done := make(chan error, publishes)
		for i := range publishes {
			go func() {
				_, err := c.Publish(t.Context(), fmt.Sprintf("fine.%d", i), &wire.Artifact{Payload: make([]byte, 512<<10)})
				done <- err
			}()
		}
		synctest.Wait() // some wait for room
		for range publishes {
			p.ack(p.want(wire.KindPublish), 1, 0)
		}
		for range publishes {
			if err := got(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestARefusedArtifactLeavesItsNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		var acks []Ack
		for i := range 6 {
			ack, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{Payload: fmt.Append(nil, i)})
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
			if i == 0 {
				synctest.Wait() // the others share a frame
			}
		}
		p.ack(p.want(wire.KindPublish), 1, 0)
		f := p.want(wire.KindPublish)
		if f.Flags()&wire.FlagEach == 0 || f.Count() != 5 {
			t.Fatalf("frame of %d artifacts with flags %d, want 5 that are judged by themselves", f.Count(), f.Flags())
		}
		say := func(code wire.Code, artifacts ...int) {
			h := wire.Header{Kind: wire.KindError, Flags: wire.FlagEach, Ref: f.Ref()}
			p.control(h, wire.Fault{Code: code, Detail: "because", Artifacts: artifacts})
		}
		say(wire.CodeArtifactTooLarge, 3)
		say(wire.CodeRefused, 0, 2)
		say(wire.CodeRefused, 0, 2) // as when it was sent again
		p.ack(f, 7, 0)
		var large *ArtifactTooLargeError
		for i, want := range []struct {
			seq     wire.Sequence
			refused bool
		}{{seq: 1}, {refused: true}, {seq: 7}, {refused: true}, {refused: true}, {seq: 8}} {
			seq, err := acks[i].Wait(t.Context())
			if seq != want.seq || (err != nil) != want.refused || errors.As(err, &large) != (i == 4) {
				t.Errorf("artifact %d: Wait = %d, %v, want %+v", i, seq, err, want)
			}
		}
	})
}

func TestTheRestOfAFrameMayBeRefusedOrSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		var acks []Ack
		for i := range 3 {
			ack, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{Payload: fmt.Append(nil, i)})
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
			if i == 0 {
				synctest.Wait()
			}
		}
		p.ack(p.want(wire.KindPublish), 1, 0)
		filtered := wire.Fault{Code: wire.CodeRefused, Detail: "filter", Artifacts: []int{0}}
		f := p.want(wire.KindPublish)
		p.control(wire.Header{Kind: wire.KindError, Flags: wire.FlagEach, Ref: f.Ref()}, filtered)
		p.refuse(f, &wire.Error{Code: wire.CodeUnavailable, Detail: "no leader"})
		f = p.want(wire.KindPublish)
		p.control(wire.Header{Kind: wire.KindError, Flags: wire.FlagEach, Ref: f.Ref()}, filtered)
		p.refuse(f, &wire.Error{Code: wire.CodeStorageFull, Detail: "no room"})
		for i, want := range []wire.Code{0, wire.CodeRefused, wire.CodeStorageFull} {
			_, err := acks[i].Wait(t.Context())
			var coded *Error
			if errors.As(err, &coded); (want != 0) != (err != nil) || want != 0 && coded.Code != want {
				t.Errorf("artifact %d: %v, want code %d", i, err, want)
			}
		}
	})
}

func TestALivePublishIsNotDeliveredTwice(t *testing.T) {
	for name, welcome := range map[string][]func(*wire.Welcome){"when the session is lost": sessions, "without a session": nil} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork("a:1", "b:2")
			c, p := connectAs(t, n, append([]func(*wire.Welcome){func(w *wire.Welcome) { w.Addresses = []string{"b:2"} }}, welcome...))
			live, kept := publish(t, c, "live", "1"), publish(t, c, "kept", "1")
			for range 2 {
				if f := p.want(wire.KindPublish); f.Flags()&wire.FlagAgain != 0 {
					t.Errorf("the first time it says that it comes again: %d", f.Flags())
				}
			}
			n.kill()
			p.hangUp()
			p = n.welcome(t, "b:2", welcome...)
			for range 2 {
				f := p.want(wire.KindPublish)
				if f.Flags()&wire.FlagAgain == 0 {
					t.Error("it does not say that it comes again")
				}
				if string(f.Target()) == "live" {
					p.refuse(f, &wire.Error{Code: wire.CodeUnknownFate, Detail: "live"})
				} else {
					p.ack(f, 3, 0)
				}
			}
			var lost *ConnectionLostError
			if r := got(t, live); !errors.As(r.Err, &lost) || lost.Node != "node-a:1" || lost.Target != "live" {
				t.Errorf("Publish to the live topic = %v, want a ConnectionLostError of node-a:1", r.Err)
			}
			if r := got(t, kept); r.Err != nil || r.Seq != 3 {
				t.Errorf("Publish to the topic with history = %d, %v, want 3", r.Seq, r.Err)
			}
		})
	}
}
