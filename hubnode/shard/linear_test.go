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

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

var (
	linearSeeds = flag.Int("linear.seeds", 4, "how many `runs` of the linearizability test")
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
// nodes: they die, come back with nothing, and lose sight of each other.
func TestTopicsAreLinearizable(t *testing.T) {
	for seed := *linearFrom; seed < *linearFrom+uint64(*linearSeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := ""
			if seed%2 == 0 {
				dir = t.TempDir()
			}
			linearRun(t, seed, dir)
			if t.Failed() {
				t.Logf("again: go test ./hubnode/shard -run TestTopicsAreLinearizable -linear.from %d -linear.seeds 1", seed)
			}
		})
	}
}

func linearRun(t *testing.T, seed uint64, dir string) {
	t.Helper()
	const clients, disturbances = 4, 5
	g := newGroup(t, 3, 2, dir)
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
	g.disturb(seed, disturbances)
	quiet.Store(true)
	working.Wait()
	if result, _ := porcupine.CheckOperationsVerbose(topicModel, ops, time.Minute); result != porcupine.Ok {
		slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, op := range ops {
			t.Logf("%v to %v: %s", time.Duration(op.Call), time.Duration(op.Return), topicModel.DescribeOperation(op.Input, op.Output))
		}
		t.Errorf("not linearizable: %s", result)
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

// disturb kills nodes and cuts links, one at a time.
func (g *group) disturb(seed uint64, times int) {
	chance := rand.New(rand.NewPCG(seed, 99))
	for range times {
		pause := time.NewTimer(time.Duration(chance.IntN(150)) * time.Millisecond)
		<-pause.C
		victim := name(chance.IntN(3))
		if chance.IntN(2) == 0 {
			g.kill(victim)
			<-time.After(time.Duration(chance.IntN(200)) * time.Millisecond)
			g.start(victim)
			eventually(g.t, "three voters again", func() bool { return g.voters(0) == 3 && g.voters(1) == 3 })
			continue
		}
		m := g.node(victim)
		var others []*member
		for i := range 3 {
			if o := g.node(name(i)); o != m {
				others = append(others, o)
			}
		}
		if chance.IntN(2) == 0 { // of one link only
			others = others[:1]
		}
		for _, o := range others {
			g.unlink(m, o)
		}
		<-time.After(time.Duration(chance.IntN(500)) * time.Millisecond)
		for _, o := range others {
			g.link(m, o)
		}
	}
}
