package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

func TestRulesAreNamedByTheirFaults(t *testing.T) {
	file := `hub: h
authorization:
  rules:
  - name: fine
    when: identity.namespace == "team-a"
    connectAs: ['{namespace}/*']
    sendTo: ['*']
    publish: ['orders.{serviceAccount}.>']
    subscribe: ['>']
    history: ['orders.{claims.tenant}']
    admin: View
  - when: identity.group == "a"
    connectAs: [ok, '{id}-x', 'a b']
    sendTo: ['{team}']
    publish: [a..b]
    subscribe: [$presence]
    history: ['{id']
    admin: view
  - name: fine
  - name: "a\nb"
  - name: ` + strings.Repeat("x", 401) + `
    publish: [` + strings.Repeat("a,", 257) + `]
`
	want := `line 12: authorization.rules[1].name: is required: what people know the rule by
line 12: authorization.rules[1].when: condition "identity.group == \"a\"": undefined field 'group' at line 1, column 9
line 13: authorization.rules[1].connectAs[1]: must not have {id}, which would allow any: use {name}, or * if that is meant, is "{id}-x"
line 13: authorization.rules[1].connectAs[2]: client id "a b": white space at byte 1
line 14: authorization.rules[1].sendTo[0]: "{team}" has the placeholder {team}; there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}
line 15: authorization.rules[1].publish[0]: topic "a..b": empty token at position 2
line 16: authorization.rules[1].subscribe[0]: "$presence" is the hub's own: what begins with $ is allowed by admin
line 17: authorization.rules[1].history[0]: "{id" has a { without its }
line 18: authorization.rules[1].admin: must be one of View, Manage, is "view"
line 19: authorization.rules[2].name: is "fine", as authorization.rules[0]: people could not tell them apart
line 20: authorization.rules[3].name: must be UTF-8 without control characters, is "a\nb"
line 21: authorization.rules[4].name: must not be longer than 400 bytes, has 401
line 22: authorization.rules[4].publish: must not have more than 256 elements, has 257`
	_, err := config.Parse([]byte(file))
	if err == nil {
		t.Fatal("got no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestTooManyRulesAreOneFault(t *testing.T) {
	a := config.Authorization{Rules: make([]config.Rule, config.MaxRules+1)}
	for i := range a.Rules {
		a.Rules[i].Name = fmt.Sprint(i)
	}
	if err, want := a.Validate(), "authorization.rules: must not have more than 4096 elements, has 4097"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	a.Rules = slices.Clip(a.Rules[:config.MaxRules])
	if err := a.Validate(); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
}

func TestOneRuleIsValidatedOnItsOwn(t *testing.T) {
	for name, test := range map[string]struct {
		rule config.Rule
		want string
	}{
		"all is well": {config.Rule{Name: "a", When: "true", Publish: []string{"a.>"}}, ""},
		"a condition": {config.Rule{Name: "a", When: "1"}, `when: condition "1": must be true or false, is of type int`},
		"an element":  {config.Rule{Name: "a", SendTo: []string{"{x}"}}, `sendTo[0]: "{x}" has the placeholder {x}; there are {namespace}, {serviceAccount}, {name}, {id} and {claims.NAME}`},
		"no name":     {config.Rule{}, "name: is required: what people know the rule by"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.rule.Validate()
			if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// Nodes that know nothing of authentication follow the file of an operator that does.
func TestMarshalLeavesOutAuthenticationThatIsNotUsed(t *testing.T) {
	c := config.Default()
	text, err := c.Marshal()
	if err != nil || strings.Contains(string(text), "auth") {
		t.Errorf("nothing is used: %v\n%s", err, text)
	}
	c.Authentication.ServiceAccount = &config.TokenIssuer{Issuer: "https://a.example", Audiences: []string{"a"}, KeysFile: "/k"}
	c.Authorization.Rules = []config.Rule{{Name: "a", Publish: []string{"b"}}}
	text, err = c.Marshal()
	want := `authentication:
  serviceAccount:
    issuer: https://a.example
    audiences:
      - a
    keysFile: /k
authorization:
  rules:
    - name: a
      publish:
        - b
`
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("got %v\n%s\nwant it to have\n%s", err, text, want)
	}
}
