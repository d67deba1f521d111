package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"log/slog"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

const hubID = "default/agents/7d1c"

// pair is a certificate and its key.
type pair struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// certify makes a certificate for clients out of a template, signed by one that may do
// so, or by itself.
func certify(tb testing.TB, by *pair, curve elliptic.Curve, change func(*x509.Certificate)) *pair {
	tb.Helper()
	key := must[*ecdsa.PrivateKey](tb)(ecdsa.GenerateKey(curve, rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	if by == nil {
		by = &pair{template, key}
	}
	der := must[[]byte](tb)(x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key))
	return &pair{must[*x509.Certificate](tb)(x509.ParseCertificate(der)), key}
}

// authority makes a certificate that may sign others. It has the URI of the hub's nodes and
// may sign anything, as one that somebody brought might.
func authority(tb testing.TB) *pair {
	tb.Helper()
	return certify(tb, nil, elliptic.P256(), func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, nil
		c.URIs = []*url.URL{config.ClusterID(hubID)}
	})
}

// node makes what the nodes of a hub know each other by.
func node(tb testing.TB, by *pair, hub string) *pair {
	tb.Helper()
	return certify(tb, by, elliptic.P256(), func(c *x509.Certificate) { c.URIs = []*url.URL{config.ClusterID(hub)} })
}

func pool(all ...*pair) *x509.CertPool {
	p := x509.NewCertPool()
	for _, one := range all {
		p.AddCert(one.Certificate)
	}
	return p
}

// trusting makes a world's gate take proofs of the operator's by an authority.
func (w *world) trusting(roots *x509.CertPool) *world {
	w.gate.TrustOperator(hubID, func() *x509.CertPool { return roots })
	return w
}

func (p *pair) prove(tb testing.TB, proof auth.OperatorProof, at time.Time) string {
	tb.Helper()
	return must[string](tb)(proof.Sign(p.key, p.Certificate, at))
}

func TestOperatorProvesWhoItIs(t *testing.T) {
	older, newer := authority(t), authority(t)
	now := time.Now()
	purge := auth.OperatorProof{Hub: hubID, Client: "switchboard-operator-1", Purges: "orders.>"}
	w := newWorld(t).trusting(pool(older, newer))
	for name, test := range map[string]struct {
		by    *pair
		proof auth.OperatorProof
		at    time.Time
	}{
		"to purge":                               {node(t, older, hubID), purge, now},
		"by the other authority, in a rotation":  {node(t, newer, hubID), purge, now},
		"to list":                                {node(t, older, hubID), auth.OperatorProof{Hub: hubID}, now},
		"by a clock that is behind":              {node(t, older, hubID), purge, now.Add(-50 * time.Second)},
		"by a clock that is ahead, as of others": {node(t, older, hubID), purge, now.Add(8 * time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := w.gate.Identify(t.Context(), auth.Credentials{Token: test.by.prove(t, test.proof, test.at)})
			if err != nil {
				t.Fatal(err)
			}
			want := auth.Identity{Method: auth.Operator, Name: "switchboard-operator", Proof: test.proof, Expires: test.at.Add(time.Minute).Truncate(time.Second)}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(auth.Identity{}), cmpopts.EquateApproxTime(0)); diff != "" {
				t.Error(diff)
			}
			if !w.gate.Holds(&got) {
				t.Error("and would not be let in again")
			}
		})
	}
}

// forged makes a token out of whatever parts.
func forged(tb testing.TB, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims ...any) string {
	tb.Helper()
	options := new(jose.SignerOptions)
	for k, v := range header {
		options.WithHeader(k, v)
	}
	b := jwt.Signed(must[jose.Signer](tb)(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)))
	for _, c := range claims {
		b = b.Claims(c)
	}
	return must[string](tb)(b.Serialize())
}

func x5c(all ...*pair) []string {
	var texts []string
	for _, one := range all {
		texts = append(texts, base64.StdEncoding.EncodeToString(one.Raw))
	}
	return texts
}

func TestWhoIsNotTheOperator(t *testing.T) {
	ca := authority(t)
	good := node(t, ca, hubID)
	now := time.Now()
	purge := auth.OperatorProof{Hub: hubID, Client: "switchboard-operator-1", Purges: "orders.>"}
	const typ = "switchboard-operator+jwt"
	claims := func(hub string, at time.Time, life time.Duration) jwt.Claims {
		return jwt.Claims{Audience: jwt.Audience{hub}, Subject: "switchboard-operator-1", IssuedAt: jwt.NewNumericDate(at), Expiry: jwt.NewNumericDate(at.Add(life))}
	}
	right := claims(hubID, now, time.Minute)
	header := func(all ...*pair) map[jose.HeaderKey]any {
		return map[jose.HeaderKey]any{"typ": typ, "x5c": x5c(all...)}
	}
	// with makes a proof by a certificate of the right authority that is not quite right.
	with := func(curve elliptic.Curve, alg jose.SignatureAlgorithm, change func(*x509.Certificate)) string {
		p := certify(t, ca, curve, func(c *x509.Certificate) {
			c.URIs = []*url.URL{config.ClusterID(hubID)}
			change(c)
		})
		return forged(t, alg, p.key, header(p), right)
	}
	below := certify(t, ca, elliptic.P256(), func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})
	indirect := node(t, below, hubID)
	parts := strings.Split(good.prove(t, purge, now), ".")
	wider := strings.Split(node(t, authority(t), hubID).prove(t, auth.OperatorProof{Hub: hubID, Client: "switchboard-operator-1", Purges: ">"}, now), ".")
	w := newWorld(t).trusting(pool(ca))
	public := must[[]byte](t)(x509.MarshalPKIXPublicKey(good.PublicKey))
	asIssuer := func(claims map[string]any) string {
		return must[string](t)(w.cluster.Token(audience, now.Add(time.Minute), claims))
	}
	for name, test := range map[string]struct{ token, want string }{
		"by an authority that nobody trusts":          {node(t, authority(t), hubID).prove(t, purge, now), "unknown authority"},
		"by the authority of another hub":             {node(t, authority(t), "default/other/1").prove(t, purge, now), "unknown authority"},
		"by another hub of the same authority":        {node(t, ca, "default/other/1").prove(t, purge, now), "has to be for spiffe://switchboard.dev/hub/default/agents/7d1c/cluster"},
		"for another hub":                             {good.prove(t, auth.OperatorProof{Hub: "default/other/1"}, now), `for the audience ["default/other/1"]`},
		"for no hub":                                  {good.prove(t, auth.OperatorProof{}, now), `for the audience [""]`},
		"expired":                                     {good.prove(t, purge, now.Add(-61*time.Second)), "expired at"},
		"from the future":                             {good.prove(t, purge, now.Add(30*time.Second)), "issued in the future"},
		"good for too long":                           {forged(t, jose.ES256, good.key, header(good), claims(hubID, now, time.Hour)), "none may be good for more than 1m0s"},
		"good for ever":                               {forged(t, jose.ES256, good.key, header(good), jwt.Claims{Audience: jwt.Audience{hubID}}), "no expiry"},
		"not valid yet":                               {forged(t, jose.ES256, good.key, header(good), right, map[string]any{"nbf": now.Add(30 * time.Second).Unix()}), "not valid before"},
		"by the authority's own key":                  {ca.prove(t, purge, now), "not for signatures on anything but certificates"},
		"by the authority's key for a node's":         {must[string](t)(purge.Sign(ca.key, good.Certificate, now)), "not by the key of its certificate"},
		"by another node's key":                       {must[string](t)(purge.Sign(node(t, ca, hubID).key, good.Certificate, now)), "not by the key of its certificate"},
		"by a certificate for servers":                {with(elliptic.P256(), jose.ES256, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "incompatible key usage"},
		"by a certificate that may not sign":          {with(elliptic.P256(), jose.ES256, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "not for signatures"},
		"by a certificate for nobody":                 {with(elliptic.P256(), jose.ES256, func(c *x509.Certificate) { c.URIs = nil }), "has to be for spiffe://"},
		"by a certificate that only names itself so":  {with(elliptic.P256(), jose.ES256, func(c *x509.Certificate) { c.Subject.CommonName, c.URIs = c.URIs[0].String(), nil }), "has to be for spiffe://"},
		"by a certificate that has expired":           {with(elliptic.P256(), jose.ES256, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "expired"},
		"by another algorithm":                        {with(elliptic.P384(), jose.ES384, func(*x509.Certificate) {}), `has to be signed by ES256, and is by "ES384"`},
		"by an authority below":                       {forged(t, jose.ES256, indirect.key, header(indirect, below), right), "unknown authority"},
		"with the right certificate behind its own":   {forged(t, jose.ES256, indirect.key, header(indirect, good), right), "unknown authority"},
		"by the public key as a secret":               {forged(t, jose.HS256, public, header(good), right), "signed by an algorithm that is not taken"},
		"signed by nobody":                            {unsigned(`{"alg":"none","typ":"`+typ+`","x5c":["`+x5c(good)[0]+`"]}`, `{"aud":"`+hubID+`","exp":99999999999}`), "signed by an algorithm that is not taken"},
		"with another signature":                      {parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), "not by the key of its certificate"},
		"with a wider pattern put in":                 {parts[0] + "." + wider[1] + "." + parts[2], "not by the key of its certificate"},
		"without a certificate":                       {forged(t, jose.ES256, good.key, map[jose.HeaderKey]any{"typ": typ}, right), "brings no certificate"},
		"with what is no certificate":                 {forged(t, jose.ES256, good.key, map[jose.HeaderKey]any{"typ": typ, "x5c": []string{"AAAA"}}, right), "malformed"},
		"of no type":                                  {forged(t, jose.ES256, good.key, map[jose.HeaderKey]any{"x5c": x5c(good)}, right), "an issuer that this hub does not know"},
		"of the type of other tokens":                 {forged(t, jose.ES256, good.key, map[jose.HeaderKey]any{"typ": "JWT", "x5c": x5c(good)}, right, map[string]any{"iss": cluster}), "not by a key of its issuer"},
		"a ServiceAccount that says it is it":         {asIssuer(map[string]any{"iss": "switchboard-operator", "sub": "switchboard-operator-1", "purges": ">"}), "an issuer that this hub does not know"},
		"a ServiceAccount of that name":               {asIssuer(map[string]any{"sub": "switchboard-operator", "aud": []string{audience, hubID}, "purges": ">"}), "not for a ServiceAccount"},
		"a certificate of a node's alone, as a token": {x5c(good)[0], "not one of this hub's"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := w.gate.Identify(t.Context(), auth.Credentials{Token: test.token})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v; want an error with %q", id, err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), test.token) {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
	if id, err := w.gate.Identify(t.Context(), auth.Credentials{Certificates: []*x509.Certificate{good.Certificate}}); err == nil {
		t.Errorf("a node's certificate in TLS is taken for %+v", id)
	}
}

// Who else proves to have the operator's name is not the operator.
func TestNamesakesOfTheOperator(t *testing.T) {
	w := newWorld(t).trusting(pool(authority(t)))
	end := time.Now().Add(time.Hour)
	text, _, err := w.ca.IssueClient(end, auth.OperatorName)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Dir(w.list), "tokens", []byte(auth.OperatorName+":"+hash(t, "x")+"\n"))
	w.gate.Configure(config.Authentication{})
	w.gate.Configure(w.config(write(t, t.TempDir(), "oidc.json", keysOf(t, w.oidc))))
	for method, shown := range map[auth.Method]auth.Credentials{
		auth.Static:    {Token: auth.OperatorName + ":x"},
		auth.OIDC:      {Token: must[string](t)(w.oidc.Token("hub", end, map[string]any{"email": auth.OperatorName, "purges": ">"}))},
		auth.MutualTLS: {Certificates: parsePEM(t, text)},
	} {
		got, err := w.gate.Identify(t.Context(), shown)
		if err != nil || got.Method != method || got.Name != auth.OperatorName || got.Proof != (auth.OperatorProof{}) {
			t.Errorf("by %s: %+v, %v", method, got, err)
		}
	}
}

// Each kind of hub takes the operator's proof, and without certificates of its nodes, or
// of a version before, none does, and says so.
func TestProofsAndOtherMethods(t *testing.T) {
	ca := authority(t)
	token := node(t, ca, hubID).prove(t, auth.OperatorProof{Hub: hubID}, time.Now())
	all := newWorld(t).config("")
	for name, test := range map[string]struct {
		config config.Authentication
		before string // what a gate says that knows nothing of the operator
	}{
		"ServiceAccounts": {config.Authentication{ServiceAccount: all.ServiceAccount}, "an issuer that this hub does not know"},
		"static tokens":   {config.Authentication{Static: all.Static}, "not one of this hub's"},
		"certificates":    {config.Authentication{MutualTLS: all.MutualTLS}, "takes no token of this kind"},
	} {
		t.Run(name, func(t *testing.T) {
			var roots *x509.CertPool
			before, now := auth.New(slog.New(slog.DiscardHandler), func() {}), auth.New(slog.New(slog.DiscardHandler), func() {})
			now.TrustOperator(hubID, func() *x509.CertPool { return roots })
			show := func(gate *auth.Gate) error {
				gate.Configure(test.config)
				_, err := gate.Identify(t.Context(), auth.Credentials{Token: token})
				return err
			}
			if err := show(before); err == nil || !strings.Contains(err.Error(), test.before) {
				t.Errorf("a version of before says %v, want %q", err, test.before)
			}
			if err := show(now); err == nil || !strings.Contains(err.Error(), "no certificate for links to other nodes") {
				t.Errorf("a node without a certificate says %v", err)
			}
			roots = pool(ca)
			if err := show(now); err != nil {
				t.Error(err)
			}
			roots = pool(authority(t))
			if err := show(now); err == nil {
				t.Error("the authority is another one, and the proof still counts")
			}
		})
	}
}

func TestSigningTakesTheRightKind(t *testing.T) {
	p := certify(t, nil, elliptic.P384(), func(*x509.Certificate) {})
	var key crypto.Signer = p.key
	if token, err := (auth.OperatorProof{Hub: hubID}).Sign(key, p.Certificate, time.Now()); err == nil {
		t.Errorf("signed %s by a key that no node would take", token)
	}
}
