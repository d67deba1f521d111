package hubctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

// bench is one measurement: what the flags ask for.
type bench struct {
	app      *App
	name     string
	size     int
	count    int
	duration time.Duration
	rate     float64
	clients  int
	topic    string
	batch    int
}

func (a *App) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put load on a hub and measure",
		Long: `Put load on a hub and print artifacts per second and percentiles of the latency.

With several addresses in --server, clients are spread over them in turn, so
that pair, fanout and request can measure the way between nodes. With --rate,
latency counts from when an artifact was due, so that a hub which stalls doesn't
look good. Without --rate, queues are full and latency says how long they are.`,
		Example: `  hubctl bench pub --size 1024 --count 1000000
  hubctl bench pair --server 127.0.0.1:7400,127.0.0.1:7410 --rate 10000
  hubctl bench fanout --clients 100 --rate 1000 -o json
  hubctl bench request --clients 10 --duration 10s`,
	}
	Group(cmd)
	for _, sub := range []struct {
		name, short string
		batch       int
		topic       func(*cobra.Command, string) error // what --topic can be; nil: it is not used
		run         func(*bench, context.Context) (*report, error)
	}{
		{"pub", "Publish to a topic; latency is that of the acknowledgement, on topics with history", 1024, checkPublish, (*bench).pub},
		{"sub", "Subscribe to a topic and measure what comes, by the publishers' clocks", 0, checkPattern, (*bench).sub},
		{"pair", "Send directly from one client to another, for each of --clients pairs", 1024, nil, (*bench).pair},
		{"fanout", "Publish from one client to --clients subscribers", 1024, checkPublish, (*bench).fanout},
		{"request", "Ask one client from --clients others; latency is the round trip", 1, nil, (*bench).request},
	} {
		cmd.AddCommand(a.benchRun(sub.name, sub.short, sub.batch, sub.topic, sub.run))
	}
	return cmd
}

func (a *App) benchRun(name, short string, batch int, checkTopic func(*cobra.Command, string) error, run func(*bench, context.Context) (*report, error)) *cobra.Command {
	b := &bench{app: a, name: name}
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Long:    short + ".",
		Example: fmt.Sprintf("  hubctl bench %[1]s --count 100000 --size 128\n  hubctl bench %[1]s --duration 10s -o json", name),
		Args:    Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.size < 0 || b.count < 1 || b.duration < 0 || b.rate < 0 || b.clients < 1 || b.batch < 0 {
				return Usagef(cmd, "sizes, counts and rates must not be negative, --count and --clients at least 1")
			}
			if checkTopic != nil {
				if err := checkTopic(cmd, b.topic); err != nil {
					return err
				}
			}
			if b.duration > 0 && !cmd.Flags().Changed("count") {
				b.count = 1 << 62
			}
			r, err := run(b, cmd.Context())
			if err != nil {
				return err
			}
			return a.printReport(r)
		},
	}
	f := cmd.Flags()
	size, inFlight := "payload `bytes`", "artifacts in `flight` for each client"
	switch name {
	case "sub":
		size = "payload `bytes` of what others publish, to tell megabytes by"
	case "request":
		inFlight = "questions in `flight` for each client"
	}
	f.IntVar(&b.size, "size", 128, size)
	f.IntVar(&b.count, "count", 100_000, "end after `N` artifacts in all")
	f.DurationVar(&b.duration, "duration", 0, "end after this `time`; then --count has no default")
	f.Float64Var(&b.rate, "rate", 0, "`artifacts` per second in all; 0: as fast as it goes")
	f.IntVar(&b.clients, "clients", 1, "how `many` clients, pairs, subscribers or requesters")
	f.StringVar(&b.topic, "topic", "bench", "`topic` to publish or subscribe to")
	f.IntVar(&b.batch, "batch", batch, inFlight)
	// What has no effect is taken, for scripts that give all the same, and not shown.
	for flag, used := range map[string]bool{"topic": checkTopic != nil, "rate": name != "sub", "batch": name != "sub"} {
		f.Lookup(flag).Hidden = !used
	}
	return cmd
}

// connect makes the i-th client of a role; addresses are taken in turn.
func (b *bench) connect(ctx context.Context, role string, i int, opts ...client.Option) (*client.Client, error) {
	addresses := strings.Split(b.app.server, ",")
	first := i % len(addresses)
	rotated := append(append([]string(nil), addresses[first:]...), addresses[:first]...)
	id := fmt.Sprintf("%s-%s-%d", b.app.clientID(), role, i)
	return b.app.connectTo(ctx, strings.Join(rotated, ","), append([]client.Option{client.WithID(id), client.WithoutBroadcast(), client.WithInFlight(max(1, b.batch))}, opts...)...)
}

// produce calls send for as many artifacts as one of the producers has to
// make, at its part of the rate, and returns how many that were. An interrupt
// is an early end, no error.
func (b *bench) produce(ctx context.Context, producer, producers int, send func(context.Context, *wire.Artifact) error) (int, error) {
	share := b.count / producers
	if producer < b.count%producers {
		share++
	}
	start := time.Now()
	var interval time.Duration
	if b.rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(producers) / b.rate)
	}
	payload := make([]byte, b.size)
	for n := range share {
		now := time.Now()
		due := now
		if interval > 0 {
			due = start.Add(time.Duration(n) * interval)
			if wait := due.Sub(now); wait > 0 && !pause(ctx, wait) {
				return n, nil
			}
		}
		if b.duration > 0 && now.Sub(start) >= b.duration {
			return n, nil
		}
		if err := send(ctx, &wire.Artifact{Time: due, Payload: payload}); err != nil {
			return n, OrInterrupted(ctx, err)
		}
	}
	return share, nil
}
