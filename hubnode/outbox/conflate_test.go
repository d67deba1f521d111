package outbox_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

const conflateKey = "key"

// artifact is one of a test, written as its key and its payload: "k=3", or "3"
// without a key.
func artifact(text string) *wire.Artifact {
	a := &wire.Artifact{ID: wire.ID{1}, Time: time.Unix(1, 0), Payload: []byte(text), Attributes: map[string]string{"other": "x"}}
	if key, payload, ok := strings.Cut(text, "="); ok {
		a.Attributes[conflateKey] = key
		a.Payload = []byte(payload)
	}
	return a
}

func text(a *wire.Artifact) string {
	if key, ok := a.Attributes[conflateKey]; ok {
		return key + "=" + string(a.Payload)
	}
	return string(a.Payload)
}

// packed is a frame of artifacts.
func packed(h wire.Header, target, from string, texts ...string) []byte {
	var run wire.Run
	for _, t := range texts {
		if err := run.Append(artifact(t), 1<<20); err != nil {
			panic(err)
		}
	}
	h.Count = uint16(len(texts))
	return wire.AppendFrame(nil, h, target, from, run.Body())
}

func published(ref uint32, topic string, texts ...string) []byte {
	return packed(wire.Header{Kind: wire.KindPublish, Ref: ref}, topic, "pub", texts...)
}

// written describes the frames in b as "topic: a b".
func written(t *testing.T, b []byte) []string {
	t.Helper()
	var all []string
	for len(b) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(b))
		f, err := wire.ParseFrame(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		b = b[n:]
		switch f.Kind() {
		case wire.KindPong:
			all = append(all, "pong")
			continue
		case wire.KindLost:
			all = append(all, fmt.Sprintf("lost %d", f.Sequence()))
			continue
		default:
		}
		if err := wire.CheckRun(f.Body(), f.Count(), 1<<20); err != nil {
			t.Fatal(err)
		}
		line := string(f.Target()) + ":"
		var a wire.Artifact
		for r := wire.NewRunReader(f.Body()); ; {
			if ok, _ := r.Next(&a); !ok {
				break
			}
			line += " " + strings.TrimSpace(text(&a))
		}
		all = append(all, line)
	}
	return all
}

func (s *stuck) written(t *testing.T) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return written(t, s.got)
}

// wide pads an artifact, so that few fill a queue.
func wide(text string) string { return text + strings.Repeat(" ", 100) }

func TestConflate(t *testing.T) {
	publish := func(topic string, texts ...string) []byte {
		for i := range texts {
			texts[i] = wide(texts[i])
		}
		return published(1, topic, texts...)
	}
	direct := func(flags wire.Flags, from, text string) []byte {
		return packed(wire.Header{Kind: wire.KindSend, Flags: flags, Ref: 7}, "me", from, wide(text))
	}
	pong := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPong}, "", "", nil)
	lost := wire.AppendFrame(nil, wire.Header{Kind: wire.KindLost, Sequence: 7}, "", "", nil)
	stored := packed(wire.Header{Kind: wire.KindPublish, Ref: 1, Sequence: 5}, "t", "pub", wide("a=0"))
	for name, test := range map[string]struct {
		queued [][]byte
		pushed []byte
		lost   int
		left   []string
	}{
		"the newest of each key stays where it is": {
			[][]byte{publish("t", "a=1"), publish("t", "b=1"), publish("t", "a=2"), publish("t", "b=2"), publish("t", "c=1")},
			publish("t", "a=3"), 3,
			[]string{"t: b=2 c=1 a=3"},
		},
		"runs are cut": {
			[][]byte{publish("t", "a=1", "b=1", "c=1"), publish("t", "b=2", "a=2")},
			publish("t", "b=3"), 3,
			[]string{"t: c=1 a=2 b=3"},
		},
		"a key is one of its topic and subscription": {
			[][]byte{publish("t", "a=1"), publish("u", "a=1"), published(2, "t", wide("a=1")), publish("t", "a=2")},
			publish("u", "a=2"), 2,
			[]string{"t: a=1", "t: a=2", "u: a=2"},
		},
		"a key of what is sent directly is one of the sender": {
			[][]byte{direct(0, "x", "a=1"), direct(0, "y", "a=1"), direct(0, "x", "a=2")},
			direct(0, "x", "a=3"), 2,
			[]string{"me: a=1", "me: a=3"},
		},
		"without a key the oldest go first": {
			[][]byte{publish("t", "a=1"), publish("t", "1"), publish("t", "2"), publish("t", "b=1"), publish("t", "3")},
			publish("t", "4"), 1,
			[]string{"t: a=1 2 b=1 3 4"},
		},
		"a key may be empty": {
			[][]byte{publish("t", "=1"), publish("t", "1"), publish("t", "=2"), publish("t", "2")},
			publish("t", "=3"), 2,
			[]string{"t: 1 2 =3"},
		},
		"the oldest keys go when there are too many": {
			[][]byte{publish("t", "a=1"), publish("t", "b=1"), publish("t", "c=1"), publish("t", "d=1")},
			publish("t", "e=1"), 1,
			[]string{"t: b=1 c=1 d=1 e=1"},
		},
		"requests go like those without a key": {
			[][]byte{direct(wire.FlagRequest, "x", "a=1"), direct(wire.FlagRequest, "x", "a=2"), publish("t", "a=1"), publish("t", "b=1")},
			direct(wire.FlagRequest, "x", "a=3"), 1,
			[]string{"me: a=2", "t: a=1 b=1", "me: a=3"},
		},
		"control frames and topics with history stay": {
			[][]byte{pong, stored, stored, publish("t", "a=1"), pong, publish("t", "1")},
			publish("t", "a=2"), 1,
			[]string{"pong", "t: a=0", "t: a=0", "pong", "t: 1 a=2"},
		},
		"what tells of losses becomes one": {
			[][]byte{lost, publish("t", "a=1"), lost, publish("t", "b=1"), publish("t", "c=1")},
			publish("t", "a=2"), 1,
			[]string{"lost 14", "t: b=1 c=1 a=2"},
		},
		"a frame of any size finds room": {
			[][]byte{publish("t", "a=1"), publish("t", "b=1"), pong},
			publish("t", "c=1"+strings.Repeat(" ", 2000)), 2,
			[]string{"pong", "t: c=1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStuck()
			w.free()
			limit := 0
			for _, f := range test.queued {
				limit += len(f)
			}
			o := outbox.New(w, outbox.Config{LimitBytes: limit})
			for _, f := range test.queued {
				if v := push(o, f); v == outbox.Full {
					t.Fatal("a frame does not fit")
				}
			}
			if v := push(o, test.pushed); v != outbox.Full {
				t.Fatalf("Push = %v, want Full", v)
			}
			v, lost := o.PushConflated(test.pushed[:wire.HeaderSize], test.pushed[wire.HeaderSize:], conflateKey)
			if v != outbox.Queued || lost != test.lost {
				t.Errorf("PushConflated = %v, %d; want Queued, %d", v, lost, test.lost)
			}
			o.Flush()
			drain(t, o)
			if diff := cmp.Diff(test.left, w.written(t)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if n := o.Pending(); n != 0 {
				t.Errorf("%d bytes are still counted", n)
			}
			o.Close()
			o.Wait()
		})
	}
}

// Whatever is pushed while nobody reads: what is dropped and what stays are
// together what was pushed, in its order; the newest artifact of each key is
// there; nothing is dropped for a key that has a newer one in the queue still.
func TestConflateProperties(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := newStuck()
		limit := 20_000 + random.IntN(200_000)
		o := outbox.New(w, outbox.Config{LimitBytes: limit})
		push(o, published(1, "t", "first"))
		o.Flush()
		<-w.entered // from here on nothing is taken

		newest := make(map[string]int)
		pushed, lost, largest := 1, 0, 0
		for pushed < 3000 {
			var texts []string
			for range 1 + random.IntN(5) {
				size := random.IntN(100)
				if random.IntN(100) == 0 {
					size = 6000 // by reference
				}
				key := fmt.Sprintf("k%d", random.IntN(20))
				text := fmt.Sprintf("%d.%s", pushed, strings.Repeat("x", size))
				if random.IntN(3) > 0 {
					newest[key] = pushed
					text = key + "=" + text
				}
				texts = append(texts, text)
				pushed++
			}
			f := published(1, "t", texts...)
			largest = max(largest, len(f))
			if push(o, f) == outbox.Full {
				v, n := o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
				if v != outbox.Queued {
					t.Fatalf("PushConflated = %v", v)
				}
				lost += n
			}
			if n := o.Pending(); n > 2*limit+largest {
				t.Fatalf("%d bytes wait, the limit is %d", n, limit)
			}
		}
		w.free()
		drain(t, o)
		var order []int
		for _, line := range w.written(t) {
			for _, a := range strings.Fields(line)[1:] {
				key, payload, keyed := strings.Cut(a, "=")
				var number int
				if !keyed {
					payload = key
				}
				_, _ = fmt.Sscanf(payload, "%d.", &number)
				order = append(order, number)
				if keyed && newest[key] == number {
					delete(newest, key)
				}
			}
		}
		if !slices.IsSorted(order) {
			t.Errorf("seed %d: order %v", seed, order)
		}
		if len(order)+lost != pushed {
			t.Errorf("seed %d: %d came and %d were lost of %d", seed, len(order), lost, pushed)
		}
		if len(newest) > 0 || lost == 0 {
			t.Errorf("seed %d: the newest artifacts of %v did not come, %d lost", seed, newest, lost)
		}
		o.Close()
		o.Wait()
	}
}

// What can't be dropped later is refused when there is no room, or a queue that
// nobody reads would grow without bound.
func TestConflateBoundsWhatItMayNotDrop(t *testing.T) {
	for name, h := range map[string]wire.Header{
		"answers":               {Kind: wire.KindReply, Ref: 1},
		"topics with history":   {Kind: wire.KindPublish, Ref: 1, Sequence: 5},
		"live artifacts beside": {Kind: wire.KindPublish, Ref: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStuck()
			const limit = 10_000
			o := outbox.New(w, outbox.Config{LimitBytes: limit})
			push(o, published(1, "t", wide("a=0")))
			f := packed(h, "t", "pub", wide("a=1"))
			reply := packed(wire.Header{Kind: wire.KindReply}, "me", "pub", wide("1"))
			refused := 0
			for range 1000 {
				for _, f := range [][]byte{f, reply} {
					if push(o, f) == outbox.Full {
						if v, _ := o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey); v == outbox.Full {
							refused++
						}
					}
				}
			}
			if n := o.Pending(); n > limit+len(f) || refused == 0 {
				t.Errorf("%d bytes wait, the limit is %d; %d frames were refused", n, limit, refused)
			}
			w.free()
			o.Close()
			o.Wait()
		})
	}
}

// The policy may change while what waits is sorted.
func TestDropOldestOfWhatIsSorted(t *testing.T) {
	w := newStuck()
	w.free()
	o := outbox.New(w, outbox.Config{LimitBytes: 1000})
	for i := range 10 {
		f := published(1, "t", wide(fmt.Sprintf("k%d=%d", i, i)))
		if push(o, f) == outbox.Full {
			o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
		}
	}
	f := published(1, "t", wide("last"))
	if v := push(o, f); v != outbox.Full {
		t.Fatalf("Push = %v beside what is sorted, want Full", v)
	}
	o.DropOldest(len(f))
	if v := push(o, f); v != outbox.Queued {
		t.Errorf("Push = %v after DropOldest, want Queued", v)
	}
	o.Flush()
	drain(t, o)
	got := strings.Fields(strings.Join(w.written(t), " "))
	if n := len(got); n < 3 || got[n-1] != "last" || o.Pending() != 0 {
		t.Errorf("came: %v; %d bytes are still counted", got, o.Pending())
	}
	o.Close()
	o.Wait()
}

func TestCloseCountsWhatIsSorted(t *testing.T) {
	o := outbox.New(newStuck(), outbox.Config{LimitBytes: 1000})
	for i := range 20 {
		f := published(1, "t", wide(fmt.Sprintf("k%d=%d", i, i)))
		if push(o, f) == outbox.Full {
			o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
		}
	}
	waits := o.Pending()
	o.Close()
	o.Wait()
	if lost := o.Lost(); waits == 0 || lost != waits || o.Pending() != 0 {
		t.Errorf("%d bytes were lost of %d that waited; %d are still counted", lost, waits, o.Pending())
	}
	f := published(1, "t", "a=1")
	if v, n := o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey); v != outbox.Closed || n != 0 {
		t.Errorf("PushConflated = %v, %d; want Closed", v, n)
	}
}

func TestConflateReleasesWhatItDrops(t *testing.T) {
	w := newStuck()
	w.free()
	o := outbox.New(w, outbox.Config{LimitBytes: 100_000})
	f, slab := countedSlab(t, published(1, "t", "a="+strings.Repeat("x", 20_000)))
	for range 10 {
		if v := o.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], slab); v == outbox.Full {
			if v, _ := o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey); v != outbox.Queued {
				t.Fatalf("PushConflated = %v", v)
			}
		}
	}
	o.Flush()
	drain(t, o)
	if !lastReference(slab) {
		t.Error("the slab is still referenced, or was released too often")
	}
	o.Close()
	o.Wait()
}

// However much waits when the writer takes up its work again, what is not yet
// being written makes room for newer artifacts.
func TestTheWriterLeavesWhatItDoesNotWriteYet(t *testing.T) {
	w := newStuck()
	const limit = 4 << 20
	o := outbox.New(w, outbox.Config{LimitBytes: limit})
	value := strings.Repeat("x", 50_000)
	for i := range 90 {
		f := published(1, "t", fmt.Sprintf("k%d=%s", i, value))
		if push(o, f) == outbox.Full {
			o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
		}
	}
	o.Flush()
	w.permits <- struct{}{} // the first step, no more
	<-w.entered
	<-w.entered
	lost := 0
	for i := range 80 {
		f := published(1, "t", fmt.Sprintf("k%d=new%s", i, value))
		if push(o, f) == outbox.Full {
			_, n := o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
			lost += n
		}
	}
	w.free()
	drain(t, o)
	var got []string
	for _, line := range w.written(t) {
		_, a, _ := strings.Cut(line, ": ")
		if key, payload, _ := strings.Cut(a, "="); strings.HasPrefix(payload, "new") {
			got = append(got, key)
		}
	}
	if lost == 0 || len(got) < 40 || got[len(got)-1] != "k79" {
		t.Errorf("%d lost; newest that came: %v", lost, got)
	}
	o.Close()
	o.Wait()
}
