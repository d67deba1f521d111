package rule_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/rule"
)

func TestMatchID(t *testing.T) {
	for name, test := range map[string]struct {
		glob, id string
		want     bool
	}{
		"the same":                          {"agent-7", "agent-7", true},
		"another one":                       {"agent-7", "agent-8", false},
		"a longer one":                      {"agent-7", "agent-77", false},
		"a shorter one":                     {"agent-7", "agent-", false},
		"nothing for nothing":               {"", "", true},
		"something for nothing":             {"", "a", false},
		"anything":                          {"*", "a.b/c", true},
		"anything, and nothing":             {"*", "", true},
		"a beginning":                       {"agent-*", "agent-7", true},
		"a beginning alone":                 {"agent-*", "agent-", true},
		"another beginning":                 {"agent-*", "gent-7", false},
		"an end":                            {"*-7", "agent-7", true},
		"an end that comes twice":           {"*ab", "abcab", true},
		"an end that is not the last":       {"*ab", "abc", false},
		"a middle":                          {"a*b*c", "a-b-b-c", true},
		"a middle that is missing":          {"a*b*c", "a-c", false},
		"parts that would share characters": {"aba*aba", "aba", false},
		"parts that meet":                   {"aba*aba", "abaaba", true},
		"many stars as one":                 {"a***b", "ab", true},
		"characters of more than a byte":    {"é*ü", "éöü", true},
		"a dot is a dot":                    {"a.b", "axb", false},
		"case counts":                       {"Agent", "agent", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rule.MatchID(test.glob, test.id); got != test.want {
				t.Errorf("MatchID(%q, %q): got %v, want %v", test.glob, test.id, got, test.want)
			}
		})
	}
}

func TestCoversID(t *testing.T) {
	for name, test := range map[string]struct {
		wide, narrow string
		want         bool
	}{
		"the same id":                    {"a", "a", true},
		"the same glob":                  {"a*", "a*", true},
		"a glob and an id":               {"a*", "ab", true},
		"an id and a glob":               {"ab", "a*", false},
		"everything":                     {"*", "a*b*", true},
		"a longer beginning":             {"a*", "ab*", true},
		"a shorter beginning":            {"ab*", "a*", false},
		"a beginning and an end":         {"a*", "a*b", true},
		"an end and a beginning":         {"*b", "b*", false},
		"stars that only look the same":  {"a*b", "a*", false},
		"two stars are one":              {"*", "**", true},
		"one star is two":                {"**", "*", true},
		"a star that may be the overlap": {"aba*", "ab*ba", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rule.CoversID(test.wide, test.narrow); got != test.want {
				t.Errorf("CoversID(%q, %q): got %v, want %v", test.wide, test.narrow, got, test.want)
			}
		})
	}
}

// TestAGlobCoversWhatItMatchesAllOf compares with trying all ids.
func TestAGlobCoversWhatItMatchesAllOf(t *testing.T) {
	globs, ids := strings.Fields(texts("ab*", 3)), append(strings.Fields(texts("abc", 5)), "")
	for _, wide := range globs {
		for _, narrow := range globs {
			want := true
			for _, id := range ids {
				want = want && (!rule.MatchID(narrow, id) || rule.MatchID(wide, id))
			}
			if got := rule.CoversID(wide, narrow); got != want {
				t.Errorf("CoversID(%q, %q): got %v, want %v", wide, narrow, got, want)
			}
		}
	}
}

// texts returns all texts of one to n of the characters, separated by spaces.
func texts(characters string, n int) string {
	var all []string
	last := []string{""}
	for range n {
		var next []string
		for _, text := range last {
			for _, c := range characters {
				next = append(next, text+string(c))
			}
		}
		all, last = append(all, next...), next
	}
	return strings.Join(all, " ")
}

// matchByRegexp is what MatchID has to say.
func matchByRegexp(glob, id string) bool {
	parts := strings.Split(glob, "*")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile("(?s)^" + strings.Join(parts, ".*") + "$").MatchString(id)
}

func FuzzMatchID(f *testing.F) {
	for _, p := range [][3]string{
		{"a", "a", "a"},
		{"a*", "ab*", "abc"},
		{"*a*a*a*b", "a*b", "aaaaaaaaaaaa"},
		{"", "*", ""},
		{"aba*aba", "aba", "abaaba"},
		{"*\xff", "é*", "é\xff"},
		{"**", "*", "\n"},
	} {
		f.Add(p[0], p[1], p[2])
	}
	f.Fuzz(func(t *testing.T, wide, narrow, id string) {
		covers := rule.CoversID(wide, narrow)
		for _, text := range []string{wide, narrow, id} {
			if strings.ToValidUTF8(text, "") != text || len(text) > 300 {
				return // never parsed as a glob, and no id
			}
		}
		if got, want := rule.MatchID(wide, id), matchByRegexp(wide, id); got != want {
			t.Errorf("MatchID(%q, %q): got %v, want %v", wide, id, got, want)
		}
		for _, id := range []string{id, strings.ReplaceAll(narrow, "*", ""), strings.ReplaceAll(narrow, "*", id)} {
			if covers && rule.MatchID(narrow, id) && !rule.MatchID(wide, id) {
				t.Errorf("%q covers %q, and only that matches %q", wide, narrow, id)
			}
		}
		// Not covered: a text in the place of the stars that wide does not have
		// can't be matched.
		const other = "\x01"
		if !covers && !strings.Contains(wide, other) && rule.MatchID(wide, strings.ReplaceAll(narrow, "*", other)) {
			t.Errorf("%q does not cover %q, and matches whatever that does", wide, narrow)
		}
	})
}
