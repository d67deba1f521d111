package shard

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

func TestPublishersJudge(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := newPublishers()
	for n := range uint64(300) {
		p.stored("a", Publisher{ID: 1, Number: n + 1}, wire.Sequence(10*n+1), now)
	}
	for name, tt := range map[string]struct {
		topic string
		by    Publisher
		want  verdict
		first wire.Sequence
	}{
		"the next one":                    {"a", Publisher{ID: 1, Number: 301}, storeIt, 0},
		"the latest one again":            {"a", Publisher{ID: 1, Number: 300}, repeated, 2991},
		"an earlier one again":            {"a", Publisher{ID: 1, Number: 250}, repeated, 2491},
		"one too long ago to know where":  {"a", Publisher{ID: 1, Number: 1}, repeated, 0},
		"one that overtook":               {"a", Publisher{ID: 1, Number: 302}, tooSoon, 0},
		"one behind what was given up":    {"a", Publisher{ID: 1, Number: 310, Oldest: true}, storeIt, 0},
		"an old one that calls itself so": {"a", Publisher{ID: 1, Number: 300, Oldest: true}, repeated, 2991},
		"another topic":                   {"b", Publisher{ID: 1, Number: 1}, storeIt, 0},
		"another publisher":               {"a", Publisher{ID: 2, Number: 1}, storeIt, 0},
		"an unknown one that overtook":    {"a", Publisher{ID: 2, Number: 2}, tooSoon, 0},
		"one that was forgotten":          {"a", Publisher{ID: 2, Number: 9, Oldest: true}, storeIt, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v, first := p.judge(tt.topic, tt.by)
			if v != tt.want || first != tt.first {
				t.Errorf("judge = %d at %d, want %d at %d", v, first, tt.want, tt.first)
			}
		})
	}
}

func TestPublishersAreForgotten(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	p := newPublishers()
	for id := range uint64(publishersMax + 10) {
		p.stored("a", Publisher{ID: id + 1, Number: 1}, 1, start)
	}
	if n := len(p.list()); n != publishersMax {
		t.Errorf("%d are remembered, want %d", n, publishersMax)
	}
	p.stored("a", Publisher{ID: 1, Number: 1}, 1, start.Add(publisherAge+time.Second))
	if n := len(p.list()); n != 1 {
		t.Errorf("%d are remembered after a long silence of all but one, want 1", n)
	}
}

func TestASnapshotHasThePublishers(t *testing.T) {
	p, now := newPublishers(), time.Unix(1_000_000, 0).UTC()
	p.stored("a", Publisher{ID: 1, Number: 1}, 1, now)
	p.stored("b", Publisher{ID: 1, Number: 1}, 7, now)
	p.stored("a", Publisher{ID: 1, Number: 2}, 3, now)
	again := newPublishers()
	again.restore(p.list())
	if diff := cmp.Diff(p.list(), again.list()); diff != "" {
		t.Error(diff)
	}
	if v, first := again.judge("a", Publisher{ID: 1, Number: 1}); v != repeated || first != 1 {
		t.Errorf("judge = %d at %d, want a repeat of 1", v, first)
	}
}
