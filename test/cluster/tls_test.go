package cluster_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// certificates are a hub's: a directory that its nodes read, with the CA's file for
// clients in it.
type certificates struct {
	t   *testing.T
	dir string
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	c := &certificates{t, t.TempDir()}
	c.write(newCA(t), "localhost", "127.0.0.1")
	return c
}

func newCA(t *testing.T) *throwaway.CA {
	t.Helper()
	ca, err := throwaway.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (c *certificates) write(ca *throwaway.CA, names ...string) {
	c.t.Helper()
	if err := ca.Write(c.dir, names...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *certificates) caFile() string { return filepath.Join(c.dir, throwaway.CAFile) }

func (c *certificates) trust() client.Option { return client.WithCAFile(c.caFile()) }

// set is for the config of the nodes.
func (c *certificates) set(policy config.TLSPolicy) func(*config.Config) {
	return func(cfg *config.Config) { cfg.TLS.Clients, cfg.TLS.Directory = policy, c.dir }
}

// handshakes returns how many there were of a kind, on all nodes.
func handshakes(t *testing.T, c *cluster.Cluster, nodes int, result string) (n int) {
	t.Helper()
	for i := range nodes {
		_, after, ok := strings.Cut(c.Metrics(i), `switchboard_tls_handshakes_total{result="`+result+`"} `)
		var one int
		if _, err := fmt.Sscan(after, &one); !ok || err != nil {
			t.Fatalf("node %d does not count handshakes: %v", i, err)
		}
		n += one
	}
	return n
}

// expect connects and checks that it fails with each of these texts.
func expect(t *testing.T, address string, texts []string, opts ...client.Option) error {
	t.Helper()
	c, err := client.Connect(patient(t), address, opts...)
	if err == nil {
		_ = c.Close()
		t.Errorf("Connect succeeds, want an error with %q", texts)
		return nil
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("Connect = %v, want %q in it", err, text)
		}
	}
	return err
}

func TestClientsHearWhatIsWrongWithTLS(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 1, certs.set(config.TLSRequired))
	node := c.Node(0).Client()

	err := expect(t, node, []string{"refused by the hub", "WithCAFile", "--ca-file"})
	if refused, ok := errors.AsType[*client.Error](err); !ok || refused.Code != wire.CodeTLSRequired {
		t.Errorf("without TLS: %v, want code TLSRequired", err)
	}
	other := filepath.Join(t.TempDir(), "other.crt")
	if err := os.WriteFile(other, newCA(t).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	err = expect(t, node, []string{"by another CA than " + other}, client.WithCAFile(other))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("with another CA: %v, want an x509.UnknownAuthorityError", err)
	}
	expect(t, "agents.default.svc", []string{"its certificate is not for agents.default.svc"}, certs.trust(),
		client.WithDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, node)
		}))
	expect(t, node, []string{"protocol version not supported"}, certs.trust(), client.WithTLS(&tls.Config{MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12}))
	expect(t, node, []string{"read the CA", "no such file"}, client.WithCAFile(other+".not"))
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, node, []string{"no certificate in " + empty}, client.WithCAFile(empty))

	plain := cluster.Start(t, 1, nil)
	expect(t, plain.Node(0).Client(), []string{"does not answer with TLS", "tls.clients"}, certs.trust())
	connect(t, c.Node(0), "good", certs.trust())
}

func TestBadCertificatesAreToldAsSuch(t *testing.T) {
	ca := newCA(t)
	expired, expiredKey, err := ca.Issue(time.Now().Add(-time.Minute), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	own, ownKey := selfSigned(t)
	for name, test := range map[string]struct {
		cert, key []byte
		says      string
	}{
		"expired":     {expired, expiredKey, "expired"},
		"self-signed": {own, ownKey, "by another CA"},
	} {
		t.Run(name, func(t *testing.T) {
			certs := newCertificates(t)
			for name, content := range map[string][]byte{"tls.crt": test.cert, "tls.key": test.key, throwaway.CAFile: ca.PEM()} {
				if err := os.WriteFile(filepath.Join(certs.dir, name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := cluster.Start(t, 1, certs.set(config.TLSRequired))
			expect(t, c.Node(0).Client(), []string{test.says}, certs.trust())
			if !strings.Contains(c.Metrics(0), "\nswitchboard_certificate_expiry_timestamp_seconds{port=\"client\"} ") {
				t.Error("no metric says when it expires")
			}
			c.WaitFor("a handshake that was refused", func() bool { return handshakes(t, c, 1, "refused") == 1 })
			if name == "self-signed" { // which is a CA to those who take it for one
				connect(t, c.Node(0), "good", client.WithCAFile(filepath.Join(certs.dir, "tls.crt")))
			}
		})
	}
}

// selfSigned returns a certificate for 127.0.0.1 that nobody else vouches for.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// Sessions go on over TLS as they do without, and TLS's own sessions are resumed,
// on other nodes too.
func TestSessionsOutliveEncryptedConnections(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 3, certs.set(config.TLSRequired))
	var all []string
	for i := range 3 {
		all = append(all, c.Node(i).Client())
	}
	const artifacts = 2000
	box := make(inbox, artifacts+1)
	ends := make([]struct {
		wires
		connected atomic.Int32
	}, 2)
	count := func(i int) client.Option {
		return client.OnConnect(func(client.Server) { ends[i].connected.Add(1) })
	}
	ends[0].connect(t, strings.Join(all, ","), "to", numbered(box), certs.trust(), count(0))
	sender := ends[1].connect(t, strings.Join(all, ","), "from", certs.trust(), count(1))
	c.WaitFor("first connects", func() bool { return ends[0].connected.Load() == 1 && ends[1].connected.Load() == 1 })
	cuts := 0
	sendAll(t, sender, "to", artifacts, func(int) {
		cuts++
		cut := &ends[cuts%2]
		before := cut.connected.Load()
		cut.cut(sender.Server().Address)
		c.WaitFor("reconnect", func() bool { return cut.connected.Load() > before })
	})
	expectAll(t, box, artifacts)
	if full, resumed := handshakes(t, c, 3, "full"), handshakes(t, c, 3, "resumed"); full != len(ends) || resumed < cuts {
		t.Errorf("%d handshakes were full and %d resumed, want %d, and at least %d", full, resumed, len(ends), cuts)
	}
}

// A certificate that is swapped under load, by another CA in the end, loses nothing:
// clients have both CAs in their file meanwhile.
func TestCertificatesAreSwappedUnderLoad(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 2, certs.set(config.TLSRequired))
	addresses := c.Node(0).Client() + "," + c.Node(1).Client()
	const artifacts = 3000
	box := make(inbox, artifacts+1)
	var from, to wires
	to.connect(t, addresses, "to", numbered(box), certs.trust())
	sender := from.connect(t, addresses, "from", certs.trust())

	old, err := os.ReadFile(certs.caFile())
	if err != nil {
		t.Fatal(err)
	}
	before := expiryOf(c, 0, "client")
	ca := newCA(t)
	sendAll(t, sender, "to", artifacts, func(i int) {
		switch i {
		case 150:
			replaceFile(t, certs.caFile(), append(old, ca.PEM()...))
		case 550:
			replacePair(t, certs.dir, ca, time.Now().Add(time.Hour), "127.0.0.1")
			c.WaitFor("the new certificate", func() bool { return expiryOf(c, 0, "client") != before && expiryOf(c, 1, "client") != before })
		case 1050:
			replaceFile(t, certs.caFile(), ca.PEM())
		}
		if i%200 == 50 {
			from.cut()
		} else {
			to.cut()
		}
	})
	expectAll(t, box, artifacts)
	connect(t, c.Node(0), "new", certs.trust())
}

// replacePair replaces a certificate and its key by ones of a CA.
func replacePair(t *testing.T, dir string, ca *throwaway.CA, end time.Time, names ...string) {
	t.Helper()
	cert, key, err := ca.Issue(end, names...)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, filepath.Join(dir, "tls.key"), key)
	replaceFile(t, filepath.Join(dir, "tls.crt"), cert)
}

func replaceFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Error(err)
	}
}

// The setting changes in place, there and back.
func TestTLSChangesInPlace(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 1, nil)
	node := c.Node(0)
	cfg := node.Config()
	configure := func(policy config.TLSPolicy) {
		t.Helper()
		cfg.TLS.Clients, cfg.TLS.Directory = policy, node.Config().TLS.Directory
		if err := node.Configure(cfg, string(policy)); err != nil {
			t.Fatal(err)
		}
	}
	cfg.TLS.Clients = config.TLSOptional
	if err := node.Configure(cfg, "x"); err == nil || !strings.Contains(err.Error(), "no tls.crt in /etc/switchboard/tls") {
		t.Fatalf("Configure without a certificate = %v", err)
	}
	expect(t, node.Client(), []string{"does not answer with TLS"}, certs.trust())

	c = cluster.Start(t, 1, certs.set(config.TLSDisabled))
	node = c.Node(0)
	cfg = node.Config()
	configure(config.TLSOptional)
	var lost atomic.Pointer[error]
	plain := connect(t, node, "plain", client.WithMaxReconnects(1), client.OnDisconnect(func(err error) { lost.Store(&err) }))
	secret := connect(t, node, "secret", certs.trust())
	if err := errors.Join(plain.Flush(patient(t)), secret.Flush(patient(t))); err != nil {
		t.Fatal(err)
	}
	configure(config.TLSRequired)
	select {
	case <-plain.Done():
	case <-time.After(cluster.Patience):
		t.Fatal("the plain client stays")
	}
	c.WaitFor("its reason", func() bool { return lost.Load() != nil })
	if reason, ok := errors.AsType[*client.Error](*lost.Load()); !ok || reason.Code != wire.CodeTLSRequired {
		t.Errorf("the plain client is disconnected with %v", *lost.Load())
	}
	if err := secret.Flush(patient(t)); err != nil || secret.Err() != nil {
		t.Errorf("the encrypted one: %v, %v", err, secret.Err())
	}
	expect(t, node.Client(), []string{"encrypted connections only"})
	configure(config.TLSDisabled)
	connect(t, node, "plain")
	expect(t, node.Client(), []string{"does not answer with TLS"}, certs.trust())
	if err := secret.Flush(patient(t)); err != nil || secret.Err() != nil {
		t.Errorf("the encrypted one, now that no new one is: %v, %v", err, secret.Err())
	}
}

// The same load as without TLS, between many clients, all sizes of artifact.
func TestEncryptedClientsOfAllKinds(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 2, certs.set(config.TLSOptional))
	const subscribers, artifacts = 8, 300
	boxes := make([]inbox, subscribers)
	for i := range boxes {
		boxes[i] = make(inbox, artifacts+1)
		var opts []client.Option
		if i%2 == 0 {
			opts = append(opts, certs.trust())
		}
		sub := connect(t, c.Node(i/2%2), fmt.Sprintf("sub-%d", i), opts...)
		if _, err := sub.Subscribe(patient(t), "load", boxes[i].handle); err != nil {
			t.Fatal(err)
		}
	}
	pub := connect(t, c.Node(0), "pub", certs.trust())
	c.WaitFor("interest", func() bool {
		if _, err := pub.Publish(context.Background(), "load", &wire.Artifact{Payload: []byte("probe")}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Millisecond)
		for _, box := range boxes {
			if len(box) == 0 {
				return false
			}
		}
		return true
	})
	payload := func(i int) string { return fmt.Sprint(i) + strings.Repeat("x", i*i%200_000) }
	for i := range artifacts {
		if _, err := pub.PublishAsync(patient(t), "load", &wire.Artifact{Payload: []byte(payload(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for n, box := range boxes {
		for i := 0; i < artifacts; {
			got := string(box.next(t).Payload)
			if got == "probe" {
				continue
			}
			if got != payload(i) {
				t.Fatalf("subscriber %d got %.10q of %d bytes, artifact %d was expected", n, got, len(got), i)
			}
			i++
		}
	}
}

// An encrypted client that reads nothing is disconnected, and slows nobody.
func TestASlowEncryptedClientSlowsNobody(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		certs.set(config.TLSRequired)(cfg)
		cfg.Limits.MaxPendingBytes, cfg.Limits.MaxArtifactSize = 1<<20, 64<<10
	})
	const artifacts = 500
	box := make(inbox, artifacts)
	sub := connect(t, c.Node(0), "quick", certs.trust())
	if _, err := sub.Subscribe(patient(t), "load", box.handle); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(certs.caFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	slow, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool}}).DialContext(patient(t), "tcp", c.Node(0).Client())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	hello := wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: "slow"})
	if _, err := slow.Write(wire.AppendControl(hello, wire.Header{Kind: wire.KindSubscribe, Ref: 1}, "load", wire.Subscription{})); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("both subscriptions", func() bool {
		return strings.Contains(c.Metrics(0), `switchboard_topic_subscribers{pattern="load"} 2`)
	})
	pub := connect(t, c.Node(0), "pub", certs.trust())
	const ahead = 8 // of what the quick one has: what waits for it has to stay below the limit on a busy machine too
	for i := range artifacts + ahead {
		if i < artifacts {
			if _, err := pub.PublishAsync(patient(t), "load", &wire.Artifact{Payload: make([]byte, 60_000)}); err != nil {
				t.Fatal(err)
			}
		}
		if i >= ahead {
			box.next(t)
		}
	}
	c.WaitFor("the slow one's end", func() bool {
		return strings.Contains(c.Metrics(0), "switchboard_slow_clients_total 1\n") && !c.Lists(0, "slow")
	})
}

// A client whose CA file was not changed in time says so, and comes back once it is.
func TestAClientComesBackOnceItsCAFileIsRight(t *testing.T) {
	certs := newCertificates(t)
	c := cluster.Start(t, 1, certs.set(config.TLSRequired))
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	old, err := os.ReadFile(certs.caFile())
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, caFile, old)
	var w wires
	troubles := make(chan error, 1)
	one := w.connect(t, c.Node(0).Client(), "one", client.WithCAFile(caFile), client.OnError(func(err error) {
		select {
		case troubles <- err:
		default:
		}
	}))
	certs.write(newCA(t), "127.0.0.1")
	c.WaitFor("the new certificate", func() bool {
		probe, err := client.Connect(patient(t), c.Node(0).Client(), certs.trust())
		if err == nil {
			_ = probe.Close()
		}
		return err == nil
	})
	w.cut()
	if err := <-troubles; !strings.Contains(err.Error(), "by another CA than "+caFile) {
		t.Errorf("OnError hears %v", err)
	}
	renewed, err := os.ReadFile(certs.caFile())
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, caFile, renewed)
	if err := one.Flush(patient(t)); err != nil {
		t.Error(err)
	}
	c.WaitFor("the client", func() bool { return c.Lists(0, "one") })
}
