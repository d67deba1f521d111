package hubnode

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/shard"
	"github.com/switchboardhub/switchboard/wire"
)

// sharesOf returns shares with a limit.
func sharesOf(limit config.Bytes) *shares {
	s := newShares()
	s.configure(config.Config{Tenancy: config.TenancyNamespace, Limits: config.Limits{PerNamespace: config.NamespaceQuota{HistoryBytes: limit}}})
	return s
}

// mustTake makes room for what is to be stored on shard 0.
func (s *shares) mustTake(t *testing.T, topic string, bytes int) place {
	t.Helper()
	p, err := s.take([]byte(topic), 0, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// count is a count in which nothing happens meanwhile, and what others tell.
func (s *shares) count(here, told []shard.Tally, now time.Time) {
	s.begin()
	s.counted(here, now)
	s.heard(told, now)
}

func shop(n int, term uint64, bytes int64) shard.Tally {
	return shard.Tally{Shard: n, Term: term, Bytes: map[string]int64{"shop": bytes}}
}

func TestWhatATenantHolds(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for name, test := range map[string]struct {
		do   func(s *shares)
		want map[string]int64
	}{
		"nothing":                     {func(*shares) {}, map[string]int64{}},
		"what is on its way counts":   {func(s *shares) { s.mustTake(t, "shop.a", 10) }, map[string]int64{"shop": 10}},
		"what is stored counts once":  {func(s *shares) { x := s.mustTake(t, "shop.a", 10); s.settle(x, 10) }, map[string]int64{"shop": 10}},
		"what is not stored does not": {func(s *shares) { x := s.mustTake(t, "shop.a", 10); s.settle(x, 0) }, map[string]int64{"shop": 0}},
		"what takes another's place": {func(s *shares) {
			x := s.mustTake(t, "shop.a", 10)
			s.settle(x, 10)
			x = s.mustTake(t, "shop.a", 30)
			s.settle(x, 20)
		}, map[string]int64{"shop": 30}},
		"what others lead counts too": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, []shard.Tally{shop(1, 1, 20), shop(2, 1, 30)}, at(0))
			s.mustTake(t, "shop.a", 5)
		}, map[string]int64{"shop": 65}},
		"a count replaces the last": {func(s *shares) {
			s.count(nil, []shard.Tally{shop(1, 1, 20)}, at(0))
			s.count(nil, []shard.Tally{shop(1, 1, 3)}, at(2))
		}, map[string]int64{"shop": 3}},
		"a count has what was stored": {func(s *shares) {
			x := s.mustTake(t, "shop.a", 10)
			s.settle(x, 10)
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
		}, map[string]int64{"shop": 10}},
		"a count and what is on its way": {func(s *shares) { s.mustTake(t, "shop.a", 10); s.count([]shard.Tally{shop(0, 1, 7)}, nil, at(0)) }, map[string]int64{"shop": 17}},
		"what comes during a count is not lost": {func(s *shares) {
			x := s.mustTake(t, "shop.a", 10)
			s.begin()
			s.settle(x, 10)
			s.counted([]shard.Tally{shop(0, 1, 7)}, at(0))
		}, map[string]int64{"shop": 17}},
		"a leader on its way out counts less than its successor": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, []shard.Tally{shop(0, 2, 25)}, at(0))
		}, map[string]int64{"shop": 25}},
		"nor does a late answer": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 3, 10)}, []shard.Tally{shop(0, 2, 25)}, at(0))
		}, map[string]int64{"shop": 10}},
		"a group that began anew has low terms": {func(s *shares) {
			s.count(nil, []shard.Tally{shop(0, 70, 1000)}, at(0))
			s.count(nil, []shard.Tally{shop(0, 1, 4)}, at(2))
		}, map[string]int64{"shop": 4}},
		"a leadership that moves away counts as before": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
			s.count(nil, nil, at(2))
		}, map[string]int64{"shop": 10}},
		"and once when it has arrived": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
			s.count(nil, nil, at(2))
			s.count(nil, []shard.Tally{shop(0, 2, 12)}, at(4))
		}, map[string]int64{"shop": 12}},
		"one that comes here": {func(s *shares) {
			s.count(nil, []shard.Tally{shop(0, 1, 10)}, at(0))
			x := s.mustTake(t, "shop.a", 5)
			s.settle(x, 5)
			s.count([]shard.Tally{shop(0, 2, 15)}, nil, at(2))
		}, map[string]int64{"shop": 15}},
		"what is stored between two counts is told at once": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
			x := s.mustTake(t, "shop.a", 5)
			s.settle(x, 5)
			other := sharesOf(1 << 20)
			other.heard(s.led(), at(0))
			if got := other.byTenant()["shop"]; got != 15 {
				t.Errorf("the other node hears of %d bytes, want 15", got)
			}
		}, map[string]int64{"shop": 15}},
		"what is stored where the leadership has just come, and nobody has counted": {func(s *shares) {
			s.count(nil, []shard.Tally{shop(0, 1, 10)}, at(0))
			x := s.mustTake(t, "shop.a", 5)
			s.settle(x, 5)
		}, map[string]int64{"shop": 15}},
		"what is stored during a count, and the next": {func(s *shares) {
			x := s.mustTake(t, "shop.a", 10)
			s.begin()
			s.settle(x, 10)
			s.counted([]shard.Tally{shop(0, 1, 10)}, at(0)) // once too often, until
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(2))
		}, map[string]int64{"shop": 10}},
		"a purge makes room at once": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10), shop(1, 1, 20)}, nil, at(0))
			s.purged("shop.a", 1, -20)
		}, map[string]int64{"shop": 10}},
		"a purge of what is nobody's": {func(s *shares) { s.purged("Shop.a", 1, -20) }, map[string]int64{}},
		"what nobody tells of any more is forgotten": {func(s *shares) {
			s.count(nil, []shard.Tally{shop(0, 1, 10), shop(1, 1, 20)}, at(0))
			s.count(nil, []shard.Tally{shop(1, 1, 20)}, at(29))
			s.count(nil, []shard.Tally{shop(1, 1, 20)}, at(31))
		}, map[string]int64{"shop": 20}},
		"who holds nothing is forgotten": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
			s.count([]shard.Tally{{Shard: 0, Term: 1}}, nil, at(2))
		}, map[string]int64{}},
		"each has its own": {func(s *shares) {
			s.count([]shard.Tally{{Shard: 0, Term: 1, Bytes: map[string]int64{"shop": 1, "bank": 2}}}, []shard.Tally{{Shard: 1, Term: 1, Bytes: map[string]int64{"bank": 30}}}, at(0))
		}, map[string]int64{"shop": 1, "bank": 32}},
		"nobody is counted without a limit": {func(s *shares) {
			s.count([]shard.Tally{shop(0, 1, 10)}, nil, at(0))
			s.configure(config.Config{})
			s.clear()
		}, map[string]int64{}},
		"nor with one that says nothing without tenancy": {func(s *shares) {
			s.configure(config.Config{Tenancy: config.TenancyNone, Limits: config.Limits{PerNamespace: config.NamespaceQuota{HistoryBytes: 1}}})
			s.mustTake(t, "shop.a", 1000)
		}, map[string]int64{}},
		"nor is what is of no namespace": {func(s *shares) {
			for _, topic := range []string{"shop", "Shop.a", "_shop.a", "$hub.x", "-shop.a", "shop-.a", ".a", strings.Repeat("x", 64) + ".a"} {
				s.mustTake(t, topic, 1<<30)
			}
		}, map[string]int64{}},
	} {
		s := sharesOf(1 << 20)
		test.do(s)
		if diff := cmp.Diff(test.want, s.byTenant()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhoIsOverTheLimit(t *testing.T) {
	s := sharesOf(1000)
	s.count([]shard.Tally{shop(0, 1, 600)}, []shard.Tally{shop(1, 1, 300)}, time.Now())
	refused := func(topic string, bytes int) error {
		t.Helper()
		p, err := s.take([]byte(topic), 0, bytes)
		if err == nil {
			s.settle(p, 0)
			return nil
		}
		if coded, ok := errors.AsType[*wire.Error](err); !ok || coded.Code != wire.CodeStorageFull {
			t.Errorf("take = %v, want code %d", err, wire.CodeStorageFull)
		}
		return err
	}
	if err := refused("shop.a", 100); err != nil {
		t.Errorf("what just fits is refused: %v", err)
	}
	err := refused("shop.b", 101)
	for _, want := range []string{"namespace shop", "keep 900 bytes", "may keep 1000", "purge", "limits.perNamespace.historyBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("who is over the limit hears %v, want %q in it", err, want)
		}
	}
	if err := refused("bank.a", 1000); err != nil {
		t.Errorf("another tenant is refused: %v", err)
	}
	// One node alone can't get beyond the limit, however fast it is.
	waiting := s.mustTake(t, "shop.a", 100)
	if refused("shop.b", 1) == nil {
		t.Error("what is on its way does not count")
	}
	s.settle(waiting, 0)
	if err := refused("shop.b", 1); err != nil {
		t.Errorf("what was not stored counts: %v", err)
	}
	s.configure(config.Config{Tenancy: config.TenancyNamespace, Limits: config.Limits{PerNamespace: config.NamespaceQuota{HistoryBytes: 899}}})
	if refused("shop.b", 1) == nil {
		t.Error("a lower limit does not count")
	}
	s.count([]shard.Tally{shop(0, 1, 500)}, []shard.Tally{shop(1, 1, 300)}, time.Now())
	if err := refused("shop.b", 99); err != nil {
		t.Errorf("there is room again, and it is refused: %v", err)
	}
}

// Nodes that don't know the question, or say nothing that can be understood, stop nobody.
func TestWhoDoesNotTellIsNotCounted(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	var answered sync.WaitGroup
	answered.Add(3)
	go func() { // who answers is heard, and who does not is not waited for
		answered.Wait()
		cancel()
	}()
	got := n.askShares(ctx, []string{"new", "of-before", "garbled", "hung"}, func(ctx context.Context, node, question string, _ []byte) ([]byte, error) {
		if node == "hung" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		defer answered.Done()
		switch node {
		case "of-before":
			return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: "unknown question: " + question}
		case "garbled":
			return []byte(`[{"shard":1,"term":1,"bytes":{"shop":5}},{"shard":"two"}]`), nil
		}
		return []byte(`[{"shard":3,"term":7,"bytes":{"shop":5}},{"shard":4,"term":2,"bytes":{}}]`), nil
	})
	if diff := cmp.Diff([]shard.Tally{shop(3, 7, 5), {Shard: 4, Term: 2, Bytes: map[string]int64{}}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSharesAreListed(t *testing.T) {
	s := sharesOf(100)
	s.count([]shard.Tally{{Shard: 0, Term: 1, Bytes: map[string]int64{"shop": 1, "bank": 20, "aunt": 1}}}, nil, time.Now())
	want := namespaceList{MaxHistoryBytes: 100, Namespaces: []NamespaceInfo{{"bank", 20}, {"aunt", 1}, {"shop", 1}}}
	if diff := cmp.Diff(want, s.list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.configure(config.Config{})
	if diff := cmp.Diff(namespaceList{Namespaces: []NamespaceInfo{}}, s.list()); diff != "" {
		t.Errorf("without a limit (-want +got):\n%s", diff)
	}
}

func BenchmarkShares(b *testing.B) {
	for name, limit := range map[string]config.Bytes{"off": 0, "on": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			s, topic := sharesOf(limit), []byte("shop.orders.new")
			b.ReportAllocs()
			for b.Loop() {
				if s.on() {
					p, err := s.take(topic, 0, 100)
					if err != nil {
						b.Fatal(err)
					}
					s.settle(p, 0)
				}
			}
		})
	}
}
