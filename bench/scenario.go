package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// scenario is one row: a piece of work that every system does.
type scenario struct {
	name    string
	servers int
	run     func(ctx context.Context, s system, scale float64) (result, error)
}

// result is what one run of a scenario found. Keys are metrics, such as
// "msg/s"; wrong says what did not come out right.
type result struct {
	metrics map[string]float64
	wrong   string
}

// The metrics, with the direction that is better.
const (
	perSecond  = "msg/s"
	cpuPerMsg  = "server CPU s/M"
	p50        = "p50 µs"
	p99        = "p99 µs"
	perConn    = "KiB/connection"
	connection = "connects/s"
)

var higherIsBetter = map[string]bool{perSecond: true, connection: true}

func scenarios() []scenario {
	var all []scenario
	for _, size := range []int{16, 128, 1024, 16384} {
		all = append(all, scenario{
			name: fmt.Sprintf("one to one, %d B", size), servers: 1,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return oneToOne(ctx, s, 0, 0, size, scaled(messages(size), scale))
			},
		})
	}
	return append(all,
		scenario{
			name: "one to one across nodes, 128 B", servers: 3,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return oneToOne(ctx, s, 0, 1, 128, scaled(messages(128), scale))
			},
		},
		scenario{
			name: "request and reply, one in flight, 128 B", servers: 1,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return echo(ctx, s, 128, scaled(5000, scale))
			},
		},
		scenario{
			name: "idle connections", servers: 1,
			run: func(ctx context.Context, s system, scale float64) (result, error) {
				return idle(ctx, s, scaled(2000, scale))
			},
		},
	)
}

// windowBytes bounds what a publisher is ahead of its subscriber.
const windowBytes = 4 << 20

// messages is how many of a size make a run of a second or two.
func messages(size int) int { return min(2_000_000, 2<<30/(size+512)) }

func scaled(n int, scale float64) int { return max(10, int(float64(n)*scale)) }

// oneToOne measures one publisher and one subscriber, on servers from and to.
func oneToOne(ctx context.Context, s system, from, to, size, count int) (result, error) {
	sub, err := s.connect(ctx, to)
	if err != nil {
		return result{}, err
	}
	defer sub.close()
	pub, err := s.connect(ctx, from)
	if err != nil {
		return result{}, err
	}
	defer pub.close()

	const topic, probe = "bench.one", "bench.probe"
	// No hub keeps what a subscriber is behind by without end, so the
	// publisher stays within a window, the same for all.
	window := int64(max(16, min(50_000, windowBytes/(size+64))))
	var received, bytes atomic.Int64
	done, probed, moved := make(chan struct{}), make(chan struct{}, 1), make(chan struct{}, 1)
	err = sub.subscribe(ctx, topic, func(b []byte) {
		bytes.Add(int64(len(b)))
		n := received.Add(1)
		if n%(window/4) == 0 {
			select {
			case moved <- struct{}{}:
			default:
			}
		}
		if n == int64(count) {
			close(done)
		}
	})
	if err != nil {
		return result{}, err
	}
	err = sub.subscribe(ctx, probe, func([]byte) {
		select {
		case probed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return result{}, err
	}
	if err := reach(ctx, pub, probe, probed); err != nil {
		return result{}, err
	}

	payload := make([]byte, size)
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	for i := range int64(count) {
		for i-received.Load() >= window {
			select {
			case <-moved:
			case <-ctx.Done():
				return result{}, fmt.Errorf("the subscriber has %d of %d: %w", received.Load(), i, ctx.Err())
			}
		}
		if err := pub.publish(ctx, topic, payload); err != nil {
			return result{}, err
		}
	}
	if err := pub.flush(ctx); err != nil {
		return result{}, err
	}
	r := result{metrics: make(map[string]float64)}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		r.wrong = fmt.Sprintf("%d of %d arrived", received.Load(), count)
	}
	took := time.Since(start)
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	if got := bytes.Load(); r.wrong == "" && got != int64(count*size) {
		r.wrong = fmt.Sprintf("%d bytes of %d arrived", got, count*size)
	}
	n := float64(received.Load())
	r.metrics[perSecond] = n / took.Seconds()
	r.metrics[cpuPerMsg] = (used - cpu) / n * 1e6
	return r, nil
}

// reach publishes until the subscriber hears it: the servers know of each
// other's subscriptions a little later.
func reach(ctx context.Context, pub conn, topic string, heard <-chan struct{}) error {
	return poll(ctx, func() error {
		if err := pub.publish(ctx, topic, nil); err != nil {
			return err
		}
		if err := pub.flush(ctx); err != nil {
			return err
		}
		select {
		case <-heard:
			return nil
		case <-time.After(10 * time.Millisecond):
			return fmt.Errorf("the subscriber hears nothing")
		}
	})
}

// echo measures round trips, one after another.
func echo(ctx context.Context, s system, size, count int) (result, error) {
	answerer, err := s.connect(ctx, 0)
	if err != nil {
		return result{}, err
	}
	defer answerer.close()
	asker, err := s.connect(ctx, 0)
	if err != nil {
		return result{}, err
	}
	defer asker.close()
	if err := answerer.serve(ctx); err != nil {
		return result{}, err
	}
	payload := make([]byte, size)
	for range count/10 + 1 { // warms both sides up
		if err := asker.request(ctx, answerer.id(), payload); err != nil {
			return result{}, err
		}
	}
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	took := make([]time.Duration, count)
	for i := range took {
		start := time.Now()
		if err := asker.request(ctx, answerer.id(), payload); err != nil {
			return result{}, err
		}
		took[i] = time.Since(start)
	}
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	slices.Sort(took)
	micros := func(q float64) float64 { return float64(took[int(q*float64(count-1))].Nanoseconds()) / 1000 }
	return result{metrics: map[string]float64{p50: micros(0.5), p99: micros(0.99), cpuPerMsg: (used - cpu) / float64(count) * 1e6}}, nil
}

// idle measures what connections cost that have nothing to say.
func idle(ctx context.Context, s system, count int) (result, error) {
	before, err := memoryOf(s)
	if err != nil {
		return result{}, err
	}
	var open []conn
	defer func() {
		for _, c := range open {
			c.close()
		}
	}()
	start := time.Now()
	for range count {
		c, err := s.connect(ctx, 0)
		if err != nil {
			return result{}, err
		}
		open = append(open, c)
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
