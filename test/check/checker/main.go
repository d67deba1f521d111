// Command checker puts load on a hub and says whether it kept its promises.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/switchboardhub/switchboard/test/check"
)

const usage = `Clients send each other numbered artifacts until the time is over or Ctrl-C; then
a verdict says what was lost, doubled, out of order or misdelivered. Do to the hub
meanwhile what it has to stand. The exit status is 1 when it did what it may not.

With --history they publish to topics with history instead, ledger.0 and so on,
which have to keep all of it; one client follows, and workers share a durable
subscription. Every second a line says how far they are. The verdict is about what
was acknowledged: whether it is there, once and in order, for who reads it from any
of --readers, for the follower and for the workers.

  go run ./test/check/checker --server 127.0.0.1:7400,127.0.0.1:7410
  go run ./test/check/checker --server agents:7400 --duration 10m --rate 1000 -o json
  go run ./test/check/checker --server agents:7400 --history --topics 6

`

// patience is how long what was acknowledged may take to be everywhere.
const patience = 30 * time.Second

type options struct {
	server, readers, prefix, output string
	clients, lost, topics           int
	rate                            float64
	duration                        time.Duration
	history, stop                   bool
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "localhost:7400", "addresses of the hub's nodes, separated by commas")
	flag.IntVar(&o.clients, "clients", 10, "clients that send to each other; with --history, that publish")
	flag.Float64Var(&o.rate, "rate", 500, "artifacts per second in all")
	flag.DurationVar(&o.duration, "duration", 0, "how long to send; 0: until Ctrl-C")
	flag.IntVar(&o.lost, "allow-lost", 0, "how many acknowledged artifacts may be lost; none with --history")
	flag.StringVar(&o.prefix, "prefix", "checker", "what the clients' ids begin with; not with --history")
	flag.BoolVar(&o.history, "history", false, "publish to topics with history")
	flag.IntVar(&o.topics, "topics", 6, "with --history: topics to publish to")
	flag.StringVar(&o.readers, "readers", "", "with --history: addresses to read from at the end, each by itself; none: those of --server")
	flag.BoolVar(&o.stop, "stop", false, "end the checker that is process 1 here, as in a container without a shell, and have it judge")
	flag.StringVar(&o.output, "o", "text", "text or json")
	flag.Usage = func() {
		_, _ = fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	cancel()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "checker:", err)
		os.Exit(1)
	}
}

// run puts load on the hub until ctx ends, or the time is over, and prints the verdict.
func run(ctx context.Context, o options, out io.Writer) error {
	if o.stop {
		return stop()
	}
	if o.clients < 1 || o.topics < 1 || o.rate <= 0 || !o.history && o.clients < 2 {
		return fmt.Errorf("%d clients, %d topics, %v artifacts a second: there have to be two clients, with --history one and a topic, and a rate above 0", o.clients, o.topics, o.rate)
	}
	ending := ctx
	if o.duration > 0 {
		var cancel context.CancelFunc
		ending, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	if o.history {
		return keep(ctx, ending, o, out)
	}
	load, err := check.Start(ctx, check.Config{Servers: strings.Split(o.server, ","), Clients: o.clients, Rate: o.rate, Prefix: o.prefix})
	if err != nil {
		return err
	}
	<-ending.Done()
	v := load.Stop(patience)
	err = v.Err(check.Allowed{Lost: o.lost})
	return errors.Join(err, o.print(out, v, fmt.Sprintf("sent %d, acknowledged %d, unknown %d, received %d; lost %d, doubled %d, out of order %d, misdelivered %d, invented %d",
		v.Sent, v.Acknowledged, v.Unknown, v.Received, v.Lost, v.Doubled, v.OutOfOrder, v.Misdelivered, v.Invented)))
}

// stop ends process 1.
func stop() error {
	p, err := os.FindProcess(1)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGTERM)
}

// progress is what keep tells every second.
type progress struct {
	Acknowledged  int   `json:"acknowledged"`
	SilenceMillis int64 `json:"silenceMillis"` // the longest that a topic had no acknowledgement for, and has one now
}

// keep is run for topics with history.
func keep(ctx, ending context.Context, o options, out io.Writer) error {
	cfg := check.LedgerConfig{
		Servers: strings.Split(o.server, ","), Topics: o.topics, Publishers: o.clients, Window: 256,
		Pause: time.Duration(float64(time.Second) * float64(o.clients) / o.rate),
	}
	if o.readers != "" {
		cfg.Readers = strings.Split(o.readers, ",")
	}
	ledger, err := check.StartLedger(ctx, cfg)
	if err != nil {
		return err
	}
	ledger.Mark()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ending.Err() == nil {
		select {
		case <-tick.C:
			longest, over := ledger.Silence()
			if over {
				ledger.Mark()
			}
			p := progress{ledger.Acknowledged(), longest.Length().Milliseconds()}
			if err := o.print(out, p, fmt.Sprintf("acknowledged %d, longest silence %d ms", p.Acknowledged, p.SilenceMillis)); err != nil {
				return err
			}
		case <-ending.Done():
		}
	}
	judging, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
	defer cancel()
	v, err := ledger.Stop(judging)
	if err != nil {
		return err
	}
	return errors.Join(v.Err(), o.print(out, v, fmt.Sprintf("acknowledged %d, stored %d, followed %d, handled %d and %d of them again; faults %d",
		v.Acknowledged, v.Stored, v.Followed, v.Handled, v.Repeats, len(v.Faults))))
}

func (o options) print(out io.Writer, what any, text string) error {
	if o.output == "json" {
		return json.NewEncoder(out).Encode(what)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}
