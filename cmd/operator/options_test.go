package main

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptions(t *testing.T) {
	defaults := options{
		nodeImage: "i", metricsAddress: ":8443", metricsSecure: true, healthAddress: ":8081", leaseName: "switchboard-operator", concurrency: 4, cacheSync: 2 * time.Minute, logFormat: "json",
	}
	with := func(change func(*options)) *options {
		o := defaults
		change(&o)
		return &o
	}
	tests := map[string]struct {
		args []string
		env  map[string]string
		want *options
		err  string // part of the usage error
	}{
		"defaults":                       {args: []string{"--node-image=i"}, want: &defaults},
		"the environment sets flags":     {env: map[string]string{"SWITCHBOARD_NODE_IMAGE": "i", "SWITCHBOARD_LEADER_ELECT": "true"}, want: with(func(o *options) { o.leaderElect = true })},
		"a flag wins":                    {args: []string{"--node-image=i"}, env: map[string]string{"SWITCHBOARD_NODE_IMAGE": "j"}, want: &defaults},
		"an empty variable sets nothing": {args: []string{"--node-image=i"}, env: map[string]string{"SWITCHBOARD_LEADER_ELECT": ""}, want: &defaults},
		"namespaces":                     {args: []string{"--node-image=i", "--watch-namespaces=a, b,"}, want: with(func(o *options) { o.watchNamespaces = []string{"a", "b"} })},
		"log level":                      {args: []string{"--node-image=i", "--log-level=debug"}, want: with(func(o *options) { o.logLevel = slog.LevelDebug })},
		"metrics for everybody":          {args: []string{"--node-image=i"}, env: map[string]string{"SWITCHBOARD_METRICS_SECURE": "false"}, want: with(func(o *options) { o.metricsSecure = false })},
		"no image":                       {err: "--node-image is required"},
		"unknown flag":                   {args: []string{"--nodes=3"}, err: "flag provided but not defined"},
		"unknown argument":               {args: []string{"--node-image=i", "start"}, err: `unknown argument "start"`},
		"wrong variable":                 {env: map[string]string{"SWITCHBOARD_NODE_IMAGE": "i", "SWITCHBOARD_LEADER_ELECT": "si"}, err: `SWITCHBOARD_LEADER_ELECT="si"`},
		"a level that tells Secrets":     {args: []string{"--node-image=i", "--log-level=debug-4"}, err: "--log-level must be debug, info, warn or error, is DEBUG-4"},
		"a lease of its own":             {args: []string{"--node-image=i"}, env: map[string]string{"SWITCHBOARD_LEASE_NAME": "second.lease"}, want: with(func(o *options) { o.leaseName = "second.lease" })},
		"no name of a lease":             {args: []string{"--node-image=i", "--lease-name=My Lease"}, err: `--lease-name must be the name of an object, is "My Lease"`},
		"more time to read":              {args: []string{"--node-image=i", "--cache-sync-timeout=10m"}, want: with(func(o *options) { o.cacheSync = 10 * time.Minute })},
		"no time to read":                {args: []string{"--node-image=i", "--cache-sync-timeout=0s"}, err: "--cache-sync-timeout must be more than 0, is 0s"},
		"wrong format":                   {args: []string{"--node-image=i", "--log-format=xml"}, err: "--log-format must be json or text"},
		"all faults at once":             {args: []string{"--max-concurrent-reconciles=0"}, err: "--max-concurrent-reconciles must be at least 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok }
			got, err := parseOptions(tt.args, env, &bytes.Buffer{})
			if tt.err != "" {
				if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want wrong usage and %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(options{})); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelpTeaches(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"Usage: operator", "-node-image", "SWITCHBOARD_NODE_IMAGE", "Examples:", "Exit status"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
}

func TestMissingClusterIsExplained(t *testing.T) {
	err := run(t.Context(), []string{"--node-image=i", "--kubeconfig=/nowhere"}, &bytes.Buffer{})
	if err == nil || errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("error %v, want one that names the ways to a cluster", err)
	}
}
