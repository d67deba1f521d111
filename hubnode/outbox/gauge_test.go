package outbox_test

import (
	"bytes"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// What waits counts as long as it does, however it goes.
func TestGaugeCountsWhatWaits(t *testing.T) {
	const limit = 4 << 20
	for name, goes := range map[string]func(*testing.T, *outbox.Outbox){
		"written": drain,
		"dropped": func(_ *testing.T, o *outbox.Outbox) { o.DropOldest(limit) },
		"conflated": func(_ *testing.T, o *outbox.Outbox) {
			f := live(1, 2*limit)
			o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], "")
		},
		"closed": func(_ *testing.T, o *outbox.Outbox) { o.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := outbox.NewGauge()
			w := newStuck()
			w.free()
			o := outbox.New(w, outbox.Config{LimitBytes: limit, Gauge: g})
			for push(o, live(1, 1000)) != outbox.Full {
				continue
			}
			if waits, counted := int64(o.Pending()), g.Bytes(); counted < waits-8<<10 || counted > waits*11/10 {
				t.Errorf("%d bytes wait, the gauge says %d", waits, counted)
			}
			goes(t, o)
			if counted := g.Bytes(); counted != 0 {
				t.Errorf("nothing waits, the gauge says %d", counted)
			}
			o.Close()
			o.Wait()
		})
	}
}

func TestGaugeTellsWhenItsMarkIsReached(t *testing.T) {
	g := outbox.NewGauge()
	told := func() bool {
		select {
		case <-g.Reached():
			return true
		default:
			return false
		}
	}
	var all []*outbox.Outbox
	fill := func(bytes int) {
		o := outbox.New(newStuck(), outbox.Config{LimitBytes: 1 << 30, Gauge: g})
		all = append(all, o)
		for o.Pending() < bytes {
			push(o, live(1, 1000))
		}
	}
	fill(1 << 20)
	if told() {
		t.Error("told without a mark")
	}
	g.SetMark(3 << 20)
	fill(1 << 20)
	if told() {
		t.Errorf("told at %d bytes", g.Bytes())
	}
	fill(2 << 20)
	if !told() || told() {
		t.Error("not told, or twice")
	}
	for _, o := range all {
		o.Close()
	}
	if told() || g.Bytes() != 0 {
		t.Errorf("told when it went down to %d bytes", g.Bytes())
	}
}

// A large frame stays where it was read. Its head is small, and so is the memory for it.
func TestHeadsOfLargeFramesTakeLittle(t *testing.T) {
	g := outbox.NewGauge()
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 30, Gauge: g})
	f := live(1, 100_000)
	for range 100 {
		push(o, f)
	}
	if g.Bytes() != 0 {
		t.Errorf("the heads of 100 frames take large chunks: %d bytes", g.Bytes())
	}
	w.free()
	drain(t, o)
	o.Close()
	o.Wait()
	if want := bytes.Repeat(f, 100); !bytes.Equal(w.got, want) {
		t.Errorf("%d bytes were written, want those of 100 frames", len(w.got))
	}
}
