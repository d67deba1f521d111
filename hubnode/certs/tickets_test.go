package certs

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"
)

// A ticket of one day is accepted for a week, and by a node whose clock is a day
// behind; each day and each secret has keys of its own.
func TestTicketKeysOverlap(t *testing.T) {
	sealing := func(day int64) [32]byte { return ticketKeys([]byte("secret"), day)[0] }
	for days, want := range map[int64]bool{-8: false, -7: true, -1: true, 0: true, 1: true, 2: false} {
		if got := slices.Contains(ticketKeys([]byte("secret"), 20_000), sealing(20_000+days)); got != want {
			t.Errorf("a ticket of %d days from now: accepted %v, want %v", days, got, want)
		}
	}
	if sealing(20_000) == sealing(20_001) || sealing(20_000) == ticketKeys([]byte("other"), 20_000)[0] {
		t.Error("keys are the same where they must differ")
	}
}

func TestConfigFollowsTheDay(t *testing.T) {
	s := &Store{}
	e := newEdition(tls.Certificate{}, []byte("secret"), nil, dayOf(time.Now())-1)
	s.current.Store(e)
	if first := s.Config(); first == e.config || s.Config() != first {
		t.Error("the keys of yesterday seal tickets, or are made for each connection")
	}
}
