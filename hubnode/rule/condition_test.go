package rule_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/rule"
)

func TestHolds(t *testing.T) {
	for name, test := range map[string]struct {
		condition string
		want      bool
	}{
		"a method":                      {`identity.method == "ServiceAccount"`, true},
		"another method":                {`identity.method == "Static"`, false},
		"a name":                        {`identity.name.endsWith(":worker")`, true},
		"a namespace of some":           {`identity.namespace in ["team-a", "team-b"]`, true},
		"a service account":             {`identity.serviceAccount == "worker"`, true},
		"a group":                       {`"writers" in identity.groups`, true},
		"no such group":                 {`"admins" in identity.groups`, false},
		"some group":                    {`identity.groups.exists(g, g.startsWith("system:"))`, true},
		"a claim":                       {`identity.claims.tenant == "blue"`, true},
		"a claim by its name":           {`identity.claims["https://a.example/tenant"] == "red"`, true},
		"a claim that is there":         {`has(identity.claims.tenant)`, true},
		"a claim that is not":           {`"none" in identity.claims`, false},
		"a claim that is a number":      {`identity.claims.level >= 3`, true},
		"a claim that is a list":        {`"blue" in identity.claims.list`, true},
		"some element of a claim":       {`identity.claims.list.exists(x, x == "blue")`, true},
		"an absent claim with a guard":  {`!("none" in identity.claims) || identity.claims.none == "x"`, true},
		"a pattern":                     {`identity.namespace.matches("^team-[a-z]+$")`, true},
		"the identity without its type": {`dyn(identity).namespace == "team-a"`, true},
		"the identity itself":           {`identity == identity`, true},
		"a constant":                    {`true`, true},
		"groups and a list of ours":     {`identity.groups.exists(g, g in ["a", "writers"])`, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := rule.Compile(test.condition)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Holds(&worker().Subject); err != nil || got != test.want {
				t.Errorf("%s: got %v, %v, want %v", c, got, err, test.want)
			}
		})
	}
}

func TestHoldsOfNobody(t *testing.T) {
	c, err := rule.Compile(`identity.name == "" && identity.groups.size() == 0 && identity.claims.size() == 0 && !("a" in identity.claims)`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Holds(new(rule.Subject)); err != nil || !got {
		t.Errorf("got %v, %v, want true", got, err)
	}
}

func TestHoldsFailsWhereThereIsNoAnswer(t *testing.T) {
	large := worker()
	large.Name = strings.Repeat("n", 20*rule.MaxCost) // longer than any proof of an identity
	for name, test := range map[string]struct {
		condition string
		subject   *rule.Subject
		want      string // the end of the error
	}{
		"a claim that is absent":             {`identity.claims.none == "x"`, &worker().Subject, "no such key: none"},
		"a claim that is of another kind":    {`identity.claims.tenant > 1`, &worker().Subject, "no such overload"},
		"part of a claim that has no parts":  {`identity.claims.tenant.name == "x"`, &worker().Subject, "no such key: name"},
		"a field that nobody checked":        {`dyn(identity).nam == "x"`, &worker().Subject, "undefined field 'nam'"},
		"more to look at than is reasonable": {`identity.name.contains("x")`, &large.Subject, "actual cost limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := rule.Compile(test.condition)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Holds(test.subject)
			if got || err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error that ends in %q", got, err, test.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, test := range map[string]struct{ condition, want string }{
		"nothing":                      {` `, `condition " ": is empty`},
		"a field that there is not":    {`identity.group == "a"`, "undefined field 'group' at line 1, column 9"},
		"two such fields":              {"identity.group == \"a\" &&\n identity.ns == \"a\"", "undefined field 'group' at line 1, column 9 (and 1 more)"},
		"a variable that there is not": {`artifact.size > 1`, "undeclared reference to 'artifact'"},
		"what is not CEL":              {`identity.name ==`, "Syntax error"},
		"a text":                       {`identity.name`, "must be true or false, is of type string"},
		"a claim as it is":             {`identity.claims.admin`, "must be true or false, is of type dyn"},
		"types that don't go together": {`identity.name > 1`, "no matching overload"},
		"a pattern that is none":       {`identity.name.matches("(")`, "invalid matches argument"},
		"objects made":                 {`switchboard.Identity{name: "a"} == identity`, "must not make objects"},
		"three loops in one another":   {`[1].all(a, [1].all(b, [1].all(c, true)))`, "comprehension exceeds nesting limit"},
		"a loop over pairs of groups":  {`identity.groups.all(a, identity.groups.all(b, a.contains(b)))`, "may cost"},
		"parentheses without end":      {strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200), "recursion limit"},
		"an expression without end":    {strings.Repeat(" ", 5000) + "true", "expression code point size exceeds limit"},
		"terms without end":            {"true" + strings.Repeat("||true", 600), "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := rule.Compile(test.condition)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error that says %q", c, err, test.want)
			}
		})
	}
}

func TestHoldsIsSafeForConcurrentUse(t *testing.T) {
	c, err := rule.Compile(`identity.claims.tenant.matches("^bl") && "writers" in identity.groups`)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if got, err := c.Holds(&worker().Subject); err != nil || !got {
					t.Errorf("got %v, %v, want true", got, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		``, `true`, `identity.name == "a"`, `"a" in identity.groups`, `identity.nam`, `identity.claims["k"] == "v"`, `identity.claims.level > 1`,
		`identity.groups.exists(g, g.startsWith("a"))`, `switchboard.Identity{}`, `dyn(identity).x == {}`, `identity.name.matches("a+")`,
		"\"\xff\"", `a.b.c{d: 1}`, `{1: [identity]}[1][0] == identity`, `identity.claims.list.map(x, x + x).size() > 1`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		c, err := rule.Compile(expression)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		for _, s := range []*rule.Subject{&worker().Subject, new(rule.Subject)} {
			if got, err := c.Holds(s); err != nil && got {
				t.Errorf("%q holds in spite of %v", expression, err)
			}
		}
	})
}
