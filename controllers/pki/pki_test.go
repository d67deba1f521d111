package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/controllers/pki"
)

var now = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func names() pki.Names {
	return pki.Names{
		DNS:  []string{"agents.default.svc", "*.agents-nodes.default.svc", "localhost"},
		IPs:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "switchboard.dev", Path: "/ns/default/hub/agents/node"}},
	}
}

func newAuthority(tb testing.TB, at time.Time) *pki.Authority {
	tb.Helper()
	a, err := pki.NewAuthority("agents", at)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func issue(tb testing.TB, a *pki.Authority, at time.Time) *pki.Credentials {
	tb.Helper()
	c, err := a.Issue(names(), at)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func dataOf(tb testing.TB, c interface {
	Data() (map[string][]byte, error)
},
) map[string][]byte {
	tb.Helper()
	data, err := c.Data()
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestAuthority(t *testing.T) {
	a := newAuthority(t, now)
	c := a.Certificate
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA %v, path length zero %v, usage %b: want an authority that may sign certificates, but no other authority's", c.IsCA, c.MaxPathLenZero, c.KeyUsage)
	}
	if !c.NotBefore.Equal(now.Add(-5*time.Minute)) || !c.NotAfter.Equal(now.Add(10*365*24*time.Hour)) {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("a key of type %T, want one on P-256", c.PublicKey)
	}
	again, err := pki.ParseAuthority(dataOf(t, a))
	if err != nil {
		t.Fatal(err)
	}
	if err := issue(t, again, now).Verify([]*x509.Certificate{c}, now); err != nil {
		t.Errorf("what it issues after it was read: %v", err)
	}
	if other := newAuthority(t, now.Add(time.Second)).Certificate; other.Subject.String() == c.Subject.String() || other.SerialNumber.Cmp(c.SerialNumber) == 0 {
		t.Errorf("the next authority is %v, number %v, too", other.Subject, other.SerialNumber)
	}
	long, err := pki.NewAuthority(strings.Repeat("a", 60), now)
	if err != nil || len(long.Certificate.Subject.CommonName) > 64 {
		t.Errorf("a common name of %d bytes, %v; at most 64 are allowed", len(long.Certificate.Subject.CommonName), err)
	}
}

func TestIssuedCertificate(t *testing.T) {
	a := newAuthority(t, now)
	creds := issue(t, a, now)
	c := creds.Leaf()
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) || c.IsCA {
		t.Errorf("usages %v, CA %v: want servers and clients, and no CA", c.ExtKeyUsage, c.IsCA)
	}
	if !c.NotBefore.Equal(now.Add(-5*time.Minute)) || !c.NotAfter.Equal(now.Add(90*24*time.Hour)) {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
	if want := c.NotBefore.Add((90*24*time.Hour + 5*time.Minute) / 3 * 2); !pki.RenewAt(c).Equal(want) {
		t.Errorf("renewed at %v, want %v", pki.RenewAt(c), want)
	}
	for _, host := range []string{"agents.default.svc", "agents-node-1.agents-nodes.default.svc", "localhost", "127.0.0.1", "::1"} {
		if err := c.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := c.VerifyHostname("elsewhere.default.svc"); err == nil {
		t.Error("it is valid for another Hub")
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://switchboard.dev/ns/default/hub/agents/node" {
		t.Errorf("URIs %v", c.URIs)
	}
	if !creds.Covers(names()) {
		t.Error("it does not cover what it was issued for")
	}
	other := names()
	other.IPs = other.IPs[:1]
	if creds.Covers(other) {
		t.Error("it covers an address less")
	}
}

func TestCertificateDoesNotOutliveItsAuthority(t *testing.T) {
	a := newAuthority(t, now)
	end := a.Certificate.NotAfter
	if got := issue(t, a, end.Add(-time.Hour)).Leaf().NotAfter; !got.Equal(end) {
		t.Errorf("valid until %v, the authority until %v", got, end)
	}
	if _, err := a.Issue(names(), end); err == nil {
		t.Error("an authority that has ended issues a certificate")
	}
}

// What is made has to work in a real handshake, with a certificate of each side.
func TestHandshake(t *testing.T) {
	a := newAuthority(t, time.Now())
	config := func() *tls.Config {
		data := dataOf(t, issue(t, a, time.Now()))
		pair, err := tls.X509KeyPair(data[pki.CertificateKey], data[pki.PrivateKeyKey])
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(data[pki.AuthoritiesKey])
		return &tls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "agents-node-0.agents-nodes.default.svc", MinVersion: tls.VersionTLS13,
		}
	}
	left, right := net.Pipe()
	server, client := tls.Server(left, config()), tls.Client(right, config())
	done := make(chan error, 1)
	go func() {
		_, err := server.Write([]byte("hello"))
		done <- errors.Join(err, server.Close())
	}()
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = right.Close() // the other side has closed the connection
}

func TestVerify(t *testing.T) {
	ours, theirs, above := newAuthority(t, now), newAuthority(t, now), newAuthority(t, now)
	creds := issue(t, ours, now)
	tests := map[string]struct {
		creds *pki.Credentials
		trust *pki.Authority
		at    time.Time
		want  string // in the error; empty: none
	}{
		"now":                     {creds, ours, now, ""},
		"by a slow clock":         {creds, ours, now.Add(-5 * time.Minute), ""},
		"too early":               {creds, ours, now.Add(-6 * time.Minute), "tls.crt: is not valid before 2026-02-03T04:00:06Z"},
		"at its end":              {creds, ours, creds.Leaf().NotAfter, ""},
		"too late":                {creds, ours, creds.Leaf().NotAfter.Add(time.Second), "tls.crt: has expired at 2026-05-04T04:05:06Z"},
		"by another authority":    {creds, theirs, now, "tls.crt: is not issued by an authority in ca.crt"},
		"for clients alone":       {selfSigned(t, x509.ExtKeyUsageClientAuth), nil, now, "tls.crt: x509: certificate specifies an incompatible key usage"},
		"its own authority":       {selfSigned(t, x509.ExtKeyUsageServerAuth), nil, now, ""},
		"over one in between":     {chained(t, above, true), above, now, ""},
		"without one in between":  {chained(t, above, false), above, now, "is not issued by an authority"},
		"the one below is enough": {chained(t, above, true), nil, now, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			trusted := tt.creds.Authorities
			if tt.trust != nil {
				trusted = []*x509.Certificate{tt.trust.Certificate}
			}
			err := tt.creds.Verify(trusted, tt.at)
			if got := errorText(err); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("verify = %q, want %q", got, tt.want)
			}
			var expired *pki.ExpiredError
			if got, want := errors.As(err, &expired), strings.Contains(tt.want, "expired"); got != want {
				t.Errorf("expired: %v, want %v", got, want)
			}
		})
	}
}

// selfSigned makes a certificate that is its own authority.
func selfSigned(t *testing.T, usage x509.ExtKeyUsage) *pki.Credentials {
	t.Helper()
	key := ecKey(t)
	der := certify(t, &x509.Certificate{DNSNames: []string{"a"}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, nil, key, key)
	return parse(t, der, key, der)
}

// chained makes a certificate of an authority that another one has certified. Who trusts
// the one below needs no more; who trusts the one above needs it in the chain.
func chained(t *testing.T, above *pki.Authority, withIt bool) *pki.Credentials {
	t.Helper()
	own := dataOf(t, above)
	pair, err := tls.X509KeyPair(own[pki.CertificateKey], own[pki.PrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	// An authority of this package may certify no authority: a root that may.
	rootKey := pair.PrivateKey.(crypto.Signer)
	root := *above.Certificate
	root.MaxPathLenZero, root.MaxPathLen = false, -1
	above.Certificate = parseDER(t, certify(t, &root, nil, rootKey, rootKey))

	belowKey, key := ecKey(t), ecKey(t)
	below := parseDER(t, certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "below"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, above.Certificate, belowKey, rootKey))
	leaf := certify(t, &x509.Certificate{DNSNames: []string{"a"}}, below, key, belowKey)
	if withIt {
		return parse(t, slices.Concat(leaf, below.Raw), key, below.Raw)
	}
	return parse(t, leaf, key, below.Raw)
}

func parseDER(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t *testing.T, template, parent *x509.Certificate, key, by crypto.Signer) []byte {
	t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), now.Add(-time.Hour), now.Add(time.Hour)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificatePEM(ders ...byte) []byte {
	var text []byte
	for certificates, _ := x509.ParseCertificates(ders); len(certificates) > 0; certificates = certificates[1:] {
		text = append(text, pemOf("CERTIFICATE", certificates[0].Raw)...)
	}
	return text
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func parse(t *testing.T, chain []byte, key crypto.Signer, authorities []byte) *pki.Credentials {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.ParseCredentials(map[string][]byte{
		pki.CertificateKey: certificatePEM(chain...), pki.PrivateKeyKey: pemOf("PRIVATE KEY", der), pki.AuthoritiesKey: certificatePEM(authorities...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseCredentials(t *testing.T) {
	good := dataOf(t, issue(t, newAuthority(t, now), now))
	other := dataOf(t, issue(t, newAuthority(t, now), now))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCertificate := pemOf("CERTIFICATE", certify(t, &x509.Certificate{}, nil, rsaKey, rsaKey))
	key := ecKey(t)
	ecCertificate := pemOf("CERTIFICATE", certify(t, &x509.Certificate{}, nil, key, key))
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		crt, key, ca []byte // nil: the good one
		want         string // in the error; empty: none
	}{
		"good":                            {},
		"comments around certificates":    {crt: slices.Concat([]byte("subject=agents\n\n"), good["tls.crt"], []byte("# end\n")), want: ""},
		"a key on a curve by openssl":     {crt: ecCertificate, key: slices.Concat(pemOf("EC PARAMETERS", []byte{6, 1, 1}), pemOf("EC PRIVATE KEY", sec1))},
		"an RSA key by openssl":           {crt: rsaCertificate, key: pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		"no certificate":                  {crt: []byte{}, want: "tls.crt: holds no certificate in PEM"},
		"no key":                          {key: []byte{}, want: "tls.key: holds 0 private keys in PEM, must hold one"},
		"no authorities":                  {ca: []byte{}, want: "ca.crt: holds no certificate in PEM"},
		"not PEM at all":                  {crt: []byte("open sesame"), want: "tls.crt: holds no certificate in PEM"},
		"DER":                             {crt: decodePEM(good["tls.crt"]), want: "tls.crt: holds no certificate in PEM"},
		"a certificate that is cut off":   {crt: good["tls.crt"][:100], want: "tls.crt: 1 of 1 PEM blocks are damaged"},
		"one of two that is damaged":      {ca: slices.Concat(good["ca.crt"], bytes.Replace(good["ca.crt"], []byte("\n"), []byte("\n~~"), 1)), want: "ca.crt: 1 of 2 PEM blocks are damaged"},
		"a block that is no certificate":  {crt: pemOf("CERTIFICATE", []byte("nonsense")), want: "tls.crt: certificate 1 of 1 can't be read"},
		"a key among certificates":        {crt: slices.Concat(good["tls.crt"], good["tls.key"]), want: `tls.crt: holds a PEM block "PRIVATE KEY" among its certificates`},
		"a certificate in place of a key": {key: good["tls.crt"], want: `tls.key: holds a PEM block "CERTIFICATE", must hold a private key`},
		"two keys":                        {key: slices.Concat(good["tls.key"], other["tls.key"]), want: "tls.key: holds 2 private keys in PEM, must hold one"},
		"a key that is nonsense":          {key: pemOf("PRIVATE KEY", []byte("nonsense")), want: "tls.key: holds a private key that can't be read"},
		"a key with a passphrase":         {key: pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), want: "tls.key: is encrypted with a passphrase"},
		"an old key with a passphrase":    {key: []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"), want: "tls.key: is encrypted with a passphrase"},
		"the key of another certificate":  {key: other["tls.key"], want: "tls.key: is not the key of the first certificate in tls.crt"},
		"far too many authorities":        {ca: bytes.Repeat(good["ca.crt"], 65), want: "ca.crt: holds 65 certificates, more than 64"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := map[string][]byte{"tls.crt": good["tls.crt"], "tls.key": good["tls.key"], "ca.crt": good["ca.crt"]}
			for key, text := range map[string][]byte{"tls.crt": tt.crt, "tls.key": tt.key, "ca.crt": tt.ca} {
				if text != nil {
					data[key] = text
				}
			}
			_, err := pki.ParseGiven(data)
			got := errorText(err)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("parse = %q, want %q", got, tt.want)
			}
		})
	}
}

func decodePEM(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

func TestParseAuthority(t *testing.T) {
	a := newAuthority(t, now)
	authority, leaf := dataOf(t, a), dataOf(t, issue(t, a, now))
	tests := map[string]struct {
		data map[string][]byte
		want string
	}{
		"good":                          {authority, ""},
		"nothing":                       {nil, "tls.crt: holds no certificate in PEM"},
		"a certificate of no authority": {leaf, "tls.crt: is no authority's certificate: it may not sign others"},
		"two authorities":               {map[string][]byte{"tls.crt": bytes.Repeat(authority["tls.crt"], 2), "tls.key": authority["tls.key"]}, "tls.crt: holds 2 certificates, must hold the authority's alone"},
		"the key of another one":        {map[string][]byte{"tls.crt": authority["tls.crt"], "tls.key": leaf["tls.key"]}, "tls.key: is not the key of the first certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := pki.ParseAuthority(tt.data)
			if got := errorText(err); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("parse = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestErrorsTellNothingOfKeys(t *testing.T) {
	data := dataOf(t, issue(t, newAuthority(t, now), now))
	secret := string(data["tls.key"])
	for range 3 {
		data["tls.key"] = data["tls.key"][:len(data["tls.key"])*2/3]
		_, err := pki.ParseCredentials(data)
		if err == nil {
			t.Fatal("half a key is taken")
		}
		for _, line := range strings.Split(secret, "\n")[1:3] {
			if strings.Contains(err.Error(), line) {
				t.Errorf("error %q has a line of the key", err)
			}
		}
	}
}

func TestUnionKeepsOrder(t *testing.T) {
	a, b := newAuthority(t, now).Certificate, newAuthority(t, now).Certificate
	got := pki.Union([]*x509.Certificate{a}, []*x509.Certificate{b, a, b})
	if !pki.Equal(got, []*x509.Certificate{a, b}) {
		t.Errorf("%d certificates, want a and b", len(got))
	}
}

func TestDescribe(t *testing.T) {
	if got := pki.Describe(newAuthority(t, now).Certificate); got != "agents CA 20260203-040506" {
		t.Errorf("an authority is %q", got)
	}
	key := ecKey(t)
	if got := pki.Describe(parseDER(t, certify(t, &x509.Certificate{}, nil, key, key))); got != "serial number 1" {
		t.Errorf("a certificate without a name is %q", got)
	}
}

// What is read is written as the same, so that nothing is written twice.
func FuzzParseCredentials(f *testing.F) {
	good := dataOf(f, issue(f, newAuthority(f, now), now))
	f.Add(good["tls.crt"], good["tls.key"], good["ca.crt"])
	f.Add([]byte("-----BEGIN CERTIFICATE-----"), []byte("-----BEGIN PRIVATE KEY-----"), []byte{})
	f.Fuzz(func(t *testing.T, crt, key, ca []byte) {
		creds, err := pki.ParseCredentials(map[string][]byte{"tls.crt": crt, "tls.key": key, "ca.crt": ca})
		if err != nil {
			return
		}
		_ = creds.Verify(creds.Authorities, now) // any answer will do
		data := dataOf(t, creds)
		again, err := pki.ParseCredentials(data)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		if !pki.SameCertificate(creds, again) || !pki.Equal(creds.Authorities, again.Authorities) {
			t.Error("what was written is read as something else")
		}
		for name, text := range dataOf(t, again) {
			if !bytes.Equal(text, data[name]) {
				t.Errorf("%s is written differently the second time", name)
			}
		}
	})
}

func FuzzParseAuthority(f *testing.F) {
	good := dataOf(f, newAuthority(f, now))
	f.Add(good["tls.crt"], good["tls.key"])
	f.Add(good["tls.key"], good["tls.crt"])
	f.Fuzz(func(t *testing.T, crt, key []byte) {
		a, err := pki.ParseAuthority(map[string][]byte{"tls.crt": crt, "tls.key": key})
		if err != nil {
			return
		}
		if _, err := pki.ParseAuthority(dataOf(t, a)); err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		_, _ = a.Issue(names(), now) // it may not be one that can
	})
}

// While one authority gives way to another there are those of both.
func TestCredentialsOfManyAuthoritiesAreRead(t *testing.T) {
	a := newAuthority(t, now)
	many := slices.Repeat([]*x509.Certificate{a.Certificate}, 128)
	if _, err := pki.ParseCredentials(dataOf(t, issue(t, a, now).Trusting(many))); err != nil {
		t.Error(err)
	}
}
