package hub_test

import (
	"context"
	"errors"
	"net"
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
