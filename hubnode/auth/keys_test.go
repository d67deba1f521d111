package auth

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/internal/throwaway"
)

// slowIssuer is an issuer whose keys can be held back, and a clock.
type slowIssuer struct {
	*fetchedKeys
	kid     string
	clock   atomic.Int64 // seconds
	asked   chan struct{}
	release chan struct{}
}

func newSlowIssuer(t *testing.T) *slowIssuer {
	t.Helper()
	i, err := throwaway.NewIssuer("x")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := i.Keys()
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	s := &slowIssuer{kid: all[0].KeyID, asked: make(chan struct{}, 8), release: make(chan struct{})}
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": server.URL, "jwks_uri": server.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		s.asked <- struct{}{}
		<-s.release
		_, _ = w.Write(keys)
	})
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s.clock.Store(1_000_000)
	s.fetchedKeys = &fetchedKeys{issuer: server.URL, caFile: ca, now: func() time.Time { return time.Unix(s.clock.Load(), 0) }}
	return s
}

// Anybody may begin a fetch, by a token that nobody has signed, and hang up.
func TestWhoHangsUpDoesNotKeepKeysFromOthers(t *testing.T) {
	s := newSlowIssuer(t)
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.find(ctx, "nobody's")
	}()
	<-s.asked
	hangUp()
	close(s.release)
	if _, err := s.find(t.Context(), s.kid); err != nil {
		t.Errorf("the next one: %v", err)
	}
	<-done
}

func TestKnownKeysDoNotWaitForOthers(t *testing.T) {
	s := newSlowIssuer(t)
	go func() { s.release <- struct{}{} }()
	if _, err := s.find(t.Context(), s.kid); err != nil {
		t.Fatal(err)
	}
	<-s.asked
	s.clock.Add(60)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.find(t.Context(), "nobody's")
	}()
	<-s.asked // which the issuer does not answer now
	if _, err := s.find(t.Context(), s.kid); err != nil {
		t.Error(err)
	}
	select {
	case <-done:
		t.Error("a good token waited for keys that it does not need")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.find(ctx, "another"); err == nil {
		t.Error("a key that nobody has is found")
	}
	select {
	case <-done:
		t.Error("who gives up waits all the same")
	default:
	}
	close(s.release)
	<-done
}

func TestKeysAreNotFetchedInTheClear(t *testing.T) {
	var leaked atomic.Bool
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Store(true) }))
	defer plain.Close()
	server := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &fetchedKeys{issuer: server.URL, caFile: ca, now: time.Now}
	if _, err := k.find(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "not an https address") || leaked.Load() {
		t.Errorf("a redirect to http was followed: %v", err)
	}
}
