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
	"github.com/switchboardhub/switchboard/wire"
)

// admission is the node's door: it decides who may be a client, and what they may do.
type admission struct {
	node   *Node
	gate   *auth.Gate
	policy atomic.Pointer[access.Policy]
	rules  []config.Rule // of policy; of who configures alone
}

// proof is what a permit was made of.
type proof struct {
	identity auth.Identity
	policy   *access.Policy
}

func newAdmission(n *Node) *admission {
	a := &admission{node: n}
	a.gate = auth.New(n.log, func() { a.recheckAll() })
	a.policy.Store(&access.Policy{})
	return a
}

// configure takes over valid settings. Clients are looked at again when something changed
// for them.
func (a *admission) configure(cfg config.Config, policy *access.Policy) {
	if !reflect.DeepEqual(a.rules, cfg.Authorization.Rules) {
		a.rules = cfg.Authorization.Rules
		a.policy.Store(policy)
		a.recheckAll()
	}
	a.gate.Configure(cfg.Authentication)
}

// Admit is a server.Door's.
func (a *admission) Admit(ctx context.Context, id wire.ClientID, shown auth.Credentials) (*hub.Permit, error) {
	if !a.gate.On() {
		return nil, nil
	}
	who, err := a.gate.Identify(ctx, shown)
	if err != nil {
		return nil, unauthenticated(err)
	}
	return a.permit(who, id)
}

// permit returns what somebody may do as a client, or why not even connect.
func (a *admission) permit(who auth.Identity, id wire.ClientID) (*hub.Permit, error) {
	policy := a.policy.Load()
	grant := policy.For(who, id)
	if !grant.Allows(wire.ActionConnect, id) {
		return nil, &wire.PermissionError{Identity: who.Name, Action: wire.ActionConnect, Target: id}
	}
	return &hub.Permit{Identity: who.Name, Allows: grant.Allows, Expires: who.Expires, Proof: &proof{who, policy}}, nil
}

var errOtherIdentity = errors.New("the new token is somebody else's: connect again with it")

// Renew is a server.Door's.
func (a *admission) Renew(ctx context.Context, c *hub.Client, token string) (*hub.Permit, error) {
	old := proofOf(c)
	if old == nil || !a.gate.On() {
		return nil, unauthenticated(errors.New("this hub asks nobody who they are any more"))
	}
	who, err := a.gate.Identify(ctx, auth.Credentials{Token: token, From: c.Info().Address})
	if err == nil && (who.Method != old.identity.Method || who.Name != old.identity.Name || who.Claims["iss"] != old.identity.Claims["iss"]) {
		err = errOtherIdentity
	}
	if err != nil {
		return nil, unauthenticated(err)
	}
	return a.permit(who, c.ID())
}

// viewTime bounds the wait of who asks over HTTP.
const viewTime = 5 * time.Second

// mayView returns nil, or why whoever has a token may not see what the hub says of itself.
func (a *admission) mayView(ctx context.Context, token string) error {
	if !a.gate.On() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	who, err := a.gate.Identify(ctx, auth.Credentials{Token: token, From: "http"})
	if err != nil {
		return unauthenticated(err)
	}
	if !a.policy.Load().For(who, "").Allows(wire.ActionView, "") {
		return &wire.PermissionError{Identity: who.Name, Action: wire.ActionView, Target: "lists"}
	}
	return nil
}

// MayView is the API's.
func (n *Node) MayView(ctx context.Context, token string) error {
	return n.admission.mayView(ctx, token)
}

func unauthenticated(err error) error {
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
	case p.policy == a.policy.Load():
		return true
	}
	next, err := a.permit(p.identity, c.ID())
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
