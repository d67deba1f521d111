package shard

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/wire"
)

// fetchTest is a group of which one node was away for so long that its replica has to fetch.
type fetchTest struct {
	*group
	away *member
	want []string // topic "a" holds
}

// eachSource runs a test with a source of this version, and one of the version before.
func eachSource(t *testing.T, test func(g *group)) {
	t.Helper()
	source := name(placement.Replicas(0, 3, 3)[0]) // where the leadership belongs
	for what, old := range map[string]string{"this version": "", "the version before": source} {
		t.Run(what, func(t *testing.T) {
			storages(t, func(t *testing.T, dir string) {
				t.Helper()
				test(&group{t: t, dir: dir, old: old, timing: Timing{Heartbeat: time.Second, Commit: quick.Commit, Tend: quick.Tend}})
			})
		})
	}
}

// leave starts the group and cuts one node off, which has three artifacts.
func (g *group) leave() *fetchTest {
	g.t.Helper()
	f := &fetchTest{group: g.begin(3, 1)}
	f.publish(3)
	eventually(g.t, "three voters, and the leader where it belongs", func() bool {
		return g.voters(0) == 3 && g.leader("a").name == g.desired(0)[0]
	})
	f.away = g.node(g.desired(0)[2])
	eventually(g.t, "all artifacts on "+f.away.name, func() bool { return slices.Equal(f.away.held("a"), f.want) })
	g.cutOff(f.away)
	return f
}

func (f *fetchTest) publish(n int) {
	f.t.Helper()
	for range n {
		f.want = append(f.want, fmt.Sprint(len(f.want)))
		f.group.publish("a", f.want[len(f.want)-1], Publisher{ID: 1, Number: uint64(len(f.want))})
	}
}

// comeBack lets the node come back to logs that no longer reach back to where it was.
func (f *fetchTest) comeBack() {
	f.t.Helper()
	for _, m := range f.members() {
		if m != f.away {
			m.cutLog(f.t)
		}
	}
	f.rejoin(f.away)
}

func isFetching(question string) bool {
	return question == questionPage || question == questionStretch
}

// A replica fetches, and the one that it fetches from is found damaged and made anew: that has
// nothing yet, which is not what retention has left.
func TestAReplicaThatIsMadeAnewIsNoSource(t *testing.T) {
	eachSource(t, func(g *group) {
		t, source, goOn := g.t, make(chan string), make(chan struct{})
		t.Helper()
		var first sync.Once
		g.asking = func(_, to, question string) {
			if isFetching(question) {
				first.Do(func() {
					source <- to
					<-goOn
				})
			}
		}
		f := g.leave()
		f.publish(2 * trailingLogs)
		f.comeBack()
		from := g.node(<-source)
		if g.old != "" && !from.old {
			close(goOn)
			return // there is nothing to see: the leadership has moved away from the old node
		}
		damaged := from.shards.replica(0)
		damaged.fail(history.ErrCorrupt)
		eventually(t, "the source is made anew", func() bool { // and stays empty: there is no majority while the other one fetches
			r := from.shards.replica(0)
			return r != nil && r != damaged
		})
		close(goOn)
		eventually(t, "three voters again", func() bool { return g.voters(0) == 3 })
		for _, m := range g.members() {
			eventually(t, "all artifacts on "+m.name, func() bool { return slices.Equal(m.held("a"), f.want) })
		}
	})
}

// What retention has taken, to the last artifact, is not waited for.
func TestWhatRetentionTookIsNotFetched(t *testing.T) {
	eachSource(t, func(g *group) {
		t := g.t
		t.Helper()
		var fetches atomic.Bool
		g.asking = func(_, _, question string) {
			if isFetching(question) {
				fetches.Store(true)
			}
		}
		f := g.leave()
		f.publish(2 * trailingLogs)
		next := wire.Sequence(len(f.want)) + 1
		eventually(t, "the topic is emptied", func() bool {
			_, err := g.leader("a").shards.Purge(t.Context(), "a", next)
			return err == nil
		})
		f.comeBack()
		eventually(t, "it is empty on "+f.away.name, func() bool {
			store, ok := f.away.shards.Held("a")
			if !ok {
				return false
			}
			b, _, err := store.Bounds("a")
			return err == nil && b.Next == next && b.First == next
		})
		if !fetches.Load() {
			t.Error("it did not fetch")
		}
		g.publish("a", "more", Publisher{})
		eventually(t, "what follows", func() bool { return slices.Equal(f.away.held("a"), []string{"more"}) })
	})
}

// replicaOf returns a replica that has a store and nothing else, in its place among shards that
// don't run.
func replicaOf(store history.Store) *replica {
	log := slog.New(slog.DiscardHandler)
	s := New(Config{Self: "n-0", Shards: 1, Log: log})
	r := &replica{s: s, id: "n-0/1", store: store, machine: newMachine(store), log: log}
	s.replicas[0] = r
	return r
}

func TestAReplicaAnswersForWhatItHad(t *testing.T) {
	store := history.NewMemory()
	for topic, first := range map[string]wire.Sequence{"kept": 1, "cut": 5, "gone": 5} {
		for i := range wire.Sequence(9) {
			if err := store.Append(time.Now(), topic, history.Limits{MaxArtifacts: 9}, history.Run{First: i + 1, Count: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Purge(topic, first); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Purge("gone", 10); err != nil {
		t.Fatal(err)
	}
	r := replicaOf(store)
	for what, test := range map[string]struct {
		of          raft.ServerID
		topic       string
		from, until wire.Sequence
		first       wire.Sequence // of the page; 0: it is empty
		err         error
	}{
		"all":                              {r.id, "kept", 1, 10, 1, nil},
		"the end":                          {r.id, "kept", 9, 10, 9, nil},
		"retention took the beginning":     {r.id, "cut", 1, 10, 5, nil},
		"retention took all":               {r.id, "gone", 1, 10, 0, nil},
		"more than there is":               {r.id, "kept", 1, 11, 0, errFetching},
		"more than there was":              {r.id, "gone", 1, 11, 0, errFetching},
		"a topic that is not there":        {r.id, "none", 1, 2, 0, errFetching},
		"another replica":                  {"n-0/2", "kept", 1, 10, 0, errChanging},
		"before: all":                      {"", "kept", 1, 0, 1, nil},
		"before: retention took all":       {"", "gone", 1, 0, 0, nil},
		"before: more than there is":       {"", "kept", 10, 0, 0, errFetching},
		"before: more than there was":      {"", "gone", 10, 0, 0, errFetching},
		"before: a topic that isn't there": {"", "none", 1, 0, 0, errFetching},
	} {
		t.Run(what, func(t *testing.T) {
			want := stretch{of: test.of, topic: test.topic, from: test.from, until: test.until}
			question, body := questionStretch, want.encode()
			if test.of == "" {
				question, body = questionPage, want.encodePage()
			}
			answer, ok, err := r.s.Answer(t.Context(), question, body)
			if !ok || !errors.Is(err, test.err) || err != nil && test.err == nil {
				t.Fatalf("%v, want %v", err, test.err)
			}
			page, err := decodeRuns(answer)
			if err != nil {
				t.Fatal(err)
			}
			var first wire.Sequence
			if len(page) > 0 {
				first = page[0].First
			}
			if first != test.first {
				t.Errorf("the page begins at %d, want %d", first, test.first)
			}
		})
	}
	r.fail(history.ErrCorrupt)
	if _, _, err := r.s.Answer(t.Context(), questionStretch, stretch{of: r.id, topic: "kept", from: 1, until: 10}.encode()); !errors.Is(err, errChanging) {
		t.Errorf("damage was found in it: %v, want %v", err, errChanging)
	}
}

// emptied is a store that is emptied just before it is read.
type emptied struct {
	history.Store
	r      *replica
	bounds bool // also by who asks for the bounds
}

func (e *emptied) Bounds(topic string) (history.Bounds, bool, error) {
	if e.bounds {
		if err := e.empty(); err != nil {
			return history.Bounds{}, false, err
		}
	}
	return e.Store.Bounds(topic)
}

func (e *emptied) Topics(visit func(topic string, b history.Bounds) bool) error {
	if err := e.empty(); err != nil {
		return err
	}
	return e.Store.Topics(visit)
}

func (e *emptied) empty() error {
	e.r.s.mu.Lock()
	delete(e.r.s.replicas, e.r.n)
	e.r.s.mu.Unlock()
	return e.Clear()
}

func (e *emptied) Read(topic string, from wire.Sequence, maxBytes int, visit func(history.Run)) (wire.Sequence, error) {
	if err := e.empty(); err != nil {
		return 0, err
	}
	return e.Store.Read(topic, from, maxBytes, visit)
}

func (e *emptied) SequenceAt(topic string, at time.Time) (wire.Sequence, error) {
	if err := e.empty(); err != nil {
		return 0, err
	}
	return e.Store.SequenceAt(topic, at)
}

func emptiedOf(t *testing.T, r *replica) *emptied {
	t.Helper()
	e, ok := r.store.(*emptied)
	if !ok {
		t.Fatalf("the store is a %T", r.store)
	}
	return e
}

// A replica is taken out, and its store emptied, while somebody reads from it. That there is
// nothing is not an answer then.
func TestAReplicaThatIsTakenOutDoesNotAnswer(t *testing.T) {
	for what, read := range map[string]func(r *replica) error{
		"a replica that fetches": func(r *replica) error {
			_, _, err := r.s.Answer(t.Context(), questionStretch, stretch{of: r.id, topic: "a", from: 1, until: 2}.encode())
			return err
		},
		"a reader": func(r *replica) error {
			store, _ := r.s.Held("a")
			_, err := store.Read("a", 1, 1, func(history.Run) {})
			return err
		},
		"a reader that asks where an age begins": func(r *replica) error {
			store, _ := r.s.Held("a")
			_, err := store.SequenceAt("a", time.Time{})
			return err
		},
		"a reader that asks for the bounds": func(r *replica) error {
			store, _ := r.s.Held("a")
			emptiedOf(t, r).bounds = true
			_, _, err := store.Bounds("a")
			return err
		},
		"a reader that asks for the topics": func(r *replica) error {
			store, _ := r.s.Held("a")
			return store.Topics(func(string, history.Bounds) bool { return true })
		},
		"a leader that lists what it has": func(r *replica) error {
			emptiedOf(t, r).bounds = true
			_, err := r.bounds("a")
			return err
		},
		"a leader that gives out work": func(r *replica) error {
			emptiedOf(t, r).bounds = true
			_, err := r.s.Fetch(t.Context(), "a", "workers", durable.Request{Member: "m", Max: 1})
			return err
		},
		"a leader that counts": func(r *replica) error {
			r.serving = true
			if all := r.s.Tallies(func(string) string { return "all" }); len(all) > 0 {
				return fmt.Errorf("it counted %v", all)
			}
			return errChanging
		},
	} {
		t.Run(what, func(t *testing.T) {
			store := &emptied{Store: history.NewMemory()}
			if err := store.Append(time.Now(), "a", history.Limits{MaxArtifacts: 9}, history.Run{First: 1, Count: 1}); err != nil {
				t.Fatal(err)
			}
			store.r = replicaOf(store)
			if err := read(store.r); !errors.Is(err, errChanging) {
				t.Errorf("it got %v, want %v", err, errChanging)
			}
		})
	}
}
