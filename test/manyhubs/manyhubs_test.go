// Package manyhubs_test runs the operator's program against a real API server that
// holds many Hubs at rest, and says what that costs. A few Hubs are a test of
// behaviour; with -hubs 1000 it prints the numbers in docs/performance.md.
package manyhubs_test

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var (
	hubs    = flag.Int("hubs", 5, "how many Hubs there are")
	windows = flag.Int("windows", 0, "how many times to measure the operator at rest")
	span    = flag.Duration("span", 30*time.Second, "how long each time")
)

// TestHubsAtRestCostNoWrites restarts the operator beside settled Hubs: it looks at
// each, again and again, and finds nothing to write.
func TestHubsAtRestCostNoWrites(t *testing.T) {
	c, n := startCluster(t), startNodes(t)
	operator := c.run(t)
	began := time.Now()
	settleHubs(t, c, n, *hubs)
	t.Logf("%d Hubs made and settled in %v", *hubs, time.Since(began).Round(time.Second))
	if _, writes := c.requests(t); len(writes) == 0 {
		t.Fatal("the audit log has none of the operator's writes")
	}
	operator.end(t)
	restart(t, c, n)
}

// restart starts the operator beside Hubs at rest, until it has looked at each twice.
func restart(t *testing.T, c *cluster, n *nodes) {
	t.Helper()
	readsBefore, writesBefore := c.requests(t)
	n.forget()
	began := time.Now()
	operator := c.run(t)
	waitUntilAsked(t, n, 1)
	t.Logf("resync: each looked at %.1f s after the operator's start (target 30)", time.Since(began).Seconds())
	n.forget()
	waitUntilAsked(t, n, 1)
	reads, _ := c.requests(t)
	t.Logf("requests until each was looked at twice: %d reads", reads-readsBefore)

	measure(t, c, operator)

	if _, writes := c.requests(t); len(writes) > len(writesBefore) {
		t.Errorf("%d writes beside Hubs at rest, want none: %q", len(writes)-len(writesBefore), writes[len(writesBefore):])
	}
	operator.end(t)
}

// waitUntilAsked waits until every node was asked so many times.
func waitUntilAsked(t *testing.T, n *nodes, times int) {
	t.Helper()
	for deadline := time.After(settlePatience); n.leastAsked() < times; {
		select {
		case <-deadline:
			t.Fatalf("some node was not asked %d times within %v", times, settlePatience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// measure prints what the operator uses at rest.
func measure(t *testing.T, c *cluster, operator *process) {
	t.Helper()
	var shares []float64
	for range *windows {
		readsBefore, _ := c.requests(t)
		before, err := operator.cpu()
		if err != nil {
			t.Fatalf("measure: %v", err)
		}
		began := time.Now()
		time.Sleep(*span)
		after, err := operator.cpu()
		if err != nil {
			t.Fatalf("measure: %v", err)
		}
		share := 100 * (after - before).Seconds() / time.Since(began).Seconds()
		now, peak, err := operator.resident()
		if err != nil {
			t.Fatalf("measure: %v", err)
		}
		reads, _ := c.requests(t)
		t.Logf("at rest: CPU %.2f %% of a core, %d MiB resident (%d at most), %.1f reads/s", share, now, peak, float64(reads-readsBefore)/span.Seconds())
		shares = append(shares, share)
	}
	if len(shares) > 0 {
		slices.Sort(shares)
		t.Logf("at rest: CPU %.2f %% in the median (target 2), resident target 200 MiB", shares[len(shares)/2])
	}
}
