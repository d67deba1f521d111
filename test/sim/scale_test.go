package sim_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/test/sim"
)

var entriesMax = flag.Int("entries", 1_000_000, "skip worlds that hold more copies of entries than this, at about 130 bytes each")

// BenchmarkScale loads a hub with clients while announcements are lost, cuts it
// in two, moves a tenth of the clients and heals it. It reports how long the nodes
// took to agree after each, in virtual time, and the memory of one node.
func BenchmarkScale(b *testing.B) {
	for _, nodes := range []int{10, 100} {
		for _, clients := range []int{10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("nodes=%d/clients=%d", nodes, clients), func(b *testing.B) {
				if nodes*clients > *entriesMax {
					b.Skipf("%d copies of entries: raise -entries where there is memory", nodes*clients)
				}
				for b.Loop() {
					scale(b, nodes, clients)
				}
			})
		}
	}
}

func scale(b *testing.B, nodes, clients int) {
	b.Helper()
	before := heap()
	w := sim.New(sim.Config{Seed: 1, Nodes: nodes, LogKept: 1 << 16, AnnounceBytes: 256 << 10, Loss: 0.01, Delay: 20 * time.Millisecond})
	agree(b, w)
	for i := range clients {
		w.Connect(fmt.Sprintf("client-%013d", i), i%nodes, false)
	}
	b.ReportMetric(agree(b, w).Seconds(), "s-to-agree")
	b.ReportMetric(float64(heap()-before)/float64(nodes)/(1<<20), "MiB/node")

	w.Partition(1<<(nodes/2) - 1)
	w.Run(10 * time.Second)
	for i := 0; i < clients; i += 10 {
		w.Connect(fmt.Sprintf("client-%013d", i), (i/10)%nodes, false)
	}
	w.Run(time.Second)
	w.Heal()
	b.ReportMetric(agree(b, w).Seconds(), "s-to-heal")
	if err := w.Check(); err != nil {
		b.Fatal(err)
	}
}

// agree lets time pass until all nodes hold the newest of each other, and returns
// how long that took.
func agree(b *testing.B, w *sim.World) time.Duration {
	b.Helper()
	start := w.Now()
	for !w.Current() {
		if w.Now()-start > time.Minute {
			b.Fatal("the nodes don't agree within a minute")
		}
		w.Run(10 * time.Millisecond)
	}
	return w.Now() - start
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
