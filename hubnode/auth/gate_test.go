package auth_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	audience = "agents.default.switchboard.dev"
	cluster  = "https://kubernetes.default.svc"
)

func must[T any](tb testing.TB) func(T, error) T {
	tb.Helper()
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func write(tb testing.TB, dir, name string, content []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func hash(tb testing.TB, secret string) string {
	tb.Helper()
	return string(must[[]byte](tb)(bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)))
}

func issuer(tb testing.TB, name string) *throwaway.Issuer {
	tb.Helper()
	return must[*throwaway.Issuer](tb)(throwaway.NewIssuer(name))
}

func keysOf(tb testing.TB, i *throwaway.Issuer, others ...*throwaway.Issuer) []byte {
	tb.Helper()
	return must[[]byte](tb)(i.Keys(others...))
}

// world is a gate with every method, and those who can make something that it takes.
type world struct {
	gate            *auth.Gate
	cluster, oidc   *throwaway.Issuer
	ca              *throwaway.CA
	keys, ca0, list string // files
	changes         atomic.Int64
	logged          lines
}

// lines counts what is logged.
type lines struct{ atomic.Int64 }

func (l *lines) Write(b []byte) (int, error) {
	l.Add(1)
	return len(b), nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{cluster: issuer(t, cluster), oidc: issuer(t, "https://accounts.example.com"), ca: must[*throwaway.CA](t)(throwaway.New())}
	w.keys = write(t, dir, "cluster.json", keysOf(t, w.cluster))
	w.ca0 = write(t, dir, "ca.crt", w.ca.PEM())
	w.list = write(t, dir, "tokens", []byte("# people\nalice:"+hash(t, "s3cret")+":ops,dev\n\nbob:"+hash(t, "hunter2")+"\n"))
	w.gate = auth.New(slog.New(slog.NewTextHandler(&w.logged, nil)), func() { w.changes.Add(1) })
	w.gate.Configure(w.config(write(t, dir, "oidc.json", keysOf(t, w.oidc))))
	return w
}

func (w *world) config(oidcKeys string) config.Authentication {
	return config.Authentication{
		ServiceAccount: &config.TokenIssuer{Issuer: cluster, Audiences: []string{audience}, KeysFile: w.keys},
		OIDC:           []config.TokenIssuer{{Issuer: w.oidc.Name, Audiences: []string{"hub", "other"}, KeysFile: oidcKeys, NameClaim: "email"}},
		MutualTLS:      &config.MutualTLS{CAFile: w.ca0},
		Static:         &config.Static{File: w.list},
	}
}

func certificate(t *testing.T, ca *throwaway.CA, end time.Time) []*x509.Certificate {
	t.Helper()
	text, _, err := ca.IssueClient(end, "device-7", "devices")
	if err != nil {
		t.Fatal(err)
	}
	return parsePEM(t, text)
}

func parsePEM(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	return []*x509.Certificate{must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))}
}

func TestWhoIsWho(t *testing.T) {
	w := newWorld(t)
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	token := must[string](t)
	for name, test := range map[string]struct {
		shown auth.Credentials
		want  auth.Identity
	}{
		"a pod": {
			auth.Credentials{Token: token(w.cluster.ServiceAccountToken(audience, "team-a", "worker.v2", end))},
			auth.Identity{
				Method: auth.ServiceAccount, Name: "system:serviceaccount:team-a:worker.v2", Namespace: "team-a", ServiceAccount: "worker.v2",
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated"}, Expires: end,
			},
		},
		"a person of another issuer": {
			auth.Credentials{Token: token(w.oidc.Token("other", end, map[string]any{"sub": "1", "email": "a@example.com", "groups": []string{"x", "y"}}))},
			auth.Identity{Method: auth.OIDC, Name: "a@example.com", Groups: []string{"x", "y"}, Expires: end},
		},
		"one whose group is a text": {
			auth.Credentials{Token: token(w.oidc.Token("hub", end, map[string]any{"email": "a@example.com", "groups": "x"}))},
			auth.Identity{Method: auth.OIDC, Name: "a@example.com", Groups: []string{"x"}, Expires: end},
		},
		"a token from the list":  {auth.Credentials{Token: "alice:s3cret"}, auth.Identity{Method: auth.Static, Name: "alice", Groups: []string{"ops", "dev"}}},
		"another, without group": {auth.Credentials{Token: "bob:hunter2"}, auth.Identity{Method: auth.Static, Name: "bob"}},
		"a device": {
			auth.Credentials{Certificates: certificate(t, w.ca, end)},
			auth.Identity{Method: auth.MutualTLS, Name: "device-7", Groups: []string{"devices"}, Expires: end},
		},
		"a token and a certificate": {
			auth.Credentials{Token: "bob:hunter2", Certificates: certificate(t, w.ca, end)},
			auth.Identity{Method: auth.Static, Name: "bob"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a token of the list is remembered
				got, err := w.gate.Identify(t.Context(), test.shown)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(auth.Identity{}), cmpopts.IgnoreFields(auth.Identity{}, "Claims"), cmpopts.EquateApproxTime(0)); diff != "" {
					t.Error(diff)
				}
				if !w.gate.Holds(&got) {
					t.Error("and would not be let in again")
				}
			}
		})
	}
}

// unsigned makes a token that anybody can make.
func unsigned(header, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(claims)) + "."
}

func TestWhoIsRefused(t *testing.T) {
	w := newWorld(t)
	token := must[string](t)
	end := time.Now().Add(time.Hour)
	pod := map[string]any{"sub": "system:serviceaccount:team-a:worker"}
	good := token(w.cluster.Token(audience, end, pod))
	parts := strings.Split(good, ".")
	forged := issuer(t, cluster)
	otherCA := must[*throwaway.CA](t)(throwaway.New())
	server, _, err := w.ca.Issue(end, "agents.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(server)
	for name, test := range map[string]struct {
		shown auth.Credentials
		want  string
	}{
		"nothing shown":                 {auth.Credentials{}, "a token is needed"},
		"another audience":              {auth.Credentials{Token: token(w.cluster.Token("https://kubernetes.default.svc", end, pod))}, `for the audience ["https://kubernetes.default.svc"], this hub's is ["agents.default.switchboard.dev"]`},
		"expired":                       {auth.Credentials{Token: token(w.cluster.Token(audience, time.Now().Add(-time.Second), pod))}, "the token expired at "},
		"not valid yet":                 {auth.Credentials{Token: token(w.cluster.Token(audience, end, map[string]any{"sub": "system:serviceaccount:a:b", "nbf": time.Now().Add(time.Minute).Unix()}))}, "not valid before"},
		"from the future":               {auth.Credentials{Token: token(w.cluster.Token(audience, end, map[string]any{"sub": "system:serviceaccount:a:b", "iat": time.Now().Add(time.Minute).Unix()}))}, "issued in the future"},
		"without an end":                {auth.Credentials{Token: token(w.cluster.Token(audience, end, map[string]any{"sub": "system:serviceaccount:a:b", "exp": nil}))}, "no expiry"},
		"a key of somebody else":        {auth.Credentials{Token: token(forged.Token(audience, end, pod))}, "a key that is not its issuer's"},
		"an issuer nobody knows":        {auth.Credentials{Token: token(issuer(t, "https://evil.example").Token(audience, end, pod))}, "an issuer that this hub does not know"},
		"another signature":             {auth.Credentials{Token: parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))}, "signature is not by a key of its issuer"},
		"other claims":                  {auth.Credentials{Token: parts[0] + "." + strings.Split(token(w.cluster.Token(audience, end, map[string]any{"sub": "system:serviceaccount:kube-system:admin"})), ".")[1] + "." + parts[2]}, "signature is not by a key of its issuer"},
		"no signature":                  {auth.Credentials{Token: unsigned(`{"alg":"none"}`, `{"iss":"`+cluster+`"}`)}, "malformed, or signed by an algorithm that is not taken"},
		"a secret key":                  {auth.Credentials{Token: unsigned(`{"alg":"HS256"}`, `{"iss":"`+cluster+`"}`) + "AAAA"}, "malformed, or signed by an algorithm that is not taken"},
		"a token for somebody else":     {auth.Credentials{Token: token(w.cluster.Token(audience, end, map[string]any{"sub": "alice"}))}, "not for a ServiceAccount"},
		"an account without namespace":  {auth.Credentials{Token: token(w.cluster.Token(audience, end, map[string]any{"sub": "system:serviceaccount::b"}))}, "not for a ServiceAccount"},
		"a name that is no text":        {auth.Credentials{Token: token(w.oidc.Token("hub", end, map[string]any{"email": 7}))}, `no claim "email"`},
		"a wrong secret":                {auth.Credentials{Token: "alice:S3cret"}, "not one of this hub's"},
		"a name that is not there":      {auth.Credentials{Token: "carol:s3cret"}, "not one of this hub's"},
		"no secret":                     {auth.Credentials{Token: "alice"}, "not one of this hub's"},
		"a token that is too long":      {auth.Credentials{Token: strings.Repeat("x", 17<<10)}, "too long"},
		"a wrong token, a certificate":  {auth.Credentials{Token: "alice:x", Certificates: certificate(t, w.ca, end)}, "not one of this hub's"},
		"another CA":                    {auth.Credentials{Certificates: certificate(t, otherCA, end)}, "signed by unknown authority"},
		"a certificate that has passed": {auth.Credentials{Certificates: certificate(t, w.ca, time.Now().Add(-time.Minute))}, "expired"},
		"a server's certificate":        {auth.Credentials{Certificates: []*x509.Certificate{must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))}}, "incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := w.gate.Identify(t.Context(), test.shown)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error with %q", id, err, test.want)
			}
			if err != nil && test.shown.Token != "" && strings.Contains(err.Error(), test.shown.Token) {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.gate.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFilesAreFollowed(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	lets := func(token string) bool {
		_, err := w.gate.Identify(t.Context(), auth.Credentials{Token: token})
		return err == nil
	}
	end := time.Now().Add(time.Hour)
	next := issuer(t, cluster)
	old := must[string](t)(w.cluster.ServiceAccountToken(audience, "a", "b", end))
	token := must[string](t)(next.ServiceAccountToken(audience, "a", "b", end))

	write(t, filepath.Dir(w.keys), filepath.Base(w.keys), keysOf(t, w.cluster, next))
	eventually(t, "the new key counts", func() bool { return lets(token) })
	if !lets(old) {
		t.Error("the old one does not any more")
	}
	write(t, filepath.Dir(w.keys), filepath.Base(w.keys), keysOf(t, next))
	eventually(t, "the old key is gone", func() bool { return !lets(old) })

	alice := must[auth.Identity](t)(w.gate.Identify(t.Context(), auth.Credentials{Token: "alice:s3cret"}))
	bob := must[auth.Identity](t)(w.gate.Identify(t.Context(), auth.Credentials{Token: "bob:hunter2"}))
	for _, broken := range []string{"bob", "bob:plain", "bob:" + hash(t, "x") + "\nbob:" + hash(t, "y")} {
		before := w.logged.Load()
		write(t, filepath.Dir(w.list), "tokens", []byte(broken))
		eventually(t, "the list is complained of", func() bool { return w.logged.Load() > before })
		if !lets("alice:s3cret") || !w.gate.Holds(&alice) {
			t.Errorf("a list that is wrong took away what the last good one said: %s", broken)
		}
	}
	write(t, filepath.Dir(w.list), "tokens", []byte("bob:"+hash(t, "hunter2")))
	eventually(t, "alice is no longer on the list", func() bool { return !w.gate.Holds(&alice) })
	if lets("alice:s3cret") {
		t.Error("and still let in")
	}
	if w.gate.Holds(&bob) {
		t.Error("bob's token was replaced, and who came with the old one stays")
	}
}

func TestWhatIsMissingLetsNobodyIn(t *testing.T) {
	dir := t.TempDir()
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(config.Authentication{
		ServiceAccount: &config.TokenIssuer{Issuer: cluster, Audiences: []string{audience}, KeysFile: filepath.Join(dir, "keys")},
		MutualTLS:      &config.MutualTLS{CAFile: filepath.Join(dir, "ca")},
		Static:         &config.Static{File: filepath.Join(dir, "tokens")},
	})
	i := issuer(t, cluster)
	for _, shown := range []auth.Credentials{
		{},
		{Token: "alice:s3cret"},
		{Token: must[string](t)(i.ServiceAccountToken(audience, "a", "b", time.Now().Add(time.Hour)))},
		{Certificates: certificate(t, must[*throwaway.CA](t)(throwaway.New()), time.Now().Add(time.Hour))},
	} {
		if id, err := gate.Identify(t.Context(), shown); err == nil {
			t.Errorf("let in as %v", id)
		}
	}
	if !gate.On() {
		t.Error("nobody is asked")
	}
}

func TestMethodsThatAreTakenAwayHoldNothing(t *testing.T) {
	w := newWorld(t)
	id := must[auth.Identity](t)(w.gate.Identify(t.Context(), auth.Credentials{Token: "bob:hunter2"}))
	changes := w.changes.Load()
	w.gate.Configure(config.Authentication{MutualTLS: &config.MutualTLS{CAFile: w.ca0}})
	if w.gate.Holds(&id) || w.changes.Load() == changes {
		t.Error("who came with a token of a list stays, and there is no list")
	}
	if _, err := w.gate.Identify(t.Context(), auth.Credentials{}); err == nil || !strings.Contains(err.Error(), "a client certificate is needed") {
		t.Errorf("without a certificate: %v", err)
	}
	w.gate.Configure(config.Authentication{})
	if w.gate.On() {
		t.Error("somebody is still asked")
	}
}

// provider is an OpenID provider.
type provider struct {
	*httptest.Server
	asked atomic.Int64
	keys  atomic.Pointer[[]byte]
	says  string // its name, when that is another one
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		name := p.URL
		if p.says != "" {
			name = p.says
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": name, "jwks_uri": p.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		keys := p.keys.Load()
		if keys == nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(*keys)
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) gate(t *testing.T) *auth.Gate {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(config.Authentication{OIDC: []config.TokenIssuer{{Issuer: p.URL, Audiences: []string{"hub"}, CAFile: write(t, t.TempDir(), "ca.crt", ca)}}})
	return gate
}

func TestKeysAreFetched(t *testing.T) {
	p := newProvider(t)
	first, second := issuer(t, p.URL), issuer(t, p.URL)
	keys := keysOf(t, first)
	p.keys.Store(&keys)
	gate := p.gate(t)
	end := time.Now().Add(time.Hour)
	for range 10 {
		if _, err := gate.Identify(t.Context(), auth.Credentials{Token: must[string](t)(first.Token("hub", end, map[string]any{"sub": "a"}))}); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	both := keysOf(t, first, second)
	p.keys.Store(&both)
	stranger := issuer(t, p.URL)
	for range 10 { // tokens that nobody signed must not make the node ask and ask
		_, _ = gate.Identify(t.Context(), auth.Credentials{Token: must[string](t)(stranger.Token("hub", end, map[string]any{"sub": "a"}))})
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times within a moment", n)
	}
}

func TestAProviderThatFails(t *testing.T) {
	end := time.Now().Add(time.Hour)
	p := newProvider(t)
	i := issuer(t, p.URL)
	token := must[string](t)(i.Token("hub", end, map[string]any{"sub": "a"}))
	if _, err := p.gate(t).Identify(t.Context(), auth.Credentials{Token: token}); err == nil || !strings.Contains(err.Error(), "answers 500") {
		t.Errorf("without keys: %v", err)
	}
	keys := keysOf(t, i)
	p.keys.Store(&keys)
	p.says = "https://accounts.example.com"
	if _, err := p.gate(t).Identify(t.Context(), auth.Credentials{Token: token}); err == nil || !strings.Contains(err.Error(), `calls itself "https://accounts.example.com"`) {
		t.Errorf("another name: %v", err)
	}
}

func FuzzTokens(f *testing.F) {
	i := issuer(f, cluster)
	dir := f.TempDir()
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(config.Authentication{
		ServiceAccount: &config.TokenIssuer{Issuer: cluster, Audiences: []string{audience}, KeysFile: write(f, dir, "keys", keysOf(f, i))},
	})
	ca := authority(f)
	gate.TrustOperator(hubID, func() *x509.CertPool { return pool(ca) })
	good := must[string](f)(i.ServiceAccountToken(audience, "a", "b", time.Now().Add(1000*time.Hour)))
	proof := node(f, ca, hubID).prove(f, auth.OperatorProof{Hub: hubID, Client: "a", Purges: "b"}, time.Now())
	for _, seed := range []string{
		"", "alice:s3cret", good, good + ".", good[:len(good)-1], unsigned(`{"alg":"none"}`, `{"iss":"`+cluster+`"}`),
		proof, proof + ".", proof[:len(proof)-1], proof[:strings.IndexByte(proof, '.')] + good[strings.IndexByte(good, '.'):],
		unsigned(`{"alg":"ES256","typ":"switchboard-operator+jwt","x5c":["`+x5c(ca)[0]+`"]}`, `{"aud":"`+hubID+`"}`) + "AAAA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := gate.Identify(t.Context(), auth.Credentials{Token: token})
		if said := withoutSignature(token); err == nil && said != withoutSignature(good) && said != withoutSignature(proof) {
			t.Errorf("%q was let in as %v", token, id)
		}
	})
}

// withoutSignature leaves out what has more than one encoding.
func withoutSignature(token string) string { return token[:strings.LastIndexByte(token, '.')+1] }

func FuzzLists(f *testing.F) {
	path := filepath.Join(f.TempDir(), "tokens")
	for _, seed := range []string{"", "# nobody\n", "alice:" + hash(f, "s3cret"), "alice:" + hash(f, "s3cret") + ":ops, dev,\r\nbob:$2y$", ":" + hash(f, "x")} {
		f.Add([]byte(seed))
	}
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	f.Fuzz(func(t *testing.T, list []byte) {
		if err := os.WriteFile(path, list, 0o600); err != nil {
			t.Fatal(err)
		}
		gate.Configure(config.Authentication{})
		gate.Configure(config.Authentication{Static: &config.Static{File: path}})
		if !gate.On() {
			t.Error("nobody is asked any more")
		}
	})
}
