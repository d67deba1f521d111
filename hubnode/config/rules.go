package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/switchboardhub/switchboard/hubnode/rule"
)

// What rules may say at most. The Hub and Grant resources have lower bounds; the
// operator sees to it that a Hub and its Grants have no more than MaxRules.
const (
	MaxRules        = 4096
	MaxRuleElements = 256 // of one list of a rule
	MaxRuleName     = 400 // bytes; "grant", a namespace, a Grant's name and its rule's fit
	MaxWhen         = rule.MaxCondition
)

// Validate returns nil, or an error that joins a [*FieldError] for each fault of the
// rules, with a path such as authorization.rules[2].when: what a configuration that
// has them would say.
func (a Authorization) Validate() error {
	var f faults
	a.check(&f)
	return joinFaults(f)
}

func (a Authorization) check(f *faults) {
	if len(a.Rules) > MaxRules {
		f.add("authorization.rules", "must not have more than %d elements, has %d", MaxRules, len(a.Rules))
		return
	}
	first := make(map[string]int) // place of each name
	for i, r := range a.Rules {
		path := fmt.Sprintf("authorization.rules[%d]", i)
		if at, ok := first[r.Name]; !ok {
			first[r.Name] = i
		} else if r.Name != "" {
			f.add(path+".name", "is %q, as authorization.rules[%d]: people could not tell them apart", r.Name, at)
		}
		r.check(f, path)
	}
}

// Validate returns nil, or an error that joins a [*FieldError] for each fault of the
// rule, with a path below it.
func (r Rule) Validate() error {
	var f faults
	r.check(&f, "")
	return joinFaults(f)
}

// RuleList is one of the lists of a rule.
type RuleList struct {
	Name  string // as the file has it
	Kind  rule.Kind
	Texts []string
}

// Lists returns the lists of the rule: always the same ones, in the same order.
func (r Rule) Lists() [5]RuleList {
	return [...]RuleList{
		{"connectAs", rule.IDs, r.ConnectAs},
		{"sendTo", rule.IDs, r.SendTo},
		{"publish", rule.Topics, r.Publish},
		{"subscribe", rule.Topics, r.Subscribe},
		{"history", rule.Topics, r.History},
	}
}

func (r Rule) check(f *faults, path string) {
	switch {
	case r.Name == "":
		f.add(join(path, "name"), "is required: what people know the rule by")
	case len(r.Name) > MaxRuleName:
		f.add(join(path, "name"), "must not be longer than %d bytes, has %d", MaxRuleName, len(r.Name))
	case !utf8.ValidString(r.Name) || strings.ContainsFunc(r.Name, unicode.IsControl):
		f.add(join(path, "name"), "must be UTF-8 without control characters, is %.80q", r.Name)
	}
	if r.When != "" {
		// Compiled here and not first by a node, as filters are.
		if _, err := rule.Compile(r.When); err != nil {
			f.add(join(path, "when"), "%v", err)
		}
	}
	for _, list := range r.Lists() {
		at := join(path, list.Name)
		if len(list.Texts) > MaxRuleElements {
			f.add(at, "must not have more than %d elements, has %d", MaxRuleElements, len(list.Texts))
			continue
		}
		for i, text := range list.Texts {
			t, err := rule.Parse(list.Kind, text)
			switch {
			case err != nil:
				f.add(fmt.Sprintf("%s[%d]", at, i), "%v", err)
			case list.Name == "connectAs" && t.Has(rule.ID):
				// The id is what the client asks for: it would get any.
				f.add(fmt.Sprintf("%s[%d]", at, i), "must not have {id}, which would allow any: use {name}, or * if that is meant, is %.80q", text)
			}
		}
	}
	if r.Admin != "" {
		f.oneOf(join(path, "admin"), string(r.Admin), string(AdminView), string(AdminManage))
	}
}
