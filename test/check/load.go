package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// Config says what load to put on a hub.
type Config struct {
	Servers []string // addresses for clients; each client begins at the next one
	Clients int      // that send to each other, each to all others in turn
	Rate    float64  // artifacts per second in all
	Prefix  string   // of the clients' ids
	// Options are for every client, beside its id.
	Options []client.Option
}

// inFlight is how many sends each client may have unanswered. It bounds what the
// load itself holds in memory, however many clients there are.
func (cfg Config) inFlight() int { return min(1<<16, max(1<<8, 1<<20/cfg.Clients)) }

// Load is running clients that send numbered artifacts to each other.
type Load struct {
	cfg     Config
	clients []*client.Client
	stop    context.CancelFunc
	sending sync.WaitGroup
	acked   atomic.Uint64

	mu           sync.Mutex // guards the fields below
	records      map[Route]*Record
	misdelivered []Misdelivery
}

// Start connects the clients and begins to send.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	l := &Load{cfg: cfg, records: make(map[Route]*Record)}
	for i := range cfg.Clients {
		id := fmt.Sprintf("%s-%d", cfg.Prefix, i)
		order := append(append([]string(nil), cfg.Servers[i%len(cfg.Servers):]...), cfg.Servers[:i%len(cfg.Servers)]...)
		opts := append([]client.Option{client.WithID(id), client.WithInFlight(cfg.inFlight()), client.WithHandler(l.receive(id))}, cfg.Options...)
		c, err := client.Connect(ctx, strings.Join(order, ","), opts...)
		if err != nil {
			for _, c := range l.clients {
				_ = c.Close() // nothing was sent
			}
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	for i := range l.clients {
		l.sending.Go(func() { l.send(sending, i) })
	}
	return l, nil
}

// IDs returns the clients' ids.
func (l *Load) IDs() []string {
	ids := make([]string, len(l.clients))
	for i, c := range l.clients {
		ids[i] = c.ID()
	}
	return ids
}

// receive returns the handler of one client.
func (l *Load) receive(by string) client.RequestHandler {
	return func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
		if len(a.Payload) < 8 {
			return nil, errors.New("not one of the checker's artifacts")
		}
		route, n := Route{a.From, string(a.Payload[8:])}, binary.BigEndian.Uint64(a.Payload)
		l.mu.Lock()
		defer l.mu.Unlock()
		if route.To != by {
			l.misdelivered = append(l.misdelivered, Misdelivery{route, n, by})
			return nil, nil
		}
		l.record(route).Received = append(l.record(route).Received, n)
		return nil, nil
	}
}

func (l *Load) record(r Route) *Record {
	if l.records[r] == nil {
		l.records[r] = &Record{}
	}
	return l.records[r]
}

// send is one client's work. Every artifact's outcome is recorded before send
// returns.
func (l *Load) send(ctx context.Context, i int) {
	type pending struct {
		ack    client.Ack
		route  Route
		number int
	}
	acks := make(chan pending, l.cfg.inFlight())
	var settling sync.WaitGroup
	settling.Go(func() {
		for p := range acks {
			_, err := p.ack.Wait(context.WithoutCancel(ctx)) // the client answers each in the end
			what := outcome(err)
			if what == Acknowledged {
				l.acked.Add(1)
			}
			l.mu.Lock()
			l.records[p.route].Sent[p.number] = what
			l.mu.Unlock()
		}
	})
	defer settling.Wait()
	defer close(acks)
	pause := time.Duration(float64(time.Second) * float64(len(l.clients)) / l.cfg.Rate)
	tick := time.NewTicker(max(pause, time.Millisecond))
	defer tick.Stop()
	from := l.clients[i]
	for turn := 1; ; turn++ {
		if turn%len(l.clients) == 0 {
			turn++ // not to itself
		}
		to := l.clients[(i+turn)%len(l.clients)].ID()
		route := Route{from.ID(), to}
		l.mu.Lock()
		r := l.record(route)
		number := len(r.Sent)
		r.Sent = append(r.Sent, Unknown)
		l.mu.Unlock()
		payload := append(binary.BigEndian.AppendUint64(nil, uint64(number)), to...)
		ack, err := from.SendAsync(ctx, to, &wire.Artifact{Payload: payload})
		if err != nil { // it was not even queued
			l.mu.Lock()
			r.Sent[number] = Refused
			l.mu.Unlock()
		} else {
			acks <- pending{ack, route, number}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// outcome tells what the answer to a send means.
func outcome(err error) Outcome {
	var coded *wire.Error
	var nobody *client.NoClientError
	var slow *client.SlowClientError
	switch {
	case err == nil:
		return Acknowledged
	case errors.As(err, &nobody), errors.As(err, &slow):
		return Refused
	case errors.As(err, &coded) && coded.Code == wire.CodeOverloaded:
		return Refused
	default:
		return Unknown
	}
}

// Acknowledged returns how many artifacts were acknowledged so far.
func (l *Load) Acknowledged() int { return int(l.acked.Load()) }

// Verdict judges what was sent and what came so far. What is on its way counts as
// lost once it is acknowledged.
func (l *Load) Verdict() Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Judge(l.records, l.misdelivered)
}

// Stop ends the sending, waits until every send has its outcome and what was
// acknowledged has come, or for patience, and returns the verdict.
func (l *Load) Stop(patience time.Duration) Verdict {
	l.stop()
	l.sending.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); l.Verdict().Lost > 0 && time.Now().Before(deadline); {
		<-tick.C
	}
	l.Close()
	return l.Verdict()
}

// Close ends the sending and the clients, without a verdict. Twice is harmless.
func (l *Load) Close() {
	l.stop()
	var closing sync.WaitGroup
	for _, c := range l.clients {
		closing.Go(func() { _ = c.Close() }) // what was not acknowledged is known
	}
	closing.Wait()
	l.sending.Wait()
}
