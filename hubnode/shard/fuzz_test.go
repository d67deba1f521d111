package shard

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzEntry(f *testing.F) {
	now := time.Unix(1_000_000, 5).UTC()
	f.Add(appendPurge(appendAppend(nil, now, Publisher{ID: 1, Number: 2, Oldest: true}, frame("a.b", "x"), 0), now, "a", 7))
	f.Add(appendAppend(nil, now, Publisher{At: 9}, frame("a.b", "x"), 0))
	f.Add(appendBegin(nil, now, "a", 7))
	f.Add(must(appendFetch(nil, now, durable.Key{Topic: "a.b", Name: "d"}, durable.Request{
		Member: "m", Policy: wire.DurablePolicy{Shared: true}, Start: 1, Acked: []wire.Range{{From: 1, To: 2}}, Max: 3,
	})))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		err := eachRecord(b, func(r record) {
			switch r.op {
			case opAppend:
				again = appendAppend(again, r.time, r.by, r.frame, 0)
			case opPurge:
				again = appendPurge(again, r.time, r.topic, r.before)
			case opBegin:
				again = appendBegin(again, r.time, r.topic, r.before)
			case opFetch:
				again = must(appendFetch(again, r.time, r.fetch.Key, r.fetch.Request))
			}
		})
		if err != nil {
			return
		}
		// Kind, flags and ref of a frame are not the log's: written once
		// more, an entry stays what it is.
		var third []byte
		if err := eachRecord(again, func(r record) {
			switch r.op {
			case opAppend:
				third = appendAppend(third, r.time, r.by, r.frame, 0)
			case opPurge:
				third = appendPurge(third, r.time, r.topic, r.before)
			case opBegin:
				third = appendBegin(third, r.time, r.topic, r.before)
			case opFetch:
				third = must(appendFetch(third, r.time, r.fetch.Key, r.fetch.Request))
			}
		}); err != nil || !bytes.Equal(again, third) {
			t.Errorf("%x became %x: %v", again, third, err)
		}
	})
}

func FuzzCall(f *testing.F) {
	for _, size := range []int{1, apart - 1, apart, 2 * apart} {
		e := raft.Log{Index: 9, Term: 7, Data: bytes.Repeat([]byte("x"), size), Extensions: []byte("e"), AppendedAt: time.Unix(0, 1)}
		f.Add(slices.Concat(encodeAppend(&raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a/1"), Addr: []byte("a/1")}, Term: 7, PrevLogEntry: 8, PrevLogTerm: 6, LeaderCommitIndex: 5,
			Entries: []*raft.Log{&e, &e},
		})...))
	}
	vote, err := encodeRare(callVote, &raft.RequestVoteRequest{Term: 3}, []byte("more"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(vote)
	f.Fuzz(func(t *testing.T, b []byte) {
		rpc, err := decodeCall(b)
		if err != nil {
			return
		}
		if a, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			again, err := decodeAppend(slices.Concat(encodeAppend(a)...)[1:])
			if diff := cmp.Diff(a, again); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(encodeAppended(&raft.AppendEntriesResponse{Term: 3, LastLog: 9, Success: true}))
	f.Add(append([]byte{callFailed}, "no"...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = decodeAnswer(b, &raft.AppendEntriesResponse{})
		_ = decodeAnswer(b, &raft.RequestVoteResponse{})
		_, _ = decodeLeads(b)
	})
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte(calls(1)))
	f.Add(calls(3).Body())
	answer := encodeAppended(&raft.AppendEntriesResponse{Term: 3, Success: true})
	f.Add(slices.Concat(head(wire.KindRafted, 2, 7, "a/1", "b/1", len(answer)), answer, calls(2).Body()))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, calls, err := unbundled(b)
		if err != nil {
			return
		}
		var again [][]byte
		for _, f := range frames {
			again = append(again, f)
			if f.Kind() == wire.KindRaft {
				calls--
			}
		}
		if calls != 0 || !bytes.Equal(slices.Concat(again...), b) {
			t.Errorf("%x became %x, with %d calls too many", b, again, calls)
		}
		if len(again) < 2 {
			return
		}
		whole, err := wire.ParseFrame(slices.Concat(bundled(again)...))
		if err != nil || whole.Kind() != wire.KindBundle || !bytes.Equal(whole.Body(), b) {
			t.Errorf("%x became the bundle %x: %v", b, whole, err)
		}
	})
}

func FuzzRuns(f *testing.F) {
	f.Add(appendRun(nil, history.Run{First: 3, Count: 2, From: "me", Time: time.Unix(0, 9), Body: []byte("xy")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		page, err := decodeRuns(b)
		if err != nil {
			return
		}
		var again []byte
		for _, run := range page {
			again = appendRun(again, run)
		}
		if !bytes.Equal(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzStretch(f *testing.F) {
	want := stretch{shard: 3, of: "n-0/1", from: 7, until: 9, topic: "a.b"}
	f.Add(want.encode())
	f.Add(want.encodePage())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeStretch(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Errorf("%x became %x", b, q.encode())
		}
		if q, err := decodePage(b); err == nil && !bytes.Equal(q.encodePage(), b) {
			t.Errorf("%x became %x", b, q.encodePage())
		}
	})
}
