package cluster_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/check"
	"github.com/switchboardhub/switchboard/test/cluster"
)

var rotationRate = flag.Float64("rotation.rate", 200, "how many `artifacts` a second are sent while keys and certificates are replaced")

// Every key and certificate of a hub is replaced while clients send and publish: that
// of the client port and of the links with their authorities, and the gossip's key.
// After each step all clients lose their connections and come back by what there is
// then. Nothing is lost, doubled or out of order.
func TestEveryKeyIsReplacedUnderLoad(t *testing.T) {
	const nodes = 3
	certs, links := newCertificates(t), newLinkCertificates(t)
	keys := newKeyFiles(t, nodes, gossipKey(1))
	c := cluster.Start(t, nodes, func(cfg *config.Config) {
		keys.set(cfg)
		certs.set(config.TLSRequired)(cfg)
		links.set(config.TLSRequired)(cfg)
		cfg.History.MaxArtifacts, cfg.History.MaxBytes = 1_000_000, 0
		cfg.Storage.Shards = 4
	})
	var conns wires
	opts := []client.Option{certs.trust(), client.WithDialer(conns.dial), client.WithReconnectWait(time.Millisecond, 20*time.Millisecond)}
	ledger := startLedger(t, c, nodes, opts...)
	load, err := check.Start(patient(t), check.Config{Servers: servers(c, nodes), Clients: 20, Rate: *rotationRate, Prefix: "load", Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(load.Close)

	onAll := func(what string, holds func(i int) bool) {
		t.Helper()
		for i := range nodes {
			c.WaitFor(fmt.Sprintf("%s on node %d", what, i), func() bool { return holds(i) })
		}
	}
	// settled cuts all clients off, and waits until the load has gone on for a while.
	settled := func(after string) {
		t.Helper()
		conns.cut()
		sent, published := load.Acknowledged(), ledger.Acknowledged()
		c.WaitFor("the load after "+after, func() bool {
			return load.Acknowledged() > sent+int(*rotationRate) && ledger.Acknowledged() > published+50
		})
	}
	renewed := func(port string, was []string) {
		t.Helper()
		onAll("the certificate for "+port, func(i int) bool { return expiryOf(c, i, port) != was[i] })
	}
	begin := time.Now()
	settled("the start")

	oldCA, err := os.ReadFile(certs.caFile())
	if err != nil {
		t.Fatal(err)
	}
	clientCA, linkCA := newCA(t), newCA(t)
	replaceFile(t, certs.caFile(), append(oldCA, clientCA.PEM()...))
	replaceFile(t, filepath.Join(links.dir, "ca.crt"), append(linkCA.PEM(), links.ca.PEM()...))
	onAll("trust in the new CA", func(i int) bool { return takes(t, c.Node(i), linkCA, links.id()) })
	settled("two authorities are trusted")

	var forClients, forLinks []string
	for i := range nodes {
		forClients, forLinks = append(forClients, expiryOf(c, i, "client")), append(forLinks, expiryOf(c, i, "cluster"))
	}
	end := time.Now().Add(2 * time.Hour) // no certificate before ends in that second
	replacePair(t, certs.dir, clientCA, end, "127.0.0.1")
	renewed("client", forClients)
	links.issueUntil(linkCA, end)
	renewed("cluster", forLinks)
	settled("the new certificates are used")

	replaceFile(t, certs.caFile(), clientCA.PEM())
	replaceFile(t, filepath.Join(links.dir, "ca.crt"), linkCA.PEM())
	onAll("an end of the trust in the old CA", func(i int) bool { return !takes(t, c.Node(i), links.ca, links.id()) })
	settled("only the new authorities are trusted")

	for n, step := range [][][]byte{{gossipKey(1), gossipKey(2)}, {gossipKey(2), gossipKey(1)}, {gossipKey(2)}} {
		for i := range nodes {
			keys.write(i, config.EncodeGossipKeys(step))
		}
		what := fmt.Sprintf("step %d of the gossip's key", n+1)
		onAll(what, func(i int) bool {
			return has(t, c.Node(i), step...) && metric(c, i, "gossip_members") == fmt.Sprint(nodes)
		})
		settled(what)
	}

	took := time.Since(begin)
	v := load.Stop(cluster.Patience)
	t.Logf("%d acknowledged in %.1f s, %.0f a second: %+v", v.Acknowledged, took.Seconds(), float64(v.Acknowledged)/took.Seconds(), v)
	if err := v.Err(check.Allowed{}); err != nil {
		t.Error(err)
	}
	keepsPromises(t, ledger)
}

// expiryOf returns when the certificate of a port ends, as a node says.
func expiryOf(c *cluster.Cluster, ordinal int, port string) string {
	return metric(c, ordinal, fmt.Sprintf("certificate_expiry_timestamp_seconds{port=%q}", port))
}
