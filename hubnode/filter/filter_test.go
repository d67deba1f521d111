package filter_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/filter"
	"github.com/switchboardhub/switchboard/wire"
)

func artifact() *wire.Artifact {
	return &wire.Artifact{
		ID:          wire.ID{15: 0xab},
		From:        "agent-7",
		Topic:       "orders.new",
		Time:        time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		ContentType: "application/json",
		Attributes:  map[string]string{"tenant": "blue", "region": "eu"},
		Payload:     make([]byte, 1000),
	}
}

func TestMatch(t *testing.T) {
	for name, test := range map[string]struct {
		expression string
		want       bool
	}{
		"size and an attribute":                {`artifact.size <= 65536 && "tenant" in artifact.attributes`, true},
		"size beyond":                          {`artifact.size < 1000`, false},
		"an attribute that is absent":          {`"secret" in artifact.attributes`, false},
		"an attribute's value":                 {`artifact.attributes["tenant"] == "blue"`, true},
		"an attribute's other value":           {`artifact.attributes["tenant"] == "red"`, false},
		"an attribute as a field":              {`artifact.attributes.tenant == "blue"`, true},
		"an attribute that is there":           {`has(artifact.attributes.tenant)`, true},
		"an attribute that is not":             {`has(artifact.attributes.secret)`, false},
		"an absent attribute behind a guard":   {`!("x" in artifact.attributes) || artifact.attributes["x"] == "y"`, true},
		"the sender's name":                    {`artifact.from.startsWith("agent-")`, true},
		"no target":                            {`artifact.to == ""`, true},
		"the topic":                            {`artifact.topic == "orders.new"`, true},
		"the content type":                     {`artifact.contentType.endsWith("/json")`, true},
		"the id":                               {`artifact.id == "000000000000000000000000000000ab"`, true},
		"the time":                             {`artifact.time > timestamp("2026-01-01T00:00:00Z")`, true},
		"the hour":                             {`artifact.time.getHours() == 12`, true},
		"a pattern":                            {`artifact.topic.matches("^orders\\.(new|old)$")`, true},
		"a list of topics":                     {`artifact.topic in ["a", "orders.new"]`, true},
		"any attribute":                        {`artifact.attributes.exists(k, artifact.attributes[k] == "eu")`, true},
		"all attributes":                       {`artifact.attributes.all(k, k.size() == 6)`, true},
		"how many attributes":                  {`artifact.attributes.size() == 2`, true},
		"a field that is always there":         {`has(artifact.to)`, true},
		"the artifact itself":                  {`artifact == artifact`, true},
		"the artifact in a list":               {`[artifact].exists(a, a.size == 1000)`, true},
		"the artifact without its type":        {`dyn(artifact).size == 1000`, true},
		"a field of what came out of a choice": {`(artifact.size > 0 ? artifact : artifact).topic == "orders.new"`, true},
		"constants":                            {`true`, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := filter.Compile(test.expression)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := f.Match(artifact()); err != nil || got != test.want {
				t.Errorf("%s: got %v, %v, want %v", f, got, err, test.want)
			}
		})
	}
}

func TestMatchOfTheZeroArtifact(t *testing.T) {
	f, err := filter.Compile(`artifact.size == 0 && artifact.from == "" && artifact.attributes.size() == 0 && !("a" in artifact.attributes) && artifact.time < timestamp("2000-01-01T00:00:00Z")`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Match(new(wire.Artifact)); err != nil || !got {
		t.Errorf("got %v, %v, want true", got, err)
	}
}

// What a filter costs each artifact: an expression whose cost is known to be
// small is not counted while it runs, which takes ten times as long.
func TestMatchCountsOnlyWhatMayBeLarge(t *testing.T) {
	a := artifact()
	for expression, counted := range map[string]bool{
		`artifact.size <= 65536 && "tenant" in artifact.attributes`: false,
		`artifact.attributes["tenant"] == "blue"`:                   false,
		`artifact.topic.matches("^orders[.](new|old)$")`:            false,
		`artifact.attributes["tenant"].contains("blue")`:            true,
		`artifact.attributes.exists(k, k == "tenant")`:              true,
	} {
		f, err := filter.Compile(expression)
		if err != nil {
			t.Fatal(err)
		}
		allocations := testing.AllocsPerRun(100, func() { _, _ = f.Match(a) })
		if got := allocations > 8; got != counted {
			t.Errorf("%s: got %v allocations, counted: want %v", expression, allocations, counted)
		}
	}
}

func TestMatchFailsWhereThereIsNoAnswer(t *testing.T) {
	large := artifact()
	large.Topic = strings.Repeat("t", 20*filter.MaxCost) // longer than the wire allows
	large.Attributes["long"] = large.Topic
	for name, test := range map[string]struct {
		expression string
		artifact   *wire.Artifact
		want       string // the end of the error
	}{
		"an attribute that is absent":    {`artifact.attributes["secret"] == "x"`, artifact(), "no such key: secret"},
		"a division by zero":             {`artifact.size / (artifact.size - 1000) == 1`, artifact(), "division by zero"},
		"a field that nobody checked":    {`dyn(artifact).sise == 1`, artifact(), "undefined field 'sise'"},
		"more to look at than allowed":   {`artifact.topic.contains("x")`, large, "actual cost limit exceeded"},
		"an attribute beyond the wire's": {`artifact.attributes["long"].contains("x")`, large, "actual cost limit exceeded"},
		"an attribute that is no number": {`int(artifact.attributes["tenant"]) > 1`, artifact(), "type conversion error from 'string' to 'int'"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := filter.Compile(test.expression)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Match(test.artifact)
			if got || err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error that ends in %q", got, err, test.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		expression, want string
	}{
		"nothing":                         {``, "is empty at line 1, column 1"},
		"a field that there is not":       {`artifact.sise > 1`, "undefined field 'sise' at line 1, column 9"},
		"such a field on the second line": {"true &&\n  artifact.sise > 1", "undefined field 'sise' at line 2, column 11"},
		"two such fields":                 {`artifact.sise > 1 && artifact.form == "a"`, "undefined field 'sise' at line 1, column 9 (and 1 more)"},
		"a variable that there is not":    {`message.size > 1`, "undeclared reference to 'message'"},
		"what is not CEL":                 {`artifact.size >`, "Syntax error"},
		"types that don't go together":    {`artifact.size > "1"`, "no matching overload for '_>_' applied to '(int, string)'"},
		"a field of the wrong type":       {`artifact.attributes["n"] > 1`, "no matching overload for '_>_' applied to '(string, int)'"},
		"a number":                        {`artifact.size`, "must be true or false, is of type int"},
		"what may be anything":            {`dyn(artifact)`, "must be true or false, is of type dyn"},
		"the payload":                     {`artifact.payload == b"x"`, "undefined field 'payload'"},
		"a pattern that is none":          {`artifact.topic.matches("(")`, "invalid matches argument"},
		"a time that is none":             {`artifact.time > timestamp("yesterday")`, "invalid timestamp argument"},
		"objects made":                    {`switchboard.Artifact{size: 1} == artifact`, "must not make objects"},
		"three loops in one another":      {`[1].all(a, [1].all(b, [1].all(c, true)))`, "comprehension exceeds nesting limit"},
		"a loop over pairs of attributes": {`artifact.attributes.all(a, artifact.attributes.all(b, artifact.attributes[a].contains(artifact.attributes[b])))`, "may cost 688583043, allowed are 100000"},
		"parentheses without end":         {strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200), "recursion limit"},
		"an expression without end":       {strings.Repeat(" ", 5000) + "true", "expression code point size exceeds limit"},
		"conditions without end":          {"true" + strings.Repeat("||true", 600), "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := filter.Compile(test.expression)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error that says %q", f, err, test.want)
			}
		})
	}
}

func TestErrorsSayWhatTheyAre(t *testing.T) {
	_, err := filter.Compile("true &&\n  artifact.sise > 1")
	if e, ok := errors.AsType[*filter.SyntaxError](err); !ok || e.Line != 2 || e.Column != 11 {
		t.Errorf("got %+v, want a SyntaxError at line 2, column 11", e)
	}
	_, err = filter.Compile(`artifact.attributes.all(a, artifact.attributes.all(b, a.contains(b)))`)
	if e, ok := errors.AsType[*filter.CostError](err); !ok || e.Cost <= filter.MaxCost {
		t.Errorf("got %v, want a CostError", err)
	}
}

func TestMatchIsSafeForConcurrentUse(t *testing.T) {
	f, err := filter.Compile(`artifact.attributes["k"].matches("^[0-9]+$") && artifact.size == int(artifact.attributes["k"])`)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for size := range 8 {
		group.Go(func() {
			for range 200 {
				a := &wire.Artifact{Payload: make([]byte, size), Attributes: map[string]string{"k": fmt.Sprint(size)}}
				if got, err := f.Match(a); err != nil || !got {
					t.Errorf("size %d: got %v, %v, want true", size, got, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		``, `true`, `artifact.size > 1`, `"a" in artifact.attributes`, `artifact.sise`, `artifact.attributes["k"] == "v"`,
		`artifact.from.startsWith("agent-")`, `artifact.time > timestamp("2026-01-01T00:00:00Z")`, `[1, 2].exists(x, x == artifact.size)`,
		`switchboard.Artifact{}`, `dyn(artifact).x == {}`, `artifact.topic.matches("a+")`, "\"\xff\"", `a.b.c{d: 1}`, `{1: [artifact]}[1][0] == artifact`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		compiled, err := filter.Compile(expression)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		for _, a := range []*wire.Artifact{artifact(), new(wire.Artifact)} {
			if got, err := compiled.Match(a); err != nil && got {
				t.Errorf("%q matches in spite of %v", expression, err)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for name, expression := range map[string]string{
		"size":       `artifact.size <= 65536`,
		"guard":      `artifact.size <= 65536 && "tenant" in artifact.attributes`,
		"attribute":  `artifact.attributes["tenant"] == "blue"`,
		"from":       `artifact.from.startsWith("agent-")`,
		"time":       `artifact.time > timestamp("2026-01-01T00:00:00Z")`,
		"regexp":     `artifact.topic.matches("^orders\\.(new|old)$")`,
		"attributes": `artifact.attributes.exists(k, artifact.attributes[k] == "eu")`,
	} {
		b.Run(name, func(b *testing.B) {
			f, err := filter.Compile(expression)
			if err != nil {
				b.Fatal(err)
			}
			a := artifact()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Match(a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := filter.Compile(`artifact.size <= 65536 && "tenant" in artifact.attributes`); err != nil {
			b.Fatal(err)
		}
	}
}
