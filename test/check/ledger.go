package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// LedgerConfig says what load to put on topics with history.
type LedgerConfig struct {
	Servers    []string // addresses for clients; each client begins at the next one
	Readers    []string // addresses that each have to tell the same at the end; nil: Servers
	Topics     int
	Publishers int           // that publish to all topics in turn
	Window     int           // artifacts of one publisher that are not yet acknowledged
	Pause      time.Duration // of a publisher between two artifacts
	// Options are for every client, beside its id.
	Options []client.Option
}

// Ledger is running clients that publish numbered artifacts to topics with history,
// one that follows all of them, and workers that share a durable subscription to
// each.
type Ledger struct {
	cfg        LedgerConfig
	clients    []*client.Client
	publishers []*client.Client // of clients
	stop       context.CancelFunc
	working    sync.WaitGroup
	acked      atomic.Uint64
	open       atomic.Int64             // publishes that are not answered
	follower   map[string]wire.Sequence // of the follower's goroutines alone: the next one of each topic

	mu       sync.Mutex // guards the fields below
	entries  []entry
	faults   []string
	followed uint64
	lastAck  map[string]time.Time             // by topic
	marked   time.Time                        // by Mark
	longest  Silence                          // since then
	resumed  map[string]bool                  // topics that something published since then was acknowledged on
	handled  map[string]map[wire.Sequence]int // by the workers, how often
}

// entry is one artifact that was acknowledged.
type entry struct {
	topic   string
	payload string
	seq     wire.Sequence
}

// Silence is the time between two acknowledgements of one topic.
type Silence struct {
	Topic    string
	From, To time.Time
}

// Length returns how long it was.
func (s Silence) Length() time.Duration { return s.To.Sub(s.From) }

const (
	workers      = 2
	ledgerPrefix = "ledger."
	durableName  = "workers"
	// answerTime is how long a publish may go without any answer once the hub is left
	// in peace.
	answerTime = 30 * time.Second
)

// StartLedger connects the clients and begins to publish.
func StartLedger(ctx context.Context, cfg LedgerConfig) (*Ledger, error) {
	l := &Ledger{cfg: cfg, follower: make(map[string]wire.Sequence), handled: make(map[string]map[wire.Sequence]int), lastAck: make(map[string]time.Time)}
	publishing, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	if err := l.begin(ctx, publishing); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Ledger) begin(ctx, publishing context.Context) error {
	follower, err := l.connect(ctx, "follower")
	if err != nil {
		return err
	}
	if _, err := follower.Subscribe(ctx, ledgerPrefix+">", l.follow, client.SinceAll(), client.OnGap(func(gap *client.HistoryGapError) { l.fault("%v", gap) })); err != nil {
		return err
	}
	for i := range workers {
		w, err := l.connect(ctx, fmt.Sprintf("worker-%d", i))
		if err != nil {
			return err
		}
		for topic := range l.cfg.Topics {
			if _, err := w.Subscribe(ctx, l.topic(topic), l.work, client.Durable(durableName), client.Shared(), client.AckWait(3*time.Second)); err != nil {
				return err
			}
		}
	}
	for i := range l.cfg.Publishers {
		p, err := l.connect(ctx, fmt.Sprintf("publisher-%d", i))
		if err != nil {
			return err
		}
		l.publishers = append(l.publishers, p)
		l.working.Go(func() { l.publish(publishing, p) })
	}
	return nil
}

// Topics returns what is published to.
func (l *Ledger) Topics() []string {
	all := make([]string, l.cfg.Topics)
	for i := range all {
		all[i] = l.topic(i)
	}
	return all
}

func (l *Ledger) topic(i int) string { return fmt.Sprintf("%s%d", ledgerPrefix, i) }

// connect connects a client, to a node of its own first.
func (l *Ledger) connect(ctx context.Context, id string) (*client.Client, error) {
	at := len(l.clients) % len(l.cfg.Servers)
	order := append(append([]string(nil), l.cfg.Servers[at:]...), l.cfg.Servers[:at]...)
	return l.connectTo(ctx, id, strings.Join(order, ","))
}

func (l *Ledger) connectTo(ctx context.Context, id, servers string) (*client.Client, error) {
	c, err := client.Connect(ctx, servers, append([]client.Option{client.WithID(id), client.WithInFlight(l.cfg.Window)}, l.cfg.Options...)...)
	if err == nil {
		l.clients = append(l.clients, c)
	}
	return c, err
}

// Close ends the clients, without a verdict. Twice is harmless.
func (l *Ledger) Close() {
	l.stop()
	l.working.Wait()
	for _, c := range l.clients {
		_ = c.Close() // what was not acknowledged is counted as unknown
	}
}

func (l *Ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// publish is one publisher's work: it goes on until ctx ends, and records what was
// acknowledged.
func (l *Ledger) publish(ctx context.Context, p *client.Client) {
	var settling sync.WaitGroup
	defer settling.Wait()
	for n := 0; ctx.Err() == nil; n++ {
		e := entry{topic: l.topic(n % l.cfg.Topics), payload: fmt.Sprintf("%s/%d", p.ID(), n)}
		begun := time.Now()
		ack, err := p.PublishAsync(ctx, e.topic, &wire.Artifact{Payload: []byte(e.payload)})
		if err != nil {
			break // ctx ended
		}
		l.open.Add(1)
		settling.Go(func() {
			defer l.open.Add(-1)
			seq, err := ack.Wait(context.WithoutCancel(ctx)) // the client answers each in the end
			if err != nil {
				return
			}
			e.seq = seq
			l.acknowledge(e, begun)
		})
		if l.cfg.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(l.cfg.Pause):
			}
		}
	}
}

// acknowledge records what was acknowledged, and published at begun.
func (l *Ledger) acknowledge(e entry, begun time.Time) {
	l.acked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	silence := Silence{Topic: e.topic, From: l.lastAck[e.topic], To: time.Now()}
	l.lastAck[e.topic] = silence.To
	if l.marked.IsZero() {
		return
	}
	if silence.Length() > l.longest.Length() {
		l.longest = silence
	}
	if begun.After(l.marked) {
		l.resumed[e.topic] = true
	}
}

// follow is the follower's handler: every sequence comes once, in order.
func (l *Ledger) follow(_ context.Context, a *wire.Artifact) error {
	if want := l.follower[a.Topic] + 1; a.Sequence != want {
		l.fault("the follower of %s got %d where %d belongs", a.Topic, a.Sequence, want)
	}
	l.follower[a.Topic] = a.Sequence
	l.mu.Lock()
	l.followed++
	l.mu.Unlock()
	return nil
}

// work is the handler of the workers.
func (l *Ledger) work(_ context.Context, a *wire.Artifact) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handled[a.Topic] == nil {
		l.handled[a.Topic] = make(map[wire.Sequence]int)
	}
	l.handled[a.Topic][a.Sequence]++
	return nil
}

// Acknowledged returns how many artifacts were acknowledged so far.
func (l *Ledger) Acknowledged() int { return int(l.acked.Load()) }

// Mark begins to measure silences anew.
func (l *Ledger) Mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marked, l.longest, l.resumed = time.Now(), Silence{}, make(map[string]bool)
	for _, topic := range l.Topics() {
		l.lastAck[topic] = l.marked
	}
}

// Silence returns the longest silence since Mark. It reports false until every topic
// has an acknowledgement of something published since.
func (l *Ledger) Silence() (longest Silence, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.longest, len(l.resumed) == l.cfg.Topics
}

// LedgerVerdict is what came of a ledger.
type LedgerVerdict struct {
	Acknowledged int      `json:"acknowledged"`
	Stored       int      `json:"stored"`   // artifacts that the topics hold
	Followed     int      `json:"followed"` // by the follower
	Handled      int      `json:"handled"`  // by the workers, each counted once
	Repeats      int      `json:"repeats"`  // artifacts that workers handled, and had handled before
	Faults       []string `json:"faults"`   // what should not be; at most some of it
}

// Err returns nil when nothing is wrong. A verdict on nothing is an error as well.
func (v *LedgerVerdict) Err() error {
	switch {
	case len(v.Faults) > 0:
		return errors.New(strings.Join(v.Faults, "\n"))
	case v.Acknowledged == 0:
		return errors.New("nothing was acknowledged")
	}
	return nil
}

// Stop ends the publishing, reads every topic from every server, and judges: what was
// acknowledged is there, once, where it was said to be; the sequences have no hole;
// each publisher's artifacts are in its order; every server tells the same; the
// follower had all of it; and the workers have handled all of it.
func (l *Ledger) Stop(ctx context.Context) (*LedgerVerdict, error) {
	l.stop()
	defer l.Close()
	l.settle(ctx)
	v := &LedgerVerdict{Acknowledged: len(l.entries)}
	stored := make(map[string][]string) // by topic, in the order of sequences
	readers := l.cfg.Readers
	if readers == nil {
		readers = l.cfg.Servers
	}
	for i, server := range readers {
		reader, err := l.connectTo(ctx, fmt.Sprintf("reader-%d", i), server)
		if err != nil {
			return nil, err
		}
		for topic := range l.cfg.Topics {
			name := l.topic(topic)
			all, err := l.read(ctx, reader, name)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				stored[name] = all
				v.Stored += len(all)
			} else if strings.Join(all, " ") != strings.Join(stored[name], " ") {
				l.fault("%s holds %d artifacts by what server %d says, and other %d by server 0", name, len(all), i, len(stored[name]))
			}
		}
	}
	l.judge(stored)
	if err := l.caughtUp(ctx, stored); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.Followed = int(l.followed)
	for _, times := range l.handled {
		v.Handled += len(times)
		for _, n := range times {
			v.Repeats += n - 1
		}
	}
	v.Faults = l.faults[:min(len(l.faults), 20)]
	return v, nil
}

// settle waits until every publish is answered, and holds it against the hub when one
// is not.
func (l *Ledger) settle(ctx context.Context) {
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		l.working.Wait()
	}()
	patience, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	select {
	case <-settled:
		return
	case <-patience.Done():
	}
	l.fault("%d publishes were never answered", l.open.Load())
	for _, c := range l.publishers {
		_ = c.Close() // which answers them
	}
	<-settled
}

// read returns what a topic holds.
func (l *Ledger) read(ctx context.Context, c *client.Client, topic string) ([]string, error) {
	var all []string
	for a, err := range c.History(ctx, topic, client.Range{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, string(a.Payload))
		if a.Sequence != wire.Sequence(len(all)) {
			l.fault("%s has %d where %d belongs", topic, a.Sequence, len(all))
		}
	}
	return all, nil
}

// judge compares what is stored with what was acknowledged.
func (l *Ledger) judge(stored map[string][]string) {
	there := make(map[string]bool)
	for topic, all := range stored {
		for _, payload := range all {
			there[topic+" "+payload] = true
		}
	}
	for _, e := range l.entries {
		all := stored[e.topic]
		if e.seq == 0 && there[e.topic+" "+e.payload] {
			continue // a repeat whose place was not known any more
		}
		if e.seq == 0 || int(e.seq) > len(all) || all[e.seq-1] != e.payload {
			l.fault("%s was acknowledged as %s %d, and is not there", e.payload, e.topic, e.seq)
		}
	}
	for topic, all := range stored {
		last := make(map[string]int)
		for i, payload := range all {
			publisher, number, _ := strings.Cut(payload, "/")
			var n int
			if _, err := fmt.Sscan(number, &n); err != nil {
				l.fault("%s %d is %q, which nobody published", topic, i+1, payload)
				continue
			}
			if before, ok := last[publisher]; ok && n <= before {
				l.fault("%s %d is %s, behind number %d", topic, i+1, payload, before)
			}
			last[publisher] = n
		}
	}
}

// caughtUp waits until the follower and the workers have all that is stored.
func (l *Ledger) caughtUp(ctx context.Context, stored map[string][]string) error {
	want := 0
	for _, all := range stored {
		want += len(all)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		followed, handled := int(l.followed), 0
		for _, times := range l.handled {
			handled += len(times)
		}
		l.mu.Unlock()
		if followed >= want && handled >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			l.fault("of %d artifacts the follower has had %d, the workers %d", want, followed, handled)
			return nil
		}
	}
}
