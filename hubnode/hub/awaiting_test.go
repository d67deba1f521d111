package hub_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// elsewhere is a Remote and a Keeper where node "other" leads every topic.
type elsewhere struct{ hub.Keeper }

func (elsewhere) Self() string                       { return "self" }
func (elsewhere) Leader(string) (string, bool)       { return "other", false }
func (elsewhere) Leaderless(topic string) error      { return &wire.NoQuorumError{Topic: topic} }
func (elsewhere) Held(string) (history.Store, bool)  { return nil, false }
func (elsewhere) Size() (artifacts int, bytes int64) { return 0, 0 }
func (elsewhere) Retain(time.Time)                   {}
func (elsewhere) Append(wire.Frame, int, hub.Publisher, func(*hub.Stage, wire.Sequence, error)) error {
	return errors.New("this node leads nothing")
}

func (elsewhere) Bounds(context.Context, string) (history.Bounds, error) {
	return history.Bounds{}, errors.New("this node leads nothing")
}
func (elsewhere) Purge(context.Context, string, wire.Sequence) error               { return nil }
func (elsewhere) Led(context.Context, func(string, history.Bounds)) ([]int, error) { return nil, nil }
func (elsewhere) ShardCount() int                                                  { return 1 }
func (elsewhere) Locate(wire.ClientID) (node string, e uint64, ok bool)            { return "", 0, false }
func (elsewhere) ClientUp(wire.ClientID, uint64)                                   {}
func (elsewhere) ClientDown(wire.ClientID, uint64, wire.LeaveReason)               {}
func (elsewhere) InterestUp(string)                                                {}
func (elsewhere) InterestDown(string)                                              {}
func (elsewhere) Ask(context.Context, string, string, []byte) ([]byte, error) {
	return nil, errors.New("nobody answers")
}

// silent is a link to a node that takes everything and never answers.
type silent struct{ taken chan wire.Kind }

func (l silent) Push(head, _ []byte, _ *wire.Slab) outbox.Verdict {
	l.taken <- wire.Frame(head).Kind()
	return outbox.Queued
}
func (l silent) PushControl([]byte) outbox.Verdict { return outbox.Queued }
func (l silent) Flush()                            {}
func (l silent) FlushAside()                       {}

// there is elsewhere, where node "other" has every client, too.
type there struct{ elsewhere }

func (there) Locate(wire.ClientID) (node string, epoch uint64, ok bool) { return "other", 1, true }

// However close to its frame the link to another node goes: who waits for that node's answer
// gets one.
func TestEverySenderHearsThatTheLinkWasLost(t *testing.T) {
	const frames = 2000
	for kind, name := range map[wire.Kind]string{wire.KindPublish: "publish", wire.KindSend: "send"} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			h, err := hub.New(hub.WithRemote(there{}), hub.WithKeeper(elsewhere{}), hub.WithHistory("kept", 10), hub.WithClient("a", ours))
			if err != nil {
				t.Fatal(err)
			}
			link := &answering{h: h}
			h.SetPeer("other", link)
			if err := h.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			var run wire.Run
			if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Time: time.Unix(1, 0)}, 100); err != nil {
				t.Fatal(err)
			}
			_ = theirs.SetDeadline(time.Now().Add(time.Minute))
			r := wire.NewReader(theirs, 1<<16)
			defer r.Close()
			for ref := range uint32(frames) {
				losing := make(chan struct{})
				go func() {
					defer close(losing)
					link.lost.Store(true)
					h.SetPeer("other", nil)
				}()
				head := wire.Header{Kind: kind, Flags: wire.FlagAck, Count: 1, Ref: ref + 1}
				if _, err := theirs.Write(wire.AppendFrame(nil, head, "kept", "a", run.Body())); err != nil {
					t.Fatal(err)
				}
				for {
					f, err := r.Next()
					if err != nil {
						t.Fatalf("frame %d has no answer: %v", ref, err)
					}
					if f.Ref() == ref+1 && (f.Kind() == wire.KindError || f.Kind() == wire.KindAck) {
						break
					}
				}
				<-losing
				link = &answering{h: h}
				h.SetPeer("other", link)
			}
		})
	}
}

// answering is a link to a node that acknowledges at once what it is sent, until the link is
// lost. What is pushed then goes nowhere, as before the first write fails.
type answering struct {
	h    *hub.Hub
	lost atomic.Bool
}

func (l *answering) Push(head, _ []byte, _ *wire.Slab) outbox.Verdict {
	if !l.lost.Load() {
		in := l.h.Inbound("other")
		in.Take(wire.AppendFrame(nil, wire.Header{Kind: wire.KindAck, Count: 1, Ref: wire.Frame(head).Ref()}, "a", "", nil), nil)
		in.Flush()
	}
	return outbox.Queued
}
func (*answering) PushControl([]byte) outbox.Verdict { return outbox.Queued }
func (*answering) Flush()                            {}
func (*answering) FlushAside()                       {}

func TestPublisherHearsThatTheLeaderWasLostBeforeItAnswered(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	h, err := hub.New(hub.WithRemote(elsewhere{}), hub.WithKeeper(elsewhere{}), hub.WithHistory("kept", 10), hub.WithClient("a", ours))
	if err != nil {
		t.Fatal(err)
	}
	link := silent{taken: make(chan wire.Kind, 1)}
	h.SetPeer("other", link)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var run wire.Run
	if err := run.Append(&wire.Artifact{ID: wire.ID{1}, Time: time.Unix(1, 0)}, 100); err != nil {
		t.Fatal(err)
	}
	_ = theirs.SetDeadline(time.Now().Add(10 * time.Second))
	publish := wire.Header{Kind: wire.KindPublish, Flags: wire.FlagAck, Count: 1, Ref: 7}
	if _, err := theirs.Write(wire.AppendFrame(nil, publish, "kept", "a", run.Body())); err != nil {
		t.Fatal(err)
	}
	if kind := <-link.taken; kind != wire.KindStore {
		t.Fatalf("the leader was sent kind %d, want Store", kind)
	}
	h.SetPeer("other", nil)

	r := wire.NewReader(theirs, 1<<16)
	defer r.Close()
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	fault := wire.ParseFault(f.Body())
	if f.Kind() != wire.KindError || f.Ref() != 7 || fault.Code != wire.CodeUnavailable {
		t.Errorf("got kind %d, ref %d, %+v; want Error for ref 7 with code Unavailable", f.Kind(), f.Ref(), fault)
	}
}
