package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// scenario is one piece of work that every system does which can.
type scenario struct {
	name    string
	servers int
	run     func(ctx context.Context, s system, scale float64) (result, error)
	targets map[string]float64 // metric → ratio to the peer that is aimed at
	time    time.Duration      // that one run may take; 0: onceTime
	storage storage            // of systems that keep history
	versus  string             // the start of the peer's name; empty: the best one

	guard guard // the hub with it, and as its peer without: nobody else
}

// guard is what a hub does about strangers.
type guard int

const (
	unguarded guard = iota
	byTLS           // it encrypts
	byRules         // clients prove who they are, and do what rules allow
	byPace          // it takes so many connections in a second
)

// result is what one run of a scenario found. Keys are metrics; wrong says what
// did not come out right.
type result struct {
	metrics map[string]float64
	wrong   string
}

// The metrics.
const (
	perSecond  = "msg/s"
	cpuPerMsg  = "server CPU s/M"
	p50        = "p50 µs"
	p99        = "p99 µs"
	perConn    = "KiB/connection"
	connection = "connects/s"
	calmP99    = "p99 µs before"
	peakMiB    = "peak MiB"
	assaults   = "malformed/s"
	calmMiB    = "MiB before"
)

// metrics are in the order of the report; with each whether more is better.
var metrics = []struct {
	name   string
	higher bool
}{{perSecond, true}, {p50, false}, {p99, false}, {connection, true}, {perConn, false}, {cpuPerMsg, false}, {calmP99, false}, {peakMiB, false}, {calmMiB, false}, {assaults, true}}

const (
	pumpTime  = time.Second
	openTime  = 2 * time.Second
	openRate  = 50_000
	echoCount = 10_000
	manyCount = 150_000
	replayAll = 1_000_000
	keepAll   = 500_000
	keepSlow  = 50_000
	idleAll   = 10_000
	dialers   = 16 // connect at a time
)

func lasting(d time.Duration, scale float64) time.Duration {
	return max(20*time.Millisecond, time.Duration(float64(d)*scale))
}

func scaled(n int, scale float64) int { return max(10, int(float64(n)*scale)) }

// goals are the targets of a throughput scenario.
func goals(rate, cpu float64) map[string]float64 {
	return map[string]float64{perSecond: rate, cpuPerMsg: cpu}
}

// pumping is a scenario of flows at full speed.
func pumping(name string, servers, size int, targets map[string]float64, flows ...flow) scenario {
	return scenario{name: name, servers: servers, targets: targets, run: func(ctx context.Context, s system, scale float64) (result, error) {
		return pump(ctx, s, flows, size, lasting(pumpTime, scale))
	}}
}

// keeping is a scenario of publishes that a topic's history keeps, each acknowledged.
func keeping(name string, servers, count int, how storage, targets map[string]float64) scenario {
	return scenario{name: name, servers: servers, storage: how, targets: targets, run: func(ctx context.Context, s system, scale float64) (result, error) {
		return keep(ctx, s, 128, scaled(count, scale))
	}}
}

func echoing(name string, servers, inFlight, count int, targets map[string]float64) scenario {
	return scenario{name: name, servers: servers, targets: targets, run: func(ctx context.Context, s system, scale float64) (result, error) {
		return echo(ctx, s, 0, servers/2, 128, scaled(count, scale), inFlight)
	}}
}

func timing(name string, servers int, targets map[string]float64) scenario {
	return scenario{name: name, servers: servers, targets: targets, versus: "nats", run: func(ctx context.Context, s system, scale float64) (result, error) {
		return openLoop(ctx, s, servers/2, 128, openRate, lasting(openTime, scale))
	}}
}

// guarding is pumping for one node with a guard and without.
func guarding(g guard, name string, size int, targets map[string]float64, flows ...flow) scenario {
	return guarded(g, pumping(name, 1, size, targets, flows...))
}

// guarded is a scenario with a guard and without.
func guarded(g guard, sc scenario) scenario {
	sc.guard, sc.versus = g, ""
	return sc
}

// many is n subscribers on one server.
func many(n int) flow { return flow{to: make([]int, n)} }

func times(f flow, n int) []flow {
	all := make([]flow, n)
	for i := range all {
		all[i] = f
	}
	return all
}

// scenarios are the rows of the table, with the targets of the project.
func scenarios() []scenario {
	const node, cluster = 1, 3
	here, across := flow{to: []int{0}}, flow{to: []int{1}}
	direct, directAcross := flow{to: []int{0}, direct: true}, flow{to: []int{1}, direct: true}
	return []scenario{
		pumping("a: publish only, 128 B", node, 128, goals(2, 0.4), flow{alone: true}),
		pumping("b: one to one, 16 B", node, 16, goals(3, 0.15), here),
		pumping("b: one to one, 128 B", node, 128, goals(2.75, 0.2), here),
		pumping("b: one to one, 1 KiB", node, 1<<10, goals(1.4, 0.45), here),
		pumping("b: one to one, 16 KiB", node, 16<<10, goals(1.25, 0.6), here),
		pumping("b: one to one, 100 topics in turn, 128 B", node, 128, nil, flow{to: []int{0}, inTurn: 100}),
		pumping("c: fan-out 1:10, 128 B", node, 128, goals(2.5, 0.35), many(10)),
		pumping("c: fan-out 1:100, 128 B", node, 128, goals(2.75, 0.35), many(100)),
		pumping("c: fan-out 1:1000, 128 B", node, 128, goals(3, 0.35), many(1000)),
		pumping("d: 8 to 8, 128 B", node, 128, goals(3.75, 0.15), times(here, 8)...),
		pumping("e: across nodes, 128 B", cluster, 128, goals(3.5, 0.2), across),
		pumping("e: across nodes, 16 KiB", cluster, 16<<10, goals(1.4, 0.5), across),
		pumping("f: direct, 128 B", node, 128, goals(2.75, 0.2), direct),
		pumping("f: direct across nodes, 128 B", cluster, 128, goals(4, 0.15), directAcross),
		echoing("g: echo, 1 in flight, 128 B", node, 1, echoCount, map[string]float64{p50: 0.8, p99: 1, cpuPerMsg: 1}),
		echoing("g: echo, 64 in flight, 128 B", node, 64, manyCount, goals(1.75, 0.6)),
		echoing("g: echo across nodes, 64 in flight, 128 B", cluster, 64, manyCount, goals(3, 0.35)),
		timing("h: open loop 50 k/s, 128 B", node, map[string]float64{p50: 0.7, p99: 0.5, cpuPerMsg: 0.7}),
		timing("h: open loop 50 k/s across nodes, 128 B", cluster, map[string]float64{p50: 0.7, p99: 1, cpuPerMsg: 0.7}),
		{
			name: "i: replay of 1,000,000 from memory, 128 B", servers: node, targets: goals(1.5, 0.7),
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return replay(ctx, s, 128, scaled(replayAll, scale))
			},
		},
		{
			name: "i: replay of 1,000,000 from disk, 128 B", servers: node, targets: map[string]float64{perSecond: 1.5}, storage: storage{disk: true},
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return replay(ctx, s, 128, scaled(replayAll, scale))
			},
		},
		keeping("k: publish to history, memory, one server, 128 B", node, keepAll, storage{}, map[string]float64{perSecond: 1.5}),
		keeping("k: publish to history, memory, three servers, 128 B", cluster, keepAll, storage{everywhere: true}, goals(5, 0.2)),
		keeping("k: publish to history, disk, three servers, 128 B", cluster, keepAll, storage{everywhere: true, disk: true}, goals(3, 0.2)),
		keeping("k: publish to history, disk synced, three servers, 128 B", cluster, keepAll, storage{everywhere: true, disk: true, synced: true}, goals(1, 0.2)),
		keeping("k: publish to history, disk synced by peers too, three servers, 128 B", cluster, keepSlow, storage{everywhere: true, disk: true, synced: true, peersSync: true}, goals(1, 0.2)),
		{
			name: "j: 10,000 idle connections", servers: node, versus: "nats", targets: map[string]float64{connection: 2},
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return idle(ctx, s, scaled(idleAll, scale))
			},
		},
		assaulted("o: beside hostile clients, 2,000 a second, 128 B", assault{malformed: hostileMin, rate: 2000, halfOpen: halfOpenAll}),
		assaulted("o: beside 1,000,000 hostile clients, 5,000 a second, 128 B", assault{malformed: hostileAll, rate: 5000, halfOpen: halfOpenAll}),
		guarded(byPace, assaulted("o: beside hostile clients, 5,000 a second, 2,000 taken, 128 B", assault{malformed: hostileMin, rate: 5000, halfOpen: halfOpenAll})),
		guarding(byTLS, "l: TLS, one to one, 128 B", 128, nil, here),
		guarding(byTLS, "l: TLS, one to one, 1 KiB", 1<<10, map[string]float64{cpuPerMsg: 1.6}, here),
		guarding(byTLS, "l: TLS, one to one, 16 KiB", 16<<10, nil, here),
		guarding(byTLS, "l: TLS, fan-out 1:10, 1 KiB", 1<<10, nil, many(10)),
		guarding(byTLS, "l: TLS, one to one, 100 topics in turn, 1 KiB", 1<<10, nil, flow{to: []int{0}, inTurn: 100}),
		{
			name: "l: TLS, open loop 50 k/s, 1 KiB", servers: node, guard: byTLS, targets: map[string]float64{cpuPerMsg: 1.6},
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return openLoop(ctx, s, 0, 1<<10, openRate, lasting(openTime, scale))
			},
		},
		guarded(byTLS, pumping("m: TLS between nodes, 128 B", cluster, 128, nil, across)),
		guarded(byTLS, pumping("m: TLS between nodes, 1 KiB", cluster, 1<<10, nil, across)),
		guarded(byTLS, pumping("m: TLS between nodes, 16 KiB", cluster, 16<<10, nil, across)),
		guarded(byTLS, echoing("m: TLS between nodes, echo, 64 in flight, 128 B", cluster, 64, manyCount, nil)),
		guarded(byTLS, timing("m: TLS between nodes, open loop 50 k/s, 128 B", cluster, nil)),
		guarded(byTLS, keeping("m: TLS between nodes, publish to history, memory, 128 B", cluster, keepAll, storage{everywhere: true}, nil)),
		{
			name: "l: TLS, 10,000 idle connections, resumed", servers: node, guard: byTLS,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return resuming(ctx, s, scaled(idleAll, scale))
			},
		},
		guarding(byRules, "n: rules, one to one, 128 B", 128, map[string]float64{cpuPerMsg: 1.03}, here),
		guarding(byRules, "n: rules, fan-out 1:10, 128 B", 128, map[string]float64{cpuPerMsg: 1.03}, many(10)),
		guarding(byRules, "n: rules, one to one, 100 topics in turn, 128 B", 128, map[string]float64{cpuPerMsg: 1.03}, flow{to: []int{0}, inTurn: 100}),
		{
			name: "n: rules, 10,000 idle connections", servers: node, guard: byRules,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return idle(ctx, s, scaled(idleAll, scale))
			},
		},
	}
}

// keptTopic is what is published to and replayed.
const keptTopic = "kept.bench"

// keep measures how fast history takes what is published, until all is
// acknowledged, and looks whether it is there.
func keep(ctx context.Context, s system, size, count int) (result, error) {
	k, ok := s.(keeper)
	if !ok {
		return result{}, errCannot
	}
	warmUp := max(10, count/100)
	if err := k.fill(ctx, keptTopic, make([]byte, size), warmUp); err != nil {
		return result{}, err
	}
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	if err := k.fill(ctx, keptTopic, make([]byte, size), count); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	r, err := replayAgain(ctx, k, size, warmUp+count)
	r.metrics = map[string]float64{perSecond: float64(count) / took.Seconds(), cpuPerMsg: (used - cpu) / float64(count) * 1e6}
	return r, err
}

// replay measures how fast a late joiner gets a topic's history.
func replay(ctx context.Context, s system, size, count int) (result, error) {
	k, ok := s.(keeper)
	if !ok {
		return result{}, errCannot
	}
	if err := k.fill(ctx, keptTopic, make([]byte, size), count); err != nil {
		return result{}, err
	}
	return replayAgain(ctx, k, size, count)
}

// replayAgain replays what is there.
func replayAgain(ctx context.Context, s keeper, size, count int) (result, error) {
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	got := &tally{size: size, want: int64(count), done: make(chan struct{})}
	start := time.Now()
	stop, err := s.replay(ctx, keptTopic, got)
	if stop != nil {
		defer stop()
	}
	if err != nil {
		return result{}, err
	}
	r := result{metrics: make(map[string]float64)}
	select {
	case <-got.done:
	case <-time.After(settleTime):
		r.wrong = fmt.Sprintf("%d of %d arrived", got.count.Load(), count)
	}
	took := time.Since(start)
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	if got.wrong.Load() {
		r.wrong = "something of another size arrived"
	}
	n := float64(got.count.Load())
	r.metrics[perSecond] = n / took.Seconds()
	r.metrics[cpuPerMsg] = (used - cpu) / n * 1e6
	return r, nil
}

// tally counts until a number is reached.
type tally struct {
	size  int
	want  int64
	count atomic.Int64
	wrong atomic.Bool
	done  chan struct{}
}

func (t *tally) message(m message) {
	if len(m.payload) != t.size {
		t.wrong.Store(true)
	}
	if t.count.Add(1) == t.want {
		close(t.done)
	}
}

func (t *tally) drained() {}

// idle measures what connections cost that have nothing to say.
func idle(ctx context.Context, s system, count int) (result, error) {
	before, err := memoryOf(s)
	if err != nil {
		return result{}, err
	}
	open := make([]conn, count)
	defer func() {
		for _, c := range open {
			if c != nil {
				c.close()
			}
		}
	}()
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range open {
		g.Go(func() (err error) {
			open[i], err = s.connect(gctx, 0, fmt.Sprintf("idle-%d", i), nobody{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	after, err := memoryOf(s)
	if err != nil {
		return result{}, err
	}
	return result{metrics: map[string]float64{
		perConn:    float64(after-before) / float64(count) / 1024,
		connection: float64(count) / took.Seconds(),
	}}, nil
}

// cpuOf sums what a system's servers have used, in seconds.
func cpuOf(s system) (float64, error) {
	sum := 0.0
	for _, pid := range s.processes() {
		used, err := cpuSeconds(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func memoryOf(s system) (int64, error) {
	var sum int64
	for _, pid := range s.processes() {
		bytes, err := residentBytes(pid)
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return sum, nil
}
