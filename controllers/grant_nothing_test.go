package controllers

import (
	"fmt"
	"strings"
	"testing"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Anybody who may make Grants in any namespace may name any Hub. Conditions that allow
// nothing would take the room of others, and the nodes' time whenever a client connects.
func TestWhomNothingIsDelegatedTakesNothing(t *testing.T) {
	hub := hubOf(t, `{authentication: {serviceAccount: {}}, authorization: {delegations: [{namespaces: [a], topics: [a.>]}]}}`)
	ones := strings.TrimSuffix(strings.Repeat("1,", 130), ",")
	slow := fmt.Sprintf("[%s].all(x, [%s].all(y, x < 3))", ones, ones) // 20 ms
	var wanted []string
	for i := range 12 {
		var rules []string
		for j := range 32 {
			rules = append(rules, fmt.Sprintf(`{name: r%d, when: '%s'}`, j, slow))
		}
		wanted = append(wanted, fmt.Sprintf("stranger/g%02d: [%s]", i, strings.Join(rules, ", ")))
	}
	wanted = append(wanted, `a/x: [{name: r, when: 'identity.name == "`+strings.Repeat("x", 4000)+`"', publish: [a.b]}, {name: s}]`)
	claims, _ := decideGrants(hub, grantsWanted(t, wanted...), nil)
	for _, c := range claims {
		switch name := grantName(c.grant); {
		case name == "a/x" && (c.reason != "" || len(c.rules) != 1):
			t.Errorf("%s: %s %s, %d rules", name, c.reason, c.message, len(c.rules))
		case name != "a/x" && (c.reason != switchboardv1alpha1.ReasonInvalidRule || len(c.rules) > 0):
			t.Errorf("%s, of a namespace that nothing is delegated to: %q, with %d rules for nodes", name, c.reason, len(c.rules))
		}
	}
}
