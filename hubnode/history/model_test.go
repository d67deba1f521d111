package history

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// model is a log as plainly as it can be said: a slice of runs.
type model struct {
	limits Limits
	next   wire.Sequence
	runs   []Run
	newest time.Time
}

func (m *model) append(now time.Time, from string, count int, body []byte) wire.Sequence {
	if now.After(m.newest) {
		m.newest = now
	}
	run := Run{First: m.next, Count: count, From: from, Time: m.newest, Body: append([]byte(nil), body...)}
	m.runs = append(m.runs, run)
	m.next += wire.Sequence(count)
	m.retain(now)
	return run.First
}

func (m *model) expire(now time.Time) {
	for m.limits.MaxAge > 0 && len(m.runs) > 0 && now.Sub(m.runs[0].Time) > m.limits.MaxAge {
		m.runs = m.runs[1:]
	}
}

func (m *model) retain(now time.Time) {
	if m.limits.MaxArtifacts == 0 {
		m.runs = nil
	}
	m.expire(now)
	for len(m.runs) > 1 {
		artifacts, _ := total(m.runs[1:])
		_, size := total(m.runs)
		if artifacts < m.limits.MaxArtifacts && (m.limits.MaxBytes == 0 || size <= m.limits.MaxBytes) {
			return
		}
		m.runs = m.runs[1:]
	}
}

func total(runs []Run) (artifacts int, size int64) {
	for _, r := range runs {
		artifacts += r.Count
		size += int64(len(r.Body))
	}
	return artifacts, size
}

func (m *model) bounds() Bounds {
	artifacts, size := total(m.runs)
	artifacts = min(artifacts, m.limits.MaxArtifacts)
	b := Bounds{First: m.next - wire.Sequence(artifacts), Next: m.next, Artifacts: artifacts, Bytes: size}
	if len(m.runs) > 0 {
		b.Oldest, b.Newest = m.runs[0].Time, m.newest
	}
	return b
}

func (m *model) read(from wire.Sequence, maxBytes int) (runs []Run, next wire.Sequence) {
	from = max(from, m.bounds().First)
	next = from
	for _, r := range m.runs {
		end := r.First + wire.Sequence(r.Count)
		if end <= from {
			continue
		}
		if maxBytes -= len(r.Body); maxBytes < 0 && len(runs) > 0 {
			break
		}
		runs = append(runs, r)
		next = end
	}
	return runs, next
}

func (m *model) sequenceAt(t time.Time) wire.Sequence {
	for _, r := range m.runs {
		if !r.Time.Before(t) {
			return max(r.First, m.bounds().First)
		}
	}
	return m.next
}

// diffRuns is cmp.Diff, but fast when there is no difference.
func diffRuns(want, got []Run) string {
	if slices.EqualFunc(want, got, func(a, b Run) bool {
		return a.First == b.First && a.Count == b.Count && a.From == b.From && a.Time.Equal(b.Time) && bytes.Equal(a.Body, b.Body)
	}) {
		return ""
	}
	return cmp.Diff(want, got, cmp.Comparer(bytes.Equal))
}

func TestLogBehavesLikeItsModel(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			checkAgainstModel(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func checkAgainstModel(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	limits := func() Limits {
		l := Limits{MaxArtifacts: rnd.IntN(200)}
		if rnd.IntN(2) == 0 {
			l.MaxBytes = rnd.Int64N(20_000)
		}
		if rnd.IntN(2) == 0 {
			l.MaxAge = time.Duration(rnd.IntN(100)) * time.Second
		}
		return l
	}
	m := &model{limits: limits(), next: 1}
	l := NewLog(m.limits, 1)
	largest := 1 + rnd.IntN(1000)
	now := start
	for range 400 {
		now = now.Add(time.Duration(rnd.IntN(3000)-500) * time.Millisecond)
		switch rnd.IntN(10) {
		case 0:
			limits := limits()
			l.SetLimits(now, limits)
			m.limits = limits
			m.retain(now)
		case 1:
			before := m.bounds()
			m.expire(now)
			artifacts, size := l.Expire(now)
			if after := m.bounds(); artifacts != int(after.First-before.First) || size != before.Bytes-after.Bytes {
				t.Fatalf("Expire = %d, %d; want %d, %d", artifacts, size, after.First-before.First, before.Bytes-after.Bytes)
			}
		default:
			body := bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(largest))
			from, count := fmt.Sprint("client-", rnd.IntN(30)), 1+rnd.IntN(20)
			if got, want := l.Append(now, from, count, body), m.append(now, from, count, body); got != want {
				t.Fatalf("Append = %d, want %d", got, want)
			}
		}
		if m.limits.MaxArtifacts == 0 {
			m.newest = unixNano(l.newest) // nobody can see it
		}
		if want, got := m.bounds(), l.Bounds(); want != got {
			t.Fatalf("Bounds (-want +got):\n%s", cmp.Diff(want, got))
		}
		from, maxBytes := m.next+5-wire.Sequence(rnd.Uint64N(min(uint64(m.next)+5, 300))), rnd.IntN(10_000)
		want, wantNext := m.read(from, maxBytes)
		got, next := readAll(l, from, maxBytes)
		if diff := diffRuns(want, got); diff != "" || next != wantNext {
			t.Fatalf("Read(%d, %d) = next %d, want %d, runs (-want +got):\n%s", from, maxBytes, next, wantNext, diff)
		}
		at := now.Add(-time.Duration(rnd.IntN(200)) * time.Second)
		if got, want := l.SequenceAt(at), m.sequenceAt(at); got != want {
			t.Fatalf("SequenceAt = %d, want %d", got, want)
		}
	}
}
