//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/switchboardhub/switchboard/test/check"
)

// How many artifacts a second a crowd sends in all.
const crowdRate = 1000

// crowd is the checker, in a pod: many clients that send to each other by name.
type crowd struct {
	*agent
	clients int
}

// startCrowd starts the load and waits until the Hub counts all its clients.
func (s *suite) startCrowd(t *testing.T, clients int) *crowd {
	t.Helper()
	return s.startCrowdAt(t, service(), clients)
}

// startCrowdAt is startCrowd for clients that connect to server.
func (s *suite) startCrowdAt(t *testing.T, server string, clients int) *crowd {
	t.Helper()
	c := &crowd{clients: clients, agent: s.startPod(t, "crowd", 1, s.checker, server, "/checker", "-o", "json",
		"--server", server, "--clients", fmt.Sprint(clients), "--rate", fmt.Sprint(crowdRate))}
	c.waitRunning(t)
	s.eventually(t, podWithin, "the Hub counts the crowd", func(ctx context.Context) error {
		hub, err := s.hub(ctx)
		if err == nil && hub.Status.Clients < int64(clients) {
			err = fmt.Errorf("it counts %d clients", hub.Status.Clients)
		}
		return err
	})
	return c
}

// judge ends the load and fails the test when the hub lost more artifacts than it may, or doubled,
// misdelivered or invented some, or put those of one client to another out of order.
func (c *crowd) judge(t *testing.T, allowed check.Allowed) {
	t.Helper()
	logs := c.verdict(t)
	first, _, _ := strings.Cut(logs, "\n")
	var verdict check.Verdict
	if err := json.Unmarshal([]byte(first), &verdict); err != nil {
		t.Fatalf("the crowd says no verdict: %v\n%s", err, logs)
	}
	t.Logf("%d clients sent %d artifacts, %d were acknowledged, %d came, %d were lost, of %d nobody heard what became",
		c.clients, verdict.Sent, verdict.Acknowledged, verdict.Received, verdict.Lost, verdict.Unknown)
	if err := verdict.Err(allowed); err != nil {
		t.Error(err)
	}
}
