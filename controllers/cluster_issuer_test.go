package controllers

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// countedIssuer names itself by how often it was asked.
type countedIssuer int

func (c *countedIssuer) ClusterIssuer(context.Context) (ClusterIssuer, error) {
	*c++
	return ClusterIssuer{Issuer: strconv.Itoa(int(*c))}, nil
}

func TestIssuerIsRememberedForAWhile(t *testing.T) {
	var issuer countedIssuer
	var memory issuerMemory
	start := time.Now()
	for _, test := range []struct {
		what string
		now  time.Time
		want string
	}{
		{"at first", start, "1"},
		{"a moment later", start.Add(issuerFor - 1), "1"},
		{"when it has been a while", start.Add(issuerFor), "2"},
		{"when the clock was put back", start, "3"},
		{"a moment after that", start.Add(time.Second), "3"},
	} {
		got, err := memory.read(t.Context(), &issuer, test.now)
		if err != nil || got.Issuer != test.want {
			t.Errorf("%s: got the answer %s (%v), want %s", test.what, got.Issuer, err, test.want)
		}
	}
}
