package cluster_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// prove makes a proof of the operator's for the hub of a test, by a certificate of a CA for
// the hub.
func (c *linkCertificates) prove(ca *throwaway.CA, proof auth.OperatorProof) string {
	c.t.Helper()
	pair, err := ca.Pair(time.Now().Add(time.Hour), c.id())
	if err != nil {
		c.t.Fatal(err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		c.t.Fatal("a key that can't sign")
	}
	proof.Hub = "test/" + c.t.Name()
	token, err := proof.Sign(signer, pair.Leaf, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// operator returns who connects by a proof that purges a pattern.
func (c *linkCertificates) operator(pattern string) (id string, token client.Option) {
	c.t.Helper()
	id = "switchboard-operator-" + rand.Text()
	return id, client.WithToken(c.prove(c.ca, auth.OperatorProof{Client: id, Purges: pattern}))
}

func deniedAction(err error) wire.Action {
	if denied, ok := errors.AsType[*wire.PermissionError](err); ok {
		return denied.Action
	}
	return ""
}

// The operator is let in by its proof, without a rule, as nobody else and for nothing else.
func TestOperatorPurges(t *testing.T) {
	i, links := newIdentities(t), newLinkCertificates(t)
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		cfg.History = config.History{MaxArtifacts: 100}
		links.set(config.TLSRequired)(cfg)
		i.set(config.Rule{Name: "publishers", When: `identity.method == "ServiceAccount"`, ConnectAs: []string{"*"}, Publish: []string{">"}})(cfg)
	})
	publisher := connect(t, c.Node(0), "publisher", i.pod("publisher"))
	for _, topic := range []string{"orders.1", "orders.2", "orders.3", "bills.1"} {
		if _, err := publisher.Publish(patient(t), topic, text("x")); err != nil {
			t.Fatal(err)
		}
	}
	purge := func(who *client.Client, topic string) error {
		return settled(t, func(ctx context.Context) error {
			_, err := who.Request(ctx, "$hub.topics.purge", text(`{"topic":"`+topic+`"}`))
			return err
		})
	}
	id, token := links.operator("orders.>")
	operator := connect(t, c.Node(1), id, token)
	for _, topic := range []string{"orders.1", "orders.2", "orders.3"} {
		if err := purge(operator, topic); err != nil {
			t.Errorf("purge %s: %v", topic, err)
		}
	}
	for _, topic := range []string{"bills.1", "$presence", "", "orders..x"} {
		if err := purge(operator, topic); deniedAction(err) != wire.ActionPurge {
			t.Errorf("purge %q: %v, want a PermissionError", topic, err)
		}
	}

	node := c.Node(2).Client()
	refusedWith(t, node, wire.CodePermission, "not allowed to connect as", client.WithID("publisher"), token)
	refusedWith(t, node, wire.CodePermission, "not allowed to connect as", client.WithID("switchboard-operator"), token)
	refusedWith(t, node, wire.CodePermission, "not allowed to connect as", client.WithID(id), client.WithToken(links.prove(links.ca, auth.OperatorProof{})))
	refusedWith(t, node, wire.CodeUnauthenticated, "unknown authority", client.WithID(id), client.WithToken(links.prove(newCA(t), auth.OperatorProof{Client: id})))

	list := links.prove(links.ca, auth.OperatorProof{})
	if err := c.Node(0).MayView(t.Context(), "", list, "$hub.topics"); err != nil {
		t.Errorf("list topics over HTTP: %v", err)
	}
	for _, question := range []string{"$hub.clients", "$hub.nodes", "$hub.durables"} {
		if err := c.Node(0).MayView(t.Context(), "", list, question); deniedAction(err) != wire.ActionView {
			t.Errorf("ask for %s over HTTP: %v, want a PermissionError", question, err)
		}
	}
}

// While one authority gives way to another, the operator proves itself by either. What was
// proved by one that is trusted no more is no good any more.
func TestOperatorIsKnownThroughARotation(t *testing.T) {
	i, links := newIdentities(t), newLinkCertificates(t)
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		links.set(config.TLSRequired)(cfg)
		i.set()(cfg)
	})
	next := newCA(t)
	known := func(ca *throwaway.CA) bool {
		return c.Node(0).MayView(t.Context(), "", links.prove(ca, auth.OperatorProof{}), "$hub.topics") == nil
	}
	if !known(links.ca) || known(next) {
		t.Error("at first the operator is known by another authority than the one that is trusted")
	}
	trust := func(all ...*throwaway.CA) {
		var text []byte
		for _, ca := range all {
			text = append(text, ca.PEM()...)
		}
		replaceFile(t, links.dir+"/ca.crt", text)
	}
	trust(next, links.ca)
	c.WaitFor("trust in both authorities", func() bool { return known(next) })
	if !known(links.ca) {
		t.Error("the operator is not known by the authority of before")
	}
	links.issue(next)
	trust(next)
	c.WaitFor("trust in the new authority alone", func() bool { return !known(links.ca) })
	if !known(next) {
		t.Error("the operator is not known by the new authority")
	}
}

// A hub whose nodes speak no TLS to each other has nothing to know the operator by.
func TestWithoutLinkCertificatesTheOperatorIsNobody(t *testing.T) {
	i, links := newIdentities(t), newLinkCertificates(t)
	c := cluster.Start(t, 1, i.set(everything))
	id, token := links.operator(">")
	refusedWith(t, c.Node(0).Client(), wire.CodeUnauthenticated, "no certificate for links to other nodes", client.WithID(id), token)
}
