package cluster_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// linkCertificates are those of the links between a hub's nodes: a directory that all
// of them read.
type linkCertificates struct {
	t   *testing.T
	dir string
	ca  *throwaway.CA // of the first certificate
}

func newLinkCertificates(t *testing.T) *linkCertificates {
	t.Helper()
	c := &linkCertificates{t, t.TempDir(), newCA(t)}
	if err := c.ca.Write(c.dir, c.id()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *linkCertificates) id() string { return config.ClusterID("test/" + c.t.Name()).String() }

// set is for the config of the nodes.
func (c *linkCertificates) set(policy config.TLSPolicy) func(*config.Config) {
	return func(cfg *config.Config) { cfg.TLS.Cluster, cfg.TLS.ClusterDirectory = policy, c.dir }
}

// issue replaces the nodes' certificate by one of a CA.
func (c *linkCertificates) issue(ca *throwaway.CA) {
	c.t.Helper()
	c.issueUntil(ca, time.Now().Add(time.Hour))
}

func (c *linkCertificates) issueUntil(ca *throwaway.CA, end time.Time) {
	c.t.Helper()
	replacePair(c.t, c.dir, ca, end, c.id())
}

// metric returns the value of a series that a node exposes, as text; empty: it has
// none.
func metric(c *cluster.Cluster, ordinal int, series string) string {
	_, after, _ := strings.Cut(c.Metrics(ordinal), "\nswitchboard_"+series+" ")
	value, _, _ := strings.Cut(after, "\n")
	return value
}

// takes reports whether a node takes a certificate of a CA for the identity on its
// cluster port. A node of another hub hears what is wrong with it, if it comes so far.
func takes(t *testing.T, n *cluster.Node, ca *throwaway.CA, id string) bool {
	t.Helper()
	pair, err := ca.Pair(time.Now().Add(time.Hour), id)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", n.Mesh())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(cluster.Patience)); err != nil {
		t.Fatal(err)
	}
	secured := tls.Client(conn, &tls.Config{
		InsecureSkipVerify:   true, // whom it would trust is not what is asked
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	})
	hello := wire.AppendControl(nil, wire.Header{Kind: wire.KindMesh}, "", map[string]any{"minVersion": 1, "maxVersion": 1, "hub": "other", "node": "stranger-0"})
	if _, err := secured.Write(hello); err != nil {
		return false
	}
	answer, _ := io.ReadAll(secured) // of a node that refuses the certificate there is none
	return strings.Contains(string(answer), "a node of another hub")
}

// tap is between two nodes and keeps what they say to each other.
type tap struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

func (p *tap) heard(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.all.Bytes(), []byte(what))
}

func (p *tap) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Len()
}

// listen passes on what comes to an address until the test ends.
func (p *tap) listen(t *testing.T, at, to string) {
	t.Helper()
	ln, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.pass(from, to) })
		}
	})
}

func (p *tap) pass(from net.Conn, address string) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return // the node will be dialled again
	}
	defer func() { _ = to.Close() }()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(io.MultiWriter(from, p), to)
		_ = from.Close()
	})
	_, _ = io.Copy(io.MultiWriter(to, p), from)
	_ = to.Close()
	back.Wait()
}

// What clients say to each other over two nodes can be read on the way between these
// if it is not encrypted, and only then: artifacts, names of topics and clients, and
// what the nodes replicate.
func TestNobodyReadsWhatNodesSayToEachOther(t *testing.T) {
	for _, policy := range []config.TLSPolicy{config.TLSDisabled, config.TLSOptional, config.TLSRequired} {
		t.Run(string(policy), func(t *testing.T) {
			certs := newLinkCertificates(t)
			var between tap
			c := cluster.Start(t, 2, func(cfg *config.Config) {
				certs.set(policy)(cfg)
				keepHistory(cfg)
				if cfg.Node == "node-1" { // which node-0 dials, by an address that is the tap's
					_, port, err := net.SplitHostPort(cfg.Listen.Cluster)
					if err != nil {
						t.Fatal(err)
					}
					told := cfg.Listen.Cluster
					cfg.Listen.Cluster = net.JoinHostPort("127.0.0.2", port)
					between.listen(t, told, cfg.Listen.Cluster)
				}
			})
			const marker = "the-eagle-has-landed"
			box := make(inbox, 10)
			a, b := connect(t, c.Node(0), marker+"-a", numbered(box)), connect(t, c.Node(1), marker+"-b", numbered(box))
			for _, err := range []error{
				a.Send(patient(t), marker+"-b", &wire.Artifact{Payload: []byte(marker)}),
				b.Send(patient(t), marker+"-a", &wire.Artifact{Payload: []byte(marker)}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if got := string(box.next(t).Payload); got != marker {
					t.Fatalf("%q came", got)
				}
			}
			for i := range 20 { // topics whose leaders are on either node
				if _, err := a.Publish(patient(t), fmt.Sprintf("%s.%d", marker, i), &wire.Artifact{Payload: []byte(marker)}); err != nil {
					t.Fatal(err)
				}
			}
			if between.size() < 20*len(marker) {
				t.Fatalf("%d bytes went by: the nodes link past the tap", between.size())
			}
			if got, want := between.heard(marker), policy == config.TLSDisabled; got != want {
				t.Errorf("the marker can be read among %d bytes: %v, want %v", between.size(), got, want)
			}
			for i := range 2 {
				if got, want := metric(c, i, "mesh_links_encrypted"), map[bool]string{true: "0", false: "1"}[policy == config.TLSDisabled]; got != want {
					t.Errorf("node %d has %s encrypted links, want %s", i, got, want)
				}
			}
		})
	}
}

// The certificate of the links is renewed, and then its CA replaced, while clients
// publish and send: nothing is lost, no link ends, and links that are made in between
// are made.
func TestLinkCertificatesAreSwappedUnderLoad(t *testing.T) {
	certs := newLinkCertificates(t)
	const nodes = 3
	c := cluster.Start(t, nodes, func(cfg *config.Config) {
		certs.set(config.TLSRequired)(cfg)
		cfg.History.MaxArtifacts, cfg.History.MaxBytes = 1_000_000, 0
		cfg.Storage.Shards = 4
	})
	ledger := startLedger(t, c, nodes)
	const artifacts = 700
	box := make(inbox, artifacts+1)
	connect(t, c.Node(1), "to", numbered(box))
	from := connect(t, c.Node(0), "from")

	onAll := func(what string, holds func(i int) bool) {
		t.Helper()
		for i := range nodes {
			c.WaitFor(what+" on node "+fmt.Sprint(i), func() bool { return holds(i) })
		}
	}
	expiries := func() (all [nodes]string) {
		for i := range all {
			all[i] = expiryOf(c, i, "cluster")
		}
		return all
	}
	made := func() (all [nodes]string) {
		for i := range all {
			all[i] = metric(c, i, "mesh_links_made_total")
		}
		return all
	}
	next := newCA(t)
	before, links := expiries(), made()
	sendAll(t, from, "to", artifacts, func(i int) {
		switch i {
		case 50: // another CA is trusted, too
			replaceFile(t, filepath.Join(certs.dir, "ca.crt"), append(next.PEM(), certs.ca.PEM()...))
			onAll("trust in the new CA", func(i int) bool { return takes(t, c.Node(i), next, certs.id()) })
		case 250: // and issues
			certs.issue(next)
			onAll("the new certificate", func(i int) bool {
				return expiryOf(c, i, "cluster") != before[i]
			})
		case 450: // and is the only one
			replaceFile(t, filepath.Join(certs.dir, "ca.crt"), next.PEM())
			onAll("an end of the trust in the old CA", func(i int) bool { return !takes(t, c.Node(i), certs.ca, certs.id()) })
		}
	})
	expectAll(t, box, artifacts)
	if now := made(); now != links {
		t.Errorf("links were made again: %v, then %v", links, now)
	}
	for i := range nodes {
		if takes(t, c.Node(i), next, config.ClusterID("other").String()) {
			t.Errorf("node %d takes a certificate for another hub", i)
		}
	}
	c.Restart(2) // its links are made by what there is now
	keepsPromises(t, ledger)
}

// A broken set of files changes nothing, and is said.
func TestBrokenLinkCertificatesChangeNothing(t *testing.T) {
	certs := newLinkCertificates(t)
	c := cluster.Start(t, 2, certs.set(config.TLSRequired))
	stale := func(want string) {
		t.Helper()
		for i := range 2 {
			c.WaitFor("staleness "+want, func() bool { return metric(c, i, `certificate_stale{port="cluster"}`) == want })
		}
	}
	caFile := filepath.Join(certs.dir, "ca.crt")
	for name, broken := range map[string][]byte{"empty": nil, "nonsense": []byte("open sesame"), "not that of the certificate": newCA(t).PEM()} {
		t.Run(name, func(t *testing.T) {
			replaceFile(t, caFile, broken)
			stale("1")
			for i := range 2 {
				if !takes(t, c.Node(i), certs.ca, certs.id()) {
					t.Errorf("node %d takes no certificate of the CA that it had", i)
				}
			}
			replaceFile(t, caFile, certs.ca.PEM())
			stale("0")
		})
	}
}

// Nodes of before, which speak no TLS to each other, and those that do are one hub,
// while one after the other is replaced, and when it becomes required.
func TestNodesGoOverToEncryptedLinks(t *testing.T) {
	certs := newLinkCertificates(t)
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		keepHistory(cfg)
		if cfg.Node != "node-1" {
			certs.set(config.TLSOptional)(cfg)
		}
		cfg.TLS.ClusterDirectory = certs.dir
	})
	encrypted := func(want ...string) {
		t.Helper()
		for i, n := range want {
			c.WaitFor(fmt.Sprintf("%s encrypted links of node %d", n, i), func() bool {
				return metric(c, i, "mesh_links_encrypted") == n && metric(c, i, "mesh_links") == "2"
			})
		}
	}
	box := make(inbox, 1)
	var all [3]*client.Client
	for i := range all {
		all[i] = connect(t, c.Node(i), fmt.Sprintf("client-%d", i), numbered(box))
	}
	everyoneHears := func() {
		t.Helper()
		for i, from := range all {
			for to := range all {
				if err := from.Send(patient(t), fmt.Sprintf("client-%d", to), &wire.Artifact{Payload: []byte("x")}); err != nil {
					t.Fatalf("from node %d to node %d: %v", i, to, err)
				}
				box.next(t)
				if _, err := from.Publish(patient(t), fmt.Sprintf("t.%d%d", i, to), &wire.Artifact{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	encrypted("1", "0", "1")
	everyoneHears()
	configure := func(policy config.TLSPolicy, ordinals ...int) {
		t.Helper()
		for _, i := range ordinals {
			cfg := c.Node(i).Config()
			cfg.TLS.Cluster = policy
			if err := c.Node(i).Configure(cfg, string(policy)); err != nil {
				t.Fatal(err)
			}
		}
	}
	configure(config.TLSOptional, 1)
	everyoneHears() // links that are there stay as they are
	configure(config.TLSRequired, 0, 1, 2)
	encrypted("2", "2", "2")
	everyoneHears()
}
