package topic_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func TestCheckName(t *testing.T) {
	long := strings.Repeat("x", topic.MaxBytes)
	deep := strings.Repeat("a.", topic.MaxTokens-1) + "a"
	for name, test := range map[string]struct {
		input string
		want  string // the error; empty: valid
	}{
		"one token":                       {input: "orders"},
		"several tokens":                  {input: "orders.eu.new"},
		"a name that the hub reserves":    {input: "$hub.nodes"},
		"letters of any script":           {input: "Grüße.日本"},
		"punctuation":                     {input: "a-b_c/d:e.{f}"},
		"as long as allowed":              {input: long},
		"as deep as allowed":              {input: deep},
		"nothing":                         {input: "", want: `topic "": empty token at position 0`},
		"only a dot":                      {input: ".", want: `topic ".": empty token at position 0`},
		"an empty token at the start":     {input: ".a", want: `topic ".a": empty token at position 0`},
		"an empty token in the middle":    {input: "a..b", want: `topic "a..b": empty token at position 2`},
		"an empty token at the end":       {input: "a.b.", want: `topic "a.b.": empty token at position 4`},
		"a space":                         {input: "a.b c", want: `topic "a.b c": white space at position 3`},
		"a space that is not ASCII":       {input: "ä.\u00a0", want: `topic "ä.\u00a0": white space at position 3`},
		"a line end":                      {input: "a\n", want: `topic "a\n": white space at position 1`},
		"a control character":             {input: "a\x00", want: `topic "a\x00": control character at position 1`},
		"a control character above ASCII": {input: "a\u0086", want: `topic "a\u0086": control character at position 1`},
		"bytes that are not UTF-8":        {input: "ab.\xff", want: `topic "ab.\xff": not UTF-8 at position 3`},
		"half a rune":                     {input: "ab\xc3", want: `topic "ab\xc3": not UTF-8 at position 2`},
		"a token that is a wildcard":      {input: "a.*", want: `topic "a.*": wildcard '*' in a name at position 2`},
		"a wildcard for the rest":         {input: ">", want: `topic ">": wildcard '>' in a name at position 0`},
		"a wildcard inside a token":       {input: "a.b*", want: `topic "a.b*": wildcard '*' in a name at position 3`},
		"a byte too long":                 {input: long + "x", want: `topic "` + long[:80] + `": longer than 255 bytes at position 255`},
		"a token too deep":                {input: deep + ".a", want: `topic "` + deep + `.a": more than 32 tokens at position 64`},
		"the first of two faults":         {input: "a b..c", want: `topic "a b..c": white space at position 1`},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, topic.CheckName(test.input), test.want)
		})
	}
}

func TestCheckPattern(t *testing.T) {
	for name, test := range map[string]struct {
		input string
		want  string
	}{
		"a literal":                          {input: "orders.new"},
		"a reserved name":                    {input: "$hub.>"},
		"one token of any kind":              {input: "*"},
		"everything":                         {input: ">"},
		"wildcards in all places":            {input: "*.b.*.>"},
		"the rest below a literal":           {input: "orders.>"},
		"nothing":                            {input: "", want: `topic "": empty token at position 0`},
		"an empty token after a wildcard":    {input: "*.", want: `topic "*.": empty token at position 2`},
		"the rest, and something after it":   {input: "a.>.b", want: `topic "a.>.b": ">" is not the last token at position 2`},
		"the rest twice":                     {input: ">.>", want: `topic ">.>": ">" is not the last token at position 0`},
		"a star that starts a token":         {input: "a.*b", want: `topic "a.*b": wildcard '*' is only part of a token at position 2`},
		"a star that ends a token":           {input: "a.b*", want: `topic "a.b*": wildcard '*' is only part of a token at position 3`},
		"two stars in one token":             {input: "**", want: `topic "**": wildcard '*' is only part of a token at position 0`},
		"the rest as a part of a token":      {input: "a.b>", want: `topic "a.b>": wildcard '>' is only part of a token at position 3`},
		"a star and the rest in one token":   {input: "*>", want: `topic "*>": wildcard '*' is only part of a token at position 0`},
		"white space":                        {input: "* .b", want: `topic "* .b": wildcard '*' is only part of a token at position 0`},
		"what is not UTF-8 beside wildcards": {input: "*.\x80.>", want: `topic "*.\x80.>": not UTF-8 at position 2`},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, topic.CheckPattern(test.input), test.want)
		})
	}
}

func TestCheckPublishRefusesReservedNames(t *testing.T) {
	wantError(t, topic.CheckPublish("orders.$new"), "")
	wantError(t, topic.CheckPublish("$hub.nodes"), `topic "$hub.nodes": "$" is reserved for the hub at position 0`)
	wantError(t, topic.CheckPublish("$hub."), `topic "$hub.": empty token at position 5`)
}

func TestSyntaxErrorSaysWhere(t *testing.T) {
	var got *topic.SyntaxError
	if err := topic.CheckName("a..b"); !errors.As(err, &got) {
		t.Fatalf("got %T, want a *SyntaxError", err)
	}
	want := &topic.SyntaxError{Input: "a..b", Position: 2, Reason: "empty token"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestIsLiteral(t *testing.T) {
	for pattern, want := range map[string]bool{
		"a": true, "a.b": true, "$hub": true,
		"*": false, ">": false, "a.*": false, "a.>": false, "*.a": false,
	} {
		if got := topic.IsLiteral(pattern); got != want {
			t.Errorf("IsLiteral(%q): got %v, want %v", pattern, got, want)
		}
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
}
