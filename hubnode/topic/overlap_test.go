package topic_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func TestOverlap(t *testing.T) {
	for name, test := range map[string]struct {
		a, b string
		want bool
	}{
		"the same literal":                  {"a.b", "a.b", true},
		"different literals":                {"a.b", "a.c", false},
		"a literal and a longer one":        {"a", "a.b", false},
		"a star over a literal":             {"a.*", "a.b", true},
		"a star and too many tokens":        {"a.*", "a.b.c", false},
		"stars in different places":         {"a.*", "*.b", true},
		"stars that don't help":             {"a.*.c", "*.b.d", false},
		"the rest over a literal":           {"a.>", "a.b.c", true},
		"the rest needs a token":            {"a.>", "a", false},
		"the rest needs a token of a star":  {"*.>", "*", false},
		"the rest and the rest":             {"a.>", ">", true},
		"the rest below different literals": {"a.>", "b.>", false},
		"the rest below a star":             {"*.b.>", "a.>", true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
				if got := topic.Overlap(p[0], p[1]); got != test.want {
					t.Errorf("Overlap(%q, %q): got %v, want %v", p[0], p[1], got, test.want)
				}
			}
		})
	}
}

// words returns all sequences of one to n tokens, joined.
func words(tokens []string, n int) []string {
	var all []string
	last := []string{""}
	for range n {
		var next []string
		for _, w := range last {
			for _, token := range tokens {
				next = append(next, strings.TrimPrefix(w+"."+token, "."))
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

// somePatterns are all patterns of at most three tokens over two literals.
func somePatterns() []string {
	return slices.DeleteFunc(words([]string{"a", "b", "*", ">"}, 3), func(p string) bool { return topic.CheckPattern(p) != nil })
}

// TestPatternsOverlapWhenANameMatchesBoth compares with trying all names.
func TestPatternsOverlapWhenANameMatchesBoth(t *testing.T) {
	patterns, names := somePatterns(), words([]string{"a", "b", "c"}, 4)
	matched := make([][]bool, len(patterns))
	for i, p := range patterns {
		for _, name := range names {
			matched[i] = append(matched[i], topic.Match(p, name))
		}
	}
	for i, a := range patterns {
		for j, b := range patterns {
			want := false
			for k := range names {
				want = want || matched[i][k] && matched[j][k]
			}
			if got := topic.Overlap(a, b); got != want {
				t.Errorf("Overlap(%q, %q): got %v, want %v", a, b, got, want)
			}
		}
	}
}

func TestIndexFindsWhatOverlaps(t *testing.T) {
	patterns := somePatterns()
	x := topic.NewIndex[string]()
	for _, p := range patterns {
		x.Add(p, p)
	}
	for _, p := range patterns {
		got := overlapping(x, p)
		want := slices.DeleteFunc(slices.Clone(patterns), func(other string) bool { return !topic.Overlap(p, other) })
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what overlaps %q (-want +got):\n%s", p, diff)
		}
	}
	if got := overlapping(topic.NewIndex[string](), ">"); got != nil {
		t.Errorf("an empty index: got %q, want nothing", got)
	}
}

func overlapping(x *topic.Index[string], pattern string) []string {
	var found []string
	x.Overlap(pattern, func(p string) { found = append(found, p) })
	slices.Sort(found)
	return found
}

func FuzzOverlap(f *testing.F) {
	for _, p := range [][2]string{{"a", "a"}, {"a.*", "*.b"}, {"a.>", "a"}, {">", "*.>"}, {"*.b.>", "a.>"}, {"a..b", ">"}, {"", "\xff"}} {
		f.Add(p[0], p[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := topic.Overlap(a, b) // whatever they are: no panic
		if other := topic.Overlap(b, a); other != got {
			t.Errorf("Overlap(%q, %q) is %v, the other way round %v", a, b, got, other)
		}
		x := topic.NewIndex[string]()
		x.Add(b, b)
		found := overlapping(x, a)
		if topic.CheckPattern(a) != nil || topic.CheckPattern(b) != nil {
			return
		}
		if (len(found) == 1) != got || len(found) > 1 {
			t.Errorf("Overlap(%q, %q) is %v, the index finds %q", a, b, got, found)
		}
		if name := witness(a, b); got && (!topic.Match(a, name) || !topic.Match(b, name)) {
			t.Errorf("%q and %q overlap, and %q does not match both", a, b, name)
		}
	})
}

// witness makes a name of two patterns that matches both, if they overlap.
func witness(a, b string) string {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	var name []string
	for i := range max(len(as), len(bs)) {
		token := "x"
		for _, tokens := range [][]string{as, bs} {
			if i < len(tokens) && topic.IsLiteral(tokens[i]) {
				token = tokens[i]
			}
		}
		name = append(name, token)
	}
	return strings.Join(name, ".")
}

func BenchmarkIndexOverlap(b *testing.B) {
	x := topic.NewIndex[string]()
	for i := range 10_000 {
		x.Add(fmt.Sprintf("team-%d.orders.>", i), "")
	}
	n := 0
	for b.Loop() {
		x.Overlap("team-77.orders.*.new", func(string) { n++ })
	}
}
