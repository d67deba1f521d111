package client

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

type answer struct {
	a   *wire.Artifact
	err error
}

func request(ctx context.Context, c *Client, target, text string) <-chan answer {
	return background(func() answer {
		a, err := c.Request(ctx, target, &wire.Artifact{Payload: []byte(text)})
		return answer{a, err}
	})
}

func send(t *testing.T, c *Client, target, text string) <-chan error {
	t.Helper()
	return background(func() error { return c.Send(t.Context(), target, &wire.Artifact{Payload: []byte(text)}) })
}

func TestSend(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	done := send(t, c, "b", "hi")
	f := p.want(wire.KindSend)
	if string(f.Target()) != "b" || string(f.From()) != "me" || f.Flags() != wire.FlagAck {
		t.Errorf("send frame: header %+v, target %q, from %q", f.Header(), f.Target(), f.From())
	}
	p.ack(f, 0, 0)
	if err := got(t, done); err != nil {
		t.Error(err)
	}

	done = send(t, c, "nobody", "hi")
	p.refuse(p.want(wire.KindSend), &NoClientError{ID: "nobody"})
	var noClient *NoClientError
	if err := got(t, done); !errors.As(err, &noClient) || noClient.ID != "nobody" {
		t.Errorf("Send = %v, want a NoClientError", err)
	}
	if err := c.Send(t.Context(), "$hub.clients", &wire.Artifact{}); err == nil {
		t.Error("Send to the hub itself was accepted")
	}
}

func TestLostConnectionFailsSendsOfUnknownFateOnly(t *testing.T) {
	n := newNetwork("a:1")
	lost := make(chan error, 1)
	c, p := connect(t, n, OnDisconnect(func(err error) { lost <- err }))
	sent := send(t, c, "b", "1")
	p.want(wire.KindSend)
	asked := request(t.Context(), c, "b", "2")
	p.want(wire.KindSend)
	p.hangUp()
	got(t, lost)
	for _, err := range []error{got(t, sent), got(t, asked).err} {
		var unknown *ConnectionLostError
		if !errors.As(err, &unknown) || unknown.Target != "b" || unknown.Node != "node-a:1" {
			t.Errorf("got %v, want a ConnectionLostError", err)
		}
	}
	waiting := send(t, c, "b", "3")
	p = n.welcome(t, "a:1")
	f := p.want(wire.KindSend)
	if text := payloads(t, f); text[0] != "3" {
		t.Errorf("sent %v after the reconnect, want 3", text)
	}
	p.ack(f, 0, 0)
	if err := got(t, waiting); err != nil {
		t.Error(err)
	}
}

func TestGivenUpSendIsNotSentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		c, p := connect(t, n)
		node := n.nodes["a:1"]
		n.kill()
		p.hangUp()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Send(ctx, "b", &wire.Artifact{Payload: []byte("given up")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send = %v", err)
		}
		done := send(t, c, "b", "later")
		n.mu.Lock()
		n.nodes["a:1"] = node
		n.mu.Unlock()
		p = n.welcome(t, "a:1")
		f := p.want(wire.KindSend)
		if text := payloads(t, f); len(text) != 1 || text[0] != "later" {
			t.Errorf("sent %v", text)
		}
		p.ack(f, 0, 0)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRequest(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	asked := request(ctx, c, "b", "how much?")
	f := p.want(wire.KindSend)
	if f.Flags()&wire.FlagRequest == 0 || f.Sequence() < 4000 || f.Sequence() > 5000 {
		t.Errorf("request frame: %+v", f.Header())
	}
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "b", "42")
	if r := got(t, asked); r.err != nil || string(r.a.Payload) != "42" || r.a.From != "b" || r.a.To != "me" {
		t.Errorf("Request = %+v, %v", r.a, r.err)
	}

	asked = request(ctx, c, "b", "x")
	p.artifacts(wire.Header{Kind: wire.KindReply, Flags: wire.FlagFailed, Ref: p.want(wire.KindSend).Ref()}, "me", "b", "no idea")
	var failed *HandlerError
	if r := got(t, asked); !errors.As(r.err, &failed) || failed.Client != "b" || failed.Detail != "no idea" {
		t.Errorf("Request = %v, want a HandlerError", r.err)
	}

	asked = request(ctx, c, "nobody", "x")
	p.refuse(p.want(wire.KindSend), &NoClientError{ID: "nobody"})
	var noClient *NoClientError
	if r := got(t, asked); !errors.As(r.err, &noClient) {
		t.Errorf("Request = %v, want a NoClientError", r.err)
	}

	asked = request(ctx, c, "$hub.nodes", "")
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: p.want(wire.KindSend).Ref()}, "me", "$hub.nodes", "{}")
	if r := got(t, asked); r.err != nil || string(r.a.Payload) != "{}" {
		t.Errorf("Request = %+v, %v", r.a, r.err)
	}
}

// Answers are for anybody to send, under any number.
func TestAnswersOfOthersDoNotCount(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	asked := request(ctx, c, "b", "how much?")
	f := p.want(wire.KindSend)
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "mallory", "0")
	p.artifacts(wire.Header{Kind: wire.KindReply, Flags: wire.FlagFailed, Ref: f.Ref()}, "me", "mallory", "no")
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "b", "42")
	if r := got(t, asked); r.err != nil || string(r.a.Payload) != "42" {
		t.Errorf("Request = %+v, %v", r.a, r.err)
	}
	sent := send(t, c, "b", "x")
	f = p.want(wire.KindSend)
	p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "b", "I had it")
	p.refuse(f, &NoClientError{ID: "b"})
	var noClient *NoClientError
	if err := <-sent; !errors.As(err, &noClient) {
		t.Errorf("Send = %v, want what the hub says", err)
	}
}

func TestRequestTimesOutAndIgnoresTheLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asked := request(ctx, c, "b", "x")
		f := p.want(wire.KindSend)
		if r := <-asked; !errors.Is(r.err, context.DeadlineExceeded) {
			t.Errorf("Request = %v", r.err)
		}
		p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "b", "late")
		asked = request(t.Context(), c, "b", "y")
		p.artifacts(wire.Header{Kind: wire.KindReply, Ref: p.want(wire.KindSend).Ref()}, "me", "b", "yes")
		if r := <-asked; r.err != nil || string(r.a.Payload) != "yes" {
			t.Errorf("Request = %+v, %v", r.a, r.err)
		}
	})
}

func TestCancelledRequestReturnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		ctx, cancel := context.WithCancel(t.Context())
		asked := request(ctx, c, "b", "x")
		f := p.want(wire.KindSend)
		begun := time.Now()
		cancel()
		if r := <-asked; !errors.Is(r.err, context.Canceled) || time.Since(begun) != 0 {
			t.Errorf("Request = %v after %v, want context.Canceled at once", r.err, time.Since(begun))
		}
		p.artifacts(wire.Header{Kind: wire.KindReply, Ref: f.Ref()}, "me", "b", "late")
		asked = request(t.Context(), c, "b", "y")
		p.artifacts(wire.Header{Kind: wire.KindReply, Ref: p.want(wire.KindSend).Ref()}, "me", "b", "yes")
		if r := <-asked; r.err != nil || string(r.a.Payload) != "yes" {
			t.Errorf("Request = %+v, %v", r.a, r.err)
		}
	})
}

func TestRequestsAreAnsweredByTheHandler(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"), WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		switch string(a.Payload) {
		case "echo":
			return &wire.Artifact{Payload: []byte(a.From + " to " + a.To), ContentType: "text/plain"}, nil
		case "fail":
			return nil, errors.New("can't")
		case "wait":
			<-ctx.Done()
			return nil, ctx.Err()
		case "large":
			return &wire.Artifact{Payload: make([]byte, 2<<20)}, nil
		default:
			return nil, nil
		}
	}))
	ask := func(ref uint32, text string) {
		p.artifacts(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Sequence: 60_000, Ref: ref}, "me", "b", text)
	}
	ask(9, "wait") // must not delay the others
	for i, test := range []struct {
		ask, want string
		flags     wire.Flags
	}{
		{"echo", "b to me", 0},
		{"nothing", "", 0},
		{"fail", "can't", wire.FlagFailed},
		{"large", "answer: artifact of 2097152 bytes is over the limit of 1048576 bytes", wire.FlagFailed},
	} {
		ref := uint32(10 + i)
		ask(ref, test.ask)
		f := p.want(wire.KindReply)
		text := payloads(t, f)
		if f.Ref() != ref || f.Flags() != test.flags || text[0] != test.want || string(f.Target()) != "b" || string(f.From()) != "me" || f.Count() != 1 {
			t.Errorf("%s: answered %q with %+v", test.ask, text, f.Header())
		}
	}
	c.Handle(nil)
	ask(20, "echo")
	if f := p.want(wire.KindReply); f.Flags() != wire.FlagFailed || !strings.Contains(payloads(t, f)[0], "no handler") {
		t.Errorf("without a handler: answered %q with %+v", payloads(t, f), f.Header())
	}
}

func TestRequestHandlerHasTheTimeOfTheRequester(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan time.Duration, 1)
		_, p := connect(t, newNetwork("a:1"), WithHandler(func(ctx context.Context, _ *wire.Artifact) (*wire.Artifact, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return nil, nil
		}))
		p.artifacts(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Sequence: 1500, Ref: 1}, "me", "b", "x")
		if d := <-left; d != 1500*time.Millisecond {
			t.Errorf("handler has %v, want 1.5s", d)
		}
		p.want(wire.KindReply)
	})
}

func TestRequestsRunSideBySideUpToTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := make(chan struct{}, 10)
		release := make(chan struct{})
		_, p := connect(t, newNetwork("a:1"), WithConcurrentRequests(2), WithHandler(func(context.Context, *wire.Artifact) (*wire.Artifact, error) {
			running <- struct{}{}
			<-release
			return nil, nil
		}))
		for i := range 5 {
			p.artifacts(wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Ref: uint32(i + 1)}, "me", "b", "x")
		}
		synctest.Wait()
		if n := len(running); n != 2 {
			t.Errorf("%d requests run at once, want 2", n)
		}
		close(release)
		for range 5 {
			p.want(wire.KindReply)
		}
	})
}

func TestDirectArtifactsAreHandledInOrder(t *testing.T) {
	texts := make(chan string, 10)
	failures := make(chan error, 10)
	c, p := connect(t, newNetwork("a:1"), OnError(func(err error) { failures <- err }))
	p.artifacts(wire.Header{Kind: wire.KindSend}, "me", "b", "nobody hears")
	if err := got(t, failures); !errors.Is(err, errNoHandler) {
		t.Errorf("OnError got %v", err)
	}
	c.Handle(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		texts <- a.From + ":" + string(a.Payload)
		if string(a.Payload) == "2" {
			return nil, errors.New("boom")
		}
		return &wire.Artifact{}, nil
	})
	p.artifacts(wire.Header{Kind: wire.KindSend}, "me", "b", "1", "2")
	p.artifacts(wire.Header{Kind: wire.KindSend}, "me", "c", "3")
	for _, want := range []string{"b:1", "b:2", "c:3"} {
		if have := got(t, texts); have != want {
			t.Errorf("got %s, want %s", have, want)
		}
	}
	if err := got(t, failures); !strings.Contains(err.Error(), "boom") {
		t.Errorf("OnError got %v", err)
	}
}

func TestCloseAnswersWhoWaits(t *testing.T) {
	for name, flags := range map[string]wire.Flags{
		"receipt": wire.FlagRequest | wire.FlagAck | wire.FlagKept,
		"request": wire.FlagRequest | wire.FlagKept,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handling, handle := make(chan struct{}), make(chan struct{})
				c, p := connect(t, newNetwork("a:1"), WithConcurrentRequests(1), WithHandler(func(context.Context, *wire.Artifact) (*wire.Artifact, error) {
					handling <- struct{}{}
					<-handle
					return nil, nil
				}))
				ask := func(ref uint32) {
					p.artifacts(wire.Header{Kind: wire.KindSend, Ref: ref, Flags: flags}, "me", "b", "hi")
				}
				ask(1)
				ask(2)
				<-handling
				synctest.Wait()
				closed := background(c.Close)
				synctest.Wait()
				ask(3)
				synctest.Wait()
				close(handle)
				refs := map[uint32]wire.Flags{}
				for range 2 {
					f := p.want(wire.KindReply)
					refs[f.Ref()] = f.Flags() & wire.FlagFailed
				}
				if want := (map[uint32]wire.Flags{1: 0, 2: wire.FlagFailed}); !maps.Equal(refs, want) {
					t.Errorf("replies by ref %v, want %v", refs, want)
				}
				p.control(wire.Header{Kind: wire.KindPong, Ref: p.want(wire.KindPing).Ref()}, nil)
				if f := p.want(wire.KindReceived); f.Sequence() != 2 {
					t.Errorf("the client says that it has %d frames, want the two from before it left", f.Sequence())
				}
				p.want(wire.KindGoodbye)
				if err := <-closed; err != nil {
					t.Errorf("Close = %v", err)
				}
			})
		})
	}
}
