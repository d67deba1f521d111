package durable

import (
	"cmp"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// shared is a policy for work.
var shared = wire.DurablePolicy{Shared: true, AckWait: 10 * time.Second}

func ranges(bounds ...wire.Sequence) (all []wire.Range) {
	for i := 0; i < len(bounds); i += 2 {
		all = append(all, wire.Range{From: bounds[i], To: bounds[i+1]})
	}
	return all
}

func work(bounds ...wire.Sequence) (all []wire.Work) {
	for i := 0; i < len(bounds); i += 3 {
		all = append(all, wire.Work{Range: wire.Range{From: bounds[i], To: bounds[i+1]}, Deliveries: int(bounds[i+2])})
	}
	return all
}

func TestDo(t *testing.T) {
	type step struct {
		after time.Duration // since the start
		do    Request
		want  Grant
	}
	for name, test := range map[string]struct {
		policy wire.DurablePolicy
		steps  []step
	}{
		"members share": {shared, []step{
			{0, Request{Member: "a", Max: 3}, Grant{Given: work(1, 3, 1)}},
			{0, Request{Member: "b", Max: 3}, Grant{Given: work(4, 6, 1)}},
			{0, Request{Member: "a", Acked: ranges(1, 3), Max: 9}, Grant{Given: work(7, 10, 1)}},
			{0, Request{Member: "b", Acked: ranges(4, 6), Max: 9}, Grant{}},
		}},
		"what a silent member has is given to another": {shared, []step{
			{0, Request{Member: "a", Max: 10}, Grant{Given: work(1, 10, 1)}},
			{9 * time.Second, Request{Member: "a", Acked: ranges(2, 2), Held: ranges(3, 4)}, Grant{}},
			{10 * time.Second, Request{Member: "b", Max: 3}, Grant{Given: work(1, 1, 2, 5, 6, 2)}},
			{19 * time.Second, Request{Member: "c", Max: 9}, Grant{Given: work(3, 4, 2, 7, 10, 2)}},
		}},
		"done is done, also by who was late": {shared, []step{
			{0, Request{Member: "a", Max: 10}, Grant{Given: work(1, 10, 1)}},
			{11 * time.Second, Request{Member: "b", Max: 10}, Grant{Given: work(1, 10, 2)}},
			{12 * time.Second, Request{Member: "a", Acked: ranges(1, 10)}, Grant{}},
			{30 * time.Second, Request{Member: "c", Max: 10}, Grant{}},
		}},
		"a failed one rests": {shared, []step{
			{0, Request{Member: "a", Max: 2}, Grant{Given: work(1, 2, 1)}},
			{0, Request{Member: "a", Failed: ranges(1, 1), Held: ranges(2, 2), Max: 1}, Grant{Given: work(3, 3, 1)}},
			{retryMin, Request{Member: "b", Max: 1}, Grant{Given: work(1, 1, 2)}},
			{retryMin, Request{Member: "b", Failed: ranges(1, 1)}, Grant{}},
			{2 * retryMin, Request{Member: "b", Max: 1}, Grant{Given: work(4, 4, 1)}},
			{3 * retryMin, Request{Member: "b", Max: 1}, Grant{Given: work(1, 1, 3)}},
		}},
		"what was given out too often is buried": {wire.DurablePolicy{Shared: true, AckWait: time.Second, MaxDeliveries: 2}, []step{
			{0, Request{Member: "a", Max: 2}, Grant{Given: work(1, 2, 1)}},
			{1 * time.Second, Request{Member: "a", Acked: ranges(1, 1), Max: 1}, Grant{Given: work(2, 2, 2)}},
			{2 * time.Second, Request{Member: "a", Max: 2}, Grant{Given: work(3, 3, 1), Dead: work(2, 2, 2)}},
			{2*time.Second + buryTime, Request{Member: "a", Acked: ranges(3, 3), Max: 1}, Grant{Dead: work(2, 2, 2)}},
			{2*time.Second + buryTime, Bury(wire.DurablePolicy{Shared: true}, work(2, 2, 2)), Grant{}},
			{9*time.Second + 2*buryTime, Request{Member: "a", Max: 1}, Grant{Given: work(4, 4, 1)}},
		}},
		"what was lost on the way does not count": {shared, []step{
			{0, Request{Member: "a", Max: 4}, Grant{Given: work(1, 4, 1)}},
			{0, Request{Member: "a", Held: ranges(2, 2), All: true, Max: 3}, Grant{Given: work(1, 1, 1, 3, 4, 1)}},
			{0, Request{Member: "a", Released: ranges(3, 3)}, Grant{}},
			{0, Request{Member: "b", Max: 1}, Grant{Given: work(3, 3, 1)}},
			{0, Request{Member: "a", Leave: true}, Grant{}},
			{0, Request{Member: "b", Max: 3}, Grant{Given: work(1, 2, 1, 4, 4, 1)}},
		}},
		"one at a time, in order, the next when it is gone": {wire.DurablePolicy{AckWait: 10 * time.Second}, []step{
			{0, Request{Member: "a", Max: 2}, Grant{Given: work(1, 2, 1)}},
			{0, Request{Member: "b", Max: 2}, Grant{}},
			{9 * time.Second, Request{Member: "a", Acked: ranges(1, 1), Held: ranges(2, 2)}, Grant{}},
			{18 * time.Second, Request{Member: "b", Max: 2}, Grant{}},
			{19 * time.Second, Request{Member: "b", Max: 2}, Grant{Given: work(2, 2, 1, 3, 3, 1)}},
		}},
		"the holder leaves": {wire.DurablePolicy{}, []step{
			{0, Request{Member: "a", Max: 2}, Grant{Given: work(1, 2, 1)}},
			{0, Request{Member: "a", Acked: ranges(1, 1), Leave: true}, Grant{}},
			{0, Request{Member: "b", Max: 1}, Grant{Given: work(2, 2, 1)}},
		}},
		"what a silent member has is lost when retention took it": {shared, []step{
			{0, Request{Member: "a", Max: 3}, Grant{Given: work(1, 3, 1)}},
			{9 * time.Second, Request{Member: "b", First: 4, Max: 1}, Grant{Given: work(4, 4, 1)}},
			{10 * time.Second, Request{Member: "b", First: 4, Max: 1}, Grant{Given: work(5, 5, 1), Lost: ranges(1, 3)}},
			{11 * time.Second, Request{Member: "b", First: 4, Max: 1}, Grant{Given: work(6, 6, 1)}},
		}},
		"what fails after retention took it is lost": {shared, []step{
			{0, Request{Member: "a", Max: 2}, Grant{Given: work(1, 2, 1)}},
			{0, Request{Member: "a", Failed: ranges(1, 1), First: 3}, Grant{}},
			{0, Request{Member: "a", Held: ranges(2, 2), All: true, First: 3, Max: 1}, Grant{Given: work(3, 3, 1), Lost: ranges(1, 1)}},
			{0, Request{Member: "a", All: true, First: 4, Max: 1}, Grant{Given: work(4, 4, 1), Lost: ranges(2, 3)}},
		}},
		"a loss is told to who fetches, not to who settles": {shared, []step{
			{0, Request{Member: "a", Max: 1}, Grant{Given: work(1, 1, 1)}},
			{0, Request{Member: "a", Acked: ranges(1, 1), First: 5}, Grant{}},
			{0, Request{Member: "b", First: 5, Max: 1}, Grant{Given: work(5, 5, 1), Lost: ranges(2, 4)}},
		}},
		"who waits for the holder is told of no loss": {wire.DurablePolicy{AckWait: 10 * time.Second}, []step{
			{0, Request{Member: "a", Max: 1}, Grant{Given: work(1, 1, 1)}},
			{0, Request{Member: "b", First: 5, Max: 1}, Grant{}},
			{0, Request{Member: "a", First: 5, Acked: ranges(1, 1), Max: 1}, Grant{Given: work(5, 5, 1), Lost: ranges(2, 4)}},
		}},
		"what the filter refuses is settled": {shared, []step{
			{0, Request{Member: "a", Max: 3, Until: 7, Refused: ranges(1, 2, 4, 4, 6, 6)}, Grant{Given: work(3, 3, 1, 5, 5, 1)}},
			{0, Request{Member: "b", Max: 2, Until: 8, Refused: ranges(2, 6)}, Grant{Given: work(7, 7, 1)}},
			{0, Request{Member: "b", Max: 2, Until: 5, Refused: ranges(1, 4)}, Grant{}},
			{0, Request{Member: "b", Max: 1, Until: 11, Refused: ranges(8, 8)}, Grant{Given: work(9, 9, 1)}},
			{0, Request{Member: "a", Released: ranges(3, 3)}, Grant{}},
			{0, Request{Member: "b", Max: 9, Until: 11, Refused: ranges(10, 10)}, Grant{Given: work(3, 3, 1)}},
			{0, Request{Member: "b", Max: 9, Until: 20}, Grant{}},
		}},
		"retention tells what nobody had": {shared, []step{
			{0, Request{Member: "a", Max: 3}, Grant{Given: work(1, 3, 1)}},
			{0, Request{Member: "a", Released: ranges(2, 2)}, Grant{}},
			{0, Request{Member: "b", First: 6, Max: 2}, Grant{Given: work(6, 7, 1), Lost: ranges(2, 2, 4, 5)}},
			{0, Request{Member: "b", First: 6, Acked: ranges(1, 3), Max: 2}, Grant{Given: work(8, 9, 1)}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(1)
			for i, step := range test.steps {
				step.do.Policy = test.policy
				got := s.Do(start.Add(step.after), 11, step.do)
				if !reflect.DeepEqual(got, step.want) {
					t.Fatalf("step %d: got %+v, want %+v", i+1, got, step.want)
				}
			}
		})
	}
}

// one is the state of one artifact in the plain model: what Subscription says of
// stretches, said of each alone.
type one struct {
	settled    bool
	member     string
	until      time.Time
	deliveries int
}

type plain struct {
	ackWait time.Duration
	tries   int
	all     []one // by sequence - 1, up to what was given out
}

func in(seq int, ranges []wire.Range) bool {
	return slices.ContainsFunc(ranges, func(r wire.Range) bool { return r.From <= wire.Sequence(seq) && wire.Sequence(seq) <= r.To })
}

// do returns what is given out and what is dead, one by one.
func (p *plain) do(now time.Time, end int, r Request) (given, dead []wire.Work) {
	for i := range p.all {
		a, seq := &p.all[i], i+1
		if in(seq, r.Acked) {
			a.settled = true
		}
		if in(seq, r.Failed) && a.member == r.Member {
			a.member, a.until = "", now.Add(min(retryMin<<(a.deliveries-1), p.ackWait))
		}
		if in(seq, r.Released) && a.member == r.Member || a.member == r.Member && (r.All && !in(seq, r.Held) || r.Leave) {
			a.member, a.until = "", time.Time{}
			a.deliveries--
		}
		if in(seq, r.Held) && a.member == r.Member {
			a.until = now.Add(p.ackWait)
		}
	}
	left := r.Max
	if r.Leave {
		left = 0
	}
	for i := range p.all {
		a := &p.all[i]
		if left == 0 || a.settled || now.Before(a.until) {
			continue
		}
		left--
		w := wire.Work{Range: wire.Range{From: wire.Sequence(i + 1), To: wire.Sequence(i + 1)}, Deliveries: a.deliveries}
		if p.tries > 0 && a.deliveries >= p.tries {
			a.member, a.until = gravedigger, now.Add(buryTime)
			dead = append(dead, w)
			continue
		}
		a.member, a.until = r.Member, now.Add(p.ackWait)
		a.deliveries++
		w.Deliveries++
		given = append(given, w)
	}
	for ; left > 0 && len(p.all)+1 < end; left-- {
		p.all = append(p.all, one{member: r.Member, until: now.Add(p.ackWait), deliveries: 1})
		at := wire.Sequence(len(p.all))
		given = append(given, wire.Work{Range: wire.Range{From: at, To: at}, Deliveries: 1})
	}
	return given, dead
}

func singly(all []wire.Work) (single []wire.Work) {
	for _, w := range all {
		for seq := w.From; seq <= w.To; seq++ {
			single = append(single, wire.Work{Range: wire.Range{From: seq, To: seq}, Deliveries: w.Deliveries})
		}
	}
	slices.SortFunc(single, func(a, b wire.Work) int { return cmp.Compare(a.From, b.From) })
	return single
}

// Random requests lead to what a model says that keeps each artifact by itself.
func TestDoIsWhatThePlainModelSays(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		policy := wire.DurablePolicy{Shared: true, AckWait: time.Second, MaxDeliveries: rng.IntN(4)}
		s, m := New(1), &plain{ackWait: policy.AckWait, tries: policy.MaxDeliveries}
		end, now := 1, start
		some := func() (all []wire.Range) {
			for range rng.IntN(4) {
				from := wire.Sequence(rng.IntN(end) + 1)
				all = append(all, wire.Range{From: from, To: from + wire.Sequence(rng.IntN(6))})
			}
			return all
		}
		for step := range 400 {
			now = now.Add(time.Duration(rng.IntN(300)) * time.Millisecond)
			end += rng.IntN(4)
			r := Request{Member: string(rune('a' + rng.IntN(3))), Policy: policy, Max: rng.IntN(8)}
			switch rng.IntN(8) {
			case 0:
				r.Failed = some()
			case 1:
				r.Released = some()
			case 2:
				r.All, r.Held = true, some()
			case 3:
				r.Leave = true
			case 4:
				r.Held = some()
			default:
				r.Acked = some()
			}
			got := s.Do(now, wire.Sequence(end), r)
			given, dead := m.do(now, end, r)
			if !reflect.DeepEqual(singly(got.Given), given) || !reflect.DeepEqual(singly(got.Dead), dead) {
				t.Fatalf("seed %d, step %d, %+v:\ngot  %+v\nwant given %+v, dead %+v", seed, step, r, got, given, dead)
			}
			open := 0
			for _, a := range m.all {
				if !a.settled {
					open++
				}
			}
			info := s.Info(now, "t", "d", 1, wire.Sequence(end))
			if have := info.InFlight + int(info.Pending) - (end - 1 - len(m.all)); have != open {
				t.Fatalf("seed %d, step %d: %d artifacts are open, want %d", seed, step, have, open)
			}
		}
	}
}

// People see what is lost before any member comes to hear of it.
func TestInfoCountsWhatIsLost(t *testing.T) {
	s := New(1)
	s.Do(start, 11, Request{Member: "a", Policy: shared, Max: 4})
	check := func(what string, first wire.Sequence, lost, pending uint64, position wire.Sequence) {
		t.Helper()
		info := s.Info(start, "t", "d", first, 11)
		if info.Lost != lost || info.Pending != pending || info.Position != position {
			t.Errorf("%s: lost %d, pending %d, position %d; want %d, %d, %d", what, info.Lost, info.Pending, info.Position, lost, pending, position)
		}
	}
	check("all is there", 1, 0, 6, 1)
	check("5 to 7 have gone", 8, 3, 3, 1)
	s.Do(start, 11, Request{Member: "a", Policy: shared, Acked: ranges(1, 3), First: 8})
	check("4 is still worked on", 8, 3, 3, 4)
	s.Do(start, 11, Request{Member: "a", Policy: shared, Failed: ranges(4, 4), First: 8})
	check("4 failed", 8, 4, 3, 8)
	s.Do(start, 11, Request{Member: "a", Policy: shared, Max: 9, First: 9})
	check("told, and 8 with it", 9, 5, 0, 9)
	check("all has gone that is worked on", 11, 5, 0, 9)
}

func TestLook(t *testing.T) {
	s := New(1)
	policy := wire.DurablePolicy{AckWait: 10 * time.Second}
	check := func(member string, end wire.Sequence, after time.Duration, want bool, due time.Time) {
		t.Helper()
		if o := s.Look(start.Add(after), end, member); (o.Again || o.New) != want || !o.Due.Equal(due) {
			t.Fatalf("got %+v; want %v, due %v", o, want, due)
		}
	}
	check("a", 1, 0, false, time.Time{})
	check("a", 2, 0, true, time.Time{})
	s.Do(start, 2, Request{Member: "a", Policy: policy, Max: 5})
	until := start.Add(policy.AckWait)
	check("a", 2, 0, false, until)
	check("b", 3, 0, false, until)
	check("b", 3, policy.AckWait, true, time.Time{})
}
