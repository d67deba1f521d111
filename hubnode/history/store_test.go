package history_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/storetest"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMemoryIsAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) history.Store { return history.NewMemory() })
}

func TestMemoryCountsItsBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m, now := history.NewMemory(), time.Unix(1_800_000_000, 0)
	check := func(after string) {
		t.Helper()
		var want int64
		if err := m.Topics(func(_ string, b history.Bounds) bool { want += b.Bytes; return true }); err != nil {
			t.Fatal(err)
		}
		if got := m.Bytes(); got != want {
			t.Fatalf("%d bytes after %s, topics hold %d", got, after, want)
		}
	}
	next := make(map[string]wire.Sequence)
	held := false
	for i := range 2000 {
		now = now.Add(time.Second)
		topic := fmt.Sprint("t", rnd.IntN(5))
		limits := history.Limits{MaxArtifacts: rnd.IntN(20), MaxBytes: 1000, MaxAge: time.Minute}
		run := history.Run{First: max(next[topic], 1), Count: 1 + rnd.IntN(3), From: "a", Body: make([]byte, rnd.IntN(300))}
		if err := m.Append(now, topic, limits, run); err != nil {
			t.Fatal(err)
		}
		next[topic] = run.First + wire.Sequence(run.Count)
		check("an append")
		held = held || m.Bytes() > 0
		var err error
		switch after := ""; i % 50 {
		case 10:
			after, err = "a purge", m.Purge(topic, run.First)
			check(after)
		case 20:
			after, err = "retention", m.Retain(now, func(string) history.Limits { return history.Limits{MaxArtifacts: 3} })
			check(after)
		case 30:
			after, err = "clearing", m.Clear()
			clear(next)
			check(after)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !held {
		t.Fatal("nothing was ever held")
	}
}
