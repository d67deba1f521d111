package controllers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

const (
	// issuerFor is how long what the API server said of its tokens is not asked again.
	// It tells of a new key long before it signs with that alone.
	issuerFor = 2 * time.Minute
	// issuerTime bounds one try.
	issuerTime = 10 * time.Second
	// clusterKeysBytes bounds the keys: they are beside the nodes' settings in a ConfigMap.
	clusterKeysBytes = 12 << 10
)

// ClusterIssuer is who makes the tokens of a cluster's ServiceAccounts.
type ClusterIssuer struct {
	Issuer string
	// Keys are the public keys, a JSON Web Key Set.
	Keys []byte
}

// IssuerReader finds out who makes the tokens of the cluster's ServiceAccounts.
type IssuerReader interface {
	ClusterIssuer(ctx context.Context) (ClusterIssuer, error)
}

// APIServerIssuer asks the API server. That needs the right to get two paths, which
// Kubernetes gives to every ServiceAccount unless an administrator took it away.
type APIServerIssuer struct{ client rest.Interface }

// NewAPIServerIssuer makes one for a cluster. It asks nothing yet.
func NewAPIServerIssuer(cfg *rest.Config) (*APIServerIssuer, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.NegotiatedSerializer = scheme.Codecs.WithoutConversion() // for why it refuses something: no other answer is decoded
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up a client for the cluster's issuer: %w", err)
	}
	return &APIServerIssuer{client}, nil
}

// ClusterIssuer reads the issuer's name and its keys.
func (a *APIServerIssuer) ClusterIssuer(ctx context.Context) (ClusterIssuer, error) {
	text, err := a.get(ctx, "/.well-known/openid-configuration")
	if err != nil {
		return ClusterIssuer{}, err
	}
	var found struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal(text, &found); err != nil || found.Issuer == "" {
		return ClusterIssuer{}, errors.New("what /.well-known/openid-configuration says names no issuer")
	}
	// At this path whatever jwks_uri says: that may be an address outside of the cluster.
	if text, err = a.get(ctx, "/openid/v1/jwks"); err != nil {
		return ClusterIssuer{}, err
	}
	keys, err := publicKeys(text)
	if err != nil {
		return ClusterIssuer{}, fmt.Errorf("what /openid/v1/jwks says: %w", err)
	}
	return ClusterIssuer{Issuer: found.Issuer, Keys: keys}, nil
}

func (a *APIServerIssuer) get(ctx context.Context, path string) ([]byte, error) {
	answer := a.client.Get().AbsPath(path).SetHeader("Accept", "*/*").Do(ctx)
	if err := answer.Error(); err != nil { // has the API server's words, which Raw's has not
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return answer.Raw()
}

// publicKeys returns a JSON Web Key Set in its shortest form, if there is nothing secret
// in it.
func publicKeys(text []byte) ([]byte, error) {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("it is no JSON Web Key Set: %w", err)
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("it has no keys")
	}
	for _, key := range set.Keys {
		_, private := key["d"]
		if _, shared := key["k"]; private || shared {
			return nil, errors.New("it has a key that is not public")
		}
	}
	var short bytes.Buffer
	if err := json.Compact(&short, text); err != nil {
		return nil, err
	}
	if short.Len() > clusterKeysBytes {
		return nil, fmt.Errorf("it has %d bytes, and there is room for %d", short.Len(), clusterKeysBytes)
	}
	return short.Bytes(), nil
}

// issuerMemory is what the API server said last, for all Hubs. Its zero value is empty.
type issuerMemory struct {
	mu   sync.Mutex // guards the fields below
	last ClusterIssuer
	at   time.Time // when it said so
}

// read returns the cluster's issuer. With an error it is the last one that is known,
// which may be none.
func (m *issuerMemory) read(ctx context.Context, from IssuerReader, now time.Time) (ClusterIssuer, error) {
	m.mu.Lock()
	last, age := m.last, now.Sub(m.at)
	m.mu.Unlock()
	if age >= 0 && age < issuerFor { // below zero when the clock was put back
		return last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, issuerTime)
	defer cancel()
	found, err := from.ClusterIssuer(ctx)
	if err != nil {
		return last, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.at = found, now
	return found, nil
}
