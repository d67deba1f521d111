//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	chaosFor  = flag.Duration("chaos", 2*time.Minute, "how long TestChaos goes on")
	chaosSeed = flag.Uint64("chaos.seed", 1, "which operations it does, in which order")
)

// TestChaos does random operations, one after the other, to a hub with volumes under
// load. Nothing that was acknowledged may be lost or stored twice, however they follow on
// each other.
func TestChaos(t *testing.T) {
	h := newSuite(t).newHistoryTest(t)
	chance := rand.New(rand.NewPCG(*chaosSeed, 1))
	if !t.Run("a hub in memory becomes available", h.begin) || !t.Run("its history moves to volumes", h.moveToVolumes) {
		return
	}
	nodes := 3
	operations := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"evict each pod", h.evictEachPod},
		{"lose a disk", h.loseADisk},
		{"rolling restart", h.restart},
		{"resize", func(t *testing.T) {
			t.Helper()
			nodes = 8 - nodes // three and five
			h.resize(t, nodes)
		}},
		{"restart the operator", func(t *testing.T) {
			t.Helper()
			h.step(t, "restarted the operator", func() {
				h.mustRun(t, h.kubectl, "", "-n", operatorNamespace, "rollout", "restart", "deployment")
				h.mustRun(t, h.kubectl, "", "-n", operatorNamespace, "rollout", "status", "deployment", "--timeout", rolloutWithin.String())
			})
		}},
		{"change a limit", func(t *testing.T) {
			t.Helper()
			h.step(t, "changed a limit", func() {
				h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p",
					fmt.Sprintf(`{"spec": {"limits": {"maxClients": %d}}}`, 1000+chance.IntN(1000)))
			})
		}},
		{"delete the StatefulSet", func(t *testing.T) {
			t.Helper()
			h.step(t, "deleted the StatefulSet without its pods", func() {
				h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "delete", "statefulset", hubName+"-node", "--cascade=orphan")
			})
		}},
	}
	for begin := time.Now(); time.Since(begin) < *chaosFor; {
		next := operations[chance.IntN(len(operations))]
		if !t.Run(next.name, next.run) {
			return
		}
	}
	t.Run("nothing was lost", func(t *testing.T) { h.load.judge(t) })
}
