package wire

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

type golden struct {
	name, about string
	frame       Frame
}

// goldenFrames are frames for other implementations to check against, one file
// each in testdata.
func goldenFrames() []golden {
	run := func(artifacts ...Artifact) []byte {
		var r Run
		for i := range artifacts {
			if err := r.Append(&artifacts[i], DefaultMaxArtifact); err != nil {
				panic(err) // the list below is wrong
			}
		}
		return r.body
	}
	id := ID{0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0xff}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	plain := Artifact{ID: id, Time: at, Payload: []byte("hello")}
	full := Artifact{ID: id, Time: at, ContentType: "application/json", Attributes: map[string]string{"tenant": "blue", "a": ""}, Payload: []byte(`{"x":1}`)}
	follows := Artifact{ID: id.Next(), Time: at, Payload: []byte("again")}
	jumps := Artifact{ID: ID{0xff}, Time: at.Add(time.Second), Payload: []byte("later")}
	billing := DurablePolicy{Shared: true, AckWait: 30 * time.Second, MaxDeliveries: 5, DeadLetter: "jobs.dead"}
	control := func(h Header, target string, body any) Frame { return AppendControl(nil, h, target, body) }
	return []golden{
		{"hello", "a client's first frame", control(Header{Kind: KindHello}, "", Hello{MinVersion: 1, MaxVersion: 1, ID: "agent-7", Name: "example", Version: "1.0"})},
		{"hello-resume", "a client that comes back to its session", control(Header{Kind: KindHello}, "", Hello{MinVersion: 1, MaxVersion: 1, ID: "agent-7", Epoch: 3, Resumable: true, Session: "4F6TUQRRPJJ3LJDURE7SIKG4MC", Received: 42, Node: "agents-node-0", Attempt: 2})},
		{"welcome-resumed", "the answer when its session goes on: 17 frames were taken from it", control(Header{Kind: KindWelcome}, "", Welcome{Version: 1, Hub: "default/agents", Node: "agents-node-1", Epoch: 4, MaxArtifact: 1 << 20, MaxFrame: MaxFrame(1 << 20), PingInterval: 10_000, PingTimeout: 25_000, ResumeWindow: 30_000, Session: "4F6TUQRRPJJ3LJDURE7SIKG4MC", Resumed: true, Received: 17})},
		{"welcome", "the node's answer", control(Header{Kind: KindWelcome}, "", Welcome{Version: 1, Hub: "default/agents", Node: "agents-node-0", Epoch: 3, MaxArtifact: 1 << 20, MaxFrame: MaxFrame(1 << 20), PingInterval: 10_000, PingTimeout: 25_000, Addresses: []string{"10.0.0.1:7400"}})},
		{"subscribe", "subscription 5 to a pattern, with all history", control(Header{Kind: KindSubscribe, Ref: 5}, "orders.>", Subscription{Since: SinceAll})},
		{"subscribe-resume", "the same after a reconnect", control(Header{Kind: KindSubscribe, Ref: 5}, "orders.>", Subscription{Positions: map[string]Sequence{"orders.new": 43}})},
		{"subscribe-part", "the first of several frames of a subscription", control(Header{Kind: KindSubscribe, Ref: 5}, "orders.>", Subscription{Positions: map[string]Sequence{"orders.old": 7}, More: true})},
		{"subscribe-others", "the last one: topics that none of them names start at what is not older than a minute", control(Header{Kind: KindSubscribe, Ref: 5}, "orders.>", Subscription{Since: SinceAge, Age: time.Minute, Again: true, Positions: map[string]Sequence{"orders.new": 43}, Others: true})},
		{"subscribed-incomplete", "the Ack of a subscription when not every leader could be asked", control(Header{Kind: KindAck, Ref: 5}, "", Subscribed{Positions: map[string]Sequence{"orders.new": 1}, Incomplete: true})},
		{"subscribed", "the Ack of a subscription", control(Header{Kind: KindAck, Ref: 5}, "", Subscribed{Positions: map[string]Sequence{"orders.new": 1}})},
		{"unsubscribe", "the end of subscription 5", control(Header{Kind: KindUnsubscribe, Ref: 5}, "", nil)},
		{"read", "the newest ten artifacts that are kept", control(Header{Kind: KindRead, Ref: 9}, "orders.new", Read{Last: 10})},
		{"page", "the Ack of a page of history: the next one begins at 43", control(Header{Kind: KindAck, Sequence: 43, Ref: 9}, "", Page{Start: 40, First: 7, End: 50})},
		{"fetch", "a member of a durable subscription: 3 to 7 and 9 are done, 8 failed, 10 is still worked on; up to 200 more are wanted", control(Header{Kind: KindFetch, Ref: 10}, "jobs", Fetch{
			Name: "workers", Policy: billing, Acked: []Range{{3, 7}, {9, 9}}, Failed: []Range{{8, 8}}, Held: []Range{{10, 10}}, Max: 200, Wait: 10 * time.Second,
		})},
		{"fetched", "the Ack of a fetch: 8 again and 11 to 60; 1 and 2 were taken by retention", control(Header{Kind: KindAck, Ref: 10}, "", Fetched{Given: []Work{{Range{8, 8}, 2}, {Range{11, 60}, 1}}, Lost: []Range{{1, 2}}})},
		{"restore", "topic orders.new begins at 41", AppendFrame(nil, Header{Kind: KindRestore, Sequence: 41, Ref: 11}, "orders.new", "", nil)},
		{"publish", "one artifact, acknowledgement wanted", AppendFrame(nil, Header{Kind: KindPublish, Flags: FlagAck, Count: 1, Ref: 6}, "orders.new", "agent-7", run(plain))},
		{"publish-run", "three artifacts: one with everything, one that follows it, one that does not", AppendFrame(nil, Header{Kind: KindPublish, Count: 3, Ref: 7}, "orders.new", "agent-7", run(full, follows, jumps))},
		{"deliver", "the run as subscription 5 gets it: sequences 41 to 43", AppendFrame(nil, Header{Kind: KindPublish, Count: 3, Sequence: 41, Ref: 5}, "orders.new", "agent-7", run(full, follows, jumps))},
		{"send", "one artifact for one client, acknowledgement wanted", AppendFrame(nil, Header{Kind: KindSend, Flags: FlagAck, Count: 1, Ref: 8}, "agent-9", "agent-7", run(plain))},
		{"request", "the same with an answer asked for within five seconds", AppendFrame(nil, Header{Kind: KindSend, Flags: FlagAck | FlagRequest, Count: 1, Sequence: 5000, Ref: 9}, "agent-9", "agent-7", run(plain))},
		{"reply", "its answer", AppendFrame(nil, Header{Kind: KindReply, Count: 1, Ref: 9}, "agent-7", "agent-9", run(full))},
		{"reply-failed", "its answer when the handler failed", AppendFrame(nil, Header{Kind: KindReply, Flags: FlagFailed, Count: 1, Ref: 9}, "agent-7", "agent-9", run(Artifact{ID: id, Time: at, Payload: []byte("no such order")}))},
		{"ack", "frame 6 was stored from sequence 41 on", control(Header{Kind: KindAck, Count: 1, Sequence: 41, Ref: 6}, "", nil)},
		{"ack-live", "frame 6 went to a topic without history and filter", control(Header{Kind: KindAck, Flags: FlagLive, Count: 1, Ref: 6}, "", nil)},
		{"error-each", "of frame 7 the second artifact is refused; its Ack follows", control(Header{Kind: KindError, Flags: FlagEach, Ref: 7}, "", Fault{Code: CodeRefused, Detail: "filter", Artifacts: []int{1}})},
		{"error", "frame 8 found no client", control(Header{Kind: KindError, Ref: 8}, "", FaultOf(&NoClientError{ID: "agent-9"}, 0))},
		{"ping", "a sign of life is wanted", control(Header{Kind: KindPing, Ref: 10}, "", nil)},
		{"pong", "and given", control(Header{Kind: KindPong, Ref: 10}, "", nil)},
		{"drain", "go to another node", control(Header{Kind: KindDrain}, "", Redirect{Addresses: []string{"10.0.0.2:7400", "10.0.0.3:7400"}})},
		{"goodbye", "the last frame", control(Header{Kind: KindGoodbye}, "", FaultOf(&SessionReplacedError{ID: "agent-7"}, 0))},
		{"gap", "artifacts 3 to 9 of a topic are gone for subscription 5", AppendGap(nil, 5, "orders.new", 3, 9)},
		{"settings", "forget what FlagLive said", control(Header{Kind: KindSettings}, "", nil)},
		{"received", "the client has 64 frames that its session kept", control(Header{Kind: KindReceived, Sequence: 64}, "", nil)},
		{"send-kept", "what the session keeps until the client has it", AppendFrame(nil, Header{Kind: KindSend, Flags: FlagKept, Count: 1, Ref: 8}, "agent-9", "agent-7", run(plain))},
		{"lost", "17 live artifacts were dropped for this slow client", control(Header{Kind: KindLost, Sequence: 17}, "", nil)},
	}
}

// annotate writes a frame as commented hex: text behind # is for people.
func annotate(g golden) string {
	var b strings.Builder
	f, at := g.frame, 0
	field := func(n int, format string, args ...any) {
		about := fmt.Sprintf(format, args...)
		fmt.Fprintf(&b, "%-48s # %s\n", hex.EncodeToString(f[at:at+n]), about)
		at += n
	}
	fmt.Fprintf(&b, "# %s: %s\n", g.name, g.about)
	field(4, "length of what follows: %d", len(f)-4)
	field(1, "kind %d", f.Kind())
	field(1, "flags %#02x", byte(f.Flags()))
	field(2, "count %d", f.Count())
	field(8, "sequence %d", f.Sequence())
	field(4, "ref %d", f.Ref())
	field(2, "length of target")
	field(2, "length of from")
	if n := len(f.Target()); n > 0 {
		field(n, "target %q", f.Target())
	}
	if n := len(f.From()); n > 0 {
		field(n, "from %q", f.From())
	}
	if n := len(f.Body()); n > 0 {
		if f.Body()[0] == '{' {
			field(n, "body %s", f.Body())
		} else {
			field(n, "body")
		}
	}
	return b.String()
}

// parseHex reads commented hex.
func parseHex(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.TrimSpace(line))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenFrames(t *testing.T) {
	for _, g := range goldenFrames() {
		t.Run(g.name, func(t *testing.T) {
			path := filepath.Join("testdata", g.name+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(annotate(g)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := annotate(g); got != string(text) {
				t.Errorf("the encoding has changed, which breaks every client (-update if that is meant):\n%s\nwas\n%s", got, text)
			}
			f, err := ParseFrame(parseHex(t, string(text)))
			if err != nil {
				t.Fatal(err)
			}
			if f.Count() > 0 && f.Kind() != KindAck {
				if err := CheckRun(f.Body(), f.Count(), DefaultMaxArtifact); err != nil {
					t.Errorf("CheckRun = %v", err)
				}
			}
		})
	}
}
