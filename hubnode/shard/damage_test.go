package shard

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// flip changes one bit of a file.
func flip(t *testing.T, fs *vfs.MemFS, name string, at int, bit byte) {
	t.Helper()
	b := content(t, fs, name)
	b[at] ^= bit
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever bit of a log's files flips: no entry is ever read that was not written, and
// no vote that was not given.
func TestAFlippedBitInALogIsNotTakenForWhatWasWritten(t *testing.T) {
	p := &powerTest{t: t, disk: newMachineDisk(vfs.NewCrashableMem())}
	if err := (memFiles{machineDisk: p.disk}).MkdirAll(logsDir); err != nil {
		t.Fatal(err)
	}
	l, err := p.open(memFiles{machineDisk: p.disk}, false)
	if err != nil {
		t.Fatal(err)
	}
	const entries = 60 // in three segments
	for i := range uint64(entries) {
		if err := l.entries.StoreLog(&raft.Log{Index: i + 1, Term: 1 + i/20, Data: bytes.Repeat([]byte{byte(i)}, 60)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.votes.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	truth, err := p.read(p.disk.files)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range filesIn(t, p.disk.files, logsDir) {
		noticed, shorter := 0, 0
		size := len(content(t, p.disk.files, name))
		for at := range size {
			fs := vfs.NewCrashableMem()
			if _, err := vfs.Clone(p.disk.files, fs, "shards", "shards", vfs.CloneSync); err != nil {
				t.Fatal(err)
			}
			flip(t, fs, name, at, 1<<(at%8))
			is, err := readDamaged(t, fs)
			if err != nil {
				noticed++
				continue
			}
			if is.term != truth.term || is.last > truth.last {
				t.Errorf("%s, byte %d: term %d, last entry %d", name, at, is.term, is.last)
			}
			if is.last < truth.last {
				shorter++
			}
			for i, got := range is.entries {
				if !same(got, truth.entries[i]) {
					t.Errorf("%s, byte %d: entry %d is %v", name, at, i, got)
				}
			}
		}
		t.Logf("%s: of %d flips %d were noticed, %d made the log shorter", name, size, noticed, shorter)
		if !strings.HasSuffix(name, ".wal") && noticed < size {
			t.Errorf("%s: %d flips were not noticed", name, size-noticed)
		}
	}
}

// readDamaged is powerTest.read, of logs that may be damaged.
func readDamaged(t *testing.T, fs *vfs.MemFS) (*logState, error) {
	t.Helper()
	o := logsIn(t, memFiles{machineDisk: newMachineDisk(fs)}, logsDir, true)
	var found error
	o.damaged, o.segment = func(err error) { found = err }, 2<<10
	l, err := diskLogs(o)
	if err != nil {
		return nil, err
	}
	is := &logState{entries: make(map[uint64]raft.Log)}
	is.term, _ = l.votes.GetUint64([]byte("CurrentTerm"))
	is.first, _ = l.entries.FirstIndex()
	is.last, _ = l.entries.LastIndex()
	for i := is.first; i > 0 && i <= is.last; i++ {
		var got raft.Log
		if err := l.entries.GetLog(i, &got); err == nil {
			is.entries[i] = got
		} else if found == nil {
			t.Errorf("entry %d: %v, which is not told of", i, err)
		}
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	return is, found
}

// A bit flips in a file of one replica, of each kind in turn, while it is down. Whatever it
// serves afterwards is the beginning of the one history, and in the end it has all.
func TestReplicasDoNotDivergeOverAFlippedBit(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 1)
	var want []string
	publish := func(g *group) {
		want = append(want, fmt.Sprintf("%01000d", len(want))) // so that a table has more than one block
		g.publish("a", want[len(want)-1], Publisher{ID: 1, Number: uint64(len(want))})
	}
	for range 150 {
		publish(g)
	}
	for _, m := range g.members() {
		eventually(t, "all on "+m.name, func() bool { return slices.Equal(m.held("a"), want) })
		m.cutLog(t)
	}
	for range 50 {
		publish(g)
	}
	disks := make(map[string]*vfs.MemFS)
	for i := range 3 {
		g.kill(name(i))
		disks[name(i)] = g.disks.of(name(i)).killed(t)
	}
	kinds := make(map[string][]string)
	for _, file := range filesIn(t, disks[name(0)], "node") {
		kinds[kindOf(file)] = append(kinds[kindOf(file)], file)
	}
	if len(kinds) < 8 {
		t.Fatalf("files of %d kinds: %v", len(kinds), kinds)
	}
	for kind, all := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			chance := rand.New(rand.NewPCG(7, uint64(len(kind))))
			flips := 2
			if kind == "table" || kind == "MANIFEST" { // where what is in them is seen late, or not at all
				flips = 6
			}
			for range flips {
				file := all[chance.IntN(len(all))]
				size := len(content(t, disks[name(0)], file))
				if size == 0 {
					continue
				}
				at, bit := chance.IntN(size), byte(1)<<chance.IntN(8)
				diverge(t, disks, want, file, at, bit)
			}
		})
	}
}

// diverge starts a group whose first node has a flipped bit, and looks at what all serve.
func diverge(t *testing.T, from map[string]*vfs.MemFS, want []string, file string, at int, bit byte) {
	t.Helper()
	g := &group{t: t, disks: newDisks()}
	for node, fs := range from {
		own := vfs.NewCrashableMem()
		if _, err := vfs.Clone(fs, own, "node", "node", vfs.CloneSync); err != nil {
			t.Fatal(err)
		}
		if node == name(0) {
			flip(t, own, file, at, bit)
		}
		g.disks.replace(node, own)
	}
	g.begin(3, 1)
	defer func() {
		for i := range 3 {
			g.kill(name(i))
		}
	}()
	want = append(slices.Clone(want), "more")
	g.publish("a", "more", Publisher{ID: 2, Number: 1})
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, fmt.Sprintf("all on %s after bit %08b at %d of %s", m.name, bit, at, file), func() bool {
			got := m.held("a")
			if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("%s serves %q after bit %08b at %d of %s", m.name, got, bit, at, file)
			}
			return len(got) == len(want)
		})
	}
}

// kindOf returns what a file is for, by its name.
func kindOf(file string) string {
	base := file[strings.LastIndex(file, "/")+1:]
	switch {
	case strings.HasSuffix(base, ".wal"):
		return "log"
	case strings.HasSuffix(base, ".sst"):
		return "table"
	}
	kind, _, _ := strings.Cut(base, "-")
	kind, _, _ = strings.Cut(kind, ".000")
	return kind
}
