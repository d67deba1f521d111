package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

const usage = `Usage: operator --node-image IMAGE [flags]

Watches Hub resources (switchboard.dev/v1alpha1) and runs a StatefulSet of hub
nodes for each, with the settings of the Topics and Grants that refer to it. It
reaches the cluster by --kubeconfig, by the KUBECONFIG environment variable, or as
the pod it runs in. SIGTERM stops it; hubs go on without it.

Flags, each also an environment variable: SWITCHBOARD_ and the flag's name in
upper case, with _ for -, as in SWITCHBOARD_NODE_IMAGE. A flag wins.
`

const examples = `
Examples:
  operator --node-image registry.example/switchboard:1.2.3 --leader-elect
  operator --node-image switchboard:dev --kubeconfig ~/.kube/config --log-format text   # beside a cluster
  SWITCHBOARD_WATCH_NAMESPACES=team-a,team-b operator --node-image switchboard:dev

Metrics are at https://METRICS-ADDRESS/metrics (http:// with --metrics-secure=false),
probes at /healthz and /readyz of the health address; it is ready once it has read what
it watches, also when another operator acts. Exit status: 0 stopped, 1 failed, 2 wrong usage.
`

// errUsage marks what the caller has to mend before trying again.
var errUsage = errors.New("wrong usage")

// envPrefix starts the environment variables that set flags.
const envPrefix = "SWITCHBOARD_"

// options are the command line's and the environment's.
type options struct {
	kubeconfig      string
	nodeImage       string
	watchNamespaces []string
	metricsAddress  string
	metricsSecure   bool
	healthAddress   string
	leaderElect     bool
	leaderNamespace string
	leaseName       string
	concurrency     int
	cacheSync       time.Duration
	logLevel        slog.Level
	logFormat       string
	showVersion     bool
}

// parseOptions reads args over the environment. Usage goes to out; an error is
// flag.ErrHelp or wraps errUsage.
func parseOptions(args []string, env func(string) (string, bool), out io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("operator", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, usage)
		flags.PrintDefaults()
		_, _ = io.WriteString(out, examples)
	}
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster")
	flags.StringVar(&o.nodeImage, "node-image", "", "`image` that hub nodes run, unless their Hub names one; required")
	flags.Func("watch-namespaces", "comma-separated `namespaces` to look for Hubs, Topics and Grants in (default all)", func(s string) error {
		o.watchNamespaces = nil
		for ns := range strings.SplitSeq(s, ",") {
			if ns = strings.TrimSpace(ns); ns != "" {
				o.watchNamespaces = append(o.watchNamespaces, ns)
			}
		}
		return nil
	})
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "`address` to serve metrics on; 0 serves none")
	flags.BoolVar(&o.metricsSecure, "metrics-secure", true, "serve metrics over HTTPS and only to who has the right to get the URL /metrics;\nfalse: over HTTP to everybody")
	flags.StringVar(&o.healthAddress, "health-probe-bind-address", ":8081", "`address` to serve probes on; 0 serves none")
	flags.BoolVar(&o.leaderElect, "leader-elect", false, "act only while holding a lease, so that several operators can stand by")
	flags.StringVar(&o.leaderNamespace, "leader-election-namespace", "", "`namespace` of the lease (default the operator's own; required outside a cluster)")
	flags.StringVar(&o.leaseName, "lease-name", name, "`name` of the lease; of the operators that share one, one acts")
	flags.IntVar(&o.concurrency, "max-concurrent-reconciles", 4, "how many `hubs` are worked on at the same time")
	flags.DurationVar(&o.cacheSync, "cache-sync-timeout", 2*time.Minute, "how long reading what there is may take at the start; what can't be read by then ends the operator")
	flags.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or text")
	flags.BoolVar(&o.showVersion, "version", false, "print the version and exit")

	if err := fromEnvironment(flags, env); err != nil {
		return nil, err
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w; operator --help lists the flags", errUsage, err)
	}
	return o, o.check(flags.Args())
}

// fromEnvironment sets the flags that have a variable. It runs before the
// command line is parsed, which therefore wins.
func fromEnvironment(flags *flag.FlagSet, env func(string) (string, bool)) error {
	var errs []error
	flags.VisitAll(func(f *flag.Flag) {
		variable := envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := env(variable)
		if !ok || value == "" || f.Name == "version" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s=%q: %w", errUsage, variable, value, err))
		}
	})
	return errors.Join(errs...)
}

func (o *options) check(rest []string) error {
	if o.showVersion {
		return nil
	}
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("%w: unknown argument %q", errUsage, rest[0]))
	}
	if o.nodeImage == "" {
		errs = append(errs, fmt.Errorf("%w: --node-image is required: the image that hub nodes run", errUsage))
	}
	if len(validation.IsDNS1123Subdomain(o.leaseName)) > 0 {
		errs = append(errs, fmt.Errorf("%w: --lease-name must be the name of an object, is %q", errUsage, o.leaseName))
	}
	if o.concurrency < 1 {
		errs = append(errs, fmt.Errorf("%w: --max-concurrent-reconciles must be at least 1, is %d", errUsage, o.concurrency))
	}
	if o.cacheSync <= 0 {
		errs = append(errs, fmt.Errorf("%w: --cache-sync-timeout must be more than 0, is %s", errUsage, o.cacheSync))
	}
	if o.logFormat != "json" && o.logFormat != "text" {
		errs = append(errs, fmt.Errorf("%w: --log-format must be json or text, is %q", errUsage, o.logFormat))
	}
	if o.logLevel < slog.LevelDebug { // below, client-go logs what it reads and writes, Secrets as well
		errs = append(errs, fmt.Errorf("%w: --log-level must be debug, info, warn or error, is %s", errUsage, o.logLevel))
	}
	return errors.Join(errs...)
}

func (o *options) logHandler(out io.Writer) slog.Handler {
	ho := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "text" {
		return slog.NewTextHandler(out, ho)
	}
	return slog.NewJSONHandler(out, ho)
}
