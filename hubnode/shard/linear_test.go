package shard

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

var (
	linearSeeds = flag.Int("linear.seeds", 8, "how many `runs` of the linearizability test")
	linearFrom  = flag.Uint64("linear.from", 1, "the first `seed`")
)

// topicOp is one operation on a topic: an append of a value, or, without one, a
// read of all that is there.
type topicOp struct {
	topic string
	value string
}

// topicResult is what came of it.
type topicResult struct {
	first wire.Sequence // of an append
	all   string        // of a read: the values, each with a comma behind it
}

// topicModel is a topic that exists once: what is appended gets the next sequence
// and is seen by every read that begins later.
var topicModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make(map[string][]porcupine.Operation)
		for _, op := range history {
			in, _ := op.Input.(topicOp)
			parts[in.topic] = append(parts[in.topic], op)
		}
		var all [][]porcupine.Operation
		for _, part := range parts {
			all = append(all, part)
		}
		return all
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		have, _ := state.(string)
		in, _ := input.(topicOp)
		out, _ := output.(topicResult)
		if in.value == "" {
			return out.all == have, have
		}
		return int(out.first) == strings.Count(have, ",")+1, have + in.value + ","
	},
	DescribeOperation: func(input, output any) string {
		in, _ := input.(topicOp)
		out, _ := output.(topicResult)
		if in.value == "" {
			return fmt.Sprintf("read %s: %s", in.topic, out.all)
		}
		return fmt.Sprintf("append %s to %s: %d", in.value, in.topic, out.first)
	},
}

// Appends and reads of a topic are as if it existed once, whatever happens to the
// nodes: see the disturbances.
func TestTopicsAreLinearizable(t *testing.T) {
	for seed := *linearFrom; seed < *linearFrom+uint64(*linearSeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel() // they wait most of the time
			g := &group{t: t}
			if seed%2 == 0 {
				g.disks = newDisks()
			}
			linearRun(g.begin(3, 2), seed)
			if t.Failed() {
				t.Logf("again: make linear SEEDS=1 FROM=%d", seed)
			}
		})
	}
}

func linearRun(g *group, seed uint64) {
	t := g.t
	t.Helper()
	const clients, times = 4, 8
	start := time.Now()
	var (
		mu      sync.Mutex
		ops     []porcupine.Operation
		working sync.WaitGroup
		quiet   atomic.Bool // nothing happens to the nodes any more
	)
	for c := range clients {
		working.Go(func() {
			chance := rand.New(rand.NewPCG(seed, uint64(c)))
			numbers := make(map[string]uint64)
			for i := 0; !quiet.Load() || i < 10; i++ {
				<-time.After(time.Duration(chance.IntN(30)) * time.Millisecond) // so that the operations are spread over the disturbances
				op := topicOp{topic: string(rune('a' + chance.IntN(2)))}
				began := time.Since(start)
				var result topicResult
				if chance.IntN(3) > 0 {
					op.value = fmt.Sprintf("%d.%d", c, i)
					numbers[op.topic]++
					result.first = g.publish(op.topic, op.value, Publisher{ID: uint64(c + 1), Number: numbers[op.topic]})
				} else {
					result.all = g.readAll(op.topic)
				}
				mu.Lock()
				ops = append(ops, porcupine.Operation{ClientId: c, Input: op, Output: result, Call: int64(began), Return: int64(time.Since(start))})
				mu.Unlock()
			}
		})
	}
	happened := g.disturb(seed, times)
	quiet.Store(true)
	working.Wait()
	if result, _ := porcupine.CheckOperationsVerbose(topicModel, ops, time.Minute); result != porcupine.Ok { // not being sure is a failure too
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, op := range ops {
			t.Logf("%v to %v: %s", time.Duration(op.Call), time.Duration(op.Return), topicModel.DescribeOperation(op.Input, op.Output))
		}
		t.Errorf("not linearizable: %s, after %s", result, strings.Join(happened, ", "))
	}
}

// readAll reads a topic from whoever leads it, however often that takes.
func (g *group) readAll(topic string) string {
	var all string
	eventually(g.t, "read "+topic, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		leader := g.leader(topic)
		b, err := leader.shards.Bounds(ctx, topic)
		if err != nil {
			return false
		}
		all = ""
		err = leader.read(topic, func(run history.Run) {
			var a wire.Artifact
			values := wire.NewRunReader(run.Body)
			if ok, err := values.Next(&a); ok && err == nil && run.First < b.Next {
				all += string(a.Payload) + ","
			}
		})
		return err == nil
	})
	return all
}

// disturbance is something that happens to nodes, and is over when it returns.
type disturbance struct {
	what string
	do   func(g *group, chance *rand.Rand)
}

// disturbances are those that a group has to bear: with all in memory, and on disks.
func (g *group) disturbances() []disturbance {
	all := []disturbance{
		{"a node stands still", (*group).standsStill},
		{"a node is cut off", func(g *group, chance *rand.Rand) { g.parts(chance, true) }},
		{"two nodes are parted", func(g *group, chance *rand.Rand) { g.parts(chance, false) }},
		{"a node is not heard", func(g *group, chance *rand.Rand) { g.falls(chance, false) }},
		{"a node hears nothing", func(g *group, chance *rand.Rand) { g.falls(chance, true) }},
		{"the leadership is handed over", (*group).handsOver},
		{"a node loses what it has", (*group).losesAll},
	}
	if g.disks != nil {
		all = append(all,
			disturbance{"a node is killed", (*group).killed},
			disturbance{"a machine loses power", func(g *group, chance *rand.Rand) { g.powerFails(chance, name(chance.IntN(3))) }},
			disturbance{"all machines lose power", func(g *group, chance *rand.Rand) { g.powerFails(chance, name(0), name(1), name(2)) }},
			disturbance{"logs are cut", (*group).cutsLogs},
		)
	}
	return all
}

// disturb lets things happen, one after the other, and returns what it was.
func (g *group) disturb(seed uint64, times int) (happened []string) {
	chance := rand.New(rand.NewPCG(seed, 99))
	all := g.disturbances()
	for range times {
		g.lasts(chance, 150)
		d := all[chance.IntN(len(all))]
		happened = append(happened, d.what)
		d.do(g, chance)
	}
	return happened
}

// lasts takes some time, below a limit in milliseconds.
func (g *group) lasts(chance *rand.Rand, limit int) {
	<-time.After(time.Duration(chance.IntN(limit)) * time.Millisecond)
}

func (g *group) standsStill(chance *rand.Rand) {
	m := g.node(name(chance.IntN(3)))
	m.still.Lock()
	if g.disks != nil {
		g.disks.of(m.name).frozen.Lock()
	}
	g.lasts(chance, 400)
	if g.disks != nil {
		g.disks.of(m.name).frozen.Unlock()
	}
	m.still.Unlock()
}

func (g *group) parts(chance *rand.Rand, whole bool) {
	m := g.node(name(chance.IntN(3)))
	others := slices.DeleteFunc(g.members(), func(o *member) bool { return o == m })
	if !whole {
		others = others[:1]
	}
	for _, o := range others {
		g.unlink(m, o)
	}
	g.lasts(chance, 500)
	for _, o := range others {
		g.link(m, o)
	}
}

// falls makes what is sent to a node, or by it, vanish until the links are made anew.
func (g *group) falls(chance *rand.Rand, deaf bool) {
	m := g.node(name(chance.IntN(3)))
	others := slices.DeleteFunc(g.members(), func(o *member) bool { return o == m })
	for _, o := range others {
		from, to := m, o
		if deaf {
			from, to = o, m
		}
		from.linkTo(to.name).lost.Store(true)
	}
	g.lasts(chance, 500)
	for _, o := range others {
		g.unlink(m, o)
		g.link(m, o)
	}
}

func (g *group) handsOver(chance *rand.Rand) {
	for _, m := range g.members() {
		r := m.shards.replica(chance.IntN(2))
		if r == nil || !r.servesNow() {
			continue
		}
		var others []raft.ServerID
		for _, o := range r.members() {
			if o.ID != r.id {
				others = append(others, o.ID)
			}
		}
		_ = r.transfer(g.t.Context(), others) // it may not come to it
		return
	}
}

// losesAll kills a node and starts it with nothing. Only when the others have taken it
// in again is the group as strong as it was.
func (g *group) losesAll(chance *rand.Rand) {
	victim := name(chance.IntN(3))
	g.kill(victim)
	if g.disks != nil {
		g.disks.replace(victim, vfs.NewCrashableMem())
	}
	g.lasts(chance, 200)
	g.start(victim)
	eventually(g.t, "three voters again", func() bool { return g.voters(0) == 3 && g.voters(1) == 3 })
}

func (g *group) killed(chance *rand.Rand) {
	victim := name(chance.IntN(3))
	g.kill(victim)
	g.lasts(chance, 300)
	g.start(victim)
}

func (g *group) cutsLogs(chance *rand.Rand) {
	for _, m := range g.members() {
		if r := m.shards.replica(chance.IntN(2)); r != nil {
			_ = r.raft.Snapshot().Error() // there may be nothing to cut
		}
	}
}
