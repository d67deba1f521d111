package auth

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// OperatorName is the name of the operator's identity.
	OperatorName = "switchboard-operator"

	// proofLife is how long a proof of the operator's counts at most: one try to purge.
	proofLife = time.Minute
	// proofType is in the header of these proofs, so that none is taken for a token of an
	// issuer, and no such token for a proof.
	proofType = "switchboard-operator+jwt"
)

// OperatorProof is what the operator proves to a hub that it may do, by a token for that.
// It may list topics by every one.
type OperatorProof struct {
	// Hub is the identity of the hub that the proof is for. Required.
	Hub string
	// Client is whom the operator may connect as; empty: nobody.
	Client wire.ClientID
	// Purges is the pattern of the topics that it may purge; empty: none.
	Purges string
}

// Sign returns the token, which counts for a minute. The certificate and its key are those
// by which the hub's nodes know each other: who has that key is one of them.
func (p OperatorProof) Sign(key crypto.Signer, certificate *x509.Certificate, now time.Time) (string, error) {
	options := new(jose.SignerOptions).WithType(proofType).
		WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(certificate.Raw)})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	if err != nil {
		return "", fmt.Errorf("sign a proof of the operator's: %w", err)
	}
	standard := jwt.Claims{
		Audience: jwt.Audience{p.Hub}, Subject: p.Client, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(proofLife)),
	}
	token, err := jwt.Signed(signer).Claims(standard).Claims(proofClaims{p.Purges}).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign a proof of the operator's: %w", err)
	}
	return token, nil
}

// proofClaims are those of a proof that other tokens have not.
type proofClaims struct {
	Purges string `json:"purges,omitempty"`
}

// operatorTrust is what proofs of the operator's are verified by.
type operatorTrust struct {
	hub   string
	roots func() *x509.CertPool
}

// TrustOperator makes the gate take proofs of the operator's, for a hub. roots returns the
// authorities whose certificates the nodes of the hub know each other by, nil while they
// have none. It has to be called before any other method.
func (g *Gate) TrustOperator(hub string, roots func() *x509.CertPool) {
	g.operator = &operatorTrust{hub, roots}
}

// identify verifies a proof, and returns what it is for.
func (o *operatorTrust) identify(s signed, now time.Time) (Identity, error) {
	certificate, err := o.signer(s, now)
	if err != nil {
		return Identity{}, fmt.Errorf("a proof of the operator's: %w", err)
	}
	var (
		standard jwt.Claims
		own      proofClaims
	)
	if s.token.Claims(certificate.PublicKey, &standard, &own) != nil {
		return Identity{}, errors.New("a proof of the operator's: the signature is not by the key of its certificate")
	}
	if err := checkClaims(standard, []string{o.hub}, now); err != nil {
		return Identity{}, fmt.Errorf("a proof of the operator's: %w", err)
	}
	expires := standard.Expiry.Time()
	if expires.After(now.Add(proofLife + leeway)) {
		return Identity{}, fmt.Errorf("a proof of the operator's: it expires at %s, and none may be good for more than %s", expires.UTC().Format(time.RFC3339), proofLife)
	}
	return Identity{
		Method: Operator, Name: OperatorName, Expires: expires,
		Proof: OperatorProof{Hub: o.hub, Client: standard.Subject, Purges: own.Purges},
	}, nil
}

// signer returns the certificate that a proof brings, if it is one of this hub's nodes.
func (o *operatorTrust) signer(s signed, now time.Time) (*x509.Certificate, error) {
	header := s.token.Headers[0] // there is one: it says what type the token is of
	roots := o.roots()
	switch {
	case roots == nil:
		return nil, errors.New("this node has no certificate for links to other nodes, by whose CA it would know the operator")
	case header.Algorithm != string(jose.ES256):
		return nil, fmt.Errorf("it has to be signed by ES256, and is by %.20q", header.Algorithm)
	}
	chains, err := header.Certificates(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		// None are taken from who shows the token: to try them could cost a lot.
		Intermediates: x509.NewCertPool(),
	})
	if errors.Is(err, jose.ErrMissingX5cHeader) {
		return nil, errors.New("it brings no certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	certificate, wanted := chains[0][0], config.ClusterID(o.hub).String()
	switch {
	case certificate.IsCA || certificate.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("its certificate is not for signatures on anything but certificates")
	case !slices.ContainsFunc(certificate.URIs, func(u *url.URL) bool { return u.String() == wanted }):
		return nil, fmt.Errorf("its certificate has to be for %s", wanted)
	}
	return certificate, nil
}
