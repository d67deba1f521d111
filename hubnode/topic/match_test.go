package topic_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func TestMatch(t *testing.T) {
	for name, test := range map[string]struct {
		pattern, name string
		want          bool
	}{
		"a literal matches itself":                    {"a.b", "a.b", true},
		"a literal is not a prefix":                   {"a.b", "a.b.c", false},
		"a literal is not a prefix of a token":        {"a.b", "a.bc", false},
		"a literal needs all its tokens":              {"a.b.c", "a.b", false},
		"case matters":                                {"a.B", "a.b", false},
		"a star is one token":                         {"*", "a", true},
		"a star is not two tokens":                    {"*", "a.b", false},
		"a star is not nothing":                       {"a.*", "a", false},
		"a star in the middle":                        {"a.*.c", "a.b.c", true},
		"a star does not excuse the tokens after it":  {"a.*.c", "a.b.d", false},
		"a star at the start":                         {"*.b", "a.b", true},
		"stars count":                                 {"*.*", "a.b.c", false},
		"the rest is one token":                       {"a.>", "a.b", true},
		"the rest is many tokens":                     {"a.>", "a.b.c.d", true},
		"the rest is not nothing":                     {"a.>", "a", false},
		"the rest does not excuse the tokens before":  {"a.>", "b.c", false},
		"the rest alone is everything":                {">", "a.b.c", true},
		"the rest alone is one token too":             {">", "a", true},
		"a star and the rest are two tokens or more":  {"*.>", "a.b.c", true},
		"a star and the rest are more than one token": {"*.>", "a", false},
		"reserved names are names":                    {"$hub.*", "$hub.nodes", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := topic.Match(test.pattern, test.name); got != test.want {
				t.Errorf("Match(%q, %q): got %v, want %v", test.pattern, test.name, got, test.want)
			}
		})
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	x := topic.NewIndex[int]()
	for i, p := range []string{"orders.*.new", "orders.>", "*.eu.new", "orders.eu.new"} {
		x.Add(p, i)
	}
	n := 0
	visit := func(int) { n++ }
	if got := testing.AllocsPerRun(100, func() {
		topic.Match("orders.*.new", "orders.eu.new")
		x.Match("orders.eu.new", visit)
	}); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

// reference matches in the slow way that needs no thought.
func reference(pattern, name string) bool {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		switch token {
		case "*":
			tokens[i] = `[^.]+`
		case ">":
			tokens[i] = `.+`
		default:
			tokens[i] = regexp.QuoteMeta(token)
		}
	}
	return regexp.MustCompile(`^(?s:` + strings.Join(tokens, `\.`) + `)$`).MatchString(name)
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"a", "a.b", "a..b", "*", ">", "a.*", "a.>", "*.b.>", "a.>.b", "$hub.x", "a b", "\xff", ".", "", "a.*.c", "ab*"} {
		f.Add(s, "a.b")
		f.Add("a.>", s)
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got := topic.Match(pattern, name) // whatever they are: no panic
		x := topic.NewIndex[int]()
		x.Add(pattern, 7)
		found := 0
		x.Match(name, func(int) { found++ })

		patternErr, nameErr := topic.CheckPattern(pattern), topic.CheckName(name)
		if nameErr == nil && topic.CheckPattern(name) != nil {
			t.Errorf("%q is a valid name and no valid pattern", name)
		}
		if patternErr == nil && topic.IsLiteral(pattern) != (topic.CheckName(pattern) == nil) {
			t.Errorf("IsLiteral(%q) and CheckName disagree", pattern)
		}
		if patternErr == nil && nameErr == nil {
			if want := reference(pattern, name); got != want || (found == 1) != want || found > 1 {
				t.Errorf("pattern %q, name %q: Match %v, Index %d times, want %v", pattern, name, got, found, want)
			}
			if overlap := topic.Overlap(pattern, name); overlap != got {
				t.Errorf("pattern %q, name %q: Match %v, Overlap %v", pattern, name, got, overlap)
			}
		}
		if !x.Remove(pattern, 7) || x.Len() != 0 {
			t.Errorf("pattern %q can't be removed", pattern)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for name, pattern := range map[string]string{
		"literal": "orders.eu.new", "star": "orders.*.new", "rest": "orders.>", "miss": "orders.us.*",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				topic.Match(pattern, "orders.eu.new")
			}
		})
	}
}
