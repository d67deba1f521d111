package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

func TestConnectIntroducesTheClient(t *testing.T) {
	servers := make(chan Server, 1)
	c, p := connect(t, newNetwork("a:1"), WithToken("secret"), WithName("prog", "v1"), WithoutBroadcast(),
		WithLabels(map[string]string{"zone": "b"}), OnConnect(func(s Server) { servers <- s }))
	want := wire.Hello{
		MinVersion: 1, MaxVersion: 1, ID: "me", Name: "prog", Version: "v1",
		Token: "secret", NoBroadcast: true, Labels: map[string]string{"zone": "b"},
		Resumable: true, Attempt: 1,
	}
	want.Publisher = p.hello.Publisher // by chance
	if want.Publisher == 0 {
		t.Error("the client's publishes are not numbered")
	}
	if diff := cmp.Diff(want, p.hello); diff != "" {
		t.Errorf("hello (-want +got):\n%s", diff)
	}
	server := Server{Hub: "test", Node: "node-a:1", Address: "a:1"}
	if c.ID() != "me" || c.Server() != server || got(t, servers) != server {
		t.Errorf("ID %q, Server %+v", c.ID(), c.Server())
	}
}

func TestConnectMakesUpAReadableID(t *testing.T) {
	a, b := newOptions(nil).id, newOptions(nil).id
	if a == b || !strings.HasPrefix(a, "client-") || wire.CheckClientID(a) != nil {
		t.Errorf("made up the ids %q and %q", a, b)
	}
}

func TestConnectTriesEachAddress(t *testing.T) {
	n := newNetwork("b:2")
	connected := background(func() *Client {
		c, err := Connect(t.Context(), "a:1, b:2", n.option())
		if err != nil {
			t.Error(err)
		}
		return c
	})
	n.welcome(t, "b:2")
	c := got(t, connected)
	closeAtEnd(t, c)
	if c.Server().Address != "b:2" {
		t.Errorf("connected to %s, want b:2", c.Server().Address)
	}
}

// A machine that is gone does not answer, and dialing it ends late: who waits for it asks the
// next address meanwhile.
func TestConnectDoesNotWaitForAnAddressThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("silent:1", "b:2")
		connected := background(func() *Client {
			c, err := Connect(t.Context(), "silent:1,b:2", n.option())
			if err != nil {
				t.Error(err)
			}
			return c
		})
		start := time.Now()
		n.welcome(t, "b:2")
		c := <-connected
		closeAtEnd(t, c)
		if waited := time.Since(start); waited != dialStagger || c.Server().Address != "b:2" {
			t.Errorf("connected to %s after %v, want b:2 after %v", c.Server().Address, waited, dialStagger)
		}
	})
}

// The silent one may answer late, when it is not needed any more.
func TestConnectionsThatComeLateAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("b:2")
		near, far := net.Pipe()
		release := make(chan struct{})
		connected := background(func() *Client {
			c, err := Connect(t.Context(), "late:1,b:2", WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "late:1" {
					<-release // whatever its context says
					return near, nil
				}
				return n.dial(ctx, network, address)
			}))
			if err != nil {
				t.Error(err)
			}
			return c
		})
		n.welcome(t, "b:2")
		closeAtEnd(t, <-connected)
		close(release)
		if got, err := io.ReadAll(far); len(got) != 0 || err != nil {
			t.Errorf("read %q, %v from the connection that nobody wants", got, err)
		}
	})
}

// One that fails at once costs no wait, and all that fail are told.
func TestConnectTriesTheNextOneAtOnceWhenOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addresses := []string{"silent:1"}
		for i := range 10 {
			addresses = append(addresses, fmt.Sprintf("a:%d", i+1))
		}
		start := time.Now()
		_, err := Connect(t.Context(), strings.Join(addresses, ","), newNetwork("silent:1").option())
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) {
			t.Fatal(err)
		}
		var tried []string
		for _, a := range unreachable.Attempts {
			tried = append(tried, a.Address)
		}
		if diff := cmp.Diff(append(addresses[1:], "silent:1"), tried); diff != "" {
			t.Errorf("in the order in which they fail (-want +got):\n%s", diff)
		}
		if waited := time.Since(start); waited != dialTimeout {
			t.Errorf("gave up after %v, want %v", waited, dialTimeout)
		}
	})
}

// A node that can take nobody names others, which are tried once each.
func TestConnectGoesWhereARefusalSays(t *testing.T) {
	n := newNetwork("a:1", "c:3")
	connected := background(func() *Client {
		c, err := Connect(t.Context(), "a:1", n.option())
		if err != nil {
			t.Error(err)
		}
		return c
	})
	p := n.accept(t, "a:1")
	p.want(wire.KindHello)
	p.refuse(nil2(wire.KindHello), &wire.Error{Code: wire.CodeOverloaded, Detail: "short of memory", Elsewhere: []string{"a:1", "c:3", "c:3"}})
	n.welcome(t, "c:3")
	c := got(t, connected)
	closeAtEnd(t, c)
	if diff := cmp.Diff([]string{"a:1", "c:3"}, n.dialed()); diff != "" || c.Server().Address != "c:3" {
		t.Errorf("connected to %s; dialed (-want +got):\n%s", c.Server().Address, diff)
	}
}

func TestElsewhereIsBounded(t *testing.T) {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("a:%d", i)
	}
	refusal := &refusedError{&wire.Error{Code: wire.CodeOverloaded, Elsewhere: many}}
	known := []string{"a:0"}
	for range 10 {
		known = append(known, elsewhere(refusal, known)...)
	}
	if len(known) > 2*elsewhereMax || len(known) < elsewhereMax {
		t.Errorf("%d addresses", len(known))
	}
	if more := elsewhere(&refusedError{&wire.Error{Code: wire.CodeOverloaded}}, known); len(more) > 0 {
		t.Errorf("%v from a refusal that names nobody", more)
	}
}

func TestConnectSaysWhyItCannot(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		_, err := Connect(t.Context(), "a:1,b:2", newNetwork().option())
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || len(unreachable.Attempts) != 2 || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("Connect = %v", err)
		}
		if want := "cannot reach a hub at a:1: connection refused; b:2: connection refused"; err.Error() != want {
			t.Errorf("Connect = %q, want %q", err, want)
		}
	})
	t.Run("the hub refuses", func(t *testing.T) {
		n := newNetwork("a:1")
		failed := background(func() error { _, err := Connect(t.Context(), "a:1", n.option()); return err })
		p := n.accept(t, "a:1")
		p.want(wire.KindHello)
		p.refuse(nil2(wire.KindHello), &wire.Error{Code: wire.CodeTooManyClients, Detail: "full"})
		var refused *Error
		if err := got(t, failed); !errors.As(err, &refused) || refused.Code != wire.CodeTooManyClients || !strings.Contains(err.Error(), "refused by the hub: full") {
			t.Errorf("Connect = %v", err)
		}
	})
	t.Run("it is no hub", func(t *testing.T) {
		n := newNetwork("a:1")
		failed := background(func() error { _, err := Connect(t.Context(), "a:1", n.option()); return err })
		p := n.accept(t, "a:1")
		p.want(wire.KindHello)
		p.write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		if err := got(t, failed); !strings.Contains(err.Error(), "not that of a hub") {
			t.Errorf("Connect = %v", err)
		}
	})
	t.Run("it hangs up", func(t *testing.T) {
		n := newNetwork("a:1")
		failed := background(func() error { _, err := Connect(t.Context(), "a:1", n.option()); return err })
		p := n.accept(t, "a:1")
		p.want(wire.KindHello)
		p.hangUp()
		if err := got(t, failed); !strings.Contains(err.Error(), "without an answer") {
			t.Errorf("Connect = %v", err)
		}
	})
	t.Run("it says nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork("a:1")
			failed := background(func() error { _, err := Connect(t.Context(), "a:1", n.option()); return err })
			p := n.accept(t, "a:1")
			p.want(wire.KindHello)
			if err := <-failed; !strings.Contains(err.Error(), "no answer within") && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Connect = %v", err)
			}
		})
	})
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := newNetwork("a:1")
		failed := background(func() error { _, err := Connect(ctx, "a:1", n.option()); return err })
		p := n.accept(t, "a:1")
		p.want(wire.KindHello)
		cancel()
		if err := got(t, failed); !errors.Is(err, context.Canceled) {
			t.Errorf("Connect = %v", err)
		}
	})
	t.Run("bad arguments", func(t *testing.T) {
		for addresses, opts := range map[string][]Option{"": nil, "http://a:1": nil, "a:1": {WithID("a b")}, "a:b:c": nil, ":1": nil} {
			if _, err := Connect(t.Context(), addresses, append(opts, newNetwork().option())...); err == nil || strings.Contains(err.Error(), "reach") {
				t.Errorf("Connect(%q) = %v", addresses, err)
			}
		}
	})
}

// nil2 is a frame without a ref, to be refused.
func nil2(kind wire.Kind) wire.Frame {
	return wire.AppendControl(nil, wire.Header{Kind: kind}, "", nil)
}

func TestAddressesGetTheDefaultPort(t *testing.T) {
	for in, want := range map[string]string{
		"agents": "agents:7400", "agents:1": "agents:1", "::1": "[::1]:7400", "[::1]:5": "[::1]:5", "[::1]": "[::1]:7400", "10.0.0.1": "10.0.0.1:7400",
	} {
		if have, err := parseAddresses(in); err != nil || have[0] != want {
			t.Errorf("parseAddresses(%q) = %q, %v, want %q", in, have, err, want)
		}
	}
}

func TestAddressesThatCantBeAreToldApart(t *testing.T) {
	for addresses, want := range map[string]string{
		"agents:7400,b": "", "agents:http": "",
		"": "want HOST:PORT[,HOST:PORT…]", ",,": "no address", "http://agents:7400": "without a scheme", "a,:7400": "want HOST:PORT", "a:": "want HOST:PORT", "a:b:c": "want HOST:PORT",
		"a:0": "from 1 to 65535", "a:65536": "from 1 to 65535", "a:-1": "from 1 to 65535", "a:99999999999999999999": "from 1 to 65535",
	} {
		err := CheckAddresses(addresses)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckAddresses(%q) = %v, want %q", addresses, err, want)
		}
	}
}

func TestFirstConnectIsRetriedWhenAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		connected := background(func() *Client {
			c, err := Connect(t.Context(), "a:1", n.option(), WithRetryFirstConnect())
			if err != nil {
				t.Error(err)
			}
			return c
		})
		time.Sleep(time.Minute)
		n.mu.Lock()
		n.nodes["a:1"] = make(chan net.Conn)
		n.mu.Unlock()
		n.welcome(t, "a:1")
		closeAtEnd(t, <-connected)
	})
}

func TestReconnectBacksOffAndTellsTheLastEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		reasons := make(chan error, 1)
		c, p := connect(t, n, OnDisconnect(func(err error) { reasons <- err }))
		node := n.nodes["a:1"]
		n.kill()
		start := time.Now()
		p.hangUp()
		if err := <-reasons; !strings.Contains(err.Error(), `node "node-a:1" closed the connection`) {
			t.Errorf("OnDisconnect got %v", err)
		}
		time.Sleep(time.Minute)
		if tries := len(n.dialed()) - 1; tries < 60/5 || tries > 60/2 {
			t.Errorf("%d attempts in %v, want one every 2.5 to 5 s after the first few", tries, time.Since(start))
		}
		n.mu.Lock()
		n.nodes["a:1"] = node
		n.mu.Unlock()
		p = n.welcome(t, "a:1")
		if p.hello.Epoch != 1 {
			t.Errorf("came back with epoch %d, want that of its session before, 1", p.hello.Epoch)
		}
		synctest.Wait()
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

func TestReconnectGoesToTheOtherNodes(t *testing.T) {
	n := newNetwork("a:1", "b:2")
	connected := background(func() *Client {
		c, err := Connect(t.Context(), "a:1", n.option())
		if err != nil {
			t.Error(err)
		}
		return c
	})
	p := n.welcome(t, "a:1", func(w *wire.Welcome) { w.Addresses = []string{"a:1", "b:2"} })
	c := got(t, connected)
	closeAtEnd(t, c)
	n.kill()
	p.hangUp()
	n.welcome(t, "b:2").behave()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Server().Node != "node-b:2" {
		t.Errorf("connected to %+v", c.Server())
	}
}

func TestReconnectGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		c, p := connect(t, n, WithMaxReconnects(2))
		n.kill()
		p.hangUp()
		<-c.Done()
		if err := c.Err(); err == nil || !strings.Contains(err.Error(), "gave up after 2") {
			t.Errorf("Err = %v", err)
		}
		if _, err := c.Publish(t.Context(), "x", &wire.Artifact{}); err == nil || !errors.Is(err, c.Err()) {
			t.Errorf("Publish = %v, want the client's end", err)
		}
	})
}

func TestCandidates(t *testing.T) {
	for range 20 {
		have := candidates([]string{"d"}, []string{"a", "b", "c"}, []string{"b", "e", "d"}, "b")
		given := append([]string(nil), have[1:4]...)
		slices.Sort(given)
		if have[0] != "d" || have[3] != "b" || have[4] != "e" || len(have) != 5 || strings.Join(given, "") != "abc" {
			t.Fatalf("candidates = %v", have)
		}
	}
}

func TestReplacedClientEnds(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	p.control(wire.Header{Kind: wire.KindGoodbye}, wire.FaultOf(&SessionReplacedError{ID: "me"}, 0))
	p.hangUp()
	<-c.Done()
	var replaced *SessionReplacedError
	if err := c.Err(); !errors.As(err, &replaced) || replaced.ID != "me" {
		t.Errorf("Err = %v", err)
	}
	if err := c.Send(t.Context(), "b", &wire.Artifact{}); !errors.As(err, &replaced) {
		t.Errorf("Send = %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func TestDrainMovesTheClient(t *testing.T) {
	n := newNetwork("a:1", "b:2")
	c, p := connect(t, n)
	result := publish(t, c, "orders", "x")
	f := p.want(wire.KindPublish)
	p.control(wire.Header{Kind: wire.KindDrain}, wire.Redirect{Addresses: []string{"b:2"}})
	p.ack(f, 4, 0) // what is in flight is finished first
	if r := got(t, result); r.Err != nil || r.Seq != 4 {
		t.Errorf("Publish = %d, %v, want 4", r.Seq, r.Err)
	}
	p.want(wire.KindGoodbye)
	n.welcome(t, "b:2").behave()
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Server().Address != "b:2" {
		t.Errorf("connected to %+v", c.Server())
	}
}

func TestPingIsAnswered(t *testing.T) {
	_, p := connect(t, newNetwork("a:1"))
	p.control(wire.Header{Kind: wire.KindPing, Ref: 77}, nil)
	if f := p.want(wire.KindPong); f.Ref() != 77 {
		t.Errorf("Pong has ref %d, want 77", f.Ref())
	}
}

func TestSilentNodeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		connected := background(func() *Client {
			c, err := Connect(t.Context(), "a:1", n.option())
			if err != nil {
				t.Error(err)
			}
			return c
		})
		healthy := func(w *wire.Welcome) { w.PingInterval, w.PingTimeout = 10_000, 20_000 }
		p := n.welcome(t, "a:1", healthy)
		c := <-connected
		closeAtEnd(t, c)
		start := time.Now()
		for range 3 { // as long as the node answers, nothing happens
			f := p.want(wire.KindPing)
			p.control(wire.Header{Kind: wire.KindPong, Ref: f.Ref()}, nil)
		}
		p.want(wire.KindPing)
		n.welcome(t, "a:1", healthy)
		if took := time.Since(start).Round(time.Second); took != 50*time.Second {
			t.Errorf("left the node after %v, want 30 s of answered pings and 20 s of silence", took)
		}
	})
}

func TestCloseSendsWhatWaitsAndSaysGoodbye(t *testing.T) {
	c, p := connect(t, newNetwork("a:1"))
	result := publish(t, c, "live", "1")
	p.ack(p.want(wire.KindPublish), 0, wire.FlagLive)
	got(t, result)
	for range 3 {
		if _, err := c.Publish(t.Context(), "live", &wire.Artifact{}); err != nil {
			t.Fatal(err)
		}
	}
	closed := background(c.Close)
	for n := 0; n < 3; {
		n += p.want(wire.KindPublish).Count()
	}
	ping := p.want(wire.KindPing)
	p.control(wire.Header{Kind: wire.KindPong, Ref: ping.Ref()}, nil)
	p.want(wire.KindGoodbye)
	if err := got(t, closed); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := p.r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the goodbye came %v, want the end", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := c.Publish(t.Context(), "x", &wire.Artifact{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Close = %v", err)
	}
	if _, err := c.Subscribe(t.Context(), "x", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Subscribe after Close = %v", err)
	}
	if !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("Err = %v", c.Err())
	}
}

func TestCloseTellsOfWhatWasNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, newNetwork("a:1"))
		if _, err := c.PublishAsync(t.Context(), "orders", &wire.Artifact{}); err != nil {
			t.Fatal(err)
		}
		closed := background(c.Close)
		p.want(wire.KindPublish)
		p.want(wire.KindPing)
		p.want(wire.KindGoodbye)
		if err := <-closed; !errors.Is(err, errStopped) {
			t.Errorf("Close = %v, want that an artifact was not acknowledged", err)
		}
	})
}

func TestCloseWhileDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork("a:1")
		c, p := connect(t, n)
		n.kill()
		p.hangUp()
		time.Sleep(time.Second)
		if err := c.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}
