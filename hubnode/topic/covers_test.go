package topic_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func TestCovers(t *testing.T) {
	for name, test := range map[string]struct {
		wide, narrow string
		want         bool
	}{
		"a literal and itself":                 {"a.b", "a.b", true},
		"a literal and another one":            {"a.b", "a.c", false},
		"a literal and a longer one":           {"a", "a.b", false},
		"a literal and a shorter one":          {"a.b", "a", false},
		"a literal and a star":                 {"a.b", "a.*", false},
		"a literal and the rest":               {"a", ">", false},
		"a star and a literal":                 {"a.*", "a.b", true},
		"a star and a star":                    {"a.*", "a.*", true},
		"a star and the rest":                  {"a.*", "a.>", false},
		"a star and too many tokens":           {"a.*", "a.b.c", false},
		"a star in another place":              {"a.*", "*.b", false},
		"the rest and a literal":               {"a.>", "a.b.c", true},
		"the rest and a star":                  {"a.>", "a.*", true},
		"the rest and the rest":                {"a.>", "a.>", true},
		"the rest and the rest of one further": {"a.>", "a.b.>", true},
		"the rest and the rest of one before":  {"a.b.>", "a.>", false},
		"the rest needs a token":               {"a.>", "a", false},
		"the rest below another literal":       {"a.>", "b.>", false},
		"everything":                           {">", "*.b.>", true},
		"everything of two tokens":             {"*.>", ">", false},
		"a star before the rest":               {"*.>", "a.>", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := topic.Covers(test.wide, test.narrow); got != test.want {
				t.Errorf("Covers(%q, %q): got %v, want %v", test.wide, test.narrow, got, test.want)
			}
		})
	}
}

// TestAPatternCoversWhatItMatchesAllOf compares with trying all names.
func TestAPatternCoversWhatItMatchesAllOf(t *testing.T) {
	patterns, names := somePatterns(), words([]string{"a", "b", "c"}, 4)
	for _, wide := range patterns {
		for _, narrow := range patterns {
			want := true
			for _, name := range names {
				want = want && (!topic.Match(narrow, name) || topic.Match(wide, name))
			}
			if got := topic.Covers(wide, narrow); got != want {
				t.Errorf("Covers(%q, %q): got %v, want %v", wide, narrow, got, want)
			}
		}
	}
}

func FuzzCovers(f *testing.F) {
	for _, p := range [][3]string{
		{"a", "a", "a"},
		{"a.*", "a.b", "a.b"},
		{"a.>", "a.*.>", "a.b.c"},
		{">", "*.>", "a.b"},
		{"*.b.>", "a.>", "a.c"},
		{"a..b", ">", ""},
		{"", "\xff", "."},
		{"*.*", "*.>", "a.b.c"},
		{"a.*.>", "a.>", "a.b"},
	} {
		f.Add(p[0], p[1], p[2])
	}
	f.Fuzz(func(t *testing.T, wide, narrow, name string) {
		got := topic.Covers(wide, narrow) // whatever they are: no panic
		if topic.CheckPattern(wide) != nil || topic.CheckPattern(narrow) != nil {
			return
		}
		if got && !topic.Overlap(wide, narrow) {
			t.Errorf("%q covers %q, and they don't overlap", wide, narrow)
		}
		if topic.IsLiteral(narrow) && got != topic.Match(wide, narrow) {
			t.Errorf("Covers(%q, %q) is %v, and Match is not", wide, narrow, got)
		}
		shortest, longest := extremes(narrow)
		for _, name := range []string{name, witness(wide, narrow), shortest, longest} {
			if topic.CheckName(name) == nil && got && topic.Match(narrow, name) && !topic.Match(wide, name) {
				t.Errorf("%q covers %q, and only that matches %q", wide, narrow, name)
			}
		}
		// Of what is not covered one of these says so: the wildcards stand for
		// tokens that wide does not have, and ">" for as few or as many as there are.
		if !got && topic.Match(wide, shortest) && topic.Match(wide, longest) && !strings.Contains(wide, "?") {
			t.Errorf("%q does not cover %q, and matches %q and %q", wide, narrow, shortest, longest)
		}
	})
}

// extremes makes the names of fewest and of most tokens that a pattern matches, if
// names could be of any length.
func extremes(pattern string) (shortest, longest string) {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		if !topic.IsLiteral(token) {
			tokens[i] = "?"
		}
	}
	shortest = strings.Join(tokens, ".")
	if strings.HasSuffix(pattern, ">") {
		return shortest, shortest + strings.Repeat(".?", topic.MaxTokens)
	}
	return shortest, shortest
}
