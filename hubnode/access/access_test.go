package access_test

import (
	"sync"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/access"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
)

func worker() auth.Identity {
	return auth.Identity{
		Method: auth.ServiceAccount, Name: "system:serviceaccount:team-a:worker", Namespace: "team-a", ServiceAccount: "worker",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:team-a"},
		Claims: map[string]any{"tenant": "blue"},
	}
}

// rules are those of a hub that two teams share.
func rules() []config.Rule {
	return []config.Rule{
		{
			Name: "everybody", ConnectAs: []string{"{namespace}/*", "{claims.email}"},
			Publish: []string{"public.*"}, Subscribe: []string{"public.>", "inbox.{id}"},
		},
		{
			Name: "workers", When: `identity.serviceAccount == "worker"`, SendTo: []string{"{namespace}/*", "desk"},
			Publish: []string{"jobs.{namespace}.>"}, Subscribe: []string{"jobs.{namespace}.*"}, History: []string{"jobs.{namespace}.>"},
		},
		{Name: "auditors", When: `identity.claims.role == "auditor"`, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminView},
		{Name: "keepers", When: `"keepers" in identity.groups`, Admin: config.AdminManage},
	}
}

func compile(tb testing.TB, rules ...config.Rule) *access.Policy {
	tb.Helper()
	p, err := access.Compile(rules)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestAllows(t *testing.T) {
	policy := compile(t, rules()...)
	clerk := auth.Identity{Method: auth.Static, Name: "clerk", Claims: map[string]any{"email": "clerk@b.example"}}
	auditor := auth.Identity{Method: auth.OIDC, Name: "eve", Claims: map[string]any{"role": "auditor"}}
	keeper := auth.Identity{Method: auth.MutualTLS, Name: "CN=kim", Groups: []string{"keepers"}}
	for name, test := range map[string]struct {
		identity auth.Identity
		client   string
		action   wire.Action
		target   string
		want     bool
	}{
		"connects under its namespace":              {worker(), "team-a/w1", wire.ActionConnect, "team-a/w1", true},
		"connects under another namespace":          {worker(), "team-b/w1", wire.ActionConnect, "team-b/w1", false},
		"connects under an id that begins the same": {worker(), "team-a2/w1", wire.ActionConnect, "team-a2/w1", false},
		"connects under a claim":                    {clerk, "clerk@b.example", wire.ActionConnect, "clerk@b.example", true},
		"connects without the claim":                {worker(), "clerk@b.example", wire.ActionConnect, "clerk@b.example", false},
		"connects without a namespace":              {clerk, "/x", wire.ActionConnect, "/x", false},
		"connects under an id that is none":         {worker(), "team-a/ x", wire.ActionConnect, "team-a/ x", false},

		"sends within its namespace":     {worker(), "team-a/w1", wire.ActionSend, "team-a/w2", true},
		"sends to one by name":           {worker(), "team-a/w1", wire.ActionSend, "desk", true},
		"sends to another":               {worker(), "team-a/w1", wire.ActionSend, "desk2", false},
		"sends by a rule of others":      {clerk, "clerk@b.example", wire.ActionSend, "desk", false},
		"sends to the hub":               {worker(), "team-a/w1", wire.ActionSend, "$hub.clients", false},
		"publishes for its namespace":    {worker(), "team-a/w1", wire.ActionPublish, "jobs.team-a.x.y", true},
		"publishes for another":          {worker(), "team-a/w1", wire.ActionPublish, "jobs.team-b.x", false},
		"publishes by the other rule":    {worker(), "team-a/w1", wire.ActionPublish, "public.x", true},
		"publishes below what is public": {worker(), "team-a/w1", wire.ActionPublish, "public.x.y", false},
		"publishes on a pattern":         {worker(), "team-a/w1", wire.ActionPublish, "jobs.team-a.>", false},
		"publishes on no topic":          {worker(), "team-a/w1", wire.ActionPublish, "jobs.team-a..x", false},
		"publishes to everybody":         {worker(), "team-a/w1", wire.ActionPublish, "broadcast", false},

		"subscribes to a topic":                 {worker(), "team-a/w1", wire.ActionSubscribe, "jobs.team-a.x", true},
		"subscribes to the pattern":             {worker(), "team-a/w1", wire.ActionSubscribe, "jobs.team-a.*", true},
		"subscribes to a narrower one":          {worker(), "team-a/w1", wire.ActionSubscribe, "public.x.*", true},
		"subscribes to a wider one":             {worker(), "team-a/w1", wire.ActionSubscribe, "jobs.team-a.>", false},
		"subscribes to one beside it":           {worker(), "team-a/w1", wire.ActionSubscribe, "jobs.*.x", false},
		"subscribes to everything":              {worker(), "team-a/w1", wire.ActionSubscribe, ">", false},
		"subscribes to its inbox":               {worker(), "w1", wire.ActionSubscribe, "inbox.w1", true},
		"subscribes to another's inbox":         {worker(), "w1", wire.ActionSubscribe, "inbox.w2", false},
		"subscribes to an inbox it can't have":  {worker(), "a.b", wire.ActionSubscribe, "inbox.a.b", false},
		"subscribes to broadcast":               {worker(), "team-a/w1", wire.ActionSubscribe, "broadcast", true},
		"subscribes to broadcast, not allowed":  {worker(), "other", wire.ActionSubscribe, "broadcast", false},
		"subscribes to below broadcast":         {worker(), "team-a/w1", wire.ActionSubscribe, "broadcast.x", false},
		"subscribes to presence":                {worker(), "team-a/w1", wire.ActionSubscribe, "$presence", false},
		"subscribes to all but presence":        {auditor, "eve", wire.ActionSubscribe, ">", true},
		"subscribes to presence as one who may": {auditor, "eve", wire.ActionSubscribe, "$presence", true},
		"subscribes to nothing":                 {auditor, "eve", wire.ActionSubscribe, "", false},
		"subscribes to what is no pattern":      {auditor, "eve", wire.ActionSubscribe, "$a..b", false},
		"subscribes as one who manages":         {keeper, "kim", wire.ActionSubscribe, "$presence", true},
		"subscribes to topics as one who does":  {keeper, "kim", wire.ActionSubscribe, "jobs.team-a.x", false},

		"reads a history":                    {worker(), "team-a/w1", wire.ActionHistory, "jobs.team-a.x", true},
		"reads the histories of a pattern":   {worker(), "team-a/w1", wire.ActionHistory, "jobs.team-a.x.>", true},
		"reads those of a wider one":         {worker(), "team-a/w1", wire.ActionHistory, "jobs.>", false},
		"reads what it may only subscribe":   {worker(), "team-a/w1", wire.ActionHistory, "public.x", false},
		"reads the history of broadcast":     {worker(), "team-a/w1", wire.ActionHistory, "broadcast", false},
		"reads the history of what is ours":  {auditor, "eve", wire.ActionHistory, "$presence", false},
		"reads everything":                   {auditor, "eve", wire.ActionHistory, ">", true},
		"views":                              {auditor, "eve", wire.ActionView, "$hub.clients", true},
		"views without a rule":               {worker(), "team-a/w1", wire.ActionView, "$hub.clients", false},
		"views as one who manages":           {keeper, "kim", wire.ActionView, "$hub.clients", true},
		"manages":                            {keeper, "kim", wire.ActionManage, "$hub.purge", true},
		"manages as one who may only view":   {auditor, "eve", wire.ActionManage, "$hub.purge", false},
		"purges as one who manages":          {keeper, "kim", wire.ActionPurge, "jobs.team-a.x", true},
		"purges what may only be read":       {worker(), "team-a/w1", wire.ActionPurge, "jobs.team-a.x", false},
		"does something that there is not":   {keeper, "kim", wire.Action("dance"), "x", false},
		"does nothing that anybody has said": {keeper, "kim", wire.Action(""), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := policy.For(test.identity, "", test.client).Allows(test.action, test.target); got != test.want {
				t.Errorf("%s as %q: %s %q: got %v, want %v", test.identity.Name, test.client, test.action, test.target, got, test.want)
			}
		})
	}
}

func TestAPolicyWithoutRulesAllowsNothing(t *testing.T) {
	g := compile(t).For(worker(), "", "w1")
	for _, action := range []wire.Action{wire.ActionConnect, wire.ActionSend, wire.ActionPublish, wire.ActionSubscribe, wire.ActionHistory, wire.ActionView, wire.ActionManage, wire.ActionPurge} {
		for _, target := range []string{"w1", "a.b", "broadcast", "$presence", "$hub.clients", ""} {
			if g.Allows(action, target) {
				t.Errorf("%s %q is allowed", action, target)
			}
		}
	}
}

func TestARuleWhoseConditionHasNoAnswerIsForNobody(t *testing.T) {
	p := compile(t, config.Rule{Name: "a", When: `identity.claims.none != "x"`, ConnectAs: []string{"*"}, Admin: config.AdminManage})
	g := p.For(worker(), "", "w1")
	if g.Allows(wire.ActionConnect, "w1") || g.Allows(wire.ActionView, "") {
		t.Error("got what the rule allows, want nothing")
	}
}

// A client that names itself after a wildcard or a placeholder gets no more.
func TestIDsDontWiden(t *testing.T) {
	p := compile(t, config.Rule{Name: "a", ConnectAs: []string{"*"}, SendTo: []string{"to-{id}"}, Subscribe: []string{"inbox.{id}"}})
	for _, id := range []string{"*", ">", "a.b", "a*", "{name}"} {
		g := p.For(worker(), "", id)
		if !g.Allows(wire.ActionConnect, id) {
			t.Errorf("%q may not connect", id)
		}
		for _, target := range []string{"inbox.other", "inbox.*", "inbox.>", "inbox.a.b"} {
			if g.Allows(wire.ActionSubscribe, target) {
				t.Errorf("%q may subscribe to %q", id, target)
			}
		}
		if g.Allows(wire.ActionSend, "to-other") {
			t.Errorf("%q may send to others", id)
		}
	}
}

func TestCompileNamesEveryFault(t *testing.T) {
	_, err := access.Compile([]config.Rule{
		{Name: "a", When: "identity.nam == ''"},
		{Name: "b", Publish: []string{"a", "b..c"}},
		{Name: "c"},
	})
	want := `authorization.rules[0].when: condition "identity.nam == ''": undefined field 'nam' at line 1, column 9
authorization.rules[1].publish[1]: topic "b..c": empty token at position 2`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestPolicyAndGrantAreSafeForConcurrentUse(t *testing.T) {
	p := compile(t, rules()...)
	shared := p.For(worker(), "", "team-a/w1")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				for _, g := range []*access.Grant{shared, p.For(worker(), "", "team-a/w1")} {
					if !g.Allows(wire.ActionPublish, "jobs.team-a.x") || g.Allows(wire.ActionPublish, "jobs.team-b.x") {
						t.Error("got another answer than alone")
						return
					}
				}
			}
		})
	}
	group.Wait()
}

func TestAllowsAllocatesNothing(t *testing.T) {
	g := compile(t, rules()...).For(worker(), "", "team-a/w1")
	for action, target := range map[wire.Action]string{
		wire.ActionConnect: "team-a/w1", wire.ActionSend: "desk", wire.ActionPublish: "jobs.team-a.x",
		wire.ActionSubscribe: "jobs.team-a.*", wire.ActionHistory: "jobs.team-b.>", wire.ActionManage: "$hub.purge",
	} {
		if got := testing.AllocsPerRun(100, func() { g.Allows(action, target) }); got != 0 {
			t.Errorf("%s %q: got %v allocations, want none", action, target, got)
		}
	}
}

func BenchmarkFor(b *testing.B) {
	p := compile(b, rules()...)
	id := worker()
	b.ReportAllocs()
	for b.Loop() {
		p.For(id, "", "team-a/w1")
	}
}

func BenchmarkAllows(b *testing.B) {
	g := compile(b, rules()...).For(worker(), "", "team-a/w1")
	for name, test := range map[string]struct {
		action wire.Action
		target string
	}{
		"send": {wire.ActionSend, "team-a/w2"}, "publish": {wire.ActionPublish, "jobs.team-a.orders.new"}, "subscribe": {wire.ActionSubscribe, "jobs.team-a.*"},
		"refuse": {wire.ActionPublish, "jobs.team-b.orders.new"}, "view": {wire.ActionView, ""},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g.Allows(test.action, test.target)
			}
		})
	}
}

func TestTenants(t *testing.T) {
	p := compile(t,
		config.Rule{Name: "all", ConnectAs: []string{"{name}", "w*"}, SendTo: []string{"*"}, Publish: []string{">"}, Subscribe: []string{"{namespace}.*"}, Admin: config.AdminManage},
		config.Rule{Name: "others", Namespace: "team-b", History: []string{">"}},
		config.Rule{Name: "own", Namespace: "team-a", History: []string{"x"}},
	)
	g := p.For(worker(), "team-a", "w1")
	for _, test := range []struct {
		action wire.Action
		target string
		want   bool
	}{
		{wire.ActionConnect, "team-a/w1", true},
		{wire.ActionConnect, "w1", false},
		{wire.ActionConnect, "team-b/w1", false},
		{wire.ActionSend, "team-a/x", true},
		{wire.ActionSend, "team-b/x", false},
		{wire.ActionSend, "alice", false},
		{wire.ActionPublish, "team-a.orders", true},
		{wire.ActionPublish, "orders", false},
		{wire.ActionPublish, "team-b.orders", false},
		{wire.ActionSubscribe, "team-a.team-a.x", true},
		{wire.ActionSubscribe, "team-a.>", false},
		{wire.ActionSubscribe, "team-a.broadcast", true},
		{wire.ActionSubscribe, "broadcast", false},
		{wire.ActionSubscribe, "$presence", false},
		{wire.ActionHistory, "team-a.x", true},
		{wire.ActionHistory, "team-a.y", false},
		{wire.ActionView, "", false},
		{wire.ActionManage, "", false},
	} {
		if got := g.Allows(test.action, test.target); got != test.want {
			t.Errorf("%s %q: allowed is %v, want %v", test.action, test.target, got, test.want)
		}
	}
	if g := p.For(worker(), "", "w1"); !g.Allows(wire.ActionView, "") || !g.Allows(wire.ActionPublish, "orders") || g.Allows(wire.ActionHistory, "y") {
		t.Error("without tenancy a rule is not as it says")
	}
}
