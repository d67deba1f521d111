// Command hubnode runs one node of a hub.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/switchboardhub/switchboard/hubnode"
)

// version is set by the linker.
var version = "dev"

const usage = `Usage: hubnode --config FILE [flags]

Runs one node of a Switchboard hub. SIGTERM and SIGINT drain it: clients are
sent to other nodes, histories are handed over, then it ends; a second signal
ends it at once. The config file is followed: most settings change in place.

Flags (each also by environment variable):
`

const example = `
Examples:
  hubnode --config /etc/switchboard/config/hubnode.yaml --node agents-node-0 --advertise 10.1.2.3
  SWITCHBOARD_NODE=agents-node-0 hubnode --config hubnode.yaml

The config file's fields are described in docs/reference/config.md.
Exit status: 0 after an orderly end, 1 failed, 2 wrong usage or config.
`

// errUsage marks what the caller has to mend before trying again.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // the second signal has its default effect again
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage) || errors.Is(err, hubnode.ErrConfig):
		fmt.Fprintln(os.Stderr, "hubnode:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "hubnode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := hubnode.Options{Version: version, LogOutput: out}
	var showVersion bool
	flags := flag.NewFlagSet("hubnode", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, usage) // the terminal may be gone
		flags.PrintDefaults()
		_, _ = io.WriteString(out, example)
	}
	flags.StringVar(&o.ConfigFile, "config", os.Getenv("SWITCHBOARD_CONFIG"), "config `file`, YAML (SWITCHBOARD_CONFIG)")
	flags.StringVar(&o.Node, "node", os.Getenv("SWITCHBOARD_NODE"), "this node's `name`, ending in its ordinal; overrides the file's (SWITCHBOARD_NODE)")
	flags.StringVar(&o.Advertise, "advertise", os.Getenv("SWITCHBOARD_ADVERTISE"), "`address` under which others reach this node; overrides the file's (SWITCHBOARD_ADVERTISE)")
	flags.StringVar(&o.ClusterTLS, "cluster-tls", os.Getenv("SWITCHBOARD_CLUSTER_TLS"), "`directory` of a certificate for links between nodes, which are then encrypted where both ends can, unless the file says more (SWITCHBOARD_CLUSTER_TLS)")
	flags.BoolVar(&showVersion, "version", false, "print the version and end")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case showVersion:
		_, err := fmt.Fprintln(out, version)
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	case o.ConfigFile == "":
		return fmt.Errorf("%w: --config is required; try --help", errUsage)
	}
	return hubnode.RunFile(ctx, o)
}
