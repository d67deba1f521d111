package controllers

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// grantsWanted are Grants of the form namespace/name: rules in YAML; each is a second
// older than the next.
func grantsWanted(t *testing.T, wanted ...string) []switchboardv1alpha1.Grant {
	t.Helper()
	var grants []switchboardv1alpha1.Grant
	for i, want := range wanted {
		name, rules, _ := strings.Cut(want, ": ")
		namespace, name, _ := strings.Cut(name, "/")
		g := switchboardv1alpha1.Grant{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Generation: 1, CreationTimestamp: metav1.NewTime(time.Unix(int64(1000+i), 0)),
		}}
		if err := yaml.UnmarshalStrict([]byte(rules), &g.Spec.Rules); err != nil {
			t.Fatal(err)
		}
		grants = append(grants, g)
	}
	return grants
}

// hubOf is a Hub with the spec.
func hubOf(t *testing.T, spec string) *switchboardv1alpha1.Hub {
	t.Helper()
	hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "hubs", Name: "agents", UID: "1"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &hub.Spec); err != nil {
		t.Fatal(err)
	}
	return hub
}

const delegating = `
authentication: {serviceAccount: {}}
authorization:
  rules: [{name: own, publish: [own]}]
  delegations:
  - {namespaces: [a, b], topics: ["{namespace}.>", shared.*], clients: ["{namespace}/*"]}
  - {namespaces: [b], topics: [bills.>]}
  - {namespaces: ["*"], topics: [public]}
`

func TestDecideGrants(t *testing.T) {
	for name, test := range map[string]struct {
		hub    string // default delegating
		grants []string
		want   []string // of each Grant: namespace/name and the names of its rules, or why it is refused
	}{
		"within what is delegated": {
			grants: []string{
				`a/x: [{name: r, connectAs: [a/w-*], sendTo: [a/*], publish: [a.b, shared.x], subscribe: [a.>, shared.*], history: ["a.*.>"]}, {name: s, publish: [public]}]`,
				`b/x: [{name: r, publish: [bills.new], connectAs: ["b/{name}-*"], subscribe: ["b.{serviceAccount}.*"]}]`,
			},
			want: []string{"a/x grant a/x/r, grant a/x/s", "b/x grant b/x/r"},
		},
		"a topic beyond it": {
			grants: []string{`a/x: [{name: r, publish: [a.b, bills.new, a.c]}]`},
			want: []string{`a/x NotDelegated Hub hubs/agents delegates the topics a.>, shared.*, public and the clients a/* to namespace a, which does not cover spec.rules[0].publish[1] "bills.new". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [a], topics: ["bills.new"]}`},
		},
		"patterns wider than it": {
			grants: []string{`a/x: [{name: r, subscribe: [shared.>]}, {name: s, history: [">"], sendTo: ["*"]}]`},
			want: []string{`a/x NotDelegated Hub hubs/agents delegates the topics a.>, shared.*, public and the clients a/* to namespace a, which does not cover ` +
				`spec.rules[0].subscribe[0] "shared.>", spec.rules[1].sendTo[0] "*", spec.rules[1].history[0] ">". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [a], topics: ["shared.>", ">"], clients: ["*"]}`},
		},
		"another namespace's": {
			grants: []string{`a/x: [{name: r, connectAs: [b/w]}]`},
			want: []string{`a/x NotDelegated Hub hubs/agents delegates the topics a.>, shared.*, public and the clients a/* to namespace a, which does not cover spec.rules[0].connectAs[0] "b/w". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [a], clients: ["b/w"]}`},
		},
		"a client's namespace is any": {
			grants: []string{`a/x: [{name: r, publish: ["{namespace}.x"]}]`},
			want: []string{`a/x NotDelegated Hub hubs/agents delegates the topics a.>, shared.*, public and the clients a/* to namespace a, which does not cover spec.rules[0].publish[0] "{namespace}.x". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [a], topics: ["*.x"]}`},
		},
		"a client's values within a token": {
			grants: []string{`a/x: [{name: r, publish: ["shared.{claims.x.y}", "shared.z-{id}"]}]`},
			want:   []string{"a/x grant a/x/r"},
		},
		"every namespace": {
			grants: []string{`z/x: [{name: r, publish: [public]}]`, `z/y: [{name: r, publish: [z]}]`},
			want: []string{"z/x grant z/x/r", `z/y NotDelegated Hub hubs/agents delegates the topics public to namespace z, which does not cover spec.rules[0].publish[0] "z". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [z], topics: ["z"]}`},
		},
		"the Hub's own namespace is as any other": {
			hub:    `{authentication: {serviceAccount: {}}}`,
			grants: []string{`hubs/x: [{name: r, sendTo: [a]}]`},
			want: []string{`hubs/x NotDelegated Hub hubs/agents delegates nothing to namespace hubs, which does not cover spec.rules[0].sendTo[0] "a". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [hubs], clients: ["a"]}`},
		},
		"a condition that does not compile": {
			grants: []string{`a/x: [{name: r, publish: [a.b]}, {name: s, when: identity.nam == "x", publish: [a.b]}]`},
			want:   []string{`a/x InvalidRule spec.rules[1].when: condition "identity.nam == \"x\"": undefined field 'nam' at line 1, column 9`},
		},
		"a Hub that asks nobody": {
			hub:    `{}`,
			grants: []string{`a/x: [{name: r, publish: [a.b]}]`},
			want:   []string{"a/x NotDelegated Hub hubs/agents has no spec.authentication: everybody may do everything, and there is nothing to grant"},
		},
		"one that is refused takes nothing from others": {
			grants: []string{`a/x: [{name: r, publish: [x]}]`, `a/y: [{name: r, publish: [a.b]}]`},
			want: []string{`a/x NotDelegated Hub hubs/agents delegates the topics a.>, shared.*, public and the clients a/* to namespace a, which does not cover spec.rules[0].publish[0] "x". ` +
				`Ask whoever keeps the Hub for an entry in its spec.authorization.delegations such as {namespaces: [a], topics: ["x"]}`, "a/y grant a/y/r"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.hub == "" {
				test.hub = delegating
			}
			var got []string
			claims, _ := decideGrants(hubOf(t, test.hub), grantsWanted(t, test.grants...), nil)
			for _, c := range claims {
				s := grantName(c.grant)
				if c.reason != "" {
					s += " " + c.reason + " " + c.message
				}
				for i, r := range c.rules {
					s += []string{" ", ", "}[min(i, 1)] + r.Name
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a template of a delegation says by anything else than the Grant's namespace, the
// API server refuses; where it came through, it delegates nothing.
// With tenancy the names in a Grant are those of its namespace: to clients of others they
// would mean what is theirs.
func TestGrantsOfTenants(t *testing.T) {
	const grant = `a/x: [{name: r, when: 'identity.serviceAccount == "w"', publish: [public]}]`
	for tenancy, want := range map[string]string{"None": "", "Namespace": "a"} {
		hub := hubOf(t, delegating+"tenancy: "+tenancy)
		claims, _ := decideGrants(hub, grantsWanted(t, grant), nil)
		if len(claims[0].rules) != 1 || claims[0].rules[0].Namespace != want {
			t.Errorf("%s: the rules are %+v (%s), want one for namespace %q", tenancy, claims[0].rules, claims[0].message, want)
		}
	}
}

func TestDelegationsKnowTheGrantsNamespaceOnly(t *testing.T) {
	hub := hubOf(t, `authorization: {delegations: [{namespaces: ["*"], topics: ["{name}.>", "{id", "x-{namespace}"], clients: ["{serviceAccount}-*"]}]}`)
	want := &delegated{topics: []string{"x-a"}}
	if got := delegatedTo(hub, "a"); got.String() != want.String() {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheYoungestGrantsFindNoRoom(t *testing.T) {
	hub := hubOf(t, delegating)
	long := strings.Repeat("x", 4000)
	var wanted []string
	for i := range 100 {
		wanted = append(wanted, fmt.Sprintf(`a/g%02d: [{name: r, when: 'identity.name != "%s"', publish: [a.b]}]`, i, long))
	}
	claims, _ := decideGrants(hub, grantsWanted(t, wanted...), nil)
	base := config.Default()
	base.Hub = "h"
	base.Authorization = manifests.NodeConfig(hub).Authorization
	full := withGrants(base, claims)
	refused := 0
	for i, c := range claims {
		if c.reason == switchboardv1alpha1.ReasonNoRoom {
			refused++
		} else if refused > 0 {
			t.Errorf("Grant %d found room that %d older ones did not", i, refused)
		}
	}
	if refused == 0 || refused > 50 {
		t.Errorf("%d of 100 Grants of 4000 bytes are refused", refused)
	}
	text, err := full.Marshal()
	if err != nil || len(text) > grantBytes+4096 {
		t.Errorf("the settings have %d bytes: %v", len(text), err)
	}
	if _, err := config.Parse(text); err != nil {
		t.Errorf("nodes refuse them: %v", err)
	}
	if got, want := len(full.Authorization.Rules), 1+len(claims)-refused; got != want || full.Authorization.Rules[0].Name != "own" {
		t.Errorf("got %d rules, the first is %s; want %d, the Hub's own first", got, full.Authorization.Rules[0].Name, want)
	}
}

func TestSummarizeGrant(t *testing.T) {
	now := time.Unix(5000, 0)
	hub := hubOf(t, delegating)
	hub.Spec.Replicas = new(int32(3))
	paused := hub.DeepCopy()
	paused.Spec.Paused = true
	is := func(status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: switchboardv1alpha1.ConditionConfigApplied, Status: status, Reason: reason}
	}
	applied, applying := is(metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied), is(metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)
	for name, test := range map[string]struct {
		hub     *switchboardv1alpha1.Hub
		rules   string
		applied metav1.Condition
		missing bool
		want    []string
	}{
		"taken, and nodes have it":      {hub, "[{name: r, publish: [a.b]}]", applied, false, []string{"Accepted True Accepted", "Applied True Applied"}},
		"taken, nodes are on their way": {hub, "[{name: r, publish: [a.b]}]", applying, false, []string{"Accepted True Accepted", "Applied False Applying", "Reconciling True Applying"}},
		"taken, and the Hub is paused":  {paused, "[{name: r, publish: [a.b]}]", applied, false, []string{"Accepted True Accepted", "Applied False Paused"}},
		"refused":                       {hub, "[{name: r, publish: [b.b]}]", applied, false, []string{"Accepted False NotDelegated", "Applied False NotAccepted", "Stalled True NotDelegated"}},
		"no Hub":                        {nil, "[{name: r, publish: [b.b]}]", noHub, true, []string{"Accepted False HubNotFound", "Applied False NotAccepted", "Reconciling True HubNotFound"}},
	} {
		t.Run(name, func(t *testing.T) {
			grants := grantsWanted(t, "a/x: "+test.rules)
			c := &grantClaim{grant: &grants[0]}
			if test.missing {
				c.refuse(switchboardv1alpha1.ReasonHubNotFound, "there is none")
			} else {
				claims, _ := decideGrants(test.hub, grants, nil)
				c = claims[0]
			}
			status := summarizeGrant(c, test.hub, test.applied, now)
			var got []string
			for _, c := range status.Conditions {
				got = append(got, fmt.Sprintf("%s %s %s", c.Type, c.Status, c.Reason))
			}
			if diff := cmp.Diff(test.want, got); diff != "" || status.ObservedGeneration != 1 {
				t.Errorf("generation %d\n%s", status.ObservedGeneration, diff)
			}
		})
	}
}

// Grants are decided at each look at a Hub, every ten seconds.
func BenchmarkDecideGrants(b *testing.B) {
	hub := &switchboardv1alpha1.Hub{}
	if err := yaml.UnmarshalStrict([]byte(delegating), &hub.Spec); err != nil {
		b.Fatal(err)
	}
	grants := make([]switchboardv1alpha1.Grant, 1000)
	for i := range grants {
		grants[i].Namespace, grants[i].Name, grants[i].UID = "a", fmt.Sprint(i), types.UID(fmt.Sprint(i))
		grants[i].Spec.Rules = []switchboardv1alpha1.Rule{{Name: "r", When: `identity.serviceAccount == "worker"`, Publish: []switchboardv1alpha1.TopicTemplate{"a.b.>"}}}
	}
	_, known := decideGrants(hub, grants, nil)
	for name, known := range map[string]validGrants{"for the first time": nil, "again": known} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				decideGrants(hub, grants, known)
			}
		})
	}
}

func TestRulesAreCompiledOnceForEachGeneration(t *testing.T) {
	hub := hubOf(t, delegating)
	grants := grantsWanted(t, "a/x: [{name: r, publish: [a.b]}]", `a/y: [{name: r, when: "1", publish: [a.b]}]`)
	grants[0].UID, grants[1].UID = "x", "y"
	_, known := decideGrants(hub, grants, nil)
	if want := (validGrants{"x": {generation: 1}}); !maps.Equal(want, known) {
		t.Errorf("known are %v, want %v", known, want)
	}
	grants[0].Spec.Rules[0].When = "1"
	grants[0].Generation = 2
	if claims, known := decideGrants(hub, grants, known); claims[0].reason != switchboardv1alpha1.ReasonInvalidRule || len(known) > 0 {
		t.Errorf("a newer generation is taken unseen: %q, %v", claims[0].reason, known)
	}
}
