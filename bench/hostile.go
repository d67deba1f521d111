package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	hostileAll   = 1_000_000 // connections that say something malformed
	hostileMin   = 120_000
	halfOpenAll  = 10_000 // connections that say nothing
	ordinaryRate = 2000   // messages in a second
	ordinaryTime = 5 * time.Second
	watchTime    = 20 * time.Millisecond
	// yielding is the niceness of hostile clients. Theirs are other machines; here they
	// get what the servers and the ordinary clients leave of the processors.
	yielding = "19"
)

// assault is what hostile clients do.
type assault struct {
	malformed int // connections that say something malformed
	rate      int // of these in a second, where that many can be made
	halfOpen  int // connections that say nothing, at a time
}

// assaulted is a scenario of ordinary clients beside hostile ones.
func assaulted(name string, a assault) scenario {
	return scenario{name: name, servers: 1, versus: natsName, time: 10 * time.Minute, run: func(ctx context.Context, s system, scale float64) (result, error) {
		return beset(ctx, s, assault{scaled(a.malformed, scale), a.rate, scaled(a.halfOpen, scale)}, lasting(ordinaryTime, scale))
	}}
}

// pacedRate is how many connections in a second a paced hub takes.
const pacedRate = 2000

// paced runs hubnode processes that take no more connections in a second than that.
type paced struct{ switchboard }

func (s *paced) start(ctx context.Context, n int) error {
	s.takes = pacedRate
	return s.switchboard.start(ctx, n)
}

// besieged is a system that can be told what is malformed in its protocol.
type besieged interface {
	system
	address() string
	malformed() [][]byte // each is a connection's, which has to end
}

func (f *fleet) address() string { return f.clients[0] }

func (s *switchboard) malformed() [][]byte {
	return [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"),                                                                // as a length, it is too large
		[]byte("\x00\x00\x00\x14\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"),   // a target longer than the frame
		[]byte("\x00\x00\x00\x16\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00{}"), // Hello without an id
		[]byte("\x00\x00\x00\x14\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),   // Publish before Hello
	}
}

func (s *natsServer) malformed() [][]byte {
	return [][]byte{[]byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"), []byte("CONNECT {\r\n"), []byte("\xff\xff\xff\xff\r\n"), []byte("HOSTILE\r\n")}
}

// beset measures how long ordinary messages take, and how much memory the servers need,
// without hostile clients and beside them.
func beset(ctx context.Context, s system, a assault, calm time.Duration) (result, error) {
	b, ok := s.(besieged)
	if !ok || !slices.Contains([]string{ours, withoutGuard, natsName}, s.name()) { // the same servers with other clients
		return result{}, errCannot
	}
	r, err := openLoop(ctx, s, 0, 128, ordinaryRate, calm)
	if err != nil {
		return r, err
	}
	before, err := memoryOf(s)
	if err != nil {
		return r, err
	}
	hostile, err := besiege(ctx, siege{b.address(), b.malformed(), a.malformed, a.rate, a.halfOpen})
	if err != nil {
		return r, err
	}
	defer hostile.stop()
	peak := watchMemory(ctx, s)
	defer peak()
	beside, err := openLoop(ctx, s, 0, 128, ordinaryRate, lasts(a.malformed, a.rate))
	if err != nil {
		return beside, err
	}
	done, err := hostile.outcome()
	if err != nil {
		return beside, err
	}
	result := result{wrong: beside.wrong, metrics: map[string]float64{
		p99: beside.metrics[p99], calmP99: r.metrics[p99],
		peakMiB: float64(peak()) / (1 << 20), calmMiB: float64(before) / (1 << 20),
		assaults: float64(a.malformed) / done.Took.Seconds(),
	}}
	if done.Ended < int64(a.malformed) {
		result.wrong = fmt.Sprintf("%d of %d malformed connections were ended", done.Ended, a.malformed)
	}
	return result, nil
}

// watchMemory returns what ends the watch and tells the most that the servers needed.
func watchMemory(ctx context.Context, s system) (peak func() int64) {
	var most atomic.Int64
	var watching sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	watching.Go(func() {
		for ctx.Err() == nil {
			if now, err := memoryOf(s); err == nil && now > most.Load() {
				most.Store(now)
			}
			rest(ctx, watchTime)
		}
	})
	return func() int64 {
		stop()
		watching.Wait()
		return most.Load()
	}
}

// attackers is the process of a siege.
type attackers struct {
	cmd *exec.Cmd
	end io.Closer // what ends it
	out io.Reader
}

// besiege starts a siege.
func besiege(ctx context.Context, s siege) (*attackers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nice", "-n", yielding, self, siegeArg) //nolint:gosec // this program
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &attackers{cmd, in, out}
	if err := json.NewEncoder(in).Encode(s); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

// outcome waits until all malformed connections were made.
func (a *attackers) outcome() (besieging, error) {
	var o besieging
	if err := json.NewDecoder(a.out).Decode(&o); err != nil {
		return o, fmt.Errorf("what the hostile clients did: %w", err)
	}
	return o, nil
}

// stop ends the siege; more than once does nothing.
func (a *attackers) stop() {
	_ = a.end.Close()
	_ = a.cmd.Wait() // how it ended is of no interest
}
