package rule_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/rule"
	"github.com/switchboardhub/switchboard/hubnode/topic"
)

func worker() *rule.Values {
	return &rule.Values{ID: "w-7", Subject: rule.Subject{
		Method: "ServiceAccount", Name: "system:serviceaccount:team-a:worker", Namespace: "team-a", ServiceAccount: "worker",
		Groups: []string{"system:authenticated", "writers"},
		Claims: map[string]any{
			"tenant": "blue", "email": "a@b.example", "star": "*", "rest": ">", "glob": "a*", "two": "a.b", "empty": "", "space": "a b", "line": "a\nb",
			"hub": "$hub", "broken": "\xff", "replaced": "\uFFFD", "long": strings.Repeat("x", 300), "brace": "{id}", "level": 3.0, "list": []any{"blue"}, "https://a.example/tenant": "red",
		},
	}}
}

func TestExpand(t *testing.T) {
	for name, test := range map[string]struct {
		kind     rule.Kind
		template string
		want     string // empty: it allows nothing
	}{
		"nothing to put in":                {rule.Topics, "orders.>", "orders.>"},
		"a namespace":                      {rule.Topics, "{namespace}.>", "team-a.>"},
		"a service account":                {rule.Topics, "jobs.{serviceAccount}.*", "jobs.worker.*"},
		"a name":                           {rule.Topics, "jobs.{name}", "jobs.system:serviceaccount:team-a:worker"},
		"an id":                            {rule.Topics, "inbox.{id}", "inbox.w-7"},
		"a claim":                          {rule.Topics, "{claims.tenant}.orders", "blue.orders"},
		"a claim with a name of its own":   {rule.Topics, "{claims.https://a.example/tenant}.orders", "red.orders"},
		"part of a token":                  {rule.Topics, "ns-{namespace}-{serviceAccount}.x", "ns-team-a-worker.x"},
		"the same twice":                   {rule.Topics, "{id}.{id}", "w-7.w-7"},
		"braces that come from a client":   {rule.Topics, "a.{claims.brace}", "a.{id}"},
		"a topic of two tokens":            {rule.Topics, "{claims.two}.x", ""},
		"a topic that is a wildcard":       {rule.Topics, "{claims.star}.x", ""},
		"a topic that is the rest":         {rule.Topics, "a.{claims.rest}", ""},
		"a topic with a wildcard in it":    {rule.Topics, "a.{claims.glob}", ""},
		"a topic of an absent claim":       {rule.Topics, "a.{claims.none}", ""},
		"a topic of an empty claim":        {rule.Topics, "a{claims.empty}.b", ""},
		"a topic of a number":              {rule.Topics, "a.{claims.level}", ""},
		"a topic of a list":                {rule.Topics, "a.{claims.list}", ""},
		"a topic with white space":         {rule.Topics, "a.{claims.space}", ""},
		"a topic of two lines":             {rule.Topics, "a.{claims.line}", ""},
		"a topic that is the hub's":        {rule.Topics, "{claims.hub}.x", ""},
		"a dollar further on":              {rule.Topics, "x.{claims.hub}", "x.$hub"},
		"a topic that is not UTF-8":        {rule.Topics, "a.{claims.broken}", ""},
		"a topic that was not UTF-8":       {rule.Topics, "a.{claims.replaced}", ""},
		"a topic that is too long":         {rule.Topics, "a.{claims.long}", ""},
		"a topic of a mail address":        {rule.Topics, "a.{claims.email}", ""},
		"an id with a glob":                {rule.IDs, "{namespace}/*", "team-a/*"},
		"an id of a mail address":          {rule.IDs, "{claims.email}", "a@b.example"},
		"an id with dots":                  {rule.IDs, "{claims.two}-*", "a.b-*"},
		"an id that is a glob":             {rule.IDs, "{claims.star}", ""},
		"an id with a glob in it":          {rule.IDs, "x-{claims.glob}", ""},
		"an id of an absent claim":         {rule.IDs, "x-{claims.none}", ""},
		"an id of an empty claim":          {rule.IDs, "x-{claims.empty}", ""},
		"an id with white space":           {rule.IDs, "x-{claims.space}", ""},
		"an id that is the hub's":          {rule.IDs, "{claims.hub}", ""},
		"an id that is too long":           {rule.IDs, "{claims.long}", ""},
		"an id that is not UTF-8":          {rule.IDs, "x-{claims.broken}", ""},
		"a claim named as the placeholder": {rule.IDs, "{claims.namespace}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := rule.Parse(test.kind, test.template)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := template.Expand(worker())
			if !ok {
				got = ""
			}
			if got != test.want || ok != (test.want != "") {
				t.Errorf("%q: got %q, %v, want %q", test.template, got, ok, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const there = "there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}"
	for name, test := range map[string]struct {
		kind           rule.Kind
		template, want string
	}{
		"no topic":                        {rule.Topics, "", `topic "": empty token at position 0`},
		"a topic that is none":            {rule.Topics, "a..b", `topic "a..b": empty token at position 2`},
		"such a topic with a placeholder": {rule.Topics, "{id}..b", `"{id}..b", with x for each placeholder: topic "x..b": empty token at position 2`},
		"a wildcard beside a placeholder": {rule.Topics, "a.{id}*", `"a.{id}*", with x for each placeholder: topic "a.x*": wildcard '*' is only part of a token at position 3`},
		"a topic of the hub":              {rule.Topics, "$presence", `"$presence" is the hub's own: what begins with $ is allowed by admin`},
		"an id of the hub":                {rule.IDs, "$hub.*", `"$hub.*" is the hub's own: what begins with $ is allowed by admin`},
		"no id":                           {rule.IDs, "", `client id "": nothing there at byte 0`},
		"an id with white space":          {rule.IDs, "a b", `client id "a b": white space at byte 1`},
		"another placeholder":             {rule.IDs, "{team}-*", `"{team}-*" has the placeholder {team}; ` + there},
		"a placeholder in other letters":  {rule.IDs, "{Namespace}", `"{Namespace}" has the placeholder {Namespace}; ` + there},
		"a placeholder without a name":    {rule.IDs, "{}", `"{}" has the placeholder {}; ` + there},
		"a claim without a name":          {rule.IDs, "{claims.}", `"{claims.}" has the placeholder {claims.}; ` + there},
		"all claims":                      {rule.IDs, "{claims}", `"{claims}" has the placeholder {claims}; ` + there},
		"a claim with white space":        {rule.IDs, "{claims.a b}", `"{claims.a b}" has the placeholder {claims.a b}; ` + there},
		"a brace that is not closed":      {rule.IDs, "a-{id", `"a-{id" has a { without its }`},
		"a brace in a brace":              {rule.IDs, "{id{id}}", `"{id{id}}" has a { without its }`},
		"a brace that is not opened":      {rule.IDs, "id}-a", `"id}-a" has a } without its {`},
		"a brace that closes twice":       {rule.IDs, "{id}}", `"{id}}" has a } without its {`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rule.Parse(test.kind, test.template); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestWidest(t *testing.T) {
	for name, test := range map[string]struct {
		kind           rule.Kind
		template, want string
	}{
		"nothing to put in": {rule.Topics, "a.*.>", "a.*.>"},
		"a token":           {rule.Topics, "{namespace}.a.>", "*.a.>"},
		"part of a token":   {rule.Topics, "a.x-{claims.b.c}-y.b", "a.*.b"},
		"an id":             {rule.IDs, "{namespace}/a-{id}", "*/a-*"},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := rule.Parse(test.kind, test.template)
			if err != nil {
				t.Fatal(err)
			}
			if got := template.Widest(); got != test.want {
				t.Errorf("%q: got %q, want %q", test.template, got, test.want)
			}
		})
	}
}

func TestHas(t *testing.T) {
	template, err := rule.Parse(rule.IDs, "id-{namespace}-{claims.id}")
	if err != nil {
		t.Fatal(err)
	}
	for placeholder, want := range map[string]bool{rule.Namespace: true, "claims.id": true, rule.ID: false, "id-": false} {
		if got := template.Has(placeholder); got != want {
			t.Errorf("Has(%q): got %v, want %v", placeholder, got, want)
		}
	}
}

// literally is what a template with a value has to match: it goes by the
// template's tokens, in which the value is literal text, and never looks at what
// it was expanded to.
func literally(template, value, name string) bool {
	const hole = "\x00"
	for _, placeholder := range []string{"{namespace}", "{name}", "{serviceAccount}", "{id}", "{claims.c}"} {
		template = strings.ReplaceAll(template, placeholder, hole)
	}
	wants, haves := strings.Split(template, "."), strings.Split(name, ".")
	for i, want := range wants {
		switch {
		case want == ">":
			return len(haves) > i
		case i >= len(haves):
			return false
		case want != "*" && haves[i] != strings.ReplaceAll(want, hole, value):
			return false
		}
	}
	return len(wants) == len(haves)
}

func FuzzExpand(f *testing.F) {
	for _, s := range [][3]string{
		{"a.{namespace}.>", "team-a", "a.team-a.b"},
		{"{id}", "*", "anything"},
		{"{name}.x", ">", "a.x"},
		{"a.{claims.c}", "b.c", "a.b.c"},
		{"a-{id}", "*", "a-b"},
		{"{id}*", "a", "ab"},
		{"{claims.c}.>", "$hub", "$hub.x"},
		{"{id}{name}.*", "\xff", "\xff\xff.a"},
		{"{id", "}", "{id}"},
		{"{namespace}.{serviceAccount}", "{id}", "{id}.{id}"},
		{"x{id}", "\u2028", "x\u2028"},
		{"{id}.>", strings.Repeat("x", 254), strings.Repeat("x", 254) + ".a"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, text, value, name string) {
		values := &rule.Values{ID: value, Subject: rule.Subject{Namespace: value, ServiceAccount: value, Name: value, Claims: map[string]any{"c": value}}}
		if template, err := rule.Parse(rule.Topics, text); err == nil {
			if pattern, ok := template.Expand(values); ok {
				if err := topic.CheckPattern(pattern); err != nil || topic.IsReserved(pattern) {
					t.Fatalf("%q with %q is the pattern %q: %v", text, value, pattern, err)
				}
				if !topic.Covers(template.Widest(), pattern) {
					t.Errorf("%q with %q is %q, which %q does not cover", text, value, pattern, template.Widest())
				}
				for _, name := range []string{name, value, pattern, value + "." + name} {
					if topic.CheckName(name) == nil && topic.Match(pattern, name) != literally(text, value, name) {
						t.Errorf("%q with %q is %q, and Match(%q) is %v", text, value, pattern, name, topic.Match(pattern, name))
					}
				}
			}
		}
		if template, err := rule.Parse(rule.IDs, text); err == nil {
			if glob, ok := template.Expand(values); ok {
				if strings.Count(glob, "*") != strings.Count(text, "*") {
					t.Errorf("%q with %q is the glob %q", text, value, glob)
				}
				if !rule.CoversID(template.Widest(), glob) {
					t.Errorf("%q with %q is %q, which %q does not cover", text, value, glob, template.Widest())
				}
			}
		}
	})
}
