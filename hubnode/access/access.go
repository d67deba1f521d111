package access

import (
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/rule"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// broadcast is the topic that every client hears unless it opts out.
const broadcast = "broadcast"

// Policy is a list of rules. It does not change and is safe for concurrent use.
// One without rules allows nothing.
type Policy struct {
	rules []compiled
}

// compiled is a rule that is ready to be asked.
type compiled struct {
	namespace string          // whose clients it is for; empty: everybody's
	when      *rule.Condition // nil: for everybody
	// In the order of the lists of a Grant.
	lists [lists][]*rule.Template
	admin config.AdminAccess
}

// The lists of a rule, in the order of [config.Rule.Lists].
const (
	connectAs = iota
	sendTo
	publish
	subscribe
	history
	lists
)

// Compile prepares rules. An error joins a [*config.FieldError] for each fault, with
// a path such as authorization.rules[2].when.
func Compile(rules []config.Rule) (*Policy, error) {
	if err := (config.Authorization{Rules: rules}).Validate(); err != nil {
		return nil, err
	}
	p := &Policy{rules: make([]compiled, len(rules))}
	for i, r := range rules {
		c := &p.rules[i]
		c.admin, c.namespace = r.Admin, r.Namespace
		var err error
		if r.When != "" {
			if c.when, err = rule.Compile(r.When); err != nil {
				return nil, err
			}
		}
		for i, list := range r.Lists() {
			if c.lists[i], err = parse(list.Kind, list.Texts); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

func parse(kind rule.Kind, texts []string) ([]*rule.Template, error) {
	templates := make([]*rule.Template, len(texts))
	for i, text := range texts {
		var err error
		if templates[i], err = rule.Parse(kind, text); err != nil {
			return nil, err
		}
	}
	return templates, nil
}

// Grant is what one client may do. It does not change and is safe for concurrent
// use.
type Grant struct {
	lists        [lists][]string // without placeholders, by the hub's names
	view, manage bool
	// connected says that the client may be what it is: then broadcast is for it.
	connected bool
	broadcast string
	// Of the operator: the question that it may ask the hub, empty: none, and the
	// patterns of topics that it may purge.
	asks   string
	purges []string
}

// For returns what somebody may do under a client id: what all rules allow together
// whose condition holds. A condition without an answer, as when it reads a claim that
// is absent, does not hold. The id, and what rules name, are the tenant's own names. What
// the hub says of itself is not for tenants, for it tells of others. No rule is about the
// operator, which may do what its proof says.
func (p *Policy) For(id auth.Identity, tenant tenancy.Tenant, client wire.ClientID) *Grant {
	if id.Method == auth.Operator {
		return operatorGrant(id.Proof)
	}
	values := &rule.Values{ID: client, Subject: rule.Subject{
		Method: string(id.Method), Name: id.Name, Namespace: id.Namespace, ServiceAccount: id.ServiceAccount,
		Groups: id.Groups, Claims: id.Claims,
	}}
	g := &Grant{broadcast: tenant.Topic(broadcast)}
	for i := range p.rules {
		r := &p.rules[i]
		if r.namespace != "" && r.namespace != id.Namespace {
			continue
		}
		if r.when != nil {
			if holds, err := r.when.Holds(&values.Subject); err != nil || !holds {
				continue
			}
		}
		for list, templates := range r.lists {
			for _, t := range templates {
				if text, ok := t.Expand(values); ok {
					g.lists[list] = append(g.lists[list], hubName(tenant, list, text))
				}
			}
		}
		if tenant == "" {
			g.view = g.view || r.admin == config.AdminView || r.admin == config.AdminManage
			g.manage = g.manage || r.admin == config.AdminManage
		}
	}
	g.connected = g.Allows(wire.ActionConnect, tenant.ID(client))
	return g
}

// hubName returns what the hub calls what a list of a tenant's rule has. Ids of clients
// outside of the tenant are not for rules: a slash before one is a part of it.
func hubName(tenant tenancy.Tenant, list int, text string) string {
	switch list {
	case connectAs, sendTo:
		return tenant.Within(text)
	default:
		return tenant.Topic(text)
	}
}

// Allows reports whether the client may do something with a target, by its name in the
// hub: a client id, a topic, or, to subscribe and to read history, a pattern, which one
// allowed pattern has to cover. For a target that is not valid it reports false. It allocates nothing
// for one that is.
//
// The topic broadcast may be subscribed to by whoever may connect under the id that
// the grant is for. Names that begin with "$" are no matter of patterns: subscribing
// to those of topics takes ActionView, and they can't be sent to, published on, or
// have a history. ActionPurge is of a topic. What the hub itself is asked otherwise, as
// $hub.clients, is ActionView and ActionManage, for which target does not count unless it
// is the operator that asks.
func (g *Grant) Allows(action wire.Action, target string) bool {
	switch action {
	case wire.ActionConnect:
		return g.allowsID(connectAs, target)
	case wire.ActionSend:
		return g.allowsID(sendTo, target)
	case wire.ActionPublish:
		return topic.IsLiteral(target) && g.allowsTopic(publish, target)
	case wire.ActionSubscribe:
		switch {
		case topic.IsReserved(target):
			return g.view && topic.CheckPattern(target) == nil
		case target == g.broadcast:
			return g.connected || g.allowsTopic(subscribe, target)
		}
		return g.allowsTopic(subscribe, target)
	case wire.ActionHistory:
		return g.allowsTopic(history, target)
	case wire.ActionView:
		return g.view || g.asks != "" && target == g.asks
	case wire.ActionManage:
		return g.manage
	case wire.ActionPurge:
		return g.manage || topic.IsLiteral(target) && covered(g.purges, target)
	}
	return false
}

func (g *Grant) allowsID(list int, id string) bool {
	if wire.CheckClientID(id) != nil {
		return false
	}
	for _, glob := range g.lists[list] {
		if rule.MatchID(glob, id) {
			return true
		}
	}
	return false
}

func (g *Grant) allowsTopic(list int, pattern string) bool {
	return covered(g.lists[list], pattern)
}

// covered reports whether one pattern of a list covers what a client asks for, which may
// be anything.
func covered(list []string, pattern string) bool {
	if topic.IsReserved(pattern) || topic.CheckPattern(pattern) != nil {
		return false
	}
	for _, wide := range list {
		if topic.Covers(wide, pattern) {
			return true
		}
	}
	return false
}
