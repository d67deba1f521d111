package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/rule"
	"github.com/switchboardhub/switchboard/hubnode/topic"
)

// grantBytes bounds what Grants take of the nodes' settings; Topics need room, too.
const grantBytes = 256 << 10

// grantCost bounds what the conditions of Grants may cost together, in CEL's units: nodes
// look at all of them whenever a client connects. A comparison costs three, to look at
// each group of a client some hundreds; all take a fifth of a second of CPU.
const grantCost = 1_000_000

// grantClaim is how one Grant stands with its Hub.
type grantClaim struct {
	grant *switchboardv1alpha1.Grant
	// reason and message say why the hub does not take the Grant; empty when it does.
	reason, message string
	// rules are what nodes' settings have of it: all or, of one that is refused, none.
	rules []config.Rule
}

// refuse says why the hub does not take the Grant. It then allows nothing, whatever it
// allowed before.
func (c *grantClaim) refuse(reason, format string, args ...any) {
	c.reason, c.message, c.rules = reason, fmt.Sprintf(format, args...), nil
}

func grantName(g *switchboardv1alpha1.Grant) string { return g.Namespace + "/" + g.Name }

// validGrants are the generations of Grants, by UID, whose rules were found valid: to
// compile their conditions takes most of the time, and is needed once. Nil is empty.
type validGrants map[types.UID]validGrant

type validGrant struct {
	generation int64
	cost       uint64 // of its conditions
}

// decideGrants decides which Grants the hub takes: those all of whose rules are valid and
// inside of what the Hub delegates to their namespace. It returns all, the oldest first;
// the youngest are refused when there is no room for all. It reads and returns which are
// valid.
func decideGrants(hub *switchboardv1alpha1.Hub, grants []switchboardv1alpha1.Grant, before validGrants) ([]*grantClaim, validGrants) {
	valid := make(validGrants)
	claims := make([]*grantClaim, len(grants))
	for i := range grants {
		claims[i] = &grantClaim{grant: &grants[i]}
	}
	slices.SortFunc(claims, func(a, b *grantClaim) int {
		return cmp.Or(
			a.grant.CreationTimestamp.Compare(b.grant.CreationTimestamp.Time),
			cmp.Compare(a.grant.Namespace, b.grant.Namespace),
			cmp.Compare(a.grant.Name, b.grant.Name),
		)
	})
	own := 0
	if hub.Spec.Authorization != nil {
		own = len(hub.Spec.Authorization.Rules)
	}
	known := make(map[string]*delegated) // by namespace
	rules, size, cost := own, 0, uint64(0)
	for _, c := range claims {
		if hub.Spec.Authentication == nil {
			c.refuse(switchboardv1alpha1.ReasonNotDelegated, "Hub %s/%s has no spec.authentication: everybody may do everything, and there is nothing to grant", hub.Namespace, hub.Name)
			continue
		}
		if known[c.grant.Namespace] == nil {
			known[c.grant.Namespace] = delegatedTo(hub, c.grant.Namespace)
		}
		checked, ok := before[c.grant.UID]
		if ok = ok && checked.generation == c.grant.Generation; !ok {
			checked = validGrant{generation: c.grant.Generation}
		}
		c.decide(hub, known[c.grant.Namespace], ok, &checked)
		if c.reason != switchboardv1alpha1.ReasonInvalidRule {
			valid[c.grant.UID] = checked
		}
		n, bytes := len(c.rules), sizeOf(c.rules)
		switch {
		case rules+n > config.MaxRules || size+bytes > grantBytes:
			c.refuse(switchboardv1alpha1.ReasonNoRoom, "the hub's settings have no room for it beside older Grants: they take %d rules, and %d bytes of Grants", config.MaxRules, grantBytes)
			continue
		case c.reason == "" && cost+checked.cost > grantCost:
			c.refuse(switchboardv1alpha1.ReasonNoRoom, "nodes have no time for its conditions, which may cost %d, beside those of older Grants, which may cost %d: together they may %d", checked.cost, cost, grantCost)
			continue
		case c.reason == "":
			cost += checked.cost
		}
		rules, size = rules+n, size+bytes
	}
	return claims, valid
}

// decide decides on one Grant without regard to others. known says that its rules are
// valid; else it adds to what is known of it.
func (c *grantClaim) decide(hub *switchboardv1alpha1.Hub, to *delegated, known bool, checked *validGrant) {
	if !slices.ContainsFunc(c.grant.Spec.Rules, allowsSomething) { // not compiled: there may be many
		c.refuse(switchboardv1alpha1.ReasonInvalidRule, "spec.rules: none of them allows anything")
		return
	}
	var beyond few
	var ask request
	for i := range c.grant.Spec.Rules {
		r := &c.grant.Spec.Rules[i]
		made := manifests.RuleConfig(fmt.Sprintf("grant %s/%s", grantName(c.grant), r.Name), r)
		if err := checked.validate(&made, known); err != nil {
			c.refuse(switchboardv1alpha1.ReasonInvalidRule, "spec.rules[%d].%v", i, strings.ReplaceAll(err.Error(), "\n", fmt.Sprintf("; spec.rules[%d].", i)))
			return
		}
		made.Namespace = string(manifests.TenantOf(hub, c.grant.Namespace)) // to other tenants its names mean other things
		if allowsSomething(*r) {                                            // else nodes would only have its condition to look at, for each client that connects
			c.rules = append(c.rules, made)
		}
		for _, list := range made.Lists() {
			for j, text := range list.Texts {
				if widest, inside := to.covers(list.Kind, text); !inside {
					beyond.add(fmt.Sprintf("spec.rules[%d].%s[%d] %q", i, list.Name, j, text))
					ask.add(list.Kind, widest)
				}
			}
		}
	}
	if beyond.n > 0 {
		c.refuse(switchboardv1alpha1.ReasonNotDelegated, "Hub %s/%s delegates %s to namespace %s, which does not cover %s. Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [%s]%s}",
			hub.Namespace, hub.Name, to, c.grant.Namespace, beyond.String(), c.grant.Namespace, ask.String())
	}
}

func allowsSomething(r switchboardv1alpha1.Rule) bool {
	return len(r.ConnectAs)+len(r.SendTo)+len(r.Publish)+len(r.Subscribe)+len(r.History) > 0
}

func (v *validGrant) validate(r *config.Rule, known bool) error {
	if known {
		return nil
	}
	if err := r.Validate(); err != nil || r.When == "" {
		return err
	}
	when, err := rule.Compile(r.When)
	if err == nil {
		v.cost += when.Cost()
	}
	return err
}

// delegated is what a Hub delegates to a namespace.
type delegated struct{ topics, clients []string }

func delegatedTo(hub *switchboardv1alpha1.Hub, namespace string) *delegated {
	to := new(delegated)
	if hub.Spec.Authorization == nil {
		return to
	}
	// Of the Grant nothing else is known than where it is.
	values := &rule.Values{Subject: rule.Subject{Namespace: namespace}}
	for _, d := range hub.Spec.Authorization.Delegations {
		if !slices.Contains(d.Namespaces, namespace) && !slices.Contains(d.Namespaces, everyNamespace) {
			continue
		}
		for _, t := range d.Topics {
			to.topics = appendExpanded(to.topics, rule.Topics, string(t), values)
		}
		for _, c := range d.Clients {
			to.clients = appendExpanded(to.clients, rule.IDs, string(c), values)
		}
	}
	return to
}

// appendExpanded adds what a template of a delegation is for a namespace. One that is not
// valid, which the API server refuses, delegates nothing.
func appendExpanded(to []string, kind rule.Kind, text string, values *rule.Values) []string {
	template, err := rule.Parse(kind, text)
	if err != nil {
		return to
	}
	if expanded, ok := template.Expand(values); ok {
		return append(to, expanded)
	}
	return to
}

// covers reports whether whatever a valid template expands to is delegated; widest is
// all that it may expand to.
func (d *delegated) covers(kind rule.Kind, text string) (widest string, inside bool) {
	template, err := rule.Parse(kind, text)
	if err != nil {
		return text, false
	}
	widest = template.Widest()
	wide, covers := d.topics, topic.Covers
	if kind == rule.IDs {
		wide, covers = d.clients, rule.CoversID
	}
	return widest, slices.ContainsFunc(wide, func(wide string) bool { return covers(wide, widest) })
}

// String lists what is delegated.
func (d *delegated) String() string {
	var parts []string
	if len(d.topics) > 0 {
		parts = append(parts, "the topics "+enumerate(d.topics))
	}
	if len(d.clients) > 0 {
		parts = append(parts, "the clients "+enumerate(d.clients))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, " and ")
}

// request is what a delegation has to have beside what there is.
type request struct{ topics, clients []string }

func (r *request) add(kind rule.Kind, widest string) {
	to := &r.topics
	if kind == rule.IDs {
		to = &r.clients
	}
	if !slices.Contains(*to, widest) && len(*to) < namedAtMost {
		*to = append(*to, widest)
	}
}

// String writes it as further fields of an entry, in YAML.
func (r *request) String() string {
	var text strings.Builder
	for _, field := range []struct {
		name   string
		values []string
	}{{"topics", r.topics}, {"clients", r.clients}} {
		if len(field.values) > 0 {
			quoted := make([]string, len(field.values))
			for i, v := range field.values {
				quoted[i] = strconv.Quote(v)
			}
			fmt.Fprintf(&text, ", %s: [%s]", field.name, strings.Join(quoted, ", "))
		}
	}
	return text.String()
}

// sizeOf is about how many bytes rules take of the settings.
func sizeOf(rules []config.Rule) int {
	const line = 12 // indentation, dash and end
	n := 0
	for _, r := range rules {
		n += 7*line + len(strconv.Quote(r.When)) + len(r.Name) + len(r.Namespace)
		for _, list := range r.Lists() {
			for _, text := range list.Texts {
				n += line + len(strconv.Quote(text))
			}
		}
	}
	return n
}

// withGrants adds the rules of the Grants that the hub takes to its settings.
func withGrants(base config.Config, claims []*grantClaim) config.Config {
	base.Authorization.Rules = slices.Clip(base.Authorization.Rules)
	for _, c := range claims {
		base.Authorization.Rules = append(base.Authorization.Rules, c.rules...)
	}
	return base
}
