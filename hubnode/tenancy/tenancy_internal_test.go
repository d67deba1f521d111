package tenancy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

const shop Tenant = "shop"

func TestNames(t *testing.T) {
	for own, id := range map[string]string{
		"worker-1": "shop/worker-1", "a/b": "shop/a/b", "shop/x": "shop/shop/x", "/admin": "admin", "/bank/x": "shop//bank/x", "$hub.clients": "$hub.clients", "": "",
	} {
		if got := shop.ID(own); got != id {
			t.Errorf("ID(%q) = %q, want %q", own, got, id)
		}
		if got := shop.OwnID(id); got != own {
			t.Errorf("OwnID(%q) = %q, want %q", id, got, own)
		}
	}
	for own, name := range map[string]string{
		"orders.new": "shop.orders.new", "orders.>": "shop.orders.>", ">": "shop.>", "broadcast": "shop.broadcast", "$presence": "$presence", "": "",
	} {
		if got := shop.Topic(own); got != name {
			t.Errorf("Topic(%q) = %q, want %q", own, got, name)
		}
		if got := shop.OwnTopic(name); got != own {
			t.Errorf("OwnTopic(%q) = %q, want %q", name, got, own)
		}
	}
	for _, name := range []string{"shopping.new", "bank.orders", "shop", "shop."} {
		if got := shop.OwnTopic(name); got != name {
			t.Errorf("OwnTopic(%q) = %q, want it unchanged: it is not the tenant's", name, got)
		}
	}
	if got := shop.Within("/bank/*"); got != "shop//bank/*" {
		t.Errorf("Within = %q: a rule reaches out of the tenant", got)
	}
	var none Tenant
	for _, name := range []string{"x", "/x", "$x", ""} {
		if none.ID(name) != name || none.OwnID(name) != name || none.Topic(name) != name || none.OwnTopic(name) != name || none.Within(name) != name {
			t.Errorf("without a tenant %q is changed", name)
		}
	}
}

func TestIDsThatATenantMayHave(t *testing.T) {
	long := strings.Repeat("x", wire.MaxClientID-len("shop/"))
	for id, fault := range map[string]string{
		"worker-1": "", long: "", long + "x": "longer than", "/worker": "slash", "$hub": "reserved", "": "nothing there",
	} {
		switch err := shop.CheckID(id); {
		case fault == "" && err != nil:
			t.Errorf("CheckID(%q) = %v", id, err)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault)):
			t.Errorf("CheckID(%q) = %v, want it to say %q", id, err, fault)
		}
	}
	if err := Tenant("").CheckID("/worker"); err != nil {
		t.Errorf("without a tenant a slash is refused: %v", err)
	}
}

func frame(kind wire.Kind, target, from string, body any) wire.Frame {
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		text, _ = json.Marshal(b) //nolint:errchkjson // types of package wire
	}
	return wire.AppendFrame(nil, wire.Header{Kind: kind, Flags: wire.FlagAck, Count: 1, Sequence: 7, Ref: 9}, target, from, text)
}

// questionOf is the body of a frame that holds one artifact, which is what a question to the hub
// or an answer of it says.
func questionOf(t *testing.T, text string) string {
	t.Helper()
	return string(runOf(t, text).Body())
}

func runOf(t *testing.T, texts ...string) *wire.Run {
	t.Helper()
	var r wire.Run
	for _, text := range texts {
		a := wire.Artifact{ID: wire.ID{1}, Time: time.Unix(7, 0), ContentType: "application/json", Attributes: map[string]string{"a": "b"}, Payload: []byte(text)}
		if err := r.Append(&a, math.MaxInt); err != nil {
			t.Fatal(err)
		}
	}
	return &r
}

// Of all that the hub can be asked, one question and its answer have a name of the tenant's.
func TestAQuestionAboutATopic(t *testing.T) {
	const question = "$hub.durables.delete"
	two := string(runOf(t, `{"topic":"jobs"}`, "x").Body())
	for name, test := range map[string]struct{ own, hub wire.Frame }{
		"the question":          {frame(wire.KindSend, question, "w", questionOf(t, `{"topic":"jobs","name":"d"}`)), frame(wire.KindSend, question, "shop/w", questionOf(t, `{"topic":"shop.jobs","name":"d"}`))},
		"of another tenant":     {frame(wire.KindSend, question, "w", questionOf(t, `{"topic":"bank.jobs","name":"d"}`)), frame(wire.KindSend, question, "shop/w", questionOf(t, `{"topic":"shop.bank.jobs","name":"d"}`))},
		"under another name":    {frame(wire.KindSend, question, "w", questionOf(t, `{"to\u0070ic":"a","TOPIC":"jobs"}`)), frame(wire.KindSend, question, "shop/w", questionOf(t, `{"topic":"shop.jobs"}`))},
		"about nothing":         {frame(wire.KindSend, question, "w", questionOf(t, `{"name":"d"}`)), frame(wire.KindSend, question, "shop/w", questionOf(t, `{"name":"d"}`))},
		"that is none":          {frame(wire.KindSend, question, "w", questionOf(t, `{`)), frame(wire.KindSend, question, "shop/w", questionOf(t, `{`))},
		"without an artifact":   {frame(wire.KindSend, question, "w", ""), frame(wire.KindSend, question, "shop/w", "")},
		"in what is no run":     {frame(wire.KindSend, question, "w", "run"), frame(wire.KindSend, question, "shop/w", "run")},
		"with something else":   {frame(wire.KindSend, question, "w", two), frame(wire.KindSend, question, "shop/w", two)},
		"another question":      {frame(wire.KindSend, "$hub.durables", "w", questionOf(t, `{"topic":"jobs"}`)), frame(wire.KindSend, "$hub.durables", "shop/w", questionOf(t, `{"topic":"jobs"}`))},
		"what a client is sent": {frame(wire.KindSend, "v", "w", questionOf(t, `{"topic":"jobs"}`)), frame(wire.KindSend, "shop/v", "shop/w", questionOf(t, `{"topic":"jobs"}`))},
	} {
		in := translator{tenant: shop}
		if got := in.appendIn(nil, test.own); !bytes.Equal(got, test.hub) {
			t.Errorf("%s: the hub gets\n%q, want\n%q", name, got, test.hub)
		}
	}
	for name, test := range map[string]struct{ hub, own wire.Frame }{
		"the answer":          {frame(wire.KindReply, "shop/w", question, questionOf(t, `{"topic":"shop.jobs","name":"d"}`)), frame(wire.KindReply, "w", question, questionOf(t, `{"topic":"jobs","name":"d"}`))},
		"a client's answer":   {frame(wire.KindReply, "shop/w", "shop/v", questionOf(t, `{"topic":"shop.jobs"}`)), frame(wire.KindReply, "w", "v", questionOf(t, `{"topic":"shop.jobs"}`))},
		"an answer of no run": {frame(wire.KindReply, "shop/w", question, "run"), frame(wire.KindReply, "w", question, "run")},
	} {
		out := translator{tenant: shop}
		if got := out.appendOut(nil, test.hub); !bytes.Equal(got, test.own) {
			t.Errorf("%s: the client gets\n%q, want\n%q", name, got, test.own)
		}
	}
}

func TestFramesOfTheClient(t *testing.T) {
	for name, test := range map[string]struct{ own, hub wire.Frame }{
		"publish":            {frame(wire.KindPublish, "orders.new", "w", "run"), frame(wire.KindPublish, "shop.orders.new", "shop/w", "run")},
		"publish to the hub": {frame(wire.KindPublish, "$presence", "w", "run"), frame(wire.KindPublish, "$presence", "shop/w", "run")},
		"send":               {frame(wire.KindSend, "v", "w", "run"), frame(wire.KindSend, "shop/v", "shop/w", "run")},
		"ask the hub":        {frame(wire.KindSend, "$hub.clients", "w", "run"), frame(wire.KindSend, "$hub.clients", "shop/w", "run")},
		"reply":              {frame(wire.KindReply, "v", "w", "run"), frame(wire.KindReply, "shop/v", "shop/w", "run")},
		"reply to outside":   {frame(wire.KindReply, "/admin", "w", "run"), frame(wire.KindReply, "admin", "shop/w", "run")},
		"pose as outside":    {frame(wire.KindSend, "v", "/admin", "run"), frame(wire.KindSend, "shop/v", "admin", "run")}, // not its id: refused
		"subscribe":          {frame(wire.KindSubscribe, "orders.>", "", nil), frame(wire.KindSubscribe, "shop.orders.>", "", nil)},
		"resume": {
			frame(wire.KindSubscribe, "orders.>", "", wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"orders.new": 3}}),
			frame(wire.KindSubscribe, "shop.orders.>", "", wire.Subscription{Again: true, Positions: map[string]wire.Sequence{"shop.orders.new": 3}}),
		},
		"resume from nothing": {frame(wire.KindSubscribe, "x", "", `{"positions":{}}`), frame(wire.KindSubscribe, "shop.x", "", `{"positions":{}}`)},
		"a body that is none": {frame(wire.KindSubscribe, "x", "", "{"), frame(wire.KindSubscribe, "shop.x", "", "{")},
		"read":                {frame(wire.KindRead, "orders.new", "", wire.Read{From: 1}), frame(wire.KindRead, "shop.orders.new", "", wire.Read{From: 1})},
		"fetch": {
			frame(wire.KindFetch, "jobs", "", wire.Fetch{Name: "d", Policy: wire.DurablePolicy{DeadLetter: "jobs.dead"}}),
			frame(wire.KindFetch, "shop.jobs", "", wire.Fetch{Name: "d", Policy: wire.DurablePolicy{DeadLetter: "shop.jobs.dead"}}),
		},
		"fetch under an escaped name": {
			frame(wire.KindFetch, "jobs", "", `{"name":"d","policy":{"de\u0061dletter":"other.dead"}}`),
			frame(wire.KindFetch, "shop.jobs", "", wire.Fetch{Name: "d", Policy: wire.DurablePolicy{DeadLetter: "shop.other.dead"}}),
		},
		"restore":     {frame(wire.KindRestore, "orders", "", "frame"), frame(wire.KindRestore, "shop.orders", "", "frame")},
		"ping":        {frame(wire.KindPing, "", "", nil), frame(wire.KindPing, "", "", nil)},
		"unsubscribe": {frame(wire.KindUnsubscribe, "", "", nil), frame(wire.KindUnsubscribe, "", "", nil)},
	} {
		in := translator{tenant: shop}
		if got := in.appendIn(nil, test.own); !bytes.Equal(got, test.hub) {
			t.Errorf("%s: the hub gets\n%q, want\n%q", name, got, test.hub)
		}
	}
}

func TestFramesOfTheHub(t *testing.T) {
	denied := wire.FaultOf(&wire.PermissionError{Identity: "i", Action: wire.ActionPublish, Target: "shop.orders"}, 0)
	deniedOwn := wire.FaultOf(&wire.PermissionError{Identity: "i", Action: wire.ActionPublish, Target: "orders", Tenant: "shop"}, 0)
	for name, test := range map[string]struct{ hub, own wire.Frame }{
		"publish":           {frame(wire.KindPublish, "shop.orders.new", "shop/w", "run"), frame(wire.KindPublish, "orders.new", "w", "run")},
		"from outside":      {frame(wire.KindPublish, "shop.orders.new", "admin", "run"), frame(wire.KindPublish, "orders.new", "/admin", "run")},
		"from nobody":       {frame(wire.KindPublish, "shop.orders.new", "", "run"), frame(wire.KindPublish, "orders.new", "", "run")},
		"send":              {frame(wire.KindSend, "shop/w", "shop/v", "run"), frame(wire.KindSend, "w", "v", "run")},
		"from a namesake":   {frame(wire.KindSend, "shop/w", "shopping/v", "run"), frame(wire.KindSend, "w", "/shopping/v", "run")},
		"reply of the hub":  {frame(wire.KindReply, "shop/w", "$hub.nodes", "run"), frame(wire.KindReply, "w", "$hub.nodes", "run")},
		"gap":               {frame(wire.KindGap, "shop.orders", "", "12345678"), frame(wire.KindGap, "orders", "", "12345678")},
		"positions":         {frame(wire.KindAck, "", "", `{"positions":{"shop.a":1,"shop.b":2}}`), frame(wire.KindAck, "", "", `{"positions":{"a":1,"b":2}}`)},
		"a page":            {frame(wire.KindAck, "", "", wire.Page{Start: 1, End: 2}), frame(wire.KindAck, "", "", wire.Page{Start: 1, End: 2})},
		"an empty ack":      {frame(wire.KindAck, "", "", nil), frame(wire.KindAck, "", "", nil)},
		"no client":         {frame(wire.KindError, "", "", wire.FaultOf(&wire.NoClientError{ID: "shop/v"}, 0)), frame(wire.KindError, "", "", wire.FaultOf(&wire.NoClientError{ID: "v"}, 0))},
		"no quorum":         {frame(wire.KindError, "", "", wire.FaultOf(&wire.NoQuorumError{Topic: "shop.a", Shard: 3}, 0)), frame(wire.KindError, "", "", wire.FaultOf(&wire.NoQuorumError{Topic: "a", Shard: 3}, 0))},
		"denied":            {frame(wire.KindError, "", "", denied), frame(wire.KindError, "", "", deniedOwn)},
		"replaced":          {frame(wire.KindGoodbye, "", "", wire.FaultOf(&wire.SessionReplacedError{ID: "shop/w"}, 0)), frame(wire.KindGoodbye, "", "", wire.FaultOf(&wire.SessionReplacedError{ID: "w"}, 0))},
		"text":              {frame(wire.KindError, "", "", wire.Fault{Code: 6, Detail: `topic "shop.$x": see shop.y`}), frame(wire.KindError, "", "", wire.Fault{Code: 6, Detail: `topic "$x": see y`})},
		"an empty goodbye":  {frame(wire.KindGoodbye, "", "", nil), frame(wire.KindGoodbye, "", "", nil)},
		"where to go":       {frame(wire.KindDrain, "", "", wire.Redirect{Addresses: []string{"shop.example:7400"}}), frame(wire.KindDrain, "", "", wire.Redirect{Addresses: []string{"shop.example:7400"}})},
		"a kind of the new": {frame(200, "shop.x", "", "?"), frame(200, "shop.x", "", "?")},
	} {
		out := translator{tenant: shop}
		if got := out.appendOut(nil, test.hub); !bytes.Equal(got, test.own) {
			t.Errorf("%s: the client gets\n%q, want\n%q", name, got, test.own)
		}
	}
}

// stream is a connection of which one side is what the test says.
type stream struct {
	io.Reader
	bytes.Buffer
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (s *stream) Close() error               { return nil }

// chunks returns b in pieces of so many bytes.
func chunks(b []byte, size int) (all [][]byte) {
	for len(b) > size {
		all, b = append(all, b[:size]), b[size:]
	}
	return append(all, b)
}

// traffic is frames of all sizes, as the hub has them and as the tenant has.
func traffic() (hub, own []byte) {
	for _, size := range []int{0, 1, 100, 5000, 200_000, 3, 70_000, 20} {
		payload := strings.Repeat("p", size)
		hub = append(hub, frame(wire.KindPublish, "shop.orders.new", "shop/w", payload)...)
		own = append(own, frame(wire.KindPublish, "orders.new", "w", payload)...)
	}
	return hub, own
}

func TestWhoseATopicIs(t *testing.T) {
	for _, namespace := range []string{"shop", "a", "0", "team-7", strings.Repeat("n", 63)} {
		for _, own := range []string{"a", "orders.new", "Ä.ö", "bank.orders", ".odd"} {
			if got := OwnerOf(Tenant(namespace).Topic(own)); got != namespace {
				t.Errorf("%s of %s is said to be of %q", own, namespace, got)
			}
		}
	}
	for _, name := range []string{"", ".", "shop", "shop.", ".a", "Shop.a", "_ops.a", "shöp.a", "-a.b", "a-.b", "a b.c", "$hub.topics", "$presence", strings.Repeat("n", 64) + ".a"} {
		if got := OwnerOf([]byte(name)); len(got) > 0 {
			t.Errorf("%q is said to be of %q", name, got)
		}
	}
}

func TestWhatIsWrittenInPiecesArrivesWhole(t *testing.T) {
	hub, own := traffic()
	for _, size := range []int{1, 3, 24, 100, 4096, 65_536, len(hub)} {
		s := &stream{}
		c := Wrap(s, wire.NewReader(s, 1<<20), shop)
		for _, p := range chunks(hub, size) {
			if n, err := c.Write(p); err != nil || n != len(p) {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
		if !bytes.Equal(s.Bytes(), own) {
			t.Errorf("in pieces of %d bytes something else arrives", size)
		}
	}
	s := &stream{}
	c := Wrap(s, wire.NewReader(s, 1<<20), shop)
	if n, err := c.WriteAll(chunks(hub, 1000)); err != nil || n != len(hub) || !bytes.Equal(s.Bytes(), own) {
		t.Errorf("WriteAll = %d, %v", n, err)
	}
}

func TestWhatIsReadInPiecesIsWhole(t *testing.T) {
	hub, own := traffic()
	for _, size := range []int{1, 7, 300, 70_000, 1 << 20} {
		s := &stream{Reader: bytes.NewReader(own)}
		c := Wrap(s, wire.NewReader(s, 1<<20), shop)
		var got bytes.Buffer
		_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{c}, make([]byte, size))
		if err != nil || !bytes.Equal(got.Bytes(), hub) {
			t.Errorf("in pieces of %d bytes something else is read, %v", size, err)
		}
	}
}

// hungUp is a connection whose client has.
type hungUp struct{ *stream }

func (hungUp) PeerClosed() bool { return true }

func TestWhoHungUpHasHungUp(t *testing.T) {
	s := &stream{}
	if Wrap(s, nil, shop).PeerClosed() {
		t.Error("of a connection that can't tell")
	}
	if !Wrap(hungUp{s}, nil, shop).PeerClosed() {
		t.Error("who has hung up has not")
	}
}

// asking is a source that calls back when it is asked for more than it has.
type asking struct {
	io.Reader
	dry func()
}

func (a *asking) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n == 0 {
		a.dry()
	}
	return n, err
}

// While nothing comes the hub's reader holds no buffer, whatever came before.
func TestWaitingTakesNoBuffer(t *testing.T) {
	full := frame(wire.KindPublish, "t", "w", strings.Repeat("x", 4096-len(frame(wire.KindPublish, "shop.t", "shop/w", ""))))
	s := &stream{Reader: bytes.NewReader(append(full, bytes.Repeat(frame(wire.KindPublish, "t", "w", "small"), 1000)...))}
	var r *wire.Reader
	waited := false
	src := wire.NewReader(&asking{s, func() {
		waited = true
		if r.Slab() != nil {
			t.Error("a buffer is held")
		}
	}}, 1<<20)
	r = wire.NewReader(Wrap(s, src, shop), math.MaxInt32)
	for {
		if _, err := r.Next(); err != nil {
			break
		}
	}
	if !waited {
		t.Error("the source was never asked for more than it had")
	}
}

// What is shared by all who get a large frame is not copied for each.
func TestLargeBodiesAreNotCopied(t *testing.T) {
	large := frame(wire.KindPublish, "shop.t", "shop/w", strings.Repeat("x", 4<<20))
	head, tail := large[:wire.HeaderSize], large[wire.HeaderSize:]
	c := Wrap(sink{}, nil, shop)
	r := testing.Benchmark(func(b *testing.B) { //nolint:thelper // it is none
		for b.Loop() {
			if _, err := c.WriteAll([][]byte{head, tail}); err != nil {
				b.Fatal(err)
			}
		}
	})
	if n := r.AllocedBytesPerOp(); n > 2*batch {
		t.Errorf("%d bytes are allocated for a frame of %d", n, len(large))
	}
}

// sink is a connection that takes everything.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }
func (sink) Close() error                { return nil }

// What came before a fault is read before it.
func TestFaultsComeInTheirTurn(t *testing.T) {
	good := frame(wire.KindPublish, "a", "w", "run")
	bad := bytes.Clone(good)
	bad[20] = 0xff // a target longer than the frame
	for name, test := range map[string]struct {
		bytes []byte
		limit int
		want  error
	}{
		"malformed": {append(bytes.Clone(good), bad...), 1 << 10, wire.ErrMalformed},
		"too large": {append(bytes.Clone(good), frame(wire.KindPublish, "a", "w", strings.Repeat("x", 2000))...), 1 << 10, wire.ErrFrameTooLarge},
		"cut":       {append(bytes.Clone(good), good[:20]...), 1 << 10, io.ErrUnexpectedEOF},
		"ended":     {good, 1 << 10, io.EOF},
	} {
		s := &stream{Reader: bytes.NewReader(test.bytes)}
		r := wire.NewReader(Wrap(s, wire.NewReader(s, test.limit), shop), math.MaxInt32)
		if f, err := r.Next(); err != nil || string(f.Target()) != "shop.a" {
			t.Errorf("%s: the first frame is %q, %v", name, f, err)
		}
		if _, err := r.Next(); !errors.Is(err, test.want) {
			t.Errorf("%s: then %v, want %v", name, err, test.want)
		}
	}
}

func TestChangingNamesAllocatesNothing(t *testing.T) {
	own, hub := frame(wire.KindPublish, "orders.new", "w", "run"), frame(wire.KindSend, "shop/w", "shop/v", "run")
	in, out := translator{tenant: shop}, translator{tenant: shop}
	b := make([]byte, 0, 1<<10)
	if n := testing.AllocsPerRun(100, func() {
		b = in.appendIn(b[:0], own)
		b = out.appendOut(b[:0], hub)
	}); n != 0 {
		t.Errorf("%v allocations for two frames, want 0", n)
	}
}

// Whatever a client sends, the hub hears whole frames of the tenant's names or of names
// that are nobody's, and what comes back is what was sent.
func FuzzNames(f *testing.F) {
	for kind := range 24 {
		f.Add(byte(kind), "orders.new", "w", []byte(`{"positions":{"a":1},"policy":{"deadLetter":"x"},"target":"shop.x","detail":"\"shop.x"}`))
	}
	f.Add(byte(wire.KindSend), "/admin", "/x", []byte(nil))
	f.Add(byte(wire.KindSend), strings.Repeat("x", 65_535), strings.Repeat("y", 65_535), []byte("run"))
	f.Fuzz(func(t *testing.T, kind byte, target, from string, body []byte) {
		if len(target) > math.MaxUint16 || len(from) > math.MaxUint16 {
			return
		}
		sent := frame(wire.Kind(kind), target, from, string(body))
		in, out := translator{tenant: shop}, translator{tenant: shop}
		got, err := wire.ParseFrame(in.appendIn(nil, sent))
		if err != nil {
			t.Fatalf("the hub gets %v", err)
		}
		if cmp.Diff(got.Header(), sent.Header()) != "" {
			t.Errorf("the header is %+v, was %+v", got.Header(), sent.Header())
		}
		name := string(got.Target())
		switch got.Kind() {
		case wire.KindPublish, wire.KindSubscribe, wire.KindRead, wire.KindFetch, wire.KindRestore:
			if name != "" && !strings.HasPrefix(name, "$") && !strings.HasPrefix(name, "shop.") {
				t.Errorf("the hub is asked for %q", name)
			}
		default:
		}
		back, err := wire.ParseFrame(out.appendOut(nil, got))
		if err != nil {
			t.Fatalf("the client gets %v", err)
		}
		switch k := got.Kind(); {
		case len(target) >= tooLong || len(from) >= tooLong: // nobody's
		case k == wire.KindPublish || k == wire.KindSend || k == wire.KindReply:
			ambiguous := strings.HasPrefix(target, "/$") || strings.HasPrefix(from, "/$") || target == "/" || from == "/"
			if !ambiguous && (string(back.Target()) != target || string(back.From()) != from) {
				t.Errorf("%q from %q comes back as %q from %q", target, from, back.Target(), back.From())
			}
		}
	})
}

func BenchmarkNames(b *testing.B) {
	own := frame(wire.KindPublish, "orders.new", "worker-1", strings.Repeat("x", 128))
	in := translator{tenant: shop}
	buf := make([]byte, 0, 1<<10)
	for b.Loop() {
		buf = in.appendIn(buf[:0], own)
	}
}
