package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

const (
	// maxToken bounds a token, in bytes: a Hello holds no larger one.
	maxToken = 16 << 10
	// leeway is how far the clock of an issuer may be ahead.
	leeway = 10 * time.Second
	// maxName bounds a client's name, in bytes.
	maxName = 512
	// maxGroups bounds the groups of a token that are looked at.
	maxGroups = 256
)

// algorithms are those whose keys are public. With the others whoever verifies a
// token can make one, and "none" verifies nothing.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// issuer verifies the tokens of one issuer.
type issuer struct {
	method  Method
	config  config.TokenIssuer
	keys    keys
	reviews *reviews // of tokens that the keys can't judge; nil: they are refused
}

// looksLikeJWT reports whether a token has the form of a JSON Web Token. It says
// nothing about whether it is a good one.
func looksLikeJWT(token string) bool {
	return strings.HasPrefix(token, "eyJ") && strings.Count(token, ".") == 2
}

// signed is a token whose form is right, and nothing more.
type signed struct {
	token *jwt.JSONWebToken
	text  string
	kid   string
	iss   string // as it says itself
	typ   string // likewise
}

func parseToken(token string) (signed, error) {
	t, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return signed{}, errors.New("the token is malformed, or signed by an algorithm that is not taken")
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := t.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return signed{}, errors.New("the token's claims are malformed")
	}
	s := signed{token: t, text: token, iss: claims.Issuer}
	if len(t.Headers) == 1 {
		s.kid = t.Headers[0].KeyID
		s.typ, _ = t.Headers[0].ExtraHeaders[jose.HeaderType].(string)
	}
	return s, nil
}

// identify verifies a token and returns who it is for. from is where it comes from.
func (i *issuer) identify(ctx context.Context, from string, s signed, now time.Time) (Identity, error) {
	candidates, err := i.keys.find(ctx, s.kid)
	switch {
	case err != nil && i.reviews != nil: // no key says yes or no
		return i.review(ctx, from, s, now)
	case err != nil:
		return Identity{}, err
	}
	var (
		standard jwt.Claims
		claims   map[string]any
	)
	if !slices.ContainsFunc(candidates, func(k jose.JSONWebKey) bool {
		standard, claims = jwt.Claims{}, nil
		return s.token.Claims(k.Key, &standard, &claims) == nil
	}) {
		return Identity{}, errors.New("the token's signature is not by a key of its issuer")
	}
	return i.identity(standard, claims, now)
}

// identity is whom a token is for, as far as it counts here and now. Its signature is for
// others to look at.
func (i *issuer) identity(standard jwt.Claims, claims map[string]any, now time.Time) (Identity, error) {
	if err := checkClaims(standard, i.config.Audiences, now); err != nil {
		return Identity{}, err
	}
	id := Identity{Method: i.method, Claims: claims, Expires: standard.Expiry.Time()}
	if i.method == ServiceAccount {
		return id, id.fillServiceAccount(standard.Subject)
	}
	return id, id.fillClaims(i.config)
}

// checkClaims says why a token whose signature is good does not count, now or here.
func checkClaims(c jwt.Claims, audiences []string, now time.Time) error {
	switch {
	case c.Expiry == nil:
		return errors.New("the token has no expiry")
	case !now.Before(c.Expiry.Time()):
		return fmt.Errorf("the token expired at %s", c.Expiry.Time().UTC().Format(time.RFC3339))
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()):
		return fmt.Errorf("the token is not valid before %s", c.NotBefore.Time().UTC().Format(time.RFC3339))
	case c.IssuedAt != nil && now.Add(leeway).Before(c.IssuedAt.Time()):
		return errors.New("the token was issued in the future: compare the clocks")
	case !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(c.Audience, a) }):
		return fmt.Errorf("the token is for the audience %q, this hub's is %q", []string(c.Audience), audiences)
	}
	return nil
}

// fillServiceAccount takes over what a token of Kubernetes says. Its form is that of
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/.
func (id *Identity) fillServiceAccount(subject string) error {
	name, ok := strings.CutPrefix(subject, "system:serviceaccount:")
	namespace, account, two := strings.Cut(name, ":")
	if !ok || !two || namespace == "" || account == "" || strings.Contains(account, ":") {
		return errors.New("the token is not for a ServiceAccount")
	}
	id.Name, id.Namespace, id.ServiceAccount = subject, namespace, account
	id.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}
	return nil
}

// fillClaims takes over the name and the groups of a token.
func (id *Identity) fillClaims(c config.TokenIssuer) error {
	claim := c.NameClaim
	if claim == "" {
		claim = DefaultNameClaim
	}
	id.Name, _ = id.Claims[claim].(string)
	if id.Name == "" || len(id.Name) > maxName {
		return fmt.Errorf("the token has no claim %q that is a text of up to %d bytes", claim, maxName)
	}
	if claim = c.GroupsClaim; claim == "" {
		claim = DefaultGroupsClaim
	}
	switch groups := id.Claims[claim].(type) {
	case string:
		id.Groups = []string{groups}
	case []any:
		for _, g := range groups[:min(len(groups), maxGroups)] {
			if s, ok := g.(string); ok {
				id.Groups = append(id.Groups, s)
			}
		}
	default: // none
	}
	return nil
}

// The claims of tokens of other issuers that are looked at where the settings name none.
const (
	DefaultNameClaim   = "sub"
	DefaultGroupsClaim = "groups"
)

// parseKeys reads a JSON Web Key Set. Keys that verify nothing, or that this program
// does not know the kind of, are left out.
func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	var all []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig" {
			continue
		}
		all = append(all, k)
	}
	if len(all) == 0 {
		return nil, errors.New("a JSON Web Key Set without a public key for signatures")
	}
	return all, nil
}

// pick returns the keys that may have signed a token: those of its key id, or all when it
// names none.
func pick(all []jose.JSONWebKey, kid string) []jose.JSONWebKey {
	if kid == "" {
		return all
	}
	var of []jose.JSONWebKey
	for _, k := range all {
		if k.KeyID == kid {
			of = append(of, k)
		}
	}
	return of
}
