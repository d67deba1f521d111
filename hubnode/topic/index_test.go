package topic_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func found(x *topic.Index[string], name string) []string {
	var values []string
	x.Match(name, func(s string) { values = append(values, s) })
	slices.Sort(values)
	return values
}

func patterns(x *topic.Index[string]) map[string]int {
	m := make(map[string]int)
	x.Patterns(func(pattern string, n int) { m[pattern] += n })
	return m
}

func TestIndexFindsEveryPatternThatMatches(t *testing.T) {
	x := topic.NewIndex[string]()
	for _, p := range []string{">", "*", "a", "a.>", "a.*", "a.b", "*.b", "a.b.>", "a.*.c", "*.*.c", "a.b.c", "$hub.>"} {
		if !x.Add(p, p) {
			t.Errorf("Add(%q): got false, want true", p)
		}
	}
	for name, want := range map[string][]string{
		"a":          {"*", ">", "a"},
		"b":          {"*", ">"},
		"a.b":        {"*.b", ">", "a.*", "a.>", "a.b"},
		"a.x":        {">", "a.*", "a.>"},
		"a.b.c":      {"*.*.c", ">", "a.*.c", "a.>", "a.b.>", "a.b.c"},
		"x.b.c":      {"*.*.c", ">"},
		"a.b.c.d":    {">", "a.>", "a.b.>"},
		"$hub.nodes": {"$hub.>", ">"},
	} {
		if diff := cmp.Diff(want, found(x, name)); diff != "" {
			t.Errorf("Match(%q): %s", name, diff)
		}
	}
}

func TestIndexVisitsAValueOncePerPattern(t *testing.T) {
	var x topic.Index[string] // the zero value is ready
	x.Add("a.*", "s")
	x.Add("a.>", "s")
	if x.Add("a.>", "s") {
		t.Error("Add again: got true, want false")
	}
	x.Add("a.>", "t")
	if diff := cmp.Diff([]string{"s", "s", "t"}, found(&x, "a.b")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"a.*": 1, "a.>": 2}, patterns(&x)); diff != "" {
		t.Error(diff)
	}
	if got := x.Len(); got != 3 {
		t.Errorf("Len: got %d, want 3", got)
	}
}

func TestIndexRemoveLeavesNothingBehind(t *testing.T) {
	x := topic.NewIndex[string]()
	all := []string{">", "*", "a", "a.>", "a.*", "a.b.c", "*.*.c", "a.*.>"}
	for _, p := range all {
		x.Add(p, "s")
	}
	for _, p := range []string{"b", "a.b", "a.b.*", "b.>", "*.>", "a.b.c.d", ""} {
		if x.Remove(p, "s") {
			t.Errorf("Remove(%q), where nothing is: got true, want false", p)
		}
	}
	if x.Remove("a", "t") {
		t.Error("Remove of a value that is not there: got true, want false")
	}
	for i, p := range all {
		if !x.Remove(p, "s") || x.Remove(p, "s") {
			t.Errorf("Remove(%q) twice: want true, then false", p)
		}
		if got, want := x.Len(), len(all)-i-1; got != want {
			t.Errorf("Len: got %d, want %d", got, want)
		}
	}
	if !reflect.DeepEqual(x, topic.NewIndex[string]()) {
		t.Errorf("the emptied index is not the empty one: %+v", x)
	}
}

// Buckets change their way of searching as they grow: a set that grows and
// shrinks across that border has to keep exactly what was put in.
func TestIndexKeepsLargeSetsExact(t *testing.T) {
	x := topic.NewIndex[int]()
	want := make(map[int]bool)
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		s := random.IntN(100)
		if grow := step/500%2 == 0; random.IntN(4) == 0 != grow {
			if got := x.Add("a.>", s); got == want[s] {
				t.Fatalf("step %d: Add(%d): got %v", step, s, got)
			}
			want[s] = true
		} else {
			if got := x.Remove("a.>", s); got != want[s] {
				t.Fatalf("step %d: Remove(%d): got %v", step, s, got)
			}
			delete(want, s)
		}
		if x.Len() != len(want) {
			t.Fatalf("step %d: got %d values, want %d", step, x.Len(), len(want))
		}
	}
	got := make(map[int]bool)
	x.Match("a.b", func(s int) { got[s] = true })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzIndex adds and removes patterns made from a small alphabet, so that they
// meet often, and asks Match which of them there should be.
func FuzzIndex(f *testing.F) {
	f.Add(uint64(1), uint8(10))
	f.Add(uint64(2), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		random := rand.New(rand.NewPCG(seed, 0))
		x := topic.NewIndex[string]()
		in := make(map[string]bool)
		for range steps {
			p := randomTopic(random, true)
			if random.IntN(3) == 0 {
				if got := x.Remove(p, p); got != in[p] {
					t.Fatalf("Remove(%q): got %v", p, got)
				}
				delete(in, p)
			} else {
				if got := x.Add(p, p); got == in[p] {
					t.Fatalf("Add(%q): got %v", p, got)
				}
				in[p] = true
			}
		}
		for range 20 {
			name := randomTopic(random, false)
			var want []string
			for p := range in {
				if topic.Match(p, name) {
					want = append(want, p)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, found(x, name)); diff != "" {
				t.Fatalf("Match(%q): %s", name, diff)
			}
		}
		listed := patterns(x)
		for p := range in {
			if listed[p] != 1 {
				t.Errorf("Patterns: %q has %d values, want 1", p, listed[p])
			}
		}
		if len(listed) != len(in) || x.Len() != len(in) {
			t.Errorf("got %d patterns and Len %d, want %d", len(listed), x.Len(), len(in))
		}
	})
}

func randomTopic(random *rand.Rand, pattern bool) string {
	s := ""
	for i := range 1 + random.IntN(4) {
		if i > 0 {
			s += "."
		}
		switch n := random.IntN(5); {
		case pattern && n == 0:
			s += "*"
		case pattern && n == 1:
			return s + ">"
		default:
			s += string(rune('a' + random.IntN(3)))
		}
	}
	return s
}

func BenchmarkIndexMatch(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("patterns=%d", n), func(b *testing.B) {
			x := topic.NewIndex[int]()
			for i := range n {
				x.Add(fmt.Sprintf("orders.shop-%d.new", i), i)
				if i%10 == 0 {
					x.Add(fmt.Sprintf("orders.*.kind-%d", i), i)
				}
			}
			x.Add("orders.>", -1)
			hits := 0
			visit := func(int) { hits++ }
			b.ReportAllocs()
			for b.Loop() {
				x.Match("orders.shop-7.new", visit)
			}
		})
	}
}

func BenchmarkIndexAddRemove(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("values=%d", n), func(b *testing.B) {
			x := topic.NewIndex[int]()
			for i := range n {
				x.Add("orders.>", i)
			}
			for b.Loop() {
				x.Remove("orders.>", 0)
				x.Add("orders.>", 0)
			}
		})
	}
}
