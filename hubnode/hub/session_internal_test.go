package hub

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

func frameOf(text string) wire.Frame {
	return wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend, Count: 1}, "to", "from", []byte(text))
}

func (s *session) push1(in *intake, text string) outbox.Verdict {
	f := frameOf(text)
	return s.push(in, f[:wire.HeaderSize], f[wire.HeaderSize:], nil)
}

func (s *session) texts() []string {
	var all []string
	eachFrame(s.kept[s.from:], func(f wire.Frame) { all = append(all, string(f.Body())) })
	return all
}

func newTestSession(t *testing.T, pending int) (*session, *intake) {
	t.Helper()
	h, err := New(WithSettings(Settings{PendingBytes: pending}))
	if err != nil {
		t.Fatal(err)
	}
	return &session{hub: h, id: "to"}, h.newIntake()
}

func TestSessionKeepsWhatWasNotReceived(t *testing.T) {
	s, in := newTestSession(t, 1<<20)
	next := 0
	want := []string(nil)
	for received := uint64(0); received < 1000; {
		for range 7 {
			text := fmt.Sprint(next)
			next++
			want = append(want, text)
			if v := s.push1(in, text); v != outbox.Queued {
				t.Fatalf("push = %v", v)
			}
		}
		received += 5
		want = want[5:]
		if !s.received(received) || !s.received(received-1) {
			t.Fatalf("received(%d) = false", received)
		}
		if diff := cmp.Diff(want, s.texts()); diff != "" {
			t.Fatalf("kept (-want +got):\n%s", diff)
		}
	}
	if s.received(uint64(next) + 1) {
		t.Error("more were received than were kept")
	}
	if !s.received(uint64(next)) || s.kept != nil || s.count != 0 {
		t.Errorf("%d frames and %d bytes of memory are kept of nothing", s.count, cap(s.kept))
	}
}

func TestSessionIsBounded(t *testing.T) {
	s, in := newTestSession(t, 1000)
	n := 0
	for s.push1(in, "0123456789") == outbox.Queued {
		n++
	}
	if size := len(frameOf("0123456789")); n != 1000/size {
		t.Errorf("%d frames of %d bytes are kept, the limit is 1000 bytes", n, size)
	}
	if got := s.bytesLocked(); got > 1000 {
		t.Errorf("%d bytes are kept", got)
	}
}

func TestSessionStateRoundTrip(t *testing.T) {
	st := sessionState{ID: "to", Key: "k", Epoch: 3, Base: 4, Taken: 5, Found: true, Attempt: 6, Asked: []request{{"from", 7}}}
	frames := append(frameOf("one"), frameOf("two")...)
	got, gotFrames, count, err := decodeSession(st.encode(frames))
	if err != nil || !cmp.Equal(got, st) || !bytes.Equal(gotFrames, frames) || count != 2 {
		t.Errorf("decoded: %+v, %d frames, %v", got, count, err)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"a length too long": {0, 0, 0, 9, '{', '}'},
		"no JSON":           {0, 0, 0, 1, '{'},
		"a cut frame":       st.encode(frames[:len(frames)-1]),
		"a frame too short": st.encode([]byte{0, 0, 0, 1, 5}),
	} {
		if _, _, _, err := decodeSession(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzDecodeSession(f *testing.F) {
	f.Add((&sessionState{ID: "to", Found: true}).encode(frameOf("one")))
	f.Add((&sessionState{}).encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, frames, count, err := decodeSession(b)
		if err != nil {
			return
		}
		n := 0
		eachFrame(frames, func(frame wire.Frame) {
			n++
			_ = frame.Body()
		})
		if n != count {
			t.Errorf("%d frames, %d were counted", n, count)
		}
		if again, _, _, err := decodeSession(st.encode(frames)); err != nil || !cmp.Equal(again, st, cmpopts.EquateEmpty()) {
			t.Errorf("encoded again: %+v, %v; was %+v", again, err, st)
		}
	})
}
