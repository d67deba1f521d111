package auth_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/wire"
)

const worker = "system:serviceaccount:team-a:worker"

// apiServer answers reviews, and says how many there were.
type apiServer struct {
	*httptest.Server
	answer func(w http.ResponseWriter, asked map[string]any)
	asked  atomic.Int64
	log    bytes.Buffer // of the gate, once nobody uses it any more
	config config.TokenIssuer
}

// says is what the API server answers about a token.
func says(status string) func(http.ResponseWriter, map[string]any) {
	return func(w http.ResponseWriter, _ map[string]any) {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"kind":"TokenReview","status":` + status + `}`))
	}
}

var accepts = says(`{"authenticated":true,"user":{"username":"` + worker + `"},"audiences":["` + audience + `"]}`)

func newAPIServer(t *testing.T, answer func(http.ResponseWriter, map[string]any)) *apiServer {
	t.Helper()
	a := &apiServer{answer: answer}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		var asked map[string]any
		err := json.NewDecoder(r.Body).Decode(&asked)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" ||
			r.Header.Get("Authorization") != "Bearer the-nodes-own" || r.Header.Get("Content-Type") != "application/json" ||
			asked["apiVersion"] != "authentication.k8s.io/v1" || asked["kind"] != "TokenReview" {
			t.Errorf("asked %s %s %v %v: %v", r.Method, r.URL, r.Header, asked, err)
		}
		a.answer(w, asked)
	}))
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	t.Cleanup(a.Close)
	dir := t.TempDir()
	a.config = config.TokenIssuer{
		Issuer: cluster, Audiences: []string{audience}, KeysFile: filepath.Join(dir, "none.json"),
		TokenReview: &config.TokenReview{
			Server:    a.URL,
			CAFile:    write(t, dir, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})),
			TokenFile: write(t, dir, "token", []byte("the-nodes-own\n")),
		},
	}
	return a
}

func (a *apiServer) gate() *auth.Gate {
	g := auth.New(slog.New(slog.NewTextHandler(&a.log, nil)), func() {})
	g.Configure(config.Authentication{ServiceAccount: &a.config})
	return g
}

func podToken(t *testing.T, i *throwaway.Issuer) string {
	t.Helper()
	return must[string](t)(i.ServiceAccountToken(audience, "team-a", "worker", time.Now().Add(time.Hour)))
}

func TestTheAPIServerSaysWhatNoKeyCan(t *testing.T) {
	c := issuer(t, cluster)
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter, map[string]any)
		want   string // of the error; empty: none
		later  bool   // the same token may be taken later
		logged string
	}{
		"accepted":              {answer: accepts},
		"accepted, with more":   {answer: says(`{"authenticated":true,"user":{"username":"` + worker + `","groups":["g"],"extra":{"x":["y"]}},"audiences":["other","` + audience + `"]}`)},
		"refused":               {answer: says(`{"authenticated":false,"error":"no"}`), want: "does not take the token"},
		"nothing said of it":    {answer: says(`{}`), want: "does not take the token"},
		"another user":          {answer: says(`{"authenticated":true,"user":{"username":"system:serviceaccount:team-a:boss"},"audiences":["` + audience + `"]}`), want: "not whose it says"},
		"another audience":      {answer: says(`{"authenticated":true,"user":{"username":"` + worker + `"},"audiences":["other"]}`), want: "not for an audience of this hub"},
		"no audience":           {answer: says(`{"authenticated":true,"user":{"username":"` + worker + `"}}`), want: "not for an audience of this hub"},
		"no right to ask":       {answer: status(http.StatusForbidden), want: "can't be asked", later: true, logged: "kubectl create clusterrolebinding NAME --clusterrole=system:auth-delegator"},
		"a node it knows not":   {answer: status(http.StatusUnauthorized), want: "can't be asked", later: true, logged: "is not one of its own, or has expired"},
		"too many":              {answer: status(http.StatusTooManyRequests), want: "can't be asked", later: true, logged: "429"},
		"led elsewhere":         {answer: status(http.StatusTemporaryRedirect), want: "can't be asked", later: true, logged: "307"},
		"no JSON":               {answer: func(w http.ResponseWriter, _ map[string]any) { _, _ = w.Write([]byte("hello")) }, want: "can't be asked", later: true, logged: "no TokenReview"},
		"something else":        {answer: func(w http.ResponseWriter, _ map[string]any) { _, _ = w.Write([]byte(`{"kind":"Status"}`)) }, want: "can't be asked", later: true, logged: "no TokenReview"},
		"more than can be read": {answer: says(`{"authenticated":true,"x":"` + strings.Repeat("x", 300<<10) + `"}`), want: "can't be asked", later: true, logged: "more than 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, test.answer)
			token := podToken(t, c)
			a.answer = func(w http.ResponseWriter, asked map[string]any) {
				spec, _ := asked["spec"].(map[string]any)
				if audiences, _ := spec["audiences"].([]any); spec["token"] != token || len(audiences) != 1 || audiences[0] != audience {
					t.Errorf("asked about %v", spec)
				}
				test.answer(w, asked)
			}
			who, err := a.gate().Identify(t.Context(), auth.Credentials{Token: token})
			refused, _ := errors.AsType[*wire.Error](err)
			switch {
			case test.want == "" && (err != nil || who.Name != worker || who.Namespace != "team-a" || who.ServiceAccount != "worker" || who.Expires.IsZero()):
				t.Errorf("got %+v, %v", who, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			case (refused != nil && refused.Temporary()) != test.later:
				t.Errorf("got %v: that the token may be taken later is not %v", err, test.later)
			}
			text := a.log.String()
			if !strings.Contains(text, test.logged) {
				t.Errorf("the log lacks %q:\n%s", test.logged, text)
			}
			parts := strings.Split(token, ".")
			for _, secret := range append(parts[1:], "the-nodes-own") {
				if strings.Contains(text, secret) || err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("a token is told: %v\n%s", err, text)
				}
			}
			if n := a.asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func status(code int) func(http.ResponseWriter, map[string]any) {
	return func(w http.ResponseWriter, _ map[string]any) {
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(code)
	}
}

// What this node can tell by itself it does not ask.
func TestOnlyWhatCantBeToldHereIsAsked(t *testing.T) {
	known, stranger, foreign := issuer(t, cluster), issuer(t, cluster), issuer(t, "https://accounts.example.com")
	end := time.Now().Add(time.Hour)
	token := must[string](t)
	good := podToken(t, known)
	head, _, _ := strings.Cut(good, ".")
	_, tail, _ := strings.Cut(podToken(t, stranger), ".")
	shared := token(jwt.Signed(must[jose.Signer](t)(jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, nil))).
		Claims(jwt.Claims{Issuer: cluster, Subject: worker, Audience: jwt.Audience{audience}, Expiry: jwt.NewNumericDate(end)}).Serialize())
	for name, test := range map[string]struct {
		token string
		taken bool
		asked int64
	}{
		"a key that is known":               {good, true, 0},
		"a key that is not":                 {podToken(t, stranger), true, 1},
		"a known key's name, another's key": {head + "." + tail, false, 0},
		"an algorithm of shared keys":       {shared, false, 0},
		"no signature":                      {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", false, 0},
		"an unknown key, another audience":  {token(stranger.ServiceAccountToken("other", "team-a", "worker", end)), false, 0},
		"an unknown key, expired":           {token(stranger.ServiceAccountToken(audience, "team-a", "worker", time.Now().Add(-time.Minute))), false, 0},
		"an unknown key, no ServiceAccount": {token(stranger.Token(audience, end, map[string]any{"sub": "system:node:a"})), false, 0},
		"another issuer":                    {token(foreign.ServiceAccountToken(audience, "team-a", "worker", end)), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, accepts)
			write(t, filepath.Dir(a.config.KeysFile), "none.json", keysOf(t, known))
			_, err := a.gate().Identify(t.Context(), auth.Credentials{Token: test.token})
			if (err == nil) != test.taken || a.asked.Load() != test.asked {
				t.Errorf("got %v, asked %d times", err, a.asked.Load())
			}
		})
	}
}

// Before the issuer is known the API server alone says whose tokens are good, and who came
// by it stays when the issuer is known.
func TestAnIssuerWithoutAName(t *testing.T) {
	a := newAPIServer(t, accepts)
	a.config.Issuer = ""
	g := a.gate()
	who, err := g.Identify(t.Context(), auth.Credentials{Token: podToken(t, issuer(t, cluster))})
	if err != nil || !g.Holds(&who) {
		t.Fatalf("got %v, holds %v", err, g.Holds(&who))
	}
	named := a.config
	named.Issuer = cluster
	g.Configure(config.Authentication{ServiceAccount: &named})
	if !g.Holds(&who) {
		t.Error("who was let in has to go, though the issuer is the same")
	}
	other := named
	other.Issuer = "https://other.example.com"
	g.Configure(config.Authentication{ServiceAccount: &other})
	if g.Holds(&who) {
		t.Error("whom another issuer's token let in stays")
	}
}

func TestNobodyToAsk(t *testing.T) {
	for name, test := range map[string]struct {
		spoil  func(*apiServer)
		logged string
	}{
		"it is away":      {func(a *apiServer) { a.Close() }, "refused"},
		"no token to ask": {func(a *apiServer) { a.config.TokenReview.TokenFile = "/nowhere" }, "read this node's own token"},
		"no token in it":  {func(a *apiServer) { a.config.TokenReview.TokenFile = a.config.TokenReview.CAFile }, "holds no token"},
		"no CA":           {func(a *apiServer) { a.config.TokenReview.CAFile = "/nowhere" }, "read the API server's CA"},
		"another CA":      {func(a *apiServer) { a.config.TokenReview.CAFile = "" }, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, accepts)
			test.spoil(a)
			g := a.gate()
			for range 3 {
				_, err := g.Identify(t.Context(), auth.Credentials{Token: podToken(t, issuer(t, cluster))})
				if refused, ok := errors.AsType[*wire.Error](err); !ok || refused.Code != wire.CodeUnavailable {
					t.Errorf("got %v", err)
				}
			}
			if text := a.log.String(); !strings.Contains(text, test.logged) || strings.Count(text, "can't ask") != 1 {
				t.Errorf("the log does not have %q once:\n%s", test.logged, text)
			}
		})
	}
}
