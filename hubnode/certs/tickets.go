package certs

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"
)

// ticketDays is how many days a session can be resumed for: as many as TLS
// allows.
const ticketDays = 7

// ticketKeys returns the keys of session tickets on a day, the one to seal new
// ones with first. They follow from the certificate's key, which all nodes of a
// hub share: a session resumes on any of them. Who has that key can pose as the
// hub anyway, and a new one ends the sessions that were made under the old one.
// Each day has its own; tomorrow's is there for tickets of nodes whose clock is
// ahead.
func ticketKeys(secret []byte, day int64) [][32]byte {
	keys := make([][32]byte, 0, ticketDays+2)
	for back := range int64(ticketDays + 1) {
		keys = append(keys, ticketKey(secret, day-back))
	}
	return append(keys, ticketKey(secret, day+1))
}

func ticketKey(secret []byte, day int64) [32]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("switchboard session tickets of day %d", day), 32)
	if err != nil {
		panic("certs: " + err.Error()) // only for keys of more than 8160 bytes
	}
	return [32]byte(key)
}

// dayOf numbers the days, in UTC, for all nodes alike.
func dayOf(t time.Time) int64 { return t.Unix() / int64((24*time.Hour)/time.Second) }
