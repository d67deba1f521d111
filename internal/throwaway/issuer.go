package throwaway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer makes tokens, as the API server of a cluster and as an OpenID provider do.
type Issuer struct {
	Name string // its tokens' claim "iss"

	kid string
	key *ecdsa.PrivateKey
}

// NewIssuer returns an issuer with a key of its own.
func NewIssuer(name string) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an issuer: %w", err)
	}
	return &Issuer{Name: name, kid: rand.Text(), key: key}, nil
}

// Keys returns its public key as a JSON Web Key Set, with those of others.
func (i *Issuer) Keys(others ...*Issuer) ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, one := range append(others, i) {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: one.key.Public(), KeyID: one.kid, Algorithm: string(jose.ES256), Use: "sig"})
	}
	return json.Marshal(set)
}

// Token returns a token with these claims and the issuer's name, for an audience. It
// expires at the end.
func (i *Issuer) Token(audience string, end time.Time, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: i.kid}}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	standard := jwt.Claims{Issuer: i.Name, Audience: jwt.Audience{audience}, IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(end)}
	return jwt.Signed(signer).Claims(standard).Claims(claims).Serialize()
}

// ServiceAccountToken returns a token as a pod of a ServiceAccount has it.
func (i *Issuer) ServiceAccountToken(audience, namespace, account string, end time.Time) (string, error) {
	return i.Token(audience, end, map[string]any{
		"sub":           "system:serviceaccount:" + namespace + ":" + account,
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": account}},
	})
}
