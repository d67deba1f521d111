package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
	"golang.org/x/sync/errgroup"
)

// routable measures from the return of Connect until a send from every other node
// has succeeded.
func routable(ctx context.Context, b *bench) error {
	for _, size := range []int{3, 10} {
		h, err := b.start(ctx, size, nil)
		if err != nil {
			return err
		}
		err = b.routable(ctx, h)
		h.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) routable(ctx context.Context, h *hub) error {
	const rounds = 300
	probes := make([]*client.Client, len(h.nodes))
	for i := range probes {
		var err error
		if probes[i], err = client.Connect(ctx, h.nodes[i].client, client.WithID(fmt.Sprintf("probe-%d", i))); err != nil {
			return err
		}
		defer func() { _ = probes[i].Close() }() // the nodes are gone before
	}
	times := make([]time.Duration, 0, rounds)
	failed := 0
	for round := range rounds {
		c, err := client.Connect(ctx, h.nodes[round%len(h.nodes)].client, client.WithID(id(round)))
		if err != nil {
			return err
		}
		begun := time.Now()
		var g sync.WaitGroup
		var wrong atomic.Int64
		for _, p := range probes {
			g.Go(func() {
				if p.Send(ctx, id(round), &wire.Artifact{}) != nil {
					wrong.Add(1)
				}
			})
		}
		g.Wait()
		times = append(times, time.Since(begun))
		failed += int(wrong.Load())
		_ = c.Close() // the next one has another id
	}
	what := fmt.Sprintf("%d nodes: connect returned → sent from every node", len(h.nodes))
	b.report("routable", what+", p50", percentile(times, 50), "ms", "")
	b.report("routable", what+", p99", percentile(times, 99), "ms", "≤ 50")
	b.report("routable", what+", first sends that failed", float64(failed), fmt.Sprintf("of %d", rounds*len(probes)), "0")
	return nil
}

// kill ends a node that all clients are on, and waits until they are routable from
// the others.
func kill(ctx context.Context, b *bench) error {
	h, err := b.start(ctx, 3, nil)
	if err != nil {
		return err
	}
	defer h.stop()
	all, err := gather(ctx, h.addresses(), b.clients, nil)
	if err != nil {
		return err
	}
	defer all.close()
	var probes []*client.Client
	for i := 1; i < 3; i++ {
		p, err := client.Connect(ctx, h.nodes[i].client, client.WithID(fmt.Sprintf("probe-%d", i)))
		if err != nil {
			return err
		}
		defer func() { _ = p.Close() }() // the nodes are gone before
		if err := reachAll(ctx, p, b.clients); err != nil {
			return err
		}
		probes = append(probes, p)
	}
	before := all.connects.Load()
	h.nodes[0].kill()
	begun := time.Now()
	if err := await(ctx, "all clients to be connected again", func() bool { return all.connects.Load() >= before+int64(b.clients) }); err != nil {
		return err
	}
	b.report("kill", fmt.Sprintf("%d clients of a killed node are connected elsewhere", b.clients), time.Since(begun).Seconds(), "s", "")
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range probes {
		g.Go(func() error {
			return reachAll(ctx, p, b.clients)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.report("kill", "… and were sent to from both other nodes", time.Since(begun).Seconds(), "s", "≤ 2")
	return nil
}

// death ends a node whose clients don't come back.
func death(ctx context.Context, b *bench) error {
	const clients = 100
	h, err := b.start(ctx, 3, nil)
	if err != nil {
		return err
	}
	defer h.stop()
	all, err := gather(ctx, h.nodes[0].client, clients, func(int) []client.Option {
		return []client.Option{client.WithMaxReconnects(0)}
	})
	if err != nil {
		return err
	}
	defer all.close()
	p, err := client.Connect(ctx, h.nodes[1].client, client.WithID("probe"))
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }() // its node is gone before
	if err := reachAll(ctx, p, clients); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	left := make(chan time.Time, 1)
	var updates, gone atomic.Int64
	var watchErr error // once watch is over
	var watch sync.WaitGroup
	ready := make(chan struct{})
	watch.Go(func() {
		watchErr = p.WatchPresence(watching, func(u client.PresenceUpdate) error { // ended by stop
			if u.Clients != nil {
				close(ready)
			}
			before := gone.Load()
			for _, e := range u.Events {
				if e.Kind == wire.PresenceLeft {
					gone.Add(1)
				}
			}
			if gone.Load() > before {
				updates.Add(1)
			}
			if gone.Load() == clients && before < clients {
				left <- time.Now()
			}
			return nil
		})
	})
	<-ready
	h.nodes[0].kill()
	begun := time.Now()
	var slowest, refused time.Duration
	for refused == 0 {
		asked := time.Now()
		err := p.Send(ctx, id(0), &wire.Artifact{})
		slowest = max(slowest, time.Since(asked))
		if _, nobody := errors.AsType[*client.NoClientError](err); nobody {
			refused = time.Since(begun)
		}
	}
	b.report("death", "a killed node's client: sends fail from", refused.Seconds(), "s", "≤ 1")
	b.report("death", "the slowest of these sends took", slowest.Seconds(), "s", "")
	select {
	case at := <-left:
		b.report("death", fmt.Sprintf("the leaves of its %d clients are told after", clients), at.Sub(begun).Seconds(), "s", "≤ 5")
	case <-time.After(time.Minute):
		stop()
		watch.Wait()
		return fmt.Errorf("of %d leaves %d are told: %w", clients, gone.Load(), watchErr)
	}
	stop()
	watch.Wait()
	b.report("death", "… in so many updates", float64(updates.Load()), "", "1")
	return nil
}

// drain stops a node on purpose while its clients are sent to.
func drain(ctx context.Context, b *bench) error {
	const (
		perSecond = 10_000
		senders   = 4
	)
	h, err := b.start(ctx, 3, nil)
	if err != nil {
		return err
	}
	defer h.stop()
	type receiver struct {
		mu   sync.Mutex
		next [senders]uint64
	}
	receivers := make([]receiver, b.clients)
	var (
		delays       [senders][]time.Duration
		delaysMu     [senders]sync.Mutex
		doubled, out atomic.Int64
		received     atomic.Int64
	)
	all, err := gather(ctx, h.addresses(), b.clients, func(i int) []client.Option {
		r := &receivers[i]
		return []client.Option{client.WithHandler(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			s, n := a.Payload[0], binary.BigEndian.Uint64(a.Payload[1:])
			delay := time.Since(a.Time)
			r.mu.Lock()
			switch next := r.next[s]; {
			case n == next:
				r.next[s]++
			case n < next:
				doubled.Add(1)
			default:
				out.Add(1)
				r.next[s] = n + 1
			}
			r.mu.Unlock()
			delaysMu[s].Lock()
			delays[s] = append(delays[s], delay)
			delaysMu[s].Unlock()
			received.Add(1)
			return nil, nil
		})}
	})
	if err != nil {
		return err
	}
	defer all.close()

	sending, stop := context.WithCancel(ctx)
	defer stop()
	var (
		sent, failed atomic.Int64
		g            sync.WaitGroup
	)
	for s := range senders {
		from, err := client.Connect(ctx, h.nodes[1+s%2].client, client.WithID(fmt.Sprintf("sender-%d", s)), client.WithInFlight(100_000))
		if err != nil {
			return err
		}
		defer func() { _ = from.Close() }() // the nodes are gone before
		g.Go(func() {
			numbers := make([]uint64, b.clients)
			acks := make(chan client.Ack, 200_000)
			var waiting sync.WaitGroup
			waiting.Go(func() {
				for ack := range acks {
					if _, err := ack.Wait(ctx); err != nil {
						failed.Add(1)
					}
				}
			})
			begun := time.Now()
			for n := 0; sending.Err() == nil; n++ {
				if due := begun.Add(time.Duration(n) * time.Second * senders / perSecond); n%10 == 0 {
					if pause(sending, time.Until(due)) != nil {
						break
					}
				}
				to := n % b.clients
				payload := binary.BigEndian.AppendUint64([]byte{byte(s)}, numbers[to])
				ack, err := from.SendAsync(ctx, id(to), &wire.Artifact{Time: time.Now(), Payload: payload})
				if err != nil {
					failed.Add(1)
					continue
				}
				numbers[to]++
				sent.Add(1)
				acks <- ack
			}
			close(acks)
			waiting.Wait()
		})
	}
	if err := pause(ctx, 3*time.Second); err != nil { // the load that is there before
		return err
	}
	for s := range senders {
		delaysMu[s].Lock()
		delays[s] = nil
		delaysMu[s].Unlock()
	}
	begun := time.Now()
	if err := h.nodes[0].cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := h.nodes[0].exited(ctx); err != nil {
		return err
	}
	took := time.Since(begun)
	stop()
	g.Wait()
	lost := func() int64 { return sent.Load() - failed.Load() - received.Load() + doubled.Load() }
	_ = await(ctx, "what was sent to arrive", func() bool { return lost() <= 0 || time.Since(begun) > took+10*time.Second })
	var delay []time.Duration
	for s := range senders {
		delay = append(delay, delays[s]...)
	}
	of := fmt.Sprintf("of %d", sent.Load())
	b.report("drain", fmt.Sprintf("a node with %d clients under %d artifacts/s ends after", b.clients, perSecond), took.Seconds(), "s", "≤ 60")
	b.report("drain", "artifacts lost", float64(max(0, lost())), of, "0")
	b.report("drain", "artifacts doubled", float64(doubled.Load()), of, "0")
	b.report("drain", "artifacts out of order", float64(out.Load()), of, "0")
	b.report("drain", "sends that failed", float64(failed.Load()), of, "0")
	b.report("drain", "delay while it drained, p50", percentile(delay, 50), "ms", "")
	b.report("drain", "delay while it drained, p99", percentile(delay, 99), "ms", "≤ 1000")
	return nil
}

// quiet turns off what would wake idle connections.
func quiet(cfg *config.Config) {
	cfg.HealthCheck.Interval = 0
	cfg.Limits.MaxClients = 1_000_000
}

// join measures how long a node takes that joins a hub with many clients.
func join(ctx context.Context, b *bench) error {
	const size = 9 // so that no node needs too many files
	h, err := b.start(ctx, size, quiet)
	if err != nil {
		return err
	}
	defer h.stop()
	var crowd idlers
	defer crowd.close()
	if err := crowd.connect(ctx, h, b.idle); err != nil {
		return err
	}
	begun := time.Now()
	n, err := h.add(size)
	if err != nil {
		return err
	}
	if err := n.awaitReady(ctx); err != nil {
		return err
	}
	b.report("join", fmt.Sprintf("a node that joins a hub of %d with %d clients is ready after", size, b.idle), time.Since(begun).Seconds(), "s", "≤ 3")
	return nil
}

// idle measures what ten nodes do when nobody does anything: without clients, which
// is gossip and the links between nodes alone, and with many. The kernel's own
// keep-alives of so many connections are then most of the bytes.
func idle(ctx context.Context, b *bench) error {
	const size = 10
	h, err := b.start(ctx, size, quiet)
	if err != nil {
		return err
	}
	defer h.stop()
	if err := b.idleCost(ctx, h, "idle", fmt.Sprintf("an idle hub of %d nodes without clients: ", size), "≤ 10"); err != nil {
		return err
	}
	var crowd idlers
	defer crowd.close()
	if err := crowd.connect(ctx, h, b.idle); err != nil {
		return err
	}
	return b.idleCost(ctx, h, "idle", fmt.Sprintf("… with %d: ", b.idle), "")
}

// pause returns after a while, or with an error when ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idleCost measures what the nodes do meanwhile.
func (b *bench) idleCost(ctx context.Context, h *hub, step, what, bytesTarget string) error {
	if err := pause(ctx, b.span/3); err != nil { // what came before is over then
		return err
	}
	before, err := h.cost()
	if err != nil {
		return err
	}
	if err := pause(ctx, b.span); err != nil {
		return err
	}
	after, err := h.cost()
	if err != nil {
		return err
	}
	nodes := float64(len(h.nodes))
	b.report(step, what+"CPU of a node", (after.cpu-before.cpu)/b.span.Seconds()/nodes*100, "% of a core", "≤ 1")
	b.report(step, what+"bytes of everybody on loopback, for each node", float64(after.bytes-before.bytes)/b.span.Seconds()/nodes/1000, "kB/s", bytesTarget)
	b.report(step, what+"memory of a node", float64(after.memory)/nodes/(1<<20), "MiB", "")
	return nil
}

type cost struct {
	cpu    float64 // seconds, of all nodes
	bytes  int64   // sent on loopback, by everybody
	memory int64   // resident
}

func (h *hub) cost() (c cost, err error) {
	for _, n := range h.nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
		if err != nil {
			return c, err
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		for _, i := range []int{11, 12} { // user and system time, in hundredths of a second
			ticks, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return c, err
			}
			c.cpu += ticks / 100
		}
		pages, err := strconv.ParseInt(fields[21], 10, 64)
		if err != nil {
			return c, err
		}
		c.memory += pages * int64(os.Getpagesize())
	}
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		if name, counts, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "lo" {
			c.bytes, err = strconv.ParseInt(strings.Fields(counts)[8], 10, 64)
		}
	}
	return c, err
}
