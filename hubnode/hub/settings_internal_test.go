package hub

import (
	"fmt"
	"slices"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// TestFirstRuleThatMatchesWins compares the index with looking at one rule after
// another.
func TestFirstRuleThatMatchesWins(t *testing.T) {
	patterns := []string{"a.b", "a.*", "*.b", "a.>", "*", ">", "b.>", "b"}
	names := []string{"a", "b", "a.b", "a.c", "b.b", "b.c.d", "c.d.e"}
	for rotation := range patterns {
		s := Settings{History: history.Limits{MaxArtifacts: 1000}}
		for i := range patterns {
			only := part(i % 3)
			s.Topics = append(s.Topics, Topic{
				Pattern: patterns[(i+rotation)%len(patterns)], History: history.Limits{MaxArtifacts: i},
				Filter: func(a *wire.Artifact) bool { return a.Sequence == wire.Sequence(i) }, only: only,
			})
		}
		s = s.withDefaults()
		for _, name := range names {
			wantLimits, wantFilter := 1000, -1
			for i, r := range slices.Backward(s.Topics) {
				if topic.Match(r.Pattern, name) {
					if r.only != filterOnly {
						wantLimits = i
					}
					if r.only != historyOnly {
						wantFilter = i
					}
				}
			}
			limits, filter := s.rule(name)
			gotFilter := -1
			for i := range s.Topics {
				if filter != nil && filter(&wire.Artifact{Sequence: wire.Sequence(i)}) {
					gotFilter = i
				}
			}
			if limits.MaxArtifacts != wantLimits || gotFilter != wantFilter {
				t.Errorf("rotation %d, %s: limits of %d and filter of %d, want %d and %d", rotation, name, limits.MaxArtifacts, gotFilter, wantLimits, wantFilter)
			}
		}
	}
}

func BenchmarkRule(b *testing.B) {
	for _, n := range []int{1, 100, 5000} {
		b.Run(fmt.Sprintf("of-%d", n), func(b *testing.B) {
			var s Settings
			for i := range n {
				s.Topics = append(s.Topics, Topic{Pattern: fmt.Sprintf("team-%d.orders.>", i)})
			}
			s = s.withDefaults()
			name := fmt.Sprintf("team-%d.orders.new", n-1)
			for b.Loop() {
				s.rule(name)
			}
		})
	}
}
