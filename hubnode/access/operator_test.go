package access_test

import (
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/access"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
)

// everyAction is all that there is.
var everyAction = []wire.Action{
	wire.ActionConnect, wire.ActionSend, wire.ActionPublish, wire.ActionSubscribe, wire.ActionHistory, wire.ActionView, wire.ActionManage, wire.ActionPurge,
}

// allowedOf returns which of all actions on these targets are allowed.
func allowedOf(g *access.Grant, targets ...string) string {
	var all []string
	for _, action := range everyAction {
		for _, target := range targets {
			if g.Allows(action, target) {
				all = append(all, string(action)+" "+target)
			}
		}
	}
	return strings.Join(all, ", ")
}

// The operator may do what its proof says, whatever the rules are.
func TestTheOperatorMayDoWhatItsProofSays(t *testing.T) {
	everything := config.Rule{
		Name: "all", ConnectAs: []string{"*"}, SendTo: []string{"*"}, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage,
	}
	named := everything
	named.When = `identity.method == "Operator" || identity.name == "switchboard-operator"`
	targets := []string{
		"operator-1", "operator-2", "*", "orders", "orders.new", "orders.*", "orders.>", "bills.new", ">", "broadcast", "$presence", "$orders.new", "orders..new", "",
		"$hub.topics", "$hub.clients", "$hub.nodes", "$hub.topics.purge", "$hub.durables.delete",
	}
	for name, test := range map[string]struct {
		proof auth.OperatorProof
		want  string
	}{
		"to list":                      {auth.OperatorProof{}, "view $hub.topics"},
		"to purge":                     {auth.OperatorProof{Client: "operator-1", Purges: "orders.>"}, "connectAs operator-1, view $hub.topics, purge orders.new"},
		"to purge one topic":           {auth.OperatorProof{Client: "operator-1", Purges: "orders"}, "connectAs operator-1, view $hub.topics, purge orders"},
		"to purge everything":          {auth.OperatorProof{Client: "operator-1", Purges: ">"}, "connectAs operator-1, view $hub.topics, purge operator-1, purge operator-2, purge orders, purge orders.new, purge bills.new, purge broadcast"},
		"as one of a wildcard's":       {auth.OperatorProof{Client: "operator-*", Purges: "orders"}, "view $hub.topics, purge orders"},
		"to purge what can't be":       {auth.OperatorProof{Client: "operator-1", Purges: "orders..new"}, "connectAs operator-1, view $hub.topics"},
		"to purge what is the hub's":   {auth.OperatorProof{Client: "operator-1", Purges: "$orders.new"}, "connectAs operator-1, view $hub.topics"},
		"as what is the hub's, itself": {auth.OperatorProof{Client: "$hub.topics"}, "view $hub.topics"},
	} {
		t.Run(name, func(t *testing.T) {
			id := auth.Identity{Method: auth.Operator, Name: auth.OperatorName, Proof: test.proof}
			for _, policy := range []*access.Policy{compile(t), compile(t, everything), compile(t, named)} {
				if got := allowedOf(policy.For(id, "", test.proof.Client), targets...); got != test.want {
					t.Errorf("may %s\nwant %s", got, test.want)
				}
			}
		})
	}
}

// Nobody else is the operator by a name, and a proof counts for nobody else.
func TestNamesakesOfTheOperatorMayDoNothing(t *testing.T) {
	policy := compile(t, config.Rule{Name: "a", When: `identity.method == "Operator"`, ConnectAs: []string{"*"}, Admin: config.AdminManage})
	for _, method := range []auth.Method{auth.ServiceAccount, auth.OIDC, auth.MutualTLS, auth.Static, "operator", ""} {
		id := auth.Identity{Method: method, Name: auth.OperatorName, Proof: auth.OperatorProof{Client: "operator-1", Purges: ">"}}
		if got := allowedOf(policy.For(id, "", "operator-1"), "operator-1", "orders", "$hub.topics"); got != "" {
			t.Errorf("of method %q may %s", method, got)
		}
	}
}
