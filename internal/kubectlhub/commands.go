package kubectlhub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/internal/hubctl"
	"github.com/switchboardhub/switchboard/internal/kubehub"
)

const (
	pluginFile = "kubectl-hub" // the name by which kubectl finds the plugin
	pluginName = "kubectl hub"
)

// kube is what the commands share.
type kube struct {
	*hubctl.App
	options kubehub.Options
}

// Main runs the plugin with the process's arguments and returns its exit status.
func Main(version string) int {
	kubehub.SilenceLogs()
	return hubctl.AsProcess(func(ctx context.Context) int {
		return Run(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	})
}

// Run runs one command and returns its exit status. Errors go to errOut.
func Run(ctx context.Context, version string, args []string, in io.Reader, out, errOut io.Writer) int {
	k := &kube{App: &hubctl.App{Program: pluginName, Version: version, In: in, Out: out, ErrOut: errOut}}
	return k.Execute(ctx, k.root(), args) //nolint:contextcheck // commands get ctx from ExecuteContext
}

const kubeLong = `Look after Hubs of a Kubernetes cluster: see how one is, replace a node, restart it,
read its logs, and pack what somebody needs who helps.

Nodes are reached through the API server, as by kubectl port-forward, with your
rights. HUB may be left out where the namespace has only one. A node is named by its
ordinal or its pod.

Exit status: 0 done, 1 failed, 2 wrong usage, 4 timed out.`

func (k *kube) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:         pluginFile,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: pluginName},
		Short:       "Look after Hubs of a Kubernetes cluster",
		Long:        kubeLong,
		Example: `  kubectl hub status                   # the only Hub of the namespace, on one screen
  kubectl hub status agents -n prod
  kubectl hub clients agents
  kubectl hub drain 1                  # replace agents-node-1
  kubectl hub restart agents
  kubectl hub logs agents -f
  kubectl hub bundle agents            # an archive for who helps`,
	}
	k.MakeRoot(cmd)
	hubctl.Group(cmd)
	f := cmd.PersistentFlags()
	k.CredentialFlags(f)
	f.StringVarP(&k.options.Namespace, "namespace", "n", "", "`namespace` of the Hub; the context's when empty")
	f.StringVar(&k.options.Context, "context", "", "`context` of the kubeconfig file; the current one when empty")
	f.StringVar(&k.options.Kubeconfig, "kubeconfig", "", "kubeconfig `file`; KUBECONFIG or ~/.kube/config when empty")
	cmd.AddCommand(k.statusCommand())
	cmd.AddCommand(k.lists()...)
	cmd.AddCommand(k.drainCommand(), k.restartCommand(), k.logsCommand(), k.bundleCommand())
	return cmd
}

func (k *kube) connect() (*kubehub.Cluster, error) {
	k.options.UserAgent = pluginFile + "/" + k.Version
	return kubehub.Connect(k.options)
}

func (k *kube) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [HUB]",
		Short: "Show how a Hub is, and what to do about it",
		Long: `Show how a Hub is: its conditions, since when and what to do about them (→), its nodes,
clients, shards, disks, rollout, and the newest events of it and its pods. What needs a
person is marked !.

It asks the nodes themselves. Where that is not allowed, or they don't answer, it shows
what the operator last saw, and says so.`,
		Example: `  kubectl hub status
  kubectl hub status agents -n prod
  kubectl hub status agents -o json | jq -r .state   # well, changing, paused, degraded, down or stopped`,
		Args: hubctl.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := k.connect()
			if err != nil {
				return err
			}
			report, err := cluster.Status(cmd.Context(), first(args))
			if err != nil {
				return err
			}
			if k.JSON() {
				return hubctl.EncodeJSON(k.Out, report)
			}
			_, err = io.WriteString(k.Out, report.Text(time.Now()))
			return err
		},
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// lists makes hubctl's own lists ask the nodes of a Hub.
func (k *kube) lists() []*cobra.Command {
	lists := k.Lists(k.find)
	for _, cmd := range lists {
		cmd.Long += `

A node is asked over its HTTP API, which takes your rights in the cluster and no token of
the hub. With a token or a certificate it is asked as that client instead`
		if cmd.Use == "clients" {
			cmd.Long += `, and so it is
in any case with --watch: where clients have to prove who they are, that takes a token or
a certificate of somebody whom a rule lets view (admin: View)`
		}
		cmd.Long += "."
		cmd.Example = fmt.Sprintf("  kubectl hub %[1]s\n  kubectl hub %[1]s agents --watch\n  kubectl hub %[1]s agents -o json | jq .", cmd.Use)
		cmd.Use += " [HUB]"
		cmd.Args = hubctl.Args(cobra.MaximumNArgs(1))
	}
	return lists
}

func (k *kube) find(cmd *cobra.Command, args []string) (place hubctl.Place, err error) {
	cluster, err := k.connect()
	if err != nil {
		return place, err
	}
	hub, err := cluster.Hub(cmd.Context(), first(args))
	if err != nil {
		return place, err
	}
	place.Ask = func(ctx context.Context, list string) ([]byte, error) { return cluster.List(ctx, hub, list) }
	place.Door = func(ctx context.Context) (door hubctl.Door, err error) {
		door.Dial = cluster.HubDialer(hub)
		if door.Server, err = cluster.Servers(ctx, hub); err != nil {
			return door, err
		}
		door.TLS, err = cluster.TLS(ctx, hub)
		return door, err
	}
	return place, nil
}

func (k *kube) drainCommand() *cobra.Command {
	var force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain [HUB] NODE",
		Short: "Move everything away from a node and replace its pod",
		Long: `Move the clients and leaderships of a node to others and replace its pod: the pod is
evicted, as kubectl drain does, so that the disruption budget has the last word. Then
it waits until a new pod is ready in its place and all shards have all replicas again.

It refuses when the Hub says that no node may stop now (status.safeToRestart), and says
why; --force drains the node all the same, within the disruption budget. Ctrl-C stops
the waiting, not what has begun.`,
		Example: `  kubectl hub drain 1                    # agents-node-1, of the only Hub
  kubectl hub drain agents 1
  kubectl hub drain agents-node-1 -n prod`,
		Args: hubctl.Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := k.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			hub, node, err := cluster.Find(ctx, args)
			if err != nil {
				return err
			}
			if node == "" {
				return hubctl.Usagef(cmd, "which node of Hub %s? Name one by its ordinal or pod, see kubectl hub nodes %[1]s", hub.Name)
			}
			pod, err := cluster.Node(ctx, hub, node)
			if err != nil {
				return err
			}
			done, err := cluster.Drain(ctx, hub, pod, force, k.Tellf)
			return k.replaced(cmd, done, timeout, err)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when the Hub says that no node may stop now")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up waiting after this time")
	return cmd
}

// replaced tells how replacing nodes ended. ctx of cmd is over when a person has
// interrupted it.
func (k *kube) replaced(cmd *cobra.Command, done *kubehub.Replaced, timeout time.Duration, err error) error {
	switch {
	case err == nil && k.JSON():
		return hubctl.EncodeJSON(k.Out, done)
	case err == nil:
		_, err = fmt.Fprintln(k.Out, done)
		return err
	case cmd.Context().Err() != nil:
		k.Tellf("waiting is over, what has begun goes on: see kubectl hub status")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not done within %v, what has begun goes on: see kubectl hub status: %w", timeout, err)
	}
	return err
}

func (k *kube) restartCommand() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "restart [HUB]",
		Short: "Replace all nodes, one after the other",
		Long: `Ask the operator to replace all nodes of a Hub, one after the other: each when all others
are ready and all shards have all replicas. It sets the annotation
switchboard.dev/restarted-at of the Hub, and waits until the last node is replaced.

Ctrl-C stops the waiting, not the restart.`,
		Example: `  kubectl hub restart agents
  kubectl hub restart agents --wait=false`,
		Args: hubctl.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := k.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			hub, err := cluster.Hub(ctx, first(args))
			if err != nil {
				return err
			}
			at, err := cluster.Restart(ctx, hub, time.Now())
			if err != nil {
				return err
			}
			k.Tellf("restart of Hub %s asked for", hub.Name)
			if !wait {
				return nil
			}
			k.Tellf("waiting for the last node; Ctrl-C stops the waiting, not the restart")
			done, err := cluster.AwaitRestart(ctx, hub.Name, at, k.Tellf)
			return k.replaced(cmd, done, timeout, err)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until all nodes are replaced")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "give up waiting after this time")
	return cmd
}

func (k *kube) logsCommand() *cobra.Command {
	var o kubehub.LogOptions
	cmd := &cobra.Command{
		Use:   "logs [HUB] [NODE]",
		Short: "Print the logs of all nodes, or of one",
		Long: `Print the logs of all nodes of a Hub, each line behind its node's name, or of one node.

With -f it goes on with what they write next, also when a pod is replaced, until Ctrl-C.
With -o json each line is {"node","line"}.`,
		Example: `  kubectl hub logs agents --since 10m
  kubectl hub logs agents -f --tail 10
  kubectl hub logs agents 1 --previous   # why agents-node-1 ended`,
		Args: hubctl.Args(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Follow && o.Previous {
				return hubctl.Usagef(cmd, "-f and --previous: a container that has ended writes no more")
			}
			cluster, err := k.connect()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			hub, node, err := cluster.Find(ctx, args)
			if err != nil {
				return err
			}
			o.Node, o.JSON = node, k.JSON()
			err = cluster.Logs(ctx, hub, o, k.Out, k.Tellf)
			if o.Follow {
				return hubctl.OrInterrupted(ctx, err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on until Ctrl-C")
	f.DurationVar(&o.Since, "since", 0, "only lines that are no older than this `duration`")
	f.Int64Var(&o.Tail, "tail", -1, "only so many `lines` from the end of each log; all when negative")
	f.BoolVarP(&o.Previous, "previous", "p", false, "of the containers before, which have ended")
	return cmd
}

func (k *kube) bundleCommand() *cobra.Command {
	var file string
	var o kubehub.BundleOptions
	cmd := &cobra.Command{
		Use:   "bundle [HUB]",
		Short: "Write an archive with what somebody needs who helps",
		Long: `Write a .tar.gz archive about a Hub: the Hub and what belongs to it, its nodes' logs,
status and metrics, clients and topics, events, the operator's part, and versions.

It reads no Secrets. Values of environment variables, annotations with what was applied
last, and what looks like a token, key or password are replaced by REDACTED. Names and
addresses of clients, topics and machines are in it: look through the files, which it
lists, before you send it. What can't be collected is told, and noted in errors.txt.`,
		Example: `  kubectl hub bundle agents
  kubectl hub bundle agents --file /tmp/agents.tar.gz && tar -tzf /tmp/agents.tar.gz`,
		Args: hubctl.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := k.connect()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			o.Program, o.Now = pluginFile+" "+k.Version, time.Now()
			hub, err := cluster.Hub(ctx, first(args))
			if err != nil {
				return err
			}
			if file == "" {
				file = fmt.Sprintf("%s-bundle-%s.tar.gz", hub.Name, o.Now.UTC().Format("20060102T150405Z"))
			}
			var contents *kubehub.BundleContents
			err = hubctl.WholeFile(file, func(f io.Writer) (err error) {
				contents, err = cluster.Bundle(ctx, hub, o, f, k.Tellf)
				return err
			})
			if err != nil {
				return err
			}
			return k.showBundle(file, contents)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "where to write it; the `file` HUB-bundle-TIME.tar.gz when empty")
	cmd.Flags().StringVar(&o.OperatorNamespace, "operator-namespace", "", "`namespace` where the operator is looked for; everywhere when empty")
	return cmd
}

func (k *kube) showBundle(file string, c *kubehub.BundleContents) error {
	if k.JSON() {
		return hubctl.EncodeJSON(k.Out, struct {
			File string `json:"file"`
			*kubehub.BundleContents
		}{file, c})
	}
	for _, f := range c.Files {
		if _, err := fmt.Fprintf(k.Out, "%10d  %s\n", f.Bytes, f.Name); err != nil {
			return err
		}
	}
	for _, m := range c.Missing {
		k.Tellf("not collected: %s", m)
	}
	_, err := fmt.Fprintf(k.Out, "%s: %d files, %d places redacted, %d things not collected. Look through it before you send it.\n", file, len(c.Files), c.Redacted, len(c.Missing))
	return err
}
