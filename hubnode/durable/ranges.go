package durable

import (
	"cmp"
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// normal returns ranges in order, none empty, none touching another.
func normal(ranges []wire.Range) []wire.Range {
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(r wire.Range) bool { return r.From > r.To })
	slices.SortFunc(sorted, func(a, b wire.Range) int { return cmp.Compare(a.From, b.From) })
	var merged []wire.Range
	for _, r := range sorted {
		if n := len(merged); n > 0 && r.From <= merged[n-1].To+1 {
			merged[n-1].To = max(merged[n-1].To, r.To)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// change replaces the parts of spans that lie in ranges by what put makes of them;
// put reports whether there is anything left. It returns the spans in order.
func change(spans []Span, ranges []wire.Range, put func(*Span) bool) []Span {
	ranges = normal(ranges)
	if len(ranges) == 0 {
		return spans
	}
	var all []Span
	for _, s := range spans {
		for len(ranges) > 0 && ranges[0].To < s.From {
			ranges = ranges[1:]
		}
		for _, r := range ranges {
			if r.From > s.To {
				break
			}
			if r.From > s.From {
				before := s
				before.To = r.From - 1
				all = joined(all, before)
				s.From = r.From
			}
			within := s
			within.To = min(s.To, r.To)
			s.From = within.To + 1
			if put(&within) {
				all = joined(all, within)
			}
		}
		if s.From <= s.To {
			all = joined(all, s)
		}
	}
	return all
}

// joined appends a span, to the last one where it is its continuation.
func joined(spans []Span, s Span) []Span {
	if n := len(spans); n > 0 {
		last := &spans[n-1]
		if last.To+1 == s.From && last.Member == s.Member && last.Until.Equal(s.Until) && last.Deliveries == s.Deliveries {
			last.To = s.To
			return spans
		}
	}
	return append(spans, s)
}

// without returns the parts of a range that lie in none of others.
func without(all wire.Range, others []wire.Range) (parts []wire.Range) {
	for _, o := range normal(others) {
		if o.To < all.From {
			continue
		}
		if o.From > all.To {
			break
		}
		if o.From > all.From {
			parts = append(parts, wire.Range{From: all.From, To: o.From - 1})
		}
		all.From = o.To + 1
	}
	if all.From <= all.To {
		parts = append(parts, all)
	}
	return parts
}

func size(from, to wire.Sequence) int { return int(to-from) + 1 }
