package sim_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/test/sim"
)

var (
	seed  = flag.Uint64("seed", 0, "run this seed alone")
	seeds = flag.Uint64("seeds", 2000, "run that many seeds")
)

// calmTime is how long the nodes may take to agree once nothing disturbs them:
// death is noticed, links come back, and a beat shows what was lost.
const calmTime = 30 * time.Second

func TestNodesAgreeOnceItIsCalm(t *testing.T) {
	if *seed != 0 {
		if err := live(*seed); err != nil {
			t.Fatal(err)
		}
		return
	}
	for s := uint64(1); s <= *seeds; s++ {
		if err := live(s); err != nil {
			t.Fatalf("%v\nrepeat with: go test ./test/sim -run %s -seed %d", err, t.Name(), s)
		}
	}
}

// live disturbs a world, lets it calm down and says what is wrong with it then.
func live(seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 2))
	nodes := 2 + rnd.IntN(5)
	w := sim.New(sim.Config{
		Seed: seed, Nodes: nodes, LogKept: rnd.IntN(20), AnnounceBytes: rnd.IntN(200),
		Loss: []float64{0, 0, 0.01, 0.3}[rnd.IntN(4)], Delay: []time.Duration{time.Millisecond, 50 * time.Millisecond, 2 * time.Second}[rnd.IntN(3)],
	})
	for range 50 + rnd.IntN(150) {
		disturb(w, rnd, nodes)
		w.Run(time.Duration(rnd.Int64N([]int64{int64(time.Millisecond), int64(100 * time.Millisecond), int64(3 * time.Second)}[rnd.IntN(3)])))
	}
	w.SetLoss(0)
	w.Heal()
	for i := range nodes - 1 { // the last one stays down, if it is
		w.Restart(i)
	}
	open := w.Open()
	w.Run(calmTime)
	if !w.Current() {
		return fmt.Errorf("after %s of calm a node does not hold the others' newest versions", calmTime)
	}
	if err := w.Check(); err != nil {
		return err
	}
	settled := w.Open()
	for _, id := range slices.Sorted(maps.Keys(open)) {
		// A newer session that has ended may have ended this one first.
		if at := settled[id]; at != open[id] && w.Newest(id, open[id]) {
			return fmt.Errorf("client %q was newest at %v and is at %v", id, open[id], at)
		}
	}
	return nil
}

func disturb(w *sim.World, rnd *rand.Rand, nodes int) {
	a, b := rnd.IntN(nodes), rnd.IntN(nodes)
	id := fmt.Sprintf("client-%d", rnd.IntN(12))
	switch rnd.IntN(24) {
	case 0:
		w.Crash(a)
	case 1, 2:
		w.Restart(a)
	case 3:
		w.Break(a, b)
	case 4:
		w.Cut(a, b)
	case 5:
		w.Partition(rnd.Uint64())
	case 6, 7:
		w.Heal()
	case 8, 9, 10, 11:
		w.Disconnect(id, a)
	default:
		w.Connect(id, a, rnd.IntN(4) == 0)
	}
}
