package auth

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// waiting returns how many are in the lane of a place, or wait for it.
func (l *lanes) waiting(from string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if in := l.of[place(from)]; in != nil {
		return in.users
	}
	return 0
}

// Whoever reaches the port may guess, hundreds at a time and each for as long as a
// handshake may take.
func TestWhoGuessesHoldsUpNobodyElse(t *testing.T) {
	const guesses = 500
	hash, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.DefaultCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, append([]byte("alice:"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range [][2]string{{"192.0.2.1:%d", "192.0.2.2:1"}, {"[2001:db8::%d]:1", "[2001:db8:0:1::1]:1"}} {
		s := newStatic(path)
		if err := s.reread(); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var guessing sync.WaitGroup
		for i := range guesses {
			guessing.Go(func() { _, _ = s.identify(ctx, fmt.Sprintf(from[0], i+1), fmt.Sprintf("alice:%d", i)) })
		}
		there := fmt.Sprintf(from[0], 1)
		for deadline := time.Now().Add(20 * time.Second); s.lanes.waiting(there) < guesses/2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d guesses are in line", s.lanes.waiting(there))
			}
		}
		if _, err := s.identify(t.Context(), from[1], "alice:s3cret"); err != nil {
			t.Errorf("from %s: %v", from[1], err)
		}
		if s.lanes.waiting(there) == 0 {
			t.Errorf("from %s: every guess was looked at before", from[1])
		}
		stop()
		guessing.Wait()
		if n := len(s.lanes.of); n != 0 {
			t.Errorf("%d places are remembered from which nobody is under way", n)
		}
	}
}
