package hub

import (
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

func strayFor(target string) stray {
	return stray{p: &parcel{frame: wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend}, target, "from", nil)}}
}

// A client that is looked for may come, and be held, meanwhile: whoever is last to send
// what waits for it ends that, once.
func TestWhatIsHeldIsBusyWhateverWasFoundBefore(t *testing.T) {
	var f finder
	if first, ok := f.add(strayFor("x")); !first || !ok {
		t.Fatalf("add = %v, %v; want the first one", first, ok)
	}
	f.hold("x")
	if f.begin("x"); f.take("x") != nil {
		t.Error("what is held was taken")
	}
	f.release("x")
	if !f.begin("x") {
		t.Fatal("somebody seems to send, though all have ended")
	}
	if got := f.take("x"); len(got) != 1 {
		t.Fatalf("%d were taken, want 1", len(got))
	}
	if f.begin("x") {
		t.Error("two send at a time what waits for one client")
	}
	f.take("x")
	if f.begin("x"); f.take("x") != nil { // by who looked for it
		t.Error("something is left")
	}
	if f.busy([]byte("x")) {
		t.Error("it is busy, and nothing waits")
	}
	f.hold("y")
	if !f.busy([]byte("y")) {
		t.Error("what is held is not busy")
	}
	if len(f.sending)+len(f.fetched) > 0 {
		t.Errorf("%v, %v are left behind", f.sending, f.fetched)
	}
}
