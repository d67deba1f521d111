package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// start is where the tests' clock begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// after returns the time that many seconds after the start.
func after(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func readAll(l *Log, from wire.Sequence, maxBytes int) (runs []Run, next wire.Sequence) {
	next = l.Read(from, maxBytes, func(r Run) { runs = append(runs, r) })
	return runs, next
}

func TestRetention(t *testing.T) {
	type step struct {
		at    int // seconds
		count int // zero: expire only
		size  int
	}
	tests := map[string]struct {
		limits Limits
		steps  []step
		want   Bounds
	}{
		"a new log is empty and starts at one": {
			limits: Limits{MaxArtifacts: 10},
			want:   Bounds{First: 1, Next: 1},
		},
		"within the limits everything stays": {
			limits: Limits{MaxArtifacts: 10},
			steps:  []step{{0, 4, 40}, {1, 6, 60}},
			want:   Bounds{First: 1, Next: 11, Artifacts: 10, Bytes: 100, Oldest: after(0), Newest: after(1)},
		},
		"a run stays while a part of it can be read": {
			limits: Limits{MaxArtifacts: 10},
			steps:  []step{{0, 4, 40}, {1, 6, 60}, {2, 3, 30}},
			want:   Bounds{First: 4, Next: 14, Artifacts: 10, Bytes: 130, Oldest: after(0), Newest: after(2)},
		},
		"a run goes when those after it are enough": {
			limits: Limits{MaxArtifacts: 10},
			steps:  []step{{0, 4, 40}, {1, 6, 60}, {2, 4, 30}},
			want:   Bounds{First: 5, Next: 15, Artifacts: 10, Bytes: 90, Oldest: after(1), Newest: after(2)},
		},
		"of a newest run over the count only the end can be read": {
			limits: Limits{MaxArtifacts: 10},
			steps:  []step{{0, 4, 40}, {1, 25, 60}},
			want:   Bounds{First: 20, Next: 30, Artifacts: 10, Bytes: 60, Oldest: after(1), Newest: after(1)},
		},
		"bytes are a hard bound": {
			limits: Limits{MaxArtifacts: 100, MaxBytes: 100},
			steps:  []step{{0, 1, 40}, {1, 1, 60}, {2, 1, 1}},
			want:   Bounds{First: 2, Next: 4, Artifacts: 2, Bytes: 61, Oldest: after(1), Newest: after(2)},
		},
		"the newest run stays when it alone is over the bytes": {
			limits: Limits{MaxArtifacts: 100, MaxBytes: 100},
			steps:  []step{{0, 1, 40}, {1, 2, 101}},
			want:   Bounds{First: 2, Next: 4, Artifacts: 2, Bytes: 101, Oldest: after(1), Newest: after(1)},
		},
		"a run of exactly the highest age stays": {
			limits: Limits{MaxArtifacts: 100, MaxAge: 10 * time.Second},
			steps:  []step{{0, 1, 40}, {1, 1, 60}, {11, 0, 0}},
			want:   Bounds{First: 2, Next: 3, Artifacts: 1, Bytes: 60, Oldest: after(1), Newest: after(1)},
		},
		"age takes the newest run too, and no sequence comes back": {
			limits: Limits{MaxArtifacts: 100, MaxAge: 10 * time.Second},
			steps:  []step{{0, 1, 40}, {1, 1, 60}, {12, 0, 0}},
			want:   Bounds{First: 3, Next: 3},
		},
		"an append applies the age as well": {
			limits: Limits{MaxArtifacts: 100, MaxAge: 10 * time.Second},
			steps:  []step{{0, 1, 40}, {20, 1, 60}},
			want:   Bounds{First: 2, Next: 3, Artifacts: 1, Bytes: 60, Oldest: after(20), Newest: after(20)},
		},
		"a clock that goes back does not make a run older than the one before": {
			limits: Limits{MaxArtifacts: 100, MaxAge: 10 * time.Second},
			steps:  []step{{5, 1, 40}, {0, 1, 60}, {14, 0, 0}},
			want:   Bounds{First: 1, Next: 3, Artifacts: 2, Bytes: 100, Oldest: after(5), Newest: after(5)},
		},
		"no artifacts kept still counts sequences": {
			steps: []step{{0, 4, 40}, {1, 6, 60}},
			want:  Bounds{First: 11, Next: 11},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLog(tt.limits, 1)
			next := wire.Sequence(1)
			for _, s := range tt.steps {
				if s.count == 0 {
					l.Expire(after(s.at))
					continue
				}
				if got := l.Append(after(s.at), "a", s.count, make([]byte, s.size)); got != next {
					t.Fatalf("Append = %d, want %d", got, next)
				}
				next += wire.Sequence(s.count)
			}
			if diff := cmp.Diff(tt.want, l.Bounds()); diff != "" {
				t.Errorf("Bounds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpireCountsWhatCanNotBeReadAnyMore(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 10, MaxAge: time.Minute}, 1)
	l.Append(after(0), "a", 8, make([]byte, 80)) // two of these are over the count
	l.Append(after(1), "a", 4, make([]byte, 40))
	artifacts, size := l.Expire(after(61))
	if artifacts != 6 || size != 80 {
		t.Errorf("Expire = %d artifacts and %d bytes, want 6 and 80", artifacts, size)
	}
	if artifacts, size = l.Expire(after(61)); artifacts != 0 || size != 0 {
		t.Errorf("second Expire = %d artifacts and %d bytes, want none", artifacts, size)
	}
}

func TestSetLimits(t *testing.T) {
	tests := map[string]struct {
		limits Limits
		want   Bounds
	}{
		"fewer artifacts": {Limits{MaxArtifacts: 3}, Bounds{First: 8, Next: 11, Artifacts: 3, Bytes: 20, Oldest: after(3), Newest: after(4)}},
		"fewer bytes":     {Limits{MaxArtifacts: 10, MaxBytes: 35}, Bounds{First: 5, Next: 11, Artifacts: 6, Bytes: 30, Oldest: after(2), Newest: after(4)}},
		"a lower age":     {Limits{MaxArtifacts: 10, MaxAge: time.Second}, Bounds{First: 9, Next: 11, Artifacts: 2, Bytes: 10, Oldest: after(4), Newest: after(4)}},
		"none":            {Limits{}, Bounds{First: 11, Next: 11}},
	}
	for name, tt := range tests {
		t.Run(name+" take what is over at once", func(t *testing.T) {
			l := NewLog(Limits{MaxArtifacts: 100}, 1)
			for i := range 5 {
				l.Append(after(i), "a", 2, make([]byte, 10))
			}
			l.SetLimits(after(5), tt.limits)
			if diff := cmp.Diff(tt.want, l.Bounds()); diff != "" {
				t.Errorf("Bounds (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.limits, l.Limits()); diff != "" {
				t.Errorf("Limits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRead(t *testing.T) {
	// Runs 1-3 and 4-5 and 6, of 30, 20 and 10 bytes; of the first, 3 alone is
	// within the count.
	l := NewLog(Limits{MaxArtifacts: 4}, 1)
	l.Append(after(0), "a", 3, make([]byte, 30))
	l.Append(after(1), "b", 2, make([]byte, 20))
	l.Append(after(2), "a", 1, make([]byte, 10))

	tests := map[string]struct {
		from     wire.Sequence
		maxBytes int
		want     []wire.Sequence // the runs' firsts
		next     wire.Sequence
	}{
		"from before the log's first":         {0, 100, []wire.Sequence{1, 4, 6}, 7},
		"from what can't be read any more":    {2, 100, []wire.Sequence{1, 4, 6}, 7},
		"from inside a run":                   {5, 100, []wire.Sequence{4, 6}, 7},
		"from the newest":                     {6, 100, []wire.Sequence{6}, 7},
		"from the one that comes next":        {7, 100, nil, 7},
		"from the future":                     {70, 100, nil, 70},
		"bytes end it before a run":           {1, 59, []wire.Sequence{1, 4}, 6},
		"bytes that fit exactly":              {1, 60, []wire.Sequence{1, 4, 6}, 7},
		"one run at least, whatever the size": {1, 1, []wire.Sequence{1}, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			runs, next := readAll(l, tt.from, tt.maxBytes)
			var got []wire.Sequence
			for _, r := range runs {
				got = append(got, r.First)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || next != tt.next {
				t.Errorf("Read = next %d, want %d, runs (-want +got):\n%s", next, tt.next, diff)
			}
		})
	}
}

func TestReadGivesBackWhatWasAppended(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 100}, 7)
	body := []byte("one and two")
	l.Append(after(0), "alice", 2, body)
	copy(body, "overwritten") // the log must have its own copy
	l.Append(after(1), "bob", 1, nil)
	want := []Run{
		{First: 7, Count: 2, From: "alice", Time: after(0), Body: []byte("one and two")},
		{First: 9, Count: 1, From: "bob", Time: after(1)},
	}
	runs, _ := readAll(l, 1, 100)
	if diff := diffRuns(want, runs); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
}

func TestSequenceAt(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 4}, 1)
	if got := l.SequenceAt(after(0)); got != 1 {
		t.Errorf("SequenceAt in an empty log = %d, want 1", got)
	}
	l.Append(after(10), "a", 3, nil)
	l.Append(after(20), "a", 2, nil)
	l.Append(after(20), "a", 1, nil)
	tests := map[string]struct {
		at   time.Time
		want wire.Sequence
	}{
		"before everything":     {time.Time{}, 3}, // 1 and 2 can't be read
		"at the first append":   {after(10), 3},
		"between two":           {after(11), 4},
		"at two of one instant": {after(20), 4},
		"after everything":      {after(21), 7},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := l.SequenceAt(tt.at); got != tt.want {
				t.Errorf("SequenceAt(%v) = %d, want %d", tt.at, got, tt.want)
			}
		})
	}
}

func TestAppendAt(t *testing.T) {
	tests := map[string]struct {
		appended int // artifacts in the log before
		run      Run
		refused  error
		want     Bounds
	}{
		"into a new log anywhere": {
			run:  Run{First: 50, Count: 2, Time: after(1), Body: []byte("x")},
			want: Bounds{First: 50, Next: 52, Artifacts: 2, Bytes: 1, Oldest: after(1), Newest: after(1)},
		},
		"exactly next": {
			appended: 3,
			run:      Run{First: 4, Count: 2, Time: after(1), Body: []byte("x")},
			want:     Bounds{First: 1, Next: 6, Artifacts: 5, Bytes: 1, Oldest: after(0), Newest: after(1)},
		},
		"a time in the future counts as now": {
			run:  Run{First: 1, Count: 1, Time: after(100)},
			want: Bounds{First: 1, Next: 2, Artifacts: 1, Oldest: after(2), Newest: after(2)},
		},
		"no time counts as now": {
			run:  Run{First: 1, Count: 1},
			want: Bounds{First: 1, Next: 2, Artifacts: 1, Oldest: after(2), Newest: after(2)},
		},
		"a hole is refused": {
			appended: 3,
			run:      Run{First: 5, Count: 1},
			refused:  &OrderError{First: 5, Next: 4},
			want:     Bounds{First: 1, Next: 4, Artifacts: 3, Oldest: after(0), Newest: after(0)},
		},
		"a repeat is refused": {
			appended: 3,
			run:      Run{First: 3, Count: 1},
			refused:  &OrderError{First: 3, Next: 4},
			want:     Bounds{First: 1, Next: 4, Artifacts: 3, Oldest: after(0), Newest: after(0)},
		},
		"sequences that wrap around are refused": {
			run:     Run{First: 1<<64 - 1, Count: 2},
			refused: &OrderError{First: 1<<64 - 1, Next: 1},
			want:    Bounds{First: 1, Next: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := NewLog(Limits{MaxArtifacts: 100}, 1)
			l.Append(after(0), "a", tt.appended, nil)
			err := l.AppendAt(after(2), tt.run)
			if diff := cmp.Diff(tt.refused, err); diff != "" {
				t.Errorf("AppendAt error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, l.Bounds()); diff != "" {
				t.Errorf("Bounds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendAtNeverReusesSequencesThatAgeTook(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 100, MaxAge: time.Second}, 1)
	l.Append(after(0), "a", 9, nil)
	l.Expire(after(10))
	err := l.AppendAt(after(10), Run{First: 5, Count: 1})
	var order *OrderError
	if !errors.As(err, &order) || order.Next != 10 {
		t.Errorf("AppendAt = %v, want an OrderError for 10", err)
	}
	if err := l.AppendAt(after(10), Run{First: 1}); err == nil {
		t.Error("a run without artifacts was taken")
	}
}

func TestALogTakenOverIsTheSame(t *testing.T) {
	limits := Limits{MaxArtifacts: 1000, MaxAge: time.Hour}
	from, to := NewLog(limits, 1), NewLog(limits, 1)
	for i := range 2000 {
		from.Append(after(i), fmt.Sprint("p", i%3), 1+i%4, bytes.Repeat([]byte{byte(i)}, i%300))
	}
	for next, end := wire.Sequence(1), from.Bounds().Next; next < end; {
		next = from.Read(next, 5000, func(r Run) {
			if err := to.AppendAt(after(3000), r); err != nil {
				t.Fatal(err)
			}
		})
	}
	want, _ := readAll(from, 1, 1<<30)
	got, _ := readAll(to, 1, 1<<30)
	if diff := diffRuns(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(from.Bounds(), to.Bounds()); diff != "" {
		t.Errorf("Bounds (-want +got):\n%s", diff)
	}
}

// TestConcurrentAppendAndRead is for the race detector, and checks that
// readers see whole runs without holes inside one call.
func TestConcurrentAppendAndRead(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 300, MaxBytes: 20 << 10}, 1)
	const last = 20000
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := 0; l.Bounds().Next <= last; i++ {
				// The body says how it has to be: all bytes equal its length.
				size := (i*7 + w) % 200
				l.Append(after(i), "p", 1+i%3, bytes.Repeat([]byte{byte(size)}, size))
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for next := wire.Sequence(1); next <= last; {
				var expect wire.Sequence
				next = l.Read(next, 4<<10, func(r Run) {
					if expect != 0 && r.First != expect {
						t.Errorf("run starts at %d, want %d", r.First, expect)
					}
					expect = r.First + wire.Sequence(r.Count)
					if !bytes.Equal(r.Body, bytes.Repeat([]byte{byte(len(r.Body))}, len(r.Body))) {
						t.Errorf("body of %d bytes was overwritten", len(r.Body))
					}
				})
				if expect != 0 && next != expect {
					t.Errorf("Read = %d, want %d", next, expect)
				}
				l.SequenceAt(after(rand.IntN(100)))
			}
		})
	}
	wg.Wait()
}
