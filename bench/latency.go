package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// percentiles returns the median and the 99th percentile, in microseconds.
func percentiles(took []time.Duration) (median, high float64) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	micros := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1000 }
	return micros(0.5), micros(0.99)
}

// openLoop measures one-way latency from the first server at a fixed rate. The publisher keeps to its
// schedule whatever the server does, and each message carries the moment that it
// was due: what waits because the publisher or the server is late counts.
func openLoop(ctx context.Context, s system, to, size, rate int, lasts time.Duration) (result, error) {
	got := &stamps{start: time.Now()}
	sub, err := s.connect(ctx, to, "timed-sub", got)
	if err != nil {
		return result{}, err
	}
	defer sub.close()
	const topic = "bench.timed"
	if err := sub.subscribe(ctx, topic); err != nil {
		return result{}, err
	}
	pub, err := s.connect(ctx, 0, "timed-pub", nobody{})
	if err != nil {
		return result{}, err
	}
	defer pub.close()
	err = poll(ctx, func() error {
		pub.publish(topic, make([]byte, size), 1)
		if err := pub.write(); err != nil {
			return err
		}
		if err := pub.sync(ctx); err != nil {
			return err
		}
		if got.len() == 0 {
			return fmt.Errorf("the subscriber hears nothing")
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	warm, err := timed(ctx, pub, topic, got, size, rate, lasts/10)
	if err != nil {
		return result{}, err
	}
	if err := poll(ctx, func() error { return got.complete(warm) }); err != nil {
		return result{}, err
	}
	cpu, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	sent, err := timed(ctx, pub, topic, got, size, rate, lasts)
	if err != nil {
		return result{}, err
	}
	r := result{metrics: make(map[string]float64)}
	deadline, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := poll(deadline, func() error { return got.complete(sent) }); err != nil {
		r.wrong = err.Error()
	}
	used, err := cpuOf(s)
	if err != nil {
		return result{}, err
	}
	r.metrics[p50], r.metrics[p99] = percentiles(got.all())
	r.metrics[cpuPerMsg] = (used - cpu) / float64(sent) * 1e6
	return r, nil
}

// timed publishes by the schedule and returns how many messages.
func timed(ctx context.Context, pub conn, topic string, got *stamps, size, rate int, lasts time.Duration) (int, error) {
	// A thread of its own, which sleeps in the kernel: timers of the Go runtime
	// are up to a millisecond late in a program that is idle.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	got.reset()
	payload := make([]byte, size)
	between := time.Second / time.Duration(rate)
	total := int(lasts / between)
	start := time.Now()
	for sent := 0; sent < total; {
		due := min(total, int(time.Since(start)/between)+1)
		for ; sent < due; sent++ {
			at := start.Add(time.Duration(sent) * between)
			binary.BigEndian.PutUint64(payload, uint64(at.Sub(got.start)))
			pub.publish(topic, payload, 1)
		}
		if err := pub.write(); err != nil {
			return sent, err
		}
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		if pause := time.Until(start.Add(time.Duration(sent) * between)); pause > 0 {
			sleep := unix.NsecToTimespec(pause.Nanoseconds())
			_ = unix.Nanosleep(&sleep, nil) // waking early is fine
		}
	}
	return total, nil
}

// stamps collects the latencies of messages that carry when they were due.
type stamps struct {
	start time.Time

	mu   sync.Mutex // guards took
	took []time.Duration
	read []time.Duration // of the reading goroutine alone
}

func (s *stamps) message(m message) {
	now := time.Since(s.start)
	s.read = append(s.read, now-time.Duration(binary.BigEndian.Uint64(m.payload)))
}

func (s *stamps) drained() {
	s.mu.Lock()
	s.took = append(s.took, s.read...)
	s.mu.Unlock()
	s.read = s.read[:0]
}

func (s *stamps) reset() {
	s.mu.Lock()
	s.took = make([]time.Duration, 0, 1<<18)
	s.mu.Unlock()
}

func (s *stamps) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

func (s *stamps) complete(want int) error {
	if got := s.len(); got < want {
		return fmt.Errorf("%d of %d arrived", got, want)
	}
	return nil
}

func (s *stamps) all() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.took)
}
