package auth

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	keysFor   = 10 * time.Minute // how long fetched keys are not fetched again
	fetchGap  = 10 * time.Second // between two fetches, whatever tokens come
	fetchTime = 3 * time.Second  // what a fetch may take: clients that shake hands wait for it
	keysMax   = 1 << 20          // bytes of what an issuer answers

	redirectsMax = 3
)

// keys are an issuer's.
type keys interface {
	// find returns the keys that may have signed a token that names kid.
	find(ctx context.Context, kid string) ([]jose.JSONWebKey, error)
}

// errUnknownKey refuses a token by a key that its issuer does not have, or not yet.
var errUnknownKey = errors.New("the token is signed by a key that is not its issuer's")

// fileKeys are those of a file.
type fileKeys struct {
	path string

	mu  sync.Mutex // guards all
	all []jose.JSONWebKey
}

func (k *fileKeys) reread() error {
	text, err := os.ReadFile(k.path)
	if err != nil {
		return fmt.Errorf("read the keys of a token's issuer: %w", err)
	}
	all, err := parseKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = all
	return nil
}

func (k *fileKeys) find(_ context.Context, kid string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch found := pick(k.all, kid); {
	case len(found) > 0:
		return found, nil
	case len(k.all) == 0:
		return nil, errors.New("this node has no keys of the token's issuer")
	}
	return nil, errUnknownKey
}

// fetchedKeys are those that an issuer publishes, by OpenID Connect Discovery 1.0.
// They are fetched when a token needs them.
type fetchedKeys struct {
	issuer string
	caFile string
	now    func() time.Time

	mu       sync.Mutex // guards the fields below
	all      []jose.JSONWebKey
	fetched  time.Time // with success
	tried    time.Time
	failed   error         // of the last try
	fetching chan struct{} // closed when the try under way ends; nil: there is none
}

// find fetches the keys where it has to, one call at a time. Who can be told without, or
// gives up, does not wait for that.
func (k *fetchedKeys) find(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if found := pick(k.all, kid); (len(found) == 0 || now.Sub(k.fetched) > keysFor) && k.fetching == nil && now.Sub(k.tried) > fetchGap {
		k.tried, k.fetching = now, make(chan struct{})
		k.mu.Unlock()
		all, err := k.fetch(context.WithoutCancel(ctx)) // for all who wait: one that goes does not end it
		k.mu.Lock()
		if k.failed = err; err == nil {
			k.all, k.fetched = all, now
		}
		close(k.fetching)
		k.fetching = nil
	} else if wait := k.fetching; len(found) == 0 && wait != nil {
		k.mu.Unlock()
		var gone error
		select {
		case <-wait:
		case <-ctx.Done():
			gone = context.Cause(ctx)
		}
		k.mu.Lock()
		if gone != nil {
			return nil, fmt.Errorf("the keys of %s are being fetched: %w", k.issuer, gone)
		}
	}
	switch found := pick(k.all, kid); {
	case len(found) > 0: // also when they could not be fetched again: they were the issuer's
		return found, nil
	case k.failed != nil:
		return nil, fmt.Errorf("the keys of %s can't be fetched: %w", k.issuer, k.failed)
	}
	return nil, errUnknownKey
}

func (k *fetchedKeys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	client, err := k.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	text, err := get(ctx, client, strings.TrimSuffix(k.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("what the issuer says of itself: %w", err)
	}
	if found.Issuer != k.issuer {
		return nil, fmt.Errorf("the issuer at this address calls itself %.200q", found.Issuer)
	}
	if text, err = get(ctx, client, found.Keys); err != nil {
		return nil, err
	}
	return parseKeys(text)
}

func (k *fetchedKeys) client() (*http.Client, error) {
	transport, err := trusting(k.caFile)
	if err != nil {
		return nil, fmt.Errorf("read the issuer's CA: %w", err)
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			if to.URL.Scheme != "https" || len(via) > redirectsMax {
				return fmt.Errorf("it leads to %.200q, which is not an https address, or after too many others", to.URL.Redacted())
			}
			return nil
		},
	}, nil
}

// trusting returns how to reach servers that the CA certificates of a file vouch for; the
// system's without one.
func trusting(caFile string) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pool, err := readCA(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	return &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}, nil
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("%.200q is not an https address", address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // it was read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, keysMax+1))
	if err == nil && len(text) > keysMax {
		err = fmt.Errorf("%s answers more than %d bytes", address, keysMax)
	}
	return text, err
}
