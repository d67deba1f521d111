package hubnode

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/access"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/server"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
	"github.com/switchboardhub/switchboard/wire"
)

// admission is the node's door: it decides who may be a client, and what they may do.
type admission struct {
	node  *Node
	gate  *auth.Gate
	terms atomic.Pointer[terms]
	rules []config.Rule // of terms; of who configures alone
}

// terms are what clients come in by.
type terms struct {
	policy  *access.Policy
	tenancy config.Tenancy
}

// tenantOf returns whose names somebody speaks by.
func (t *terms) tenantOf(who auth.Identity) tenancy.Tenant {
	if t.tenancy == config.TenancyNamespace {
		return tenancy.Tenant(who.Namespace)
	}
	return ""
}

// proof is what a permit was made of.
type proof struct {
	identity auth.Identity
	terms    *terms
}

func newAdmission(n *Node) *admission {
	a := &admission{node: n}
	a.gate = auth.New(n.log, func() { a.recheckAll() })
	a.gate.TrustOperator(n.Config().Hub, n.clusterRoots)
	a.terms.Store(&terms{policy: &access.Policy{}})
	return a
}

// configure takes over valid settings. Clients are looked at again when something changed
// for them.
func (a *admission) configure(cfg config.Config, policy *access.Policy) {
	if !reflect.DeepEqual(a.rules, cfg.Authorization.Rules) || a.terms.Load().tenancy != cfg.Tenancy {
		a.rules = cfg.Authorization.Rules
		a.terms.Store(&terms{policy, cfg.Tenancy})
		a.recheckAll()
	}
	a.gate.Configure(cfg.Authentication)
}

// Admit is a server.Door's.
func (a *admission) Admit(ctx context.Context, id wire.ClientID, shown auth.Credentials) (server.Admitted, error) {
	if !a.gate.On() {
		return server.Admitted{}, nil
	}
	who, err := a.gate.Identify(ctx, shown)
	if err != nil {
		return server.Admitted{}, unauthenticated(err)
	}
	return a.admit(who, id)
}

// admit returns what somebody may do as a client of that own name, or why not even connect.
func (a *admission) admit(who auth.Identity, id wire.ClientID) (server.Admitted, error) {
	t := a.terms.Load()
	tenant := t.tenantOf(who)
	if err := tenant.CheckID(id); err != nil {
		return server.Admitted{}, err
	}
	grant := t.policy.For(who, tenant, id)
	if !grant.Allows(wire.ActionConnect, tenant.ID(id)) {
		return server.Admitted{}, &wire.PermissionError{Identity: who.Name, Action: wire.ActionConnect, Target: id, Tenant: string(tenant)}
	}
	return server.Admitted{
		Permit: &hub.Permit{Identity: who.Name, Account: who.Key(), Allows: grant.Allows, Own: tenant != "", Expires: who.Expires, Proof: &proof{who, t}},
		Tenant: tenant,
	}, nil
}

var errOtherIdentity = errors.New("the new token is somebody else's: connect again with it")

// Renew is a server.Door's.
func (a *admission) Renew(ctx context.Context, c *hub.Client, token string) (*hub.Permit, error) {
	old := proofOf(c)
	if old == nil || !a.gate.On() {
		return nil, unauthenticated(errors.New("this hub asks nobody who they are any more"))
	}
	who, err := a.gate.Identify(ctx, auth.Credentials{Token: token, From: c.Info().Address})
	if err == nil && who.Key() != old.identity.Key() {
		err = errOtherIdentity
	}
	if err != nil {
		return nil, unauthenticated(err)
	}
	return a.readmit(c, who, old)
}

var errOtherNames = &wire.Error{Code: wire.CodeUnavailable, Detail: "tenancy has changed, and with it this client's name in the hub: connect again"}

// readmit is admit for a client that is there, by the proof of before.
func (a *admission) readmit(c *hub.Client, who auth.Identity, old *proof) (*hub.Permit, error) {
	tenant := old.terms.tenantOf(old.identity)
	next, err := a.admit(who, tenant.OwnID(c.ID()))
	if err == nil && next.Tenant != tenant {
		err = errOtherNames
	}
	return next.Permit, err
}

// viewTime bounds the wait of who asks over HTTP.
const viewTime = 5 * time.Second

// mayView returns nil, or why whoever has a token may not see what the hub answers to a
// question. Who guesses tokens at one address holds up nobody at another.
func (a *admission) mayView(ctx context.Context, from, token, question string) error {
	if !a.gate.On() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	who, err := a.gate.Identify(ctx, auth.Credentials{Token: token, From: from})
	if err != nil {
		return unauthenticated(err)
	}
	if !a.terms.Load().policy.For(who, "", "").Allows(wire.ActionView, question) {
		return &wire.PermissionError{Identity: who.Name, Action: wire.ActionView, Target: question}
	}
	return nil
}

// MayView is the API's.
func (n *Node) MayView(ctx context.Context, from, token, question string) error {
	return n.admission.mayView(ctx, from, token, question)
}

func unauthenticated(err error) error {
	if later, ok := errors.AsType[*wire.Error](err); ok && later.Temporary() {
		return later // nothing is known against the token
	}
	return &wire.Error{Code: wire.CodeUnauthenticated, Detail: err.Error()}
}

func proofOf(c *hub.Client) *proof {
	permit := c.Permit()
	if permit == nil {
		return nil
	}
	p, _ := permit.Proof.(*proof)
	return p
}

func (a *admission) recheckAll() {
	for _, c := range a.node.hub.Clients() {
		a.Recheck(c)
	}
}

// Recheck makes a client's permit what the settings of now say, and removes one that is not
// let in any more.
func (a *admission) Recheck(c *hub.Client) {
	for !a.settle(c) {
	}
}

// settle is Recheck; it reports false when the permit was replaced meanwhile.
func (a *admission) settle(c *hub.Client) bool {
	permit, p := c.Permit(), proofOf(c)
	switch {
	case !a.gate.On():
		return permit == nil || a.node.hub.SetPermit(c, permit, nil)
	case p == nil:
		a.expel(c, unauthenticated(errors.New("this hub asks for a token by now (client.WithTokenFile, hubctl --token-file)")))
		return true
	case !a.gate.Holds(&p.identity):
		a.expel(c, unauthenticated(errors.New("what proved who this client is counts no longer")))
		return true
	case p.terms == a.terms.Load():
		return true
	}
	next, err := a.readmit(c, p.identity, p)
	if err != nil {
		a.expel(c, err)
		return true
	}
	return a.node.hub.SetPermit(c, permit, next)
}

func (a *admission) expel(c *hub.Client, reason error) {
	a.node.log.Info("client is not allowed any more", slog.String("client", c.ID()), slog.Any("error", reason))
	a.node.hub.Expel(c, reason)
}
