package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestOptionsComeInAnyOrder(t *testing.T) {
	a, far := pair(t, "pipe")
	h := start(t, hub.WithTopics("a", "news"), hub.WithClient("a", a))
	p := newPeer(t, "a", far)
	if n, err := h.Route(t.Context(), &wire.Artifact{Topic: "news", Payload: []byte("x")}); n != 1 || err != nil {
		t.Errorf("Route = %d, %v", n, err)
	}
	if f := p.next(); string(f.Target()) != "news" {
		t.Errorf("got %v", f)
	}
	stop(t, h)
}

func TestNewRefusesAnUnknownClientAndClosesTheOthers(t *testing.T) {
	a, far := pair(t, "pipe")
	p := newPeer(t, "a", far)
	conn := &counted{ReadWriteCloser: a}
	_, err := hub.New(hub.WithTopics("nobody", "news"), hub.WithClient("a", conn))
	var none *hub.NoClientError
	if !errors.As(err, &none) || none.ID != "nobody" {
		t.Errorf("New = %v, want NoClientError for nobody", err)
	}
	p.ended()
	if n := conn.times(); n != 1 {
		t.Errorf("closed %d times, want once", n)
	}
}

func TestBroadcast(t *testing.T) {
	h := start(t)
	all, none, own := join(t, h, "all"), join(t, h, "none", hub.WithoutBroadcast()), join(t, h, "own")
	own.subscribe(7, hub.Broadcast, wire.Subscription{})
	if n, err := h.Route(t.Context(), &wire.Artifact{Topic: hub.Broadcast, Payload: []byte("hear")}); n != 2 || err != nil {
		t.Errorf("Route = %d, %v; want 2 deliveries", n, err)
	}
	all.expectPayload(0, "hear")
	own.expectPayload(7, "hear")
	none.quiet()
	own.quiet()
}

func TestOverlappingSubscriptionsEachGetIt(t *testing.T) {
	h := start(t)
	a := join(t, h, "a")
	for ref, pattern := range []string{1: "orders.new", 2: "orders.*", 3: "orders.>", 4: "*.new", 5: ">", 6: "orders.old", 7: "*"} {
		if pattern != "" {
			a.subscribe(uint32(ref), pattern, wire.Subscription{})
		}
	}
	join(t, h, "b").publish(1, "orders.new", "x")
	var refs []uint32
	for range 5 {
		refs = append(refs, a.next().Ref())
	}
	slices.Sort(refs)
	if want := []uint32{1, 2, 3, 4, 5}; !slices.Equal(refs, want) {
		t.Errorf("delivered to subscriptions %v, want %v", refs, want)
	}
	a.quiet()
	a.write(control(wire.KindUnsubscribe, 3, "", nil))
	a.expect(wire.KindAck, 3)
	if n, _ := h.Route(t.Context(), &wire.Artifact{Topic: "orders.new"}); n != 4 {
		t.Errorf("%d deliveries after Unsubscribe, want 4", n)
	}
	for range 4 { // what nobody reads, a hub that stops complains about
		a.next()
	}
}

func TestDirect(t *testing.T) {
	h := start(t)
	a, b := join(t, h, "a"), join(t, h, "b")
	a.write(frame(wire.KindSend, wire.FlagAck, 3, "b", "a", "hello"))
	a.expect(wire.KindAck, 3)
	f := b.expect(wire.KindSend, 3)
	if string(f.From()) != "a" || f.payloads()[0] != "hello" {
		t.Errorf("got %v", f)
	}
	a.write(frame(wire.KindSend, wire.FlagAck, 4, "nobody", "a", "hello"))
	if fault := a.expectFault(wire.KindError, 4, wire.CodeNoClient); fault.Client != "nobody" {
		t.Errorf("fault = %+v", fault)
	}
	_, err := h.Route(t.Context(), &wire.Artifact{To: "nobody"})
	if _, ok := errors.AsType[*hub.NoClientError](err); !ok {
		t.Errorf("Route = %v, want NoClientError", err)
	}
	if n := h.Metrics().ArtifactsDropped["no_client"]; n != 2 {
		t.Errorf("dropped for no_client: %d, want 2", n)
	}
}

func TestRequestAndReply(t *testing.T) {
	h := start(t)
	a, b := join(t, h, "a"), join(t, h, "b")
	ask := wire.Header{Kind: wire.KindSend, Flags: wire.FlagRequest, Count: 1, Sequence: 1500, Ref: 9}
	a.write(wire.AppendFrame(nil, ask, "b", "a", run("?")))
	f := b.expect(wire.KindSend, 9)
	if f.Flags()&wire.FlagRequest == 0 || f.Sequence() != 1500 {
		t.Errorf("request came as %v, flags %d", f, f.Flags())
	}
	b.write(frame(wire.KindReply, wire.FlagFailed, 9, "a", "b", "no"))
	if f := a.expect(wire.KindReply, 9); f.Flags()&wire.FlagFailed == 0 || f.payloads()[0] != "no" {
		t.Errorf("reply came as %v, flags %d", f, f.Flags())
	}
	b.write(frame(wire.KindReply, 0, 9, "gone", "b", "too late"))
	b.quiet() // nobody's loss
	ask.Ref = 10
	a.write(wire.AppendFrame(nil, ask, "gone", "a", run("?")))
	if fault := a.expectFault(wire.KindError, 10, wire.CodeNoClient); fault.Client != "gone" {
		t.Errorf("fault = %+v", fault)
	}
}

func TestQuestionsToTheHub(t *testing.T) {
	h := start(t, hub.WithHistory("kept", 10))
	a := join(t, h, "a")
	a.publish(1, "kept", "x", "y")
	for target, want := range map[string]string{"$hub.clients": `"id":"a"`, "$hub.topics": `"last":2`} {
		a.write(frame(wire.KindSend, wire.FlagRequest, 5, target, "a", ""))
		if f := a.expect(wire.KindReply, 5); !strings.Contains(f.payloads()[0], want) {
			t.Errorf("%s: %v does not contain %s", target, f, want)
		}
	}
	a.write(frame(wire.KindSend, wire.FlagRequest, 6, "$hub.weather", "a", ""))
	a.expectFault(wire.KindError, 6, wire.CodeNoClient)
}

func TestGroupsDeliverToOneMember(t *testing.T) {
	h := start(t)
	var members []*peer
	for i := range 3 {
		m := join(t, h, fmt.Sprintf("worker-%d", i))
		m.subscribe(1, "jobs.>", wire.Subscription{Group: "workers"})
		members = append(members, m)
	}
	watcher := join(t, h, "watcher")
	watcher.subscribe(1, "jobs.>", wire.Subscription{})
	pub := join(t, h, "pub")
	const jobs = 300
	for i := range jobs {
		pub.publish(uint32(i+1), "jobs.x", fmt.Sprint(i))
		watcher.expectPayload(1, fmt.Sprint(i))
	}
	seen := make(map[string]int)
	for _, m := range members {
		m.write(control(wire.KindPing, 99, "", nil))
		for f := m.next(); f.Kind() != wire.KindPong; f = m.next() {
			seen[f.payloads()[0]]++
		}
	}
	if len(seen) != jobs {
		t.Errorf("%d of %d jobs were delivered", len(seen), jobs)
	}
	for job, n := range seen {
		if n != 1 {
			t.Errorf("job %s was delivered %d times", job, n)
		}
	}
}

func payloadFilter(text string) hub.Filter {
	return func(a *wire.Artifact) bool { return strings.Contains(string(a.Payload), text) }
}

func TestTopicFilterRefusesWithAReason(t *testing.T) {
	h := start(t, hub.WithTopicFilter("orders.>", payloadFilter("good")), hub.WithHistory("orders.kept", 10))
	a := join(t, h, "a")
	a.subscribe(1, ">", wire.Subscription{})
	pub := join(t, h, "pub")
	for _, topic := range []string{"orders.live", "orders.kept"} {
		pub.write(frame(wire.KindPublish, wire.FlagAck, 2, topic, "pub", "good", "bad"))
		if fault := pub.expectFault(wire.KindError, 2, wire.CodeRefused); !strings.Contains(fault.Detail, topic) {
			t.Errorf("refused with %q, want the topic's name in it", fault.Detail)
		}
		pub.publish(3, topic, "good")
		a.expectPayload(1, "good")
		var coded *wire.Error
		if _, err := h.Route(t.Context(), &wire.Artifact{Topic: topic, Payload: []byte("bad")}); !errors.As(err, &coded) || coded.Code != wire.CodeRefused {
			t.Errorf("Route = %v, want code Refused", err)
		}
	}
	if f := pub.publish(4, "orders.kept", "good"); f.Sequence() != 2 {
		t.Errorf("a filter for orders.> hides the history of orders.kept: acknowledged as %v", f)
	}
	a.expectPayload(1, "good")
	if n := h.Metrics().ArtifactsDropped["filtered"]; n != 6 {
		t.Errorf("dropped for filtered: %d, want 6", n)
	}
}

func TestSubscriptionFilter(t *testing.T) {
	compile := func(text string) (hub.Filter, error) {
		if text == "(" {
			return nil, errors.New("position 1: syntax")
		}
		return payloadFilter(text), nil
	}
	h := start(t, hub.WithFilterCompiler(compile), hub.WithHistory("kept", 100))
	a := join(t, h, "a")
	a.subscribe(1, "live", wire.Subscription{Filter: "x"})
	a.subscribe(2, "kept", wire.Subscription{Filter: "x"})
	a.write(control(wire.KindSubscribe, 3, "live", wire.Subscription{Filter: "("}))
	a.expectFault(wire.KindError, 3, wire.CodeInvalidFilter)
	pub := join(t, h, "pub")
	for _, topic := range []string{"live", "kept"} {
		pub.publish(1, topic, "x1", "y2", "x3", "x4", "y5")
	}
	if f := a.expect(wire.KindPublish, 1); !slices.Equal(f.payloads(), []string{"x1"}) {
		t.Errorf("got %v", f)
	}
	if f := a.expect(wire.KindPublish, 1); !slices.Equal(f.payloads(), []string{"x3", "x4"}) {
		t.Errorf("got %v", f)
	}
	if f := a.expect(wire.KindPublish, 2); f.Sequence() != 1 || !slices.Equal(f.payloads(), []string{"x1"}) {
		t.Errorf("got %v", f)
	}
	if f := a.expect(wire.KindPublish, 2); f.Sequence() != 3 || !slices.Equal(f.payloads(), []string{"x3", "x4"}) {
		t.Errorf("got %v", f)
	}
	b := join(t, start(t), "b")
	b.write(control(wire.KindSubscribe, 3, "live", wire.Subscription{Filter: "x"}))
	b.expectFault(wire.KindError, 3, wire.CodeInvalidFilter)
}

func TestBadInput(t *testing.T) {
	settings := hub.Settings{MaxArtifact: 100 << 10}
	for name, test := range map[string]struct {
		sent []byte
		code wire.Code
	}{
		"an unknown kind":        {control(99, 0, "", nil), wire.CodeUnknownKind},
		"a kind of nodes":        {control(wire.KindStore, 0, "", nil), wire.CodeUnknownKind},
		"lengths that disagree":  {append([]byte{0, 0, 0, 20, 5, 0, 0, 1, 19: 0}, 0xff, 0xff, 0, 0), wire.CodeMalformed},
		"a frame too short":      {[]byte{0, 0, 0, 1, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, wire.CodeMalformed},
		"a frame too large":      {append([]byte{0xff, 0, 0, 0}, make([]byte, 20)...), wire.CodeFrameTooLarge},
		"a run that is cut":      {wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 2}, "t", "bad", run("one")), wire.CodeMalformed},
		"no run at all":          {wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, "t", "bad", nil), wire.CodeMalformed},
		"a body that isn't JSON": {wire.AppendFrame(nil, wire.Header{Kind: wire.KindSubscribe, Ref: 1}, "t", "", []byte("{")), wire.CodeMalformed},
		"another one's name":     {frame(wire.KindPublish, 0, 1, "t", "other", "x"), wire.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, hub.WithSettings(settings))
			bad, good := join(t, h, "bad"), join(t, h, "good")
			bad.write(test.sent)
			bad.expectFault(wire.KindGoodbye, 0, test.code)
			if rest := bad.ended(); len(rest) != 0 {
				t.Errorf("after the Goodbye came %v", rest)
			}
			good.quiet()
			if m := h.Metrics(); m.MalformedFrames != 1 || m.ActiveClients != 1 {
				t.Errorf("%d malformed frames, %d clients; want 1 and 1", m.MalformedFrames, m.ActiveClients)
			}
		})
	}
}

func TestRefusalsKeepTheConnection(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{MaxArtifact: 1000}))
	a := join(t, h, "a")
	a.subscribe(1, "t", wire.Subscription{})
	for name, test := range map[string]struct {
		sent   []byte
		code   wire.Code
		detail string
	}{
		"an artifact too large":  {frame(wire.KindPublish, 0, 5, "t", "a", strings.Repeat("x", 2000)), wire.CodeArtifactTooLarge, "2000"},
		"an invalid topic":       {frame(wire.KindPublish, wire.FlagAck, 5, "orders..new", "a", "x"), wire.CodeInvalidTopic, "position 7"},
		"a wildcard as topic":    {frame(wire.KindPublish, wire.FlagAck, 5, "orders.*", "a", "x"), wire.CodeInvalidTopic, "position 7"},
		"the hub's own topic":    {frame(wire.KindPublish, wire.FlagAck, 5, "$hub.x", "a", "x"), wire.CodeInvalidTopic, "$"},
		"an invalid pattern":     {control(wire.KindSubscribe, 5, "orders.>.x", nil), wire.CodeInvalidTopic, "position 7"},
		"a subscription twice":   {control(wire.KindSubscribe, 1, "u", nil), wire.CodeInvalidRequest, "exists"},
		"subscription 0":         {control(wire.KindSubscribe, 0, "u", nil), wire.CodeInvalidRequest, "0"},
		"an unknown since":       {control(wire.KindSubscribe, 5, "u", wire.Subscription{Since: "dawn"}), wire.CodeInvalidRequest, "dawn"},
		"an unknown destination": {frame(wire.KindSend, wire.FlagAck, 5, "", "a", "x"), wire.CodeNoClient, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a.t = t
			a.write(test.sent)
			ref := wire.Frame(test.sent).Ref()
			if fault := a.expectFault(wire.KindError, ref, test.code); !strings.Contains(fault.Detail, test.detail) {
				t.Errorf("detail %q does not contain %q", fault.Detail, test.detail)
			}
			a.quiet()
		})
	}
}

func TestRouteErrors(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{MaxArtifact: 100}))
	for name, test := range map[string]struct {
		a    wire.Artifact
		want any
	}{
		"nowhere to go":     {wire.Artifact{}, new(*wire.Error)},
		"two places to go":  {wire.Artifact{To: "a", Topic: "t"}, new(*wire.Error)},
		"an invalid topic":  {wire.Artifact{Topic: "a..b"}, new(*wire.Error)},
		"too large":         {wire.Artifact{Topic: "t", Payload: make([]byte, 101)}, new(*hub.ArtifactTooLargeError)},
		"an unknown client": {wire.Artifact{To: "a"}, new(*hub.NoClientError)},
	} {
		if _, err := h.Route(t.Context(), &test.a); err == nil || !errors.As(err, test.want) {
			t.Errorf("%s: Route = %v, want a %T", name, err, test.want)
		}
	}
}

func TestSettingsAreRefusedAsAWhole(t *testing.T) {
	bad := hub.Settings{MaxClients: -1, PendingBytes: -2, SlowClient: "Wait", ConflateKey: strings.Repeat("k", 256), Topics: []hub.Topic{{Pattern: "a..b"}}}
	if _, err := hub.New(hub.WithSettings(bad)); err == nil || !strings.Contains(err.Error(), "MaxClients") ||
		!strings.Contains(err.Error(), "PendingBytes") || !strings.Contains(err.Error(), "ConflateKey has 256") || !strings.Contains(err.Error(), "Wait") || !strings.Contains(err.Error(), "a..b") {
		t.Errorf("New = %v, want all five faults", err)
	}
	h := start(t)
	if err := h.Configure(bad); err == nil {
		t.Error("Configure accepts the same")
	}
}

func TestSettingsChangeWhileRunning(t *testing.T) {
	h := start(t)
	a := join(t, h, "a")
	a.subscribe(1, "t", wire.Subscription{})
	if f := a.publishTo(t, 2, "t", "x"); f.Flags()&wire.FlagLive == 0 {
		t.Errorf("acknowledged as %v, want FlagLive", f)
	}
	keep := hub.Settings{Topics: []hub.Topic{{Pattern: "t"}}}
	keep.Topics[0].History.MaxArtifacts = 5
	if err := h.Configure(keep); err != nil {
		t.Fatal(err)
	}
	a.expect(wire.KindSettings, 0)
	if f := a.publishTo(t, 3, "t", "y"); f.Sequence() != 1 || f.Flags()&wire.FlagLive != 0 {
		t.Errorf("acknowledged as %v, want sequence 1", f)
	}
	if err := h.Configure(hub.Settings{}); err != nil {
		t.Fatal(err)
	}
	a.expect(wire.KindSettings, 0)
	if f := a.publishTo(t, 4, "t", "z"); f.Sequence() != 0 || f.Flags()&wire.FlagLive == 0 {
		t.Errorf("acknowledged as %v, want FlagLive", f)
	}
}

// publishTo publishes to a topic that the publisher hears itself, and returns
// the Ack.
func (p *peer) publishTo(t *testing.T, ref uint32, topic string, payload string) got {
	t.Helper()
	p.write(frame(wire.KindPublish, wire.FlagAck, ref, topic, p.id, payload))
	p.expectPayload(1, payload)
	return p.expect(wire.KindAck, ref)
}

func TestNewerSessionReplacesTheOlder(t *testing.T) {
	h := start(t)
	older := join(t, h, "twin")
	first, _ := h.Client("twin")
	newer := join(t, h, "twin", hub.WithEpoch(41))
	second, _ := h.Client("twin")
	if fault := older.expectFault(wire.KindGoodbye, 0, wire.CodeSessionReplaced); fault.Client != "twin" {
		t.Errorf("fault = %+v", fault)
	}
	older.ended()
	newer.quiet()
	if _, ok := errors.AsType[*hub.SessionReplacedError](first.Reason()); !ok {
		t.Errorf("Reason = %v, want SessionReplacedError", first.Reason())
	}
	if second.Epoch() != 42 || first.Epoch() >= 42 {
		t.Errorf("epochs %d and %d; want the newer one at 42", first.Epoch(), second.Epoch())
	}
	if n := h.Metrics().ActiveClients; n != 1 {
		t.Errorf("%d clients, want 1", n)
	}
	h.Supersede("twin", func(epoch uint64) bool { return 42 > epoch })
	newer.quiet()
	h.Supersede("twin", func(epoch uint64) bool { return 43 > epoch })
	newer.expectFault(wire.KindGoodbye, 0, wire.CodeSessionReplaced)
}

func TestUnregisterClosesOnce(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(fmt.Sprintf("started=%v", started), func(t *testing.T) {
			a, far := pair(t, "pipe")
			conn := &counted{ReadWriteCloser: a}
			h, err := hub.New(hub.WithClient("a", conn))
			if err != nil {
				t.Fatal(err)
			}
			if started {
				if err := h.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			p := newPeer(t, "a", far)
			if err := h.UnregisterClient("a"); err != nil {
				t.Errorf("UnregisterClient = %v", err)
			}
			var none *hub.NoClientError
			if err := h.UnregisterClient("a"); !errors.As(err, &none) {
				t.Errorf("UnregisterClient again = %v, want NoClientError", err)
			}
			p.expectFault(wire.KindGoodbye, 0, wire.CodeRemoved)
			p.ended()
			stop(t, h)
			if n := conn.times(); n != 1 {
				t.Errorf("closed %d times, want once", n)
			}
		})
	}
}

func TestNothingRunsBeforeStart(t *testing.T) {
	a, far := pair(t, "tcp")
	h, err := hub.New(hub.WithClient("a", a))
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, "a", far)
	p.write(control(wire.KindPing, 1, "", nil))
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Errorf("Start again = %v", err)
	}
	p.expect(wire.KindPong, 1)
	stop(t, h)
	p.expectFault(wire.KindGoodbye, 0, wire.CodeDraining)
}

func TestAStoppedHub(t *testing.T) {
	a, _ := pair(t, "pipe")
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop(t, h)
	stop(t, h)
	_, routed := h.Route(t.Context(), &wire.Artifact{Topic: "t"})
	for what, err := range map[string]error{"Start": h.Start(t.Context()), "RegisterClient": h.RegisterClient("a", a), "Route": routed} {
		if !errors.Is(err, hub.ErrNotRunning) {
			t.Errorf("%s = %v, want ErrNotRunning", what, err)
		}
	}
	select {
	case <-h.Stopped():
	default:
		t.Error("Stopped is not closed")
	}
}

func TestTheEndOfTheContextStopsTheHub(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p := join(t, h, "a")
	cancel()
	p.ended()
	select {
	case <-h.Stopped():
	case <-time.After(patience):
		t.Fatal("the hub goes on")
	}
}

func TestStopWritesWhatIsQueued(t *testing.T) {
	h := start(t)
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient("a", hubs); err != nil {
		t.Fatal(err)
	}
	const artifacts = 2000
	for i := range artifacts {
		if _, err := h.Route(t.Context(), &wire.Artifact{To: "a", Payload: fmt.Appendf(make([]byte, 0, 1000), "%01000d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(context.Background()) }()
	p := newPeer(t, "a", far)
	all := p.ended()
	if err := <-stopped; err != nil {
		t.Errorf("Stop = %v", err)
	}
	if len(all) != artifacts+1 || all[len(all)-1].Kind() != wire.KindGoodbye {
		t.Errorf("%d frames came, want %d and Goodbye", len(all), artifacts)
	}
}

func TestStopIsNotHeldUpForever(t *testing.T) {
	register := func(t *testing.T) *hub.Hub {
		t.Helper()
		h := start(t)
		hubs, _ := pair(t, "pipe") // nobody reads the other end
		if err := h.RegisterClient("stuck", hubs); err != nil {
			t.Fatal(err)
		}
		return h
	}
	t.Run("by a client that takes nothing", func(t *testing.T) {
		h := register(t)
		if err := h.Stop(context.Background()); err != nil {
			t.Errorf("Stop = %v", err)
		}
	})
	t.Run("when its context ends", func(t *testing.T) {
		h := register(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Stop = %v, want context.Canceled", err)
		}
	})
	t.Run("when a second call is in a hurry", func(t *testing.T) {
		h := register(t)
		first := make(chan error, 1)
		c, _ := h.Client("stuck")
		go func() { first <- h.Stop(context.Background()) }()
		<-c.Done()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = h.Stop(ctx)
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("first Stop = %v, want context.Canceled", err)
		}
	})
}

// A write that fails ends the client, though it is the writer that finds out
// and removing the client waits for the writer.
func TestAConnectionThatCannotBeWrittenIsRemoved(t *testing.T) {
	h := start(t)
	conn := &halfOpen{gone: make(chan struct{}), fault: errors.New("out of order")}
	if err := h.RegisterClient("a", conn); err != nil {
		t.Fatal(err)
	}
	c, _ := h.Client("a")
	if _, err := h.Route(t.Context(), &wire.Artifact{To: "a"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the client is still there")
	}
	stop(t, h)
	select {
	case <-conn.gone:
	default:
		t.Error("the connection was not closed")
	}
}

// halfOpen is a connection that can't be written, and never says anything.
type halfOpen struct {
	gone  chan struct{}
	once  sync.Once
	fault error // of every write
}

func (c *halfOpen) Read([]byte) (int, error) {
	<-c.gone
	return 0, net.ErrClosed
}
func (c *halfOpen) Write([]byte) (int, error) { return 0, c.fault }
func (c *halfOpen) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}

func TestClientsLimit(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{MaxClients: 1}))
	join(t, h, "a")
	hubs, _ := pair(t, "pipe")
	var coded *wire.Error
	if err := h.RegisterClient("b", hubs); !errors.As(err, &coded) || coded.Code != wire.CodeTooManyClients {
		t.Errorf("RegisterClient = %v, want code TooManyClients", err)
	}
	if n := h.Metrics().ClientsRefused["max_clients"]; n != 1 {
		t.Errorf("%d are counted as refused, want 1", n)
	}
	join(t, h, "a") // replaces
	if err := h.RegisterClient("white space", hubs); !errors.As(err, &coded) || coded.Code != wire.CodeInvalidClientID {
		t.Errorf("RegisterClient = %v, want code InvalidClientID", err)
	}
}

func TestProgramSubscribes(t *testing.T) {
	h := start(t)
	a := join(t, h, "a")
	if err := h.Subscribe("a", "x", "y", "x"); err != nil {
		t.Fatal(err)
	}
	a.subscribe(1, "z", wire.Subscription{}) // the program's numbers are not in the client's way
	a.subscribe(2, "z", wire.Subscription{})
	c, _ := h.Client("a")
	topics := c.Topics()
	slices.Sort(topics)
	if want := []string{"broadcast", "x", "y", "z", "z"}; !slices.Equal(topics, want) {
		t.Errorf("Topics = %v, want %v", topics, want)
	}
	if err := h.Unsubscribe("a", "x", "nothing"); err != nil {
		t.Fatal(err)
	}
	if n, _ := h.Route(t.Context(), &wire.Artifact{Topic: "x"}); n != 0 {
		t.Errorf("%d deliveries after Unsubscribe", n)
	}
	if m := h.Metrics(); m.TopicSubscribers["z"] != 2 || m.TopicSubscribers["y"] != 1 || m.TopicSubscribers["x"] != 0 {
		t.Errorf("TopicSubscribers = %v", m.TopicSubscribers)
	}
	var none *hub.NoClientError
	if err := h.Subscribe("b", "x"); !errors.As(err, &none) {
		t.Errorf("Subscribe = %v, want NoClientError", err)
	}
	if err := h.Unsubscribe("b", "x"); !errors.As(err, &none) {
		t.Errorf("Unsubscribe = %v, want NoClientError", err)
	}
	var coded *wire.Error
	if err := h.Subscribe("a", "x..y"); !errors.As(err, &coded) || coded.Code != wire.CodeInvalidTopic {
		t.Errorf("Subscribe = %v, want code InvalidTopic", err)
	}
}

func TestSubscriptionsLimit(t *testing.T) {
	const most = 10_000
	h := start(t)
	a := join(t, h, "a", hub.WithoutBroadcast())
	var all []byte
	for i := range most {
		all = append(all, control(wire.KindSubscribe, uint32(i+1), fmt.Sprint("t.", i), nil)...)
	}
	a.write(all)
	for i := range most {
		a.expect(wire.KindAck, uint32(i+1))
	}
	a.write(control(wire.KindSubscribe, most+1, "one.more", nil))
	fault := a.expectFault(wire.KindError, most+1, wire.CodeInvalidRequest)
	if !strings.Contains(fault.Detail, "at most 10000 subscriptions") {
		t.Errorf("refused with %q", fault.Detail)
	}
	coded, ok := errors.AsType[*wire.Error](h.Subscribe("a", "one.more"))
	if !ok || coded.Code != wire.CodeInvalidRequest || coded.Temporary() {
		t.Errorf("Subscribe = %v, want a refusal that says not to try again", coded)
	}
	a.write(control(wire.KindUnsubscribe, 7, "", nil))
	a.expect(wire.KindAck, 7)
	a.subscribe(most+1, "one.more", wire.Subscription{})
	if n := len(h.Metrics().TopicSubscribers); n != most {
		t.Errorf("%d patterns are subscribed to, want %d", n, most)
	}
}

func TestDefault(t *testing.T) {
	h := hub.Default()
	if h != hub.Default() {
		t.Error("Default makes a second hub")
	}
	join(t, h, "a").quiet()
}

func TestRedirectSpreadsClients(t *testing.T) {
	h := start(t)
	peers := []*peer{join(t, h, "a"), join(t, h, "b"), join(t, h, "c")}
	turn := 0
	asked := h.Redirect(t.Context(), 3, 100, func() []string {
		turn++
		return [][]string{{"x:1", "y:1", "z:1"}, {"y:1", "z:1", "x:1"}, {"z:1", "x:1", "y:1"}}[turn-1]
	})
	if asked != 3 {
		t.Errorf("%d clients were asked, want 3", asked)
	}
	if n := h.Redirect(t.Context(), 0, 100, nil); n != 0 {
		t.Errorf("%d clients were asked, want none", n)
	}
	first := make(map[string]int)
	for _, p := range peers {
		var to wire.Redirect
		if err := wire.DecodeControl(p.expect(wire.KindDrain, 0).Frame, &to); err != nil {
			t.Fatal(err)
		}
		if len(to.Addresses) != 3 {
			t.Errorf("redirected to %v", to.Addresses)
		}
		first[to.Addresses[0]]++
	}
	if len(first) != 3 {
		t.Errorf("all go to %v first", first)
	}
}

// Everything at once, for the race detector.
func TestStress(t *testing.T) {
	sessions := &ledger{t: t, there: make(map[string]*hub.Client)}
	h := start(t, hub.WithHistory("kept.>", 100), hub.WithHealthCheck(20*time.Millisecond, 3), hub.WithEvents(sessions.hear))
	var running, reading sync.WaitGroup
	for worker := range 8 {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			id := func() string { return fmt.Sprintf("c%d", random.IntN(4)) }
			topic := func() string {
				return []string{"live.a", "live.b", "kept.a", "kept.b", hub.Broadcast}[random.IntN(5)]
			}
			for range 300 {
				switch random.IntN(6) {
				case 0:
					hubs, far := net.Pipe()
					if err := h.RegisterClient(id(), hubs); err != nil {
						t.Error(err)
					}
					reading.Go(func() {
						buf := make([]byte, 4096)
						for {
							if _, err := far.Read(buf); err != nil {
								_ = far.Close()
								return
							}
						}
					})
				case 1:
					_ = h.UnregisterClient(id())
				case 2:
					_ = h.Subscribe(id(), topic(), "kept.>", "*.a")
				case 3:
					_ = h.Unsubscribe(id(), topic())
				case 4:
					_, _ = h.Route(t.Context(), &wire.Artifact{To: id(), Payload: make([]byte, random.IntN(9000))})
				case 5:
					if _, err := h.Route(t.Context(), &wire.Artifact{Topic: topic(), Payload: make([]byte, random.IntN(9000))}); err != nil {
						t.Error(err)
					}
				}
				_ = h.Metrics()
			}
		})
	}
	running.Wait()
	stop(t, h)
	reading.Wait()
	if m := h.Metrics(); m.ActiveClients != 0 || len(m.TopicSubscribers) != 0 || len(h.Clients()) != 0 {
		t.Errorf("left behind: %+v", m)
	}
	m, left := h.Metrics(), uint64(0)
	for _, n := range m.ClientsLeft {
		left += n
	}
	if len(sessions.there) != 0 || sessions.joined != sessions.left || sessions.joined != m.ClientsJoined || left != m.ClientsJoined {
		t.Errorf("heard of %d that joined and %d that left, counted are %d and %d; there: %v",
			sessions.joined, sessions.left, m.ClientsJoined, left, sessions.there)
	}
}
