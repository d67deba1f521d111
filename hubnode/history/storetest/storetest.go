// Package storetest tests that a [history.Store] does what its comment says. It
// tests neither what survives a crash nor what it takes to be fast.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// start is when tests begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

var roomy = history.Limits{MaxArtifacts: 1000}

// Run tests the stores that open returns, an empty one each time; open closes
// them when its test ends.
func Run(t *testing.T, open func(t *testing.T) history.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, history.Store){
		"a topic nothing was appended to is empty":        testUnknownTopic,
		"what was appended is read":                       testRead,
		"a read ends at its size":                         testReadSize,
		"a repeated run is ignored":                       testRepeat,
		"a run behind a hole is refused":                  testHole,
		"an empty topic goes on anywhere":                 testEmptyGoesOn,
		"a run without artifacts is refused":              testNoArtifacts,
		"times never fall":                                testTimes,
		"a sequence is found by its time":                 testSequenceAt,
		"only MaxArtifacts can be read":                   testMaxArtifacts,
		"a limit of none counts":                          testMaxArtifactsZero,
		"MaxBytes is applied by Retain":                   testMaxBytes,
		"MaxAge is applied by Retain":                     testMaxAge,
		"the newest run stays though it is too large":     testNewestStays,
		"purge takes what lies before":                    testPurge,
		"purge of everything keeps sequences":             testPurgeAll,
		"clear takes sequences too":                       testClear,
		"topics are visited until told to stop":           testTopics,
		"bodies are copied":                               testCopies,
		"retention takes many runs":                       testManyRuns,
		"reading goes on while something changes":         testConcurrent,
		"publishers and empty bodies come out as they go": testOddRuns,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func body(n int) []byte { return fmt.Appendf(nil, "body %d", n) }

func mustAppend(t *testing.T, s history.Store, now time.Time, topic string, l history.Limits, r history.Run) {
	t.Helper()
	if err := s.Append(now, topic, l, r); err != nil {
		t.Fatalf("append %d: %v", r.First, err)
	}
}

// fill appends runs of one artifact, a second apart.
func fill(t *testing.T, s history.Store, topic string, l history.Limits, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		mustAppend(t, s, after(i), topic, l, history.Run{First: wire.Sequence(i), Count: 1, From: "p", Body: body(i)})
	}
}

func bounds(t *testing.T, s history.Store, topic string) history.Bounds {
	t.Helper()
	b, _, err := s.Bounds(topic)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Read returns copies of what a read visits.
func Read(t testing.TB, s history.Store, topic string, from wire.Sequence, maxBytes int) ([]history.Run, wire.Sequence) {
	t.Helper()
	var runs []history.Run
	next, err := s.Read(topic, from, maxBytes, func(r history.Run) {
		r.Body = bytes.Clone(r.Body)
		runs = append(runs, r)
	})
	if err != nil {
		t.Fatalf("read from %d: %v", from, err)
	}
	return runs, next
}

// firsts returns the first sequences of the runs that can be read.
func firsts(t *testing.T, s history.Store, topic string) []int {
	t.Helper()
	var got []int
	runs, _ := Read(t, s, topic, 1, 1<<30)
	for _, r := range runs {
		got = append(got, int(r.First))
	}
	return got
}

func numbers(first, last int) []int {
	var n []int
	for i := first; i <= last; i++ {
		n = append(n, i)
	}
	return n
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func testUnknownTopic(t *testing.T, s history.Store) {
	b, ok, err := s.Bounds("a")
	if ok || err != nil || b != (history.Bounds{First: 1, Next: 1}) {
		t.Errorf("Bounds = %+v, %v, %v", b, ok, err)
	}
	runs, next := Read(t, s, "a", 7, 100)
	check(t, "next", next, wire.Sequence(7))
	check(t, "runs", len(runs), 0)
	if at, err := s.SequenceAt("a", start); at != 1 || err != nil {
		t.Errorf("SequenceAt = %d, %v", at, err)
	}
	if err := s.Purge("a", 10); err != nil {
		t.Errorf("Purge = %v", err)
	}
	if _, ok, _ := s.Bounds("a"); ok {
		t.Error("a purge made a topic")
	}
}

func testRead(t *testing.T, s history.Store) {
	want := []history.Run{
		{First: 1, Count: 2, From: "alice", Time: after(1), Body: []byte("one and two")},
		{First: 3, Count: 1, From: "bob", Time: after(2), Body: []byte("three")},
		{First: 4, Count: 3, From: "alice", Time: after(3), Body: []byte("four to six")},
	}
	for i, r := range want {
		r.Time = time.Time{}
		mustAppend(t, s, after(i+1), "a", roomy, r)
		mustAppend(t, s, after(i+1), "b", roomy, r)
	}
	for from, skip := range map[wire.Sequence]int{0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 2} {
		runs, next := Read(t, s, "a", from, 1<<20)
		check(t, fmt.Sprint("next after ", from), next, wire.Sequence(7))
		check(t, fmt.Sprint("runs from ", from), runs, want[skip:])
	}
	for _, from := range []wire.Sequence{7, 100} {
		runs, next := Read(t, s, "a", from, 1<<20)
		check(t, "next", next, from)
		check(t, "runs", len(runs), 0)
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 1, Next: 7, Artifacts: 6, Bytes: 27, Oldest: after(1), Newest: after(3)})
}

func testReadSize(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 9) // bodies of 6 bytes
	for size, count := range map[int]int{-1: 1, 0: 1, 1: 1, 6: 1, 11: 1, 12: 2, 17: 2, 18: 3, 1000: 9} {
		runs, next := Read(t, s, "a", 1, size)
		check(t, fmt.Sprintf("runs in %d bytes", size), len(runs), count)
		check(t, "next", next, wire.Sequence(count+1))
	}
}

func testRepeat(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 5)
	before := bounds(t, s, "a")
	for i := 1; i <= 5; i++ {
		mustAppend(t, s, after(100), "a", history.Limits{}, history.Run{First: wire.Sequence(i), Count: 1, Body: []byte("other")})
	}
	check(t, "bounds", bounds(t, s, "a"), before)
	check(t, "sequences", firsts(t, s, "a"), numbers(1, 5))
	if err := s.Purge("a", 6); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, after(100), "a", roomy, history.Run{First: 5, Count: 1})
	check(t, "sequences after a purge", len(firsts(t, s, "a")), 0)
}

func testHole(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 5)
	err := s.Append(after(6), "a", roomy, history.Run{First: 7, Count: 1})
	o, ok := errors.AsType[*history.OrderError](err)
	if !ok || *o != (history.OrderError{First: 7, Next: 6}) {
		t.Errorf("append behind a hole = %v", err)
	}
	err = s.Append(after(6), "a", roomy, history.Run{First: 1<<64 - 1, Count: 2})
	if _, ok := errors.AsType[*history.OrderError](err); !ok {
		t.Errorf("append beyond the last sequence = %v", err)
	}
	fill(t, s, "a", roomy, 6, 6)
	check(t, "sequences", firsts(t, s, "a"), numbers(1, 6))
}

func testEmptyGoesOn(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 10, 12)
	b := bounds(t, s, "a")
	check(t, "first", b.First, wire.Sequence(10))
	if err := s.Purge("a", 13); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "a", roomy, 20, 22)
	b = bounds(t, s, "a")
	check(t, "bounds", b, history.Bounds{First: 20, Next: 23, Artifacts: 3, Bytes: 21, Oldest: after(20), Newest: after(22)})
	check(t, "sequences", firsts(t, s, "a"), numbers(20, 22))
}

func testNoArtifacts(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 1)
	for _, count := range []int{0, -1} {
		if err := s.Append(after(2), "a", roomy, history.Run{First: 2, Count: count}); err == nil {
			t.Errorf("a run of %d artifacts was appended", count)
		}
	}
	check(t, "next", bounds(t, s, "a").Next, wire.Sequence(2))
}

func testTimes(t *testing.T, s history.Store) {
	mustAppend(t, s, after(10), "a", roomy, history.Run{First: 1, Count: 1})
	mustAppend(t, s, after(5), "a", roomy, history.Run{First: 2, Count: 1})
	mustAppend(t, s, after(20), "a", roomy, history.Run{First: 3, Count: 1, Time: after(15)})
	mustAppend(t, s, after(20), "a", roomy, history.Run{First: 4, Count: 1, Time: after(30)})
	runs, _ := Read(t, s, "a", 1, 1000)
	var got []time.Time
	for _, r := range runs {
		got = append(got, r.Time)
	}
	check(t, "times", got, []time.Time{after(10), after(10), after(15), after(20)})
}

func testSequenceAt(t *testing.T, s history.Store) {
	for i := range 100 { // three artifacts every ten seconds
		mustAppend(t, s, after(10*i), "a", roomy, history.Run{First: wire.Sequence(3*i + 1), Count: 3, Body: body(i)})
	}
	for seconds, want := range map[int]wire.Sequence{-5: 1, 0: 1, 1: 4, 10: 4, 11: 7, 500: 151, 501: 154, 990: 298, 991: 301, 5000: 301} {
		if got, err := s.SequenceAt("a", after(seconds)); got != want || err != nil {
			t.Errorf("SequenceAt %d s = %d, %v, want %d", seconds, got, err, want)
		}
	}
	if err := s.Purge("a", 152); err != nil {
		t.Fatal(err)
	}
	for seconds, want := range map[int]wire.Sequence{-5: 152, 500: 152, 501: 154} {
		if got, err := s.SequenceAt("a", after(seconds)); got != want || err != nil {
			t.Errorf("SequenceAt %d s = %d, %v, want %d", seconds, got, err, want)
		}
	}
}

func testMaxArtifacts(t *testing.T, s history.Store) {
	limits := history.Limits{MaxArtifacts: 10}
	for i := 1; i <= 300; i++ {
		fill(t, s, "a", limits, i, i)
		b := bounds(t, s, "a")
		held := min(i, 10)
		if int(b.First) != i+1-held || int(b.Next) != i+1 || b.Artifacts != held {
			t.Fatalf("after %d: %+v", i, b)
		}
		check(t, "sequences", firsts(t, s, "a"), numbers(i+1-held, i))
	}
	if err := s.Retain(after(300), func(string) history.Limits { return history.Limits{MaxArtifacts: 4} }); err != nil {
		t.Fatal(err)
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 297, Next: 301, Artifacts: 4, Bytes: 32, Oldest: after(297), Newest: after(300)})
	check(t, "sequences", firsts(t, s, "a"), numbers(297, 300))
	mustAppend(t, s, after(301), "a", limits, history.Run{First: 301, Count: 30, Body: body(1)})
	check(t, "bounds of one large run", bounds(t, s, "a").First, wire.Sequence(321))
	check(t, "sequences of one large run", firsts(t, s, "a"), []int{301})
}

func testMaxArtifactsZero(t *testing.T, s history.Store) {
	fill(t, s, "a", history.Limits{}, 1, 5)
	b, ok, _ := s.Bounds("a")
	check(t, "bounds", b, history.Bounds{First: 6, Next: 6})
	check(t, "ok", ok, true)
	fill(t, s, "a", roomy, 6, 8)
	check(t, "sequences", firsts(t, s, "a"), numbers(6, 8))
	fill(t, s, "a", history.Limits{}, 9, 9)
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 10, Next: 10})
	check(t, "sequences", len(firsts(t, s, "a")), 0)
	if got, _ := s.SequenceAt("a", start); got != 10 {
		t.Errorf("SequenceAt = %d, want 10", got)
	}
}

func testMaxBytes(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 99)
	fill(t, s, "b", roomy, 1, 99)
	err := s.Retain(after(99), func(topic string) history.Limits {
		if topic == "a" {
			return history.Limits{MaxArtifacts: 1000, MaxBytes: 7 * 20}
		}
		return roomy
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 80, Next: 100, Artifacts: 20, Bytes: 140, Oldest: after(80), Newest: after(99)})
	check(t, "sequences", firsts(t, s, "a"), numbers(80, 99))
	check(t, "sequences of the other", firsts(t, s, "b"), numbers(1, 99))
}

func testMaxAge(t *testing.T, s history.Store) {
	limits := history.Limits{MaxArtifacts: 1000, MaxAge: 30 * time.Second}
	fill(t, s, "a", limits, 1, 99)
	retain := func(seconds int) {
		if err := s.Retain(after(seconds), func(string) history.Limits { return limits }); err != nil {
			t.Fatal(err)
		}
	}
	retain(99)
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 69, Next: 100, Artifacts: 31, Bytes: 31 * 7, Oldest: after(69), Newest: after(99)})
	retain(120)
	check(t, "sequences", firsts(t, s, "a"), numbers(90, 99))
	retain(1000)
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 100, Next: 100})
	mustAppend(t, s, after(1000), "a", limits, history.Run{First: 100, Count: 1, Time: after(500)})
	check(t, "bounds with an old run", bounds(t, s, "a"), history.Bounds{First: 101, Next: 101})
}

func testNewestStays(t *testing.T, s history.Store) {
	limits := history.Limits{MaxArtifacts: 1000, MaxBytes: 10}
	for i := 1; i <= 50; i++ {
		mustAppend(t, s, after(i), "a", limits, history.Run{First: wire.Sequence(i), Count: 1, Body: make([]byte, 11)})
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 50, Next: 51, Artifacts: 1, Bytes: 11, Oldest: after(50), Newest: after(50)})
}

func testPurge(t *testing.T, s history.Store) {
	for i := range 33 {
		mustAppend(t, s, after(i), "a", roomy, history.Run{First: wire.Sequence(3*i + 1), Count: 3, Body: body(1)})
	}
	if err := s.Purge("a", 50); err != nil { // the run has 49 to 51
		t.Fatal(err)
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 50, Next: 100, Artifacts: 50, Bytes: 17 * 6, Oldest: after(16), Newest: after(32)})
	check(t, "first runs", firsts(t, s, "a")[:2], []int{49, 52})
	if err := s.Purge("a", 20); err != nil {
		t.Fatal(err)
	}
	check(t, "first after an earlier purge", bounds(t, s, "a").First, wire.Sequence(50))
}

func testPurgeAll(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 99)
	if err := s.Purge("a", 1000); err != nil {
		t.Fatal(err)
	}
	check(t, "bounds", bounds(t, s, "a"), history.Bounds{First: 100, Next: 100})
	fill(t, s, "a", roomy, 100, 101)
	check(t, "sequences", firsts(t, s, "a"), numbers(100, 101))
}

func testClear(t *testing.T, s history.Store) {
	fill(t, s, "a", roomy, 1, 50)
	fill(t, s, "b", roomy, 1, 50)
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := s.Bounds("a"); ok {
		t.Error("a topic is left")
	}
	check(t, "topics", topics(t, s), []string(nil))
	fill(t, s, "b", roomy, 1, 2)
	check(t, "sequences", firsts(t, s, "b"), numbers(1, 2))
}

func topics(t *testing.T, s history.Store) []string {
	t.Helper()
	var names []string
	if err := s.Topics(func(topic string, b history.Bounds) bool {
		names = append(names, topic)
		if got := bounds(t, s, topic); got != b {
			t.Errorf("bounds of %q: %+v, want %+v", topic, got, b)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func testTopics(t *testing.T, s history.Store) {
	want := []string{"", "a", "a/b", "ünï/\x00\xff"}
	for i, topic := range want {
		fill(t, s, topic, roomy, 1, i+1)
	}
	check(t, "topics", topics(t, s), want)
	for i, topic := range want {
		check(t, "sequences", firsts(t, s, topic), numbers(1, i+1))
	}
	visited := 0
	if err := s.Topics(func(string, history.Bounds) bool { visited++; return visited < 2 }); err != nil {
		t.Fatal(err)
	}
	check(t, "visited", visited, 2)
}

func testCopies(t *testing.T, s history.Store) {
	b := []byte("as it was")
	mustAppend(t, s, start, "a", roomy, history.Run{First: 1, Count: 1, Body: b})
	copy(b, "something")
	runs, _ := Read(t, s, "a", 1, 1000)
	check(t, "body", string(runs[0].Body), "as it was")
}

func testManyRuns(t *testing.T, s history.Store) {
	limits := history.Limits{MaxArtifacts: 1 << 20}
	fill(t, s, "a", limits, 1, 3000)
	limits.MaxArtifacts = 500
	if err := s.Retain(after(3000), func(string) history.Limits { return limits }); err != nil {
		t.Fatal(err)
	}
	want := bounds(t, s, "a")
	check(t, "bounds", want, history.Bounds{First: 2501, Next: 3001, Artifacts: 500, Bytes: 4500, Oldest: after(2501), Newest: after(3000)})
	check(t, "sequences", firsts(t, s, "a"), numbers(2501, 3000))
	if got, err := s.SequenceAt("a", start); got != 2501 || err != nil {
		t.Errorf("SequenceAt = %d, %v", got, err)
	}
	limits.MaxAge = 100 * time.Second
	if err := s.Retain(after(3000), func(string) history.Limits { return limits }); err != nil {
		t.Fatal(err)
	}
	check(t, "sequences", firsts(t, s, "a"), numbers(2900, 3000))
}

func testOddRuns(t *testing.T, s history.Store) {
	for i := 1; i <= 20; i++ {
		r := history.Run{First: wire.Sequence(2*i - 1), Count: 2, From: wire.ClientID(bytes.Repeat([]byte{'p'}, 20*i))}
		if i%3 == 0 {
			r.Body = bytes.Repeat([]byte{byte(i)}, i*10_000)
		}
		mustAppend(t, s, after(i), "a", roomy, r)
	}
	runs, next := Read(t, s, "a", 1, 1<<30)
	check(t, "next", next, wire.Sequence(41))
	for i, r := range runs {
		i++
		size := 0
		if i%3 == 0 {
			size = i * 10_000
		}
		if len(r.From) != 20*i || !bytes.Equal(r.Body, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Errorf("run %d: publisher of %d bytes, body of %d", r.First, len(r.From), len(r.Body))
		}
	}
}

// testConcurrent is for the race detector, and checks that readers see whole
// runs without holes inside one call.
func testConcurrent(t *testing.T, s history.Store) {
	const last = 6000
	limits := history.Limits{MaxArtifacts: 300, MaxBytes: 20 << 10}
	var wg sync.WaitGroup
	wg.Go(func() {
		for next, i := wire.Sequence(1), 0; next <= last; i++ {
			count := 1 + i%3
			b := bytes.Repeat([]byte{byte(i)}, i%200+1) // all bytes are the same
			if err := s.Append(after(i), "a", limits, history.Run{First: next, Count: count, Body: b}); err != nil {
				t.Error(err)
				return
			}
			if i%500 == 499 {
				if err := s.Purge("a", next); err != nil {
					t.Error(err)
				}
			}
			next += wire.Sequence(count)
		}
	})
	for range 3 {
		wg.Go(func() {
			for next := wire.Sequence(1); next <= last; {
				var expect wire.Sequence
				from := next
				got, err := s.Read("a", from, 4<<10, func(r history.Run) {
					if expect != 0 && r.First != expect {
						t.Errorf("run starts at %d, want %d", r.First, expect)
					}
					expect = r.First + wire.Sequence(r.Count)
					if !bytes.Equal(r.Body, bytes.Repeat(r.Body[:1], len(r.Body))) {
						t.Errorf("body of %d was overwritten", r.First)
					}
				})
				if err != nil || expect != 0 && got != expect {
					t.Errorf("Read from %d = %d, %v, want %d", from, got, err, expect)
					return
				}
				next = got
				if _, err := s.SequenceAt("a", after(int(next)/2)); err != nil {
					t.Error(err)
					return
				}
				b, _, err := s.Bounds("a")
				if err != nil || b.First > b.Next {
					t.Errorf("Bounds = %+v, %v", b, err)
				}
			}
		})
	}
	wg.Wait()
}
