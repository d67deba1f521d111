// Command checker puts load on a hub and says whether it kept its promises.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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

  go run ./test/check/checker --server 127.0.0.1:7400,127.0.0.1:7410
  go run ./test/check/checker --server agents:7400 --duration 10m --rate 1000 -o json

`

func main() {
	var (
		server   = flag.String("server", "localhost:7400", "addresses of the hub's nodes, separated by commas")
		clients  = flag.Int("clients", 10, "clients that send to each other")
		rate     = flag.Float64("rate", 500, "artifacts per second in all")
		duration = flag.Duration("duration", 0, "how long to send; 0: until Ctrl-C")
		lost     = flag.Int("allow-lost", 0, "how many acknowledged artifacts may be lost")
		prefix   = flag.String("prefix", "checker", "what the clients' ids begin with")
		output   = flag.String("o", "text", "text or json")
	)
	flag.Usage = func() {
		_, _ = fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	v, err := run(ctx, check.Config{Servers: strings.Split(*server, ","), Clients: *clients, Rate: *rate, Prefix: *prefix}, *duration)
	cancel()
	if err == nil {
		err = v.Err(check.Allowed{Lost: *lost})
		if *output == "json" {
			err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(v))
		} else {
			_, _ = fmt.Fprintf(os.Stdout, "sent %d, acknowledged %d, unknown %d, received %d; lost %d, doubled %d, out of order %d, misdelivered %d, invented %d\n",
				v.Sent, v.Acknowledged, v.Unknown, v.Received, v.Lost, v.Doubled, v.OutOfOrder, v.Misdelivered, v.Invented)
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "checker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg check.Config, duration time.Duration) (check.Verdict, error) {
	if cfg.Clients < 2 || cfg.Rate <= 0 {
		return check.Verdict{}, fmt.Errorf("%d clients at %v artifacts a second: there have to be two clients, and a rate above 0", cfg.Clients, cfg.Rate)
	}
	load, err := check.Start(ctx, cfg)
	if err != nil {
		return check.Verdict{}, err
	}
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	<-ctx.Done()
	return load.Stop(30 * time.Second), nil
}
