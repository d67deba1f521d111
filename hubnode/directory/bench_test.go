package directory

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// node returns the log of a node with that many clients.
func node(name string, clients int) *Log {
	l := NewLog(Owner{Node: name, Incarnation: 1}, 0)
	for i := range clients {
		l.ClientUp(fmt.Sprintf("%s-client-%06d", name, i), uint64(i))
	}
	return l
}

// encoded returns the log's snapshot as it arrives from the network.
func encoded(l *Log) (parts [][]byte) {
	for _, a := range l.Snapshot(32 << 10) {
		parts = append(parts, a.AppendTo(nil))
	}
	return parts
}

func load(tb testing.TB, table *Table, parts [][]byte) {
	tb.Helper()
	for _, b := range parts {
		a, err := ParseAnnouncement(b)
		if err != nil {
			tb.Fatal(err)
		}
		table.Apply(a)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// memory returns what an entry costs beyond its id, in a table of that many
// clients on four nodes.
func memory(tb testing.TB, clients int) float64 {
	tb.Helper()
	var nodes [][][]byte
	for i := range 4 {
		nodes = append(nodes, encoded(node(fmt.Sprint("node-", i), clients/4)))
	}
	before := heap()
	table := NewTable("self")
	for _, parts := range nodes {
		load(tb, table, parts)
	}
	const id = 24 // the size class of the ids' 20 bytes
	got := float64(heap()-before)/float64(table.Len()) - id
	runtime.KeepAlive(nodes)
	runtime.KeepAlive(table)
	return got
}

func TestARemoteClientCostsLittleMemory(t *testing.T) {
	// Just after the index has grown is the worst moment.
	for _, clients := range []int{16_388, 30_000} {
		if got := memory(t, clients); got > 128 {
			t.Errorf("of %d clients each costs %.0f bytes beyond its id, want at most 128", clients, got)
		}
	}
}

func BenchmarkTableMemory(b *testing.B) {
	for _, clients := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(memory(b, clients), "B/client")
			}
		})
	}
}

func BenchmarkLocate(b *testing.B) {
	table := NewTable("self")
	load(b, table, encoded(node("node-0", 100_000)))
	var ids []wire.ClientID
	table.Clients(func(id wire.ClientID, _ Location) bool { ids = append(ids, id); return len(ids) < 1024 })
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := table.Locate(ids[i%len(ids)]); !ok {
				b.Error("client not found")
			}
		}
	})
}

func BenchmarkApplySnapshot(b *testing.B) {
	const clients = 10_000
	parts := encoded(node("node-0", clients))
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		load(b, NewTable("self"), parts)
	}
}
