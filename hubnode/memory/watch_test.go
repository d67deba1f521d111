package memory

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// node is what a watch acts on in these tests: a process whose clients hold some memory,
// which is free once garbage was collected.
type node struct {
	reached chan struct{}

	mu            sync.Mutex // guards the fields below
	used, clients int64      // bytes; those of clients are part of those used
	garbage       int64      // bytes that clients held
	collections   uint64
	shed          []int64 // bytes asked for
	levels        []Level
	grows         int64 // bytes that come to wait for clients during each collection
	mark          int64
	collected     func() // tells the watch
}

// What waits for clients is a Gauge.

func (n *node) Bytes() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clients
}

func (n *node) SetMark(bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mark = bytes
}

func (n *node) Reached() <-chan struct{} { return n.reached }

func (n *node) watch() *Watch {
	w := New(Config{
		Queued: n,
		Limit:  func() int64 { return 1000 },
		Changed: func(l Level) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.levels = append(n.levels, l)
		},
		Shed: func(bytes int64) int64 {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.shed = append(n.shed, bytes)
			freed := min(bytes, n.clients)
			n.clients -= freed
			n.garbage += freed
			return freed
		},
	})
	w.measure = func() usage {
		n.mu.Lock()
		defer n.mu.Unlock()
		return usage{n.used, n.collections + 1}
	}
	w.collect = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.used += n.grows - n.garbage
		n.clients += n.grows
		n.garbage = 0
		n.collections++
		if n.collected != nil {
			n.collected()
		}
	}
	w.afterEach = func(_ context.Context, f func()) { n.collected = f }
	return w
}

// change changes the node, and says how it was.
func (n *node) change(used, garbage int64) (collections uint64, levels []Level) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used, n.garbage = used, garbage
	return n.collections, slices.Clone(n.levels)
}

func TestWatchFollowsMemory(t *testing.T) {
	for name, test := range map[string]struct {
		node   *node
		used   []int64 // one after the other
		levels []Level
		shed   []int64
	}{
		"ample":                      {&node{}, []int64{100, 849, 0}, nil, nil},
		"tight, and ample again":     {&node{}, []int64{850, 840, 810, 799}, []Level{Tight, Ample}, nil},
		"critical":                   {&node{clients: 500}, []int64{960}, []Level{Critical, Tight}, []int64{61}},
		"critical, and nobody to go": {&node{}, []int64{960, 970, 500}, []Level{Critical, Ample}, []int64{61}},
		"critical, and too few":      {&node{clients: 50}, []int64{960}, []Level{Critical}, []int64{61, 11}},
		"garbage that looked alive":  {&node{clients: 500, garbage: 200}, []int64{960}, nil, nil},
		"garbage beside it":          {&node{clients: 500, garbage: 100}, []int64{960}, []Level{Tight}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := test.node
			w := n.watch()
			for _, used := range test.used {
				n.used = used
				for w.look() {
					continue
				}
			}
			if diff := cmp.Diff(test.levels, n.levels); diff != "" {
				t.Errorf("levels (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.shed, n.shed); diff != "" {
				t.Errorf("shed (-want +got):\n%s", diff)
			}
			if w.Limit() != 1000 || w.Used() != n.used {
				t.Errorf("%d of %d are said to be used, want %d of 1000", w.Used(), w.Limit(), n.used)
			}
		})
	}
}

// A node that has become quiet collects no garbage by itself, and is looked at all the same.
func TestAQuietNodeRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{used: 900}
		w := n.watch()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }() // ended by cancel
		synctest.Wait()
		if w.Level() != Tight {
			t.Errorf("level %v, want tight", w.Level())
		}
		n.change(900, 500)
		time.Sleep(2 * lookAgain)
		synctest.Wait()
		if collections, _ := n.change(400, 0); w.Level() != Ample || collections != 1 {
			t.Errorf("level %v after %d collections, want ample after one", w.Level(), collections)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if collections, _ := n.change(970, 0); collections != 1 {
			t.Errorf("%d collections while memory is ample", collections)
		}
		w.Wake()
		synctest.Wait()
		if _, levels := n.change(970, 0); !slices.Contains(levels, Critical) {
			t.Errorf("levels %v after it was woken, want critical", levels)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// What waits for clients may grow by what is left. When it grows by more, clients have to go
// though no garbage was collected.
func TestWatchDoesNotWaitForTheCollector(t *testing.T) {
	for name, test := range map[string]struct {
		node  *node // when memory was last looked at
		grows int64
		mark  int64
		shed  []int64
	}{
		"by little":         {&node{used: 500, clients: 300}, 449, 750, nil},
		"by what is left":   {&node{used: 500, clients: 300}, 450, 750, []int64{151}},
		"by more":           {&node{used: 500, clients: 300}, 600, 750, []int64{301}},
		"with little left":  {&node{used: 940, clients: 100}, 20, 110, []int64{161}},
		"with nothing left": {&node{used: 960}, 0, 0, []int64{61}}, // and nothing to let go
	} {
		t.Run(name, func(t *testing.T) {
			n := test.node
			w := n.watch()
			w.look()
			if n.mark != test.mark {
				t.Errorf("the mark is at %d, want %d", n.mark, test.mark)
			}
			n.clients += test.grows
			for w.look() {
				continue
			}
			if diff := cmp.Diff(test.shed, n.shed); diff != "" {
				t.Errorf("shed (-want +got):\n%s", diff)
			}
			if critical := slices.Contains(n.levels, Critical); critical != (len(test.shed) > 0) {
				t.Errorf("levels %v", n.levels)
			}
			if test.mark == 750 && n.collections > 0 {
				t.Errorf("%d collections", n.collections)
			}
		})
	}
}

// While garbage is collected, to find out whether anybody has to go, nothing more comes to
// wait for clients.
func TestClientsDoNotGrowWhileGarbageIsCollected(t *testing.T) {
	n := &node{used: 960, clients: 500, grows: 20}
	w := n.watch()
	w.sample()
	w.settle(1000)
	if n.clients != 500 || !slices.Contains(n.levels, Critical) {
		t.Errorf("%d bytes wait, want 500; %v had to go, levels %v", n.clients, n.shed, n.levels)
	}
}

// Without a limit nothing is marked.
func TestNothingIsMarkedWithoutALimit(t *testing.T) {
	n := &node{used: 500}
	w := n.watch()
	w.cfg.Limit = func() int64 { return 0 }
	w.look()
	n.clients = 1 << 40
	w.look()
	if n.mark != math.MaxInt64 || len(n.shed) > 0 {
		t.Errorf("the mark is at %d, and %v bytes had to go", n.mark, n.shed)
	}
}

// Memory is looked at when the runtime has collected garbage.
func TestWatchFollowsCollections(t *testing.T) {
	levels := make(chan Level, 10)
	withRuntimeLimit(t, 1<<40) // nothing is to be collected for it
	limit := use().bytes + 200*mib
	w := New(Config{
		Queued:  &node{},
		Limit:   func() int64 { return limit },
		Changed: func(l Level) { levels <- l },
		Shed:    func(int64) int64 { return 0 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }() // ended by cancel
	heap := make([]byte, 192*mib)
	runtime.GC()
	if l := <-levels; l == Ample {
		t.Errorf("level %v", l)
	}
	runtime.KeepAlive(heap)
	for l := Critical; l != Ample; {
		l = <-levels
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
