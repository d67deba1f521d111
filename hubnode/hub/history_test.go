package hub_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestWhereASubscriptionStarts(t *testing.T) {
	for name, test := range map[string]struct {
		want     wire.Subscription
		position wire.Sequence
		from     wire.Sequence // 0: nothing of what was there
		gapTo    wire.Sequence // 0: no gap
	}{
		"new":                  {wire.Subscription{Since: wire.SinceNew}, 11, 0, 0},
		"by default":           {wire.Subscription{}, 11, 0, 0},
		"all":                  {wire.Subscription{Since: wire.SinceAll}, 4, 4, 0},
		"last":                 {wire.Subscription{Since: wire.SinceLast}, 10, 10, 0},
		"a sequence":           {wire.Subscription{Since: wire.SinceSequence, Sequence: 6}, 6, 6, 0},
		"a sequence that aged": {wire.Subscription{Since: wire.SinceSequence, Sequence: 2}, 2, 4, 3},
		"a future sequence":    {wire.Subscription{Since: wire.SinceSequence, Sequence: 99}, 11, 0, 0},
		"an age":               {wire.Subscription{Since: wire.SinceAge, Age: time.Hour}, 4, 4, 0},
		"an age of nothing":    {wire.Subscription{Since: wire.SinceAge, Age: 0}, 11, 0, 0},
		"a position":           {wire.Subscription{Positions: map[string]wire.Sequence{"kept": 8}}, 8, 8, 0},
		"a position that aged": {wire.Subscription{Positions: map[string]wire.Sequence{"kept": 3}}, 3, 4, 3},
		"a new topic":          {wire.Subscription{Positions: map[string]wire.Sequence{"other": 1}}, 1, 4, 3},
		"a position behind":    {wire.Subscription{Positions: map[string]wire.Sequence{"kept": 99}}, 4, 4, 0},
	} {
		for _, pattern := range []string{"kept", ">"} {
			t.Run(name+" of "+pattern, func(t *testing.T) {
				h := start(t, hub.WithHistory("kept", 7))
				pub, sub := join(t, h, "pub"), join(t, h, "sub")
				for i := range 10 {
					if f := pub.publish(uint32(i+1), "kept", fmt.Sprint(i+1)); f.Sequence() != wire.Sequence(i+1) {
						t.Fatalf("published as %v", f)
					}
				}
				time.Sleep(time.Nanosecond) // the clock moves on
				sub.write(control(wire.KindSubscribe, 5, pattern, test.want))
				var frames []got
				var acked wire.Subscribed
				for acked.Positions == nil {
					f := sub.next()
					if f.Kind() != wire.KindAck {
						frames = append(frames, f)
						continue
					}
					if err := wire.DecodeControl(f.Frame, &acked); err != nil {
						t.Fatal(err)
					}
				}
				if acked.Positions["kept"] != test.position {
					t.Errorf("starts at %d, want %d", acked.Positions["kept"], test.position)
				}
				expect := func(next wire.Sequence) {
					t.Helper()
					if len(frames) == 0 {
						frames = append(frames, sub.next())
					}
					if f := frames[0]; f.Kind() != wire.KindPublish || f.Sequence() != next || f.payloads()[0] != fmt.Sprint(next) {
						t.Fatalf("got %v, want sequence %d", f, next)
					}
					frames = frames[1:]
				}
				if test.gapTo != 0 {
					if len(frames) == 0 {
						frames = append(frames, sub.next())
					}
					gap, err := wire.ParseGap(frames[0].Frame)
					if err != nil || gap.From != test.position || gap.To != test.gapTo || frames[0].Kind() != wire.KindGap {
						t.Fatalf("got %v, %v; want a gap from %d to %d", frames[0], err, test.position, test.gapTo)
					}
					frames = frames[1:]
				}
				for next := test.from; next != 0 && next <= 10; next++ {
					expect(next)
				}
				pub.publish(20, "kept", "11")
				expect(11)
				sub.quiet()
			})
		}
	}
}

// The promise of the seam: whenever a subscriber comes, however fast it reads,
// whatever is published meanwhile, it ends with everything once and in order.
func TestSeam(t *testing.T) {
	for name, test := range map[string]struct {
		settings hub.Settings
		rounds   int
		runs     int // artifacts in a frame, at most
		size     int // of a payload, at most
		slow     time.Duration
		filter   string
	}{
		"frames of one":          {rounds: 10, runs: 1, size: 10},
		"runs":                   {rounds: 10, runs: 40, size: 10},
		"runs with filters":      {rounds: 10, runs: 40, size: 10, filter: "3"},
		"a tiny queue":           {settings: hub.Settings{PendingBytes: 500}, rounds: 5, runs: 5, size: 100},
		"a tiny queue, filtered": {settings: hub.Settings{PendingBytes: 1000}, rounds: 5, runs: 20, size: 60, filter: "7"},
		"a small queue":          {settings: hub.Settings{PendingBytes: 16 << 10}, rounds: 5, runs: 10, size: 3000},
		"large artifacts":        {settings: hub.Settings{PendingBytes: 64 << 10}, rounds: 3, runs: 2, size: 30 << 10},
		"dropping the oldest":    {settings: hub.Settings{PendingBytes: 4 << 10, SlowClient: hub.DropOldest}, rounds: 5, runs: 10, size: 200},
		"conflating":             {settings: hub.Settings{PendingBytes: 4 << 10, SlowClient: hub.Conflate}, rounds: 5, runs: 10, size: 200},
		"slow readers":           {settings: hub.Settings{PendingBytes: 4 << 10}, rounds: 3, runs: 10, size: 100, slow: 100 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			for round := range test.rounds {
				settings := test.settings
				settings.History = history.Limits{MaxArtifacts: 1 << 20}
				h := start(t, hub.WithSettings(settings), hub.WithFilterCompiler(func(text string) (hub.Filter, error) {
					return func(a *wire.Artifact) bool {
						return string(a.Payload) == seamEnd || strings.Contains(string(a.Payload[:4]), text)
					}, nil
				}))
				s := &seam{t: t, h: h, runs: test.runs, size: test.size, slow: test.slow, filter: test.filter, round: round}
				s.play()
				stop(t, h)
			}
		})
	}
}

// seam is one round of TestSeam.
type seam struct {
	t      *testing.T
	h      *hub.Hub
	runs   int
	size   int
	slow   time.Duration
	filter string
	round  int
}

const (
	seamPublishers  = 4
	seamFrames      = 60 // of each publisher
	seamSubscribers = 6
	seamEnd         = "the end, which any filter lets pass: 0123456789"
)

func (s *seam) play() {
	var publishing, reading sync.WaitGroup
	for i := range seamPublishers {
		publishing.Go(func() { s.publish(i) })
	}
	heard := make([]map[wire.Sequence]bool, seamSubscribers)
	for i := range heard {
		reading.Go(func() { heard[i] = s.read(i) })
	}
	publishing.Wait()
	end := &wire.Artifact{Topic: "kept", Payload: []byte(seamEnd)}
	if _, err := s.h.Route(s.t.Context(), end); err != nil {
		s.t.Error(err)
	}
	reading.Wait()
	want := s.truth(end.Sequence)
	for i, have := range heard {
		if !maps.Equal(have, want) {
			s.t.Errorf("subscriber %d heard %d artifacts, want %d of %d", i, len(have), len(want), end.Sequence)
		}
	}
}

func (s *seam) passes(payload string) bool {
	return s.filter == "" || payload == seamEnd || strings.Contains(payload[:4], s.filter)
}

// truth returns what a subscriber has to hear: what the history says passes.
func (s *seam) truth(last wire.Sequence) map[wire.Sequence]bool {
	p := join(s.t, s.h, "truth", hub.WithoutBroadcast())
	p.write(control(wire.KindSubscribe, 1, "kept", wire.Subscription{Since: wire.SinceAll}))
	all := make(map[wire.Sequence]bool)
	for next := wire.Sequence(1); next <= last; {
		f := p.next()
		if f.Kind() != wire.KindPublish {
			continue
		}
		if f.Sequence() != next {
			s.t.Errorf("the history goes on with %d, want %d", f.Sequence(), next)
		}
		for _, payload := range f.payloads() {
			if s.passes(payload) {
				all[next] = true
			}
			next++
		}
	}
	return all
}

func (s *seam) publish(i int) {
	const inFlight = 4
	random := rand.New(rand.NewPCG(uint64(s.round), uint64(i)))
	p := join(s.t, s.h, fmt.Sprintf("pub-%d", i), hub.WithoutBroadcast())
	for ref := range uint32(seamFrames) {
		var payloads []string
		for range 1 + random.IntN(s.runs) {
			payloads = append(payloads, fmt.Sprintf("%04d", random.IntN(10_000))+strings.Repeat("x", random.IntN(s.size)))
		}
		if _, err := p.conn.Write(frame(wire.KindPublish, wire.FlagAck, ref+1, "kept", p.id, payloads...)); err != nil {
			s.t.Error(err)
			return
		}
		if ref >= inFlight {
			p.expect(wire.KindAck, ref+1-inFlight)
		}
	}
	for ref := range uint32(inFlight) {
		p.expect(wire.KindAck, seamFrames-inFlight+ref+1)
	}
}

// read joins late, in some way, and returns what it heard. Twice it leaves and
// resumes, in the middle of a run when there is one.
func (s *seam) read(i int) map[wire.Sequence]bool {
	random := rand.New(rand.NewPCG(uint64(s.round), uint64(100+i)))
	time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
	want := wire.Subscription{Since: wire.SinceAll, Filter: s.filter}
	heard := make(map[wire.Sequence]bool)
	for session := range 3 {
		leaveAt := len(heard) + 10 + random.IntN(50)
		if session == 2 {
			leaveAt = 1 << 30
		}
		next, done := s.session(i, want, heard, leaveAt)
		if done {
			break
		}
		want = wire.Subscription{Positions: map[string]wire.Sequence{"kept": next}, Filter: s.filter}
	}
	return heard
}

// session reads until it has heard enough, or the end, and returns where to
// resume.
func (s *seam) session(i int, want wire.Subscription, heard map[wire.Sequence]bool, leaveAt int) (next wire.Sequence, done bool) {
	hubs, far := net.Pipe()
	defer far.Close()
	if err := s.h.RegisterClient(fmt.Sprintf("sub-%d", i), hubs, hub.WithoutBroadcast()); err != nil {
		s.t.Error(err)
		return 0, true
	}
	pattern := []string{"kept", ">", "*"}[i%3]
	go func() { _, _ = far.Write(control(wire.KindSubscribe, 1, pattern, want)) }()
	r := wire.NewReader(far, 32<<20)
	defer r.Close()
	_ = far.SetDeadline(time.Now().Add(patience))
	next = want.Positions["kept"]
	for {
		f, err := r.Next()
		switch {
		case err != nil:
			s.t.Errorf("subscriber %d, next %d: %v", i, next, err)
			return 0, true
		case f.Kind() == wire.KindAck:
			continue
		case f.Kind() != wire.KindPublish || f.Sequence() < next || f.Ref() != 1:
			s.t.Errorf("subscriber %d, next %d: got %v", i, next, got{f})
			return 0, true
		}
		next = f.Sequence()
		for _, payload := range (got{f}).payloads() {
			if !s.passes(payload) || heard[next] {
				s.t.Errorf("subscriber %d: got %d, %.10q; heard before: %v", i, next, payload, heard[next])
			}
			heard[next] = true
			next++
			if payload == seamEnd {
				return next, true
			}
			if len(heard) == leaveAt { // in the middle of a run, perhaps: the rest comes again
				return next, false
			}
		}
		if s.slow > 0 {
			time.Sleep(s.slow)
		}
	}
}

func TestRetentionTellsASlowSubscriberOfTheGap(t *testing.T) {
	h := start(t, hub.WithSettings(hub.Settings{PendingBytes: 2000}), hub.WithHistory("kept", 10))
	hubs, far := pair(t, "pipe")
	if err := h.RegisterClient("slow", hubs); err != nil {
		t.Fatal(err)
	}
	if err := h.Subscribe("slow", "kept"); err != nil {
		t.Fatal(err)
	}
	const artifacts = 500
	for range artifacts {
		if _, err := h.Route(t.Context(), &wire.Artifact{Topic: "kept", Payload: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	slow := newPeer(t, "slow", far)
	gaps := 0
	for next := wire.Sequence(1); next <= artifacts; {
		f := slow.next()
		if f.Kind() == wire.KindGap {
			gap, err := wire.ParseGap(f.Frame)
			if err != nil || gap.From != next || gap.Topic != "kept" {
				t.Fatalf("gap %v, %v; want it from %d", gap, err, next)
			}
			next = gap.To + 1
			gaps++
			continue
		}
		if f.Sequence() != next {
			t.Fatalf("got %v, want sequence %d or a gap from there", f, next)
		}
		next += wire.Sequence(f.Count())
	}
	if gaps == 0 {
		t.Error("no gap was told")
	}
	slow.quiet()
}
