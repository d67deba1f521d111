package shard

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

const logsDir = "shards/0"

// logState is what a log and its votes hold, and what has been said to be there for good.
type logState struct {
	entries map[uint64]raft.Log // by index
	first   uint64              // before it entries may be gone
	last    uint64
	term    uint64
}

func (s *logState) clone() *logState {
	c := *s
	c.entries = maps.Clone(s.entries)
	return &c
}

// powerTest does things to a log, and looks after each change of the disk what would be
// left if the power failed.
type powerTest struct {
	t        *testing.T
	chance   *rand.Rand
	interval time.Duration

	mu     sync.Mutex // guards the fields below
	luck   *rand.Rand // when to look, and what is left then
	disk   *machineDisk
	before *logState // what is there for good
	after  *logState // what will be, when what is being done is done
	synced uint64    // with an interval: the last entry that is there for good
	looks  int
	left   *vfs.MemFS // after the latest look
}

func TestALogKeepsWhatItSaidWhenThePowerFails(t *testing.T) {
	for what, interval := range map[string]time.Duration{"Always": 0, "Interval": time.Millisecond} {
		for seed := range uint64(10) {
			t.Run(fmt.Sprintf("%s, seed %d", what, seed), func(t *testing.T) {
				p := &powerTest{t: t, chance: rand.New(rand.NewPCG(seed, 3)), luck: rand.New(rand.NewPCG(seed, 4)), interval: interval, disk: newMachineDisk(vfs.NewCrashableMem())}
				p.before = &logState{entries: make(map[uint64]raft.Log), first: 1}
				p.after = p.before
				if err := (memFiles{machineDisk: p.disk}).MkdirAll(logsDir); err != nil {
					t.Fatal(err)
				}
				syncDir(t, p.disk.files, "")
				syncDir(t, p.disk.files, "shards")
				for life := range 4 {
					p.live(life > 0)
				}
				if p.looks < 10 {
					t.Errorf("looked %d times only", p.looks)
				}
			})
		}
	}
}

func (p *powerTest) open(fs memFiles, begun bool) (*logs, error) {
	p.t.Helper()
	o := logsIn(p.t, fs, logsDir, begun)
	o.interval, o.segment = p.interval, 2<<10
	return diskLogs(o)
}

// live opens the logs and does things to them until the power fails.
func (p *powerTest) live(begun bool) {
	p.t.Helper()
	l, err := p.open(memFiles{p.disk, p.changed, p.syncs}, begun)
	if err != nil {
		p.t.Fatal(err)
	}
	for range 40 {
		p.step(l)
		if p.t.Failed() {
			break
		}
	}
	p.mu.Lock()
	p.left = p.look()
	p.mu.Unlock()
	if err := l.close(); err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk = newMachineDisk(p.left)
	is, err := p.read(p.left)
	if err != nil {
		p.t.Fatal(err)
	}
	p.before, p.after, p.synced = is, is, is.last
}

// step does one thing.
func (p *powerTest) step(l *logs) {
	p.t.Helper()
	next := p.after.clone()
	var do func() error
	switch n := p.chance.IntN(20); {
	case n == 0:
		next.term += uint64(p.chance.IntN(3))
		do = func() error { return l.votes.SetUint64([]byte("CurrentTerm"), next.term) }
	case n == 1 && next.last > next.first:
		from := next.first + 1 + uint64(p.chance.Int64N(int64(next.last-next.first)))
		last := next.last
		for i := from; i <= last; i++ {
			delete(next.entries, i)
		}
		next.last = from - 1
		do = func() error { return l.entries.DeleteRange(from, last) }
	case n == 2 && next.last > next.first:
		upTo := next.first + uint64(p.chance.Int64N(int64(next.last-next.first)))
		first := next.first
		next.first = upTo + 1
		do = func() error { return l.entries.DeleteRange(first, upTo) }
	default:
		var all []*raft.Log
		for range 1 + p.chance.IntN(4) {
			next.last++
			data := bytes.Repeat([]byte{byte(p.chance.IntN(256))}, p.chance.IntN(300))
			entry := raft.Log{Index: next.last, Term: uint64(p.chance.IntN(9)), Data: data, AppendedAt: time.Unix(1, 0)}
			next.entries[next.last] = entry
			all = append(all, &entry)
		}
		do = func() error { return l.entries.StoreLogs(all) }
	}
	p.mu.Lock()
	p.after = next
	p.synced = min(p.synced, next.last)
	p.mu.Unlock()
	err := do()
	p.mu.Lock()
	p.before = next
	p.mu.Unlock()
	if err != nil {
		p.t.Error(err)
	}
}

// changed is called after each change of the disk.
func (p *powerTest) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.looks < 2000 && !p.t.Failed() && p.luck.IntN(4) == 0 {
		p.look()
	}
}

// syncs is called before a file is synced. What was appended before is in it, or in one
// that was synced when it was complete.
func (p *powerTest) syncs(name string) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	upTo := min(p.before.last, p.after.last)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if strings.HasSuffix(name, ".wal") {
			p.synced = max(p.synced, min(upTo, p.before.last, p.after.last))
		}
	}
}

// look checks what would be left if the power failed now.
func (p *powerTest) look() *vfs.MemFS {
	p.looks++
	left := p.disk.powerFails(p.luck)
	names, err := left.List(logsDir)
	if err != nil || !slices.Contains(names, votesFile) || !slices.Contains(names, segmentsFile) {
		if p.before.last > 0 || p.before.term > 0 {
			p.t.Errorf("what is left of the logs: %v, %v", names, err)
		}
		return left
	}
	// What a look opens it changes; the next life goes on with what was left.
	is, err := p.read(left.CrashClone(vfs.CrashCloneCfg{}))
	if err != nil {
		p.t.Errorf("what is left can't be read: %v", err)
		return left
	}
	if is.term != p.before.term && is.term != p.after.term {
		p.t.Errorf("the term is %d, it was %d or %d", is.term, p.before.term, p.after.term)
	}
	least := min(p.before.last, p.after.last)
	if p.interval > 0 {
		least = min(p.synced, least)
	}
	if is.last < least || is.last > max(p.before.last, p.after.last) {
		p.t.Errorf("the last entry is %d, it was at least %d", is.last, least)
	}
	first := max(p.before.first, p.after.first)
	for i := first; i <= is.last; i++ {
		got, there := is.entries[i]
		one, first := p.before.entries[i]
		two, second := p.after.entries[i]
		switch {
		case !there:
			p.t.Errorf("entry %d of %d is not there", i, is.last)
		case (!first || !same(got, one)) && (!second || !same(got, two)):
			p.t.Errorf("entry %d is another one: %v", i, got)
		}
	}
	return left
}

func same(a, b raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && bytes.Equal(a.Data, b.Data)
}

// read opens the logs and reads all of them.
func (p *powerTest) read(fs *vfs.MemFS) (*logState, error) {
	p.t.Helper()
	l, err := p.open(memFiles{machineDisk: newMachineDisk(fs)}, true)
	if err != nil {
		return nil, err
	}
	is := &logState{entries: make(map[uint64]raft.Log)}
	var errs [4]error
	is.term, errs[0] = l.votes.GetUint64([]byte("CurrentTerm"))
	is.first, errs[1] = l.entries.FirstIndex()
	is.last, errs[2] = l.entries.LastIndex()
	for i := is.first; i > 0 && i <= is.last; i++ {
		var got raft.Log
		if err := l.entries.GetLog(i, &got); err != nil {
			p.t.Errorf("entry %d: %v", i, err)
			continue
		}
		is.entries[i] = got
	}
	errs[3] = l.close()
	return is, errors.Join(errs[:]...)
}

// Power that fails while a replica is thrown away, and another one is made in its place,
// leaves one of them whole, or nobody, or what is seen to be damaged: a replica is never
// back without what it had.
func TestAReplicaIsNeverBackWithoutWhatItHad(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 4))
	var (
		mu      sync.Mutex // guards the fields below
		looking bool
		left    []*vfs.MemFS
	)
	g := &group{t: t, disks: newDisks()}
	g.onChange = func() {
		mu.Lock()
		defer mu.Unlock()
		for range 4 {
			if looking {
				left = append(left, g.disks.of(name(0)).powerFails(chance))
			}
		}
		if looking {
			left = append(left, g.disks.of(name(0)).killed(t))
		}
	}
	g.begin(1, 1)
	want := []string{"one", "two"}
	for i, payload := range want {
		g.publish("a", payload, Publisher{ID: 1, Number: uint64(i + 1)})
	}
	m := g.node(name(0))
	m.cutLog(t) // only the store has them
	g.publish("a", "three", Publisher{ID: 1, Number: 3})
	want = append(want, "three") // only the log has it for good
	old := m.shards.replica(0)
	mu.Lock()
	looking = true
	mu.Unlock()
	old.fail(history.ErrCorrupt)
	eventually(t, "another replica", func() bool {
		r := m.shards.replica(0)
		return r != nil && r != old
	})
	mu.Lock()
	looking = false
	mu.Unlock()
	g.kill(name(0))
	if len(left) < 50 {
		t.Fatalf("looked %d times only", len(left))
	}

	back := 0
	for _, fs := range left {
		id, err := readIdentity(memFiles{machineDisk: newMachineDisk(fs)}, old.dir)
		if err != nil {
			t.Errorf("an identity that can't be read: %v", err)
		}
		if id != string(old.id) {
			continue
		}
		back++
		g := &group{t: t, disks: newDisks()}
		g.disks.replace(name(0), fs)
		g.begin(1, 1)
		eventually(t, "what it had, or a new replica", func() bool {
			m := g.node(name(0))
			return slices.Equal(m.held("a"), want) || m.shards.remade.Load() > 0
		})
		g.kill(name(0))
	}
	t.Logf("%d of %d times the replica was there", back, len(left))
}
