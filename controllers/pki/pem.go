package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// Keys of a Secret of the type kubernetes.io/tls. Errors of this package begin with
// the one that is wrong.
const (
	CertificateKey = "tls.crt"
	PrivateKeyKey  = "tls.key"
	AuthoritiesKey = "ca.crt"
)

const (
	certificateBlock = "CERTIFICATE"
	privateKeyBlock  = "PRIVATE KEY"
)

// EncodeCertificates returns the certificates in PEM, in the same order.
func EncodeCertificates(certificates []*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: c.Raw})...)
	}
	return text
}

// ParseCertificates reads one or more certificates in PEM.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := decode(text)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	certificates := make([]*x509.Certificate, len(blocks))
	for i, block := range blocks {
		if block.Type != certificateBlock {
			return nil, fmt.Errorf("holds a PEM block %q among its certificates", block.Type)
		}
		if certificates[i], err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate %d of %d can't be read: %w", i+1, len(blocks), err)
		}
	}
	return certificates, nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateKeyBlock, Bytes: der}), nil
}

// parseKey reads a private key in PEM. Its errors say nothing of the text.
func parseKey(text []byte) (crypto.Signer, error) {
	blocks, err := decode(text)
	if err != nil {
		return nil, err
	}
	// What openssl writes before a key on a curve, which says it again.
	blocks = slices.DeleteFunc(blocks, func(b *pem.Block) bool { return b.Type == "EC PARAMETERS" })
	if len(blocks) != 1 {
		return nil, fmt.Errorf("holds %d private keys in PEM, must hold one", len(blocks))
	}
	var key any
	switch block := blocks[0]; {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errors.New("is encrypted with a passphrase, which nobody could enter")
	case block.Type == privateKeyBlock:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("holds a PEM block %q, must hold a private key", block.Type)
	}
	if err != nil {
		return nil, errors.New("holds a private key that can't be read")
	}
	if ec, is := key.(*ecdsa.PrivateKey); is && ec.Curve == elliptic.P224() {
		return nil, errors.New("holds a private key on the curve P-224, which TLS 1.3 does not have")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("holds a private key that can't sign")
	}
	return signer, nil
}

// decode finds the PEM blocks in a text. Text between them is comment, as openssl
// writes it; a block that is cut off or damaged is an error.
func decode(text []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if begun := bytes.Count(text, []byte("-----BEGIN ")); begun != len(blocks) {
		return nil, fmt.Errorf("%d of %d PEM blocks are damaged", begun-len(blocks), begun)
	}
	return blocks, nil
}

// belong reports whether a key is that of a certificate.
func belong(certificate *x509.Certificate, key crypto.Signer) bool {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}
