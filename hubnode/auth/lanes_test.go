package auth_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// Whoever reaches the port may guess, thousands at a time and each for as long as a
// handshake may take.
func TestWhoGuessesHoldsUpNobodyElse(t *testing.T) {
	hash := must[[]byte](t)(bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.DefaultCost))
	gate := auth.New(slog.New(slog.DiscardHandler), func() {})
	gate.Configure(config.Authentication{Static: &config.Static{File: write(t, t.TempDir(), "tokens", []byte("alice:"+string(hash)))}})
	for _, from := range [][2]string{{"192.0.2.1:%d", "192.0.2.2:1"}, {"[2001:db8::%d]:1", "[2001:db8:0:1::1]:1"}} {
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		var guessing sync.WaitGroup
		for i := range 500 {
			guessing.Go(func() {
				_, _ = gate.Identify(ctx, auth.Credentials{Token: fmt.Sprintf("alice:%d", i), From: fmt.Sprintf(from[0], i+1)})
			})
		}
		time.Sleep(100 * time.Millisecond) // they are all in line
		honest, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		if _, err := gate.Identify(honest, auth.Credentials{Token: "alice:s3cret", From: from[1]}); err != nil {
			t.Errorf("from %s: %v", from[1], err)
		}
		cancel()
		stop()
		guessing.Wait()
		gate.Configure(config.Authentication{}) // forget who is known
		gate.Configure(config.Authentication{Static: &config.Static{File: write(t, t.TempDir(), "tokens", []byte("alice:"+string(hash)))}})
	}
}
