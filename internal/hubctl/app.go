package hubctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	defaultServer  = "localhost:7400"
	connectTimeout = 10 * time.Second
)

// App is what the commands share: the global flags, and where input comes from
// and output goes to. Programs beside hubctl that look and tell as it does have one, too.
type App struct {
	Program string // as people call it
	Version string
	In      io.Reader
	Out     io.Writer
	ErrOut  io.Writer

	server    string
	id        string
	tokenFile string
	caFile    string
	certFile  string
	keyFile   string
	output    string

	place *Place // nil: where server says
}

// Main runs hubctl with the process's arguments and returns its exit status.
func Main(version string) int {
	return AsProcess(func(ctx context.Context) int {
		return Run(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	})
}

// AsProcess runs a command of the process. The first interrupt ends it in order, the
// second one at once.
func AsProcess(run func(ctx context.Context) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	// A closed pipe is an error to be handled, not the end of the process:
	// "dev" has nodes to stop. The signal is caught rather than ignored, for
	// commands that are started would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return run(ctx)
}

// Run runs one command and returns its exit status. Errors go to errOut.
func Run(ctx context.Context, version string, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &App{Program: "hubctl", Version: version, In: in, Out: out, ErrOut: errOut}
	return a.Execute(ctx, a.root(), args) //nolint:contextcheck // commands get ctx from ExecuteContext
}

// Execute runs the command of root that args name and returns its exit status.
func (a *App) Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.ErrOut)
	finish(root)
	err := root.ExecuteContext(ctx)
	status, tell := exitStatus(ctx, err)
	if tell {
		a.Tellf("%v", err)
	}
	return status
}

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hubctl",
		Short: "Talk to a Switchboard hub",
		Long: `hubctl talks to a Switchboard hub: it publishes and subscribes, sends to other
clients by name, shows who is connected, and starts a hub on loopback.

A hub that asks who clients are wants a token or a certificate. The token is looked for
in ` + client.DefaultTokenFile + `, too.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such client, 4 timed out.`,
		Example: `  hubctl dev                                # a hub of three nodes on loopback
  hubctl sub 'orders.>' --since all         # what was published, and what will be
  hubctl pub orders.new '{"x":1}'
  hubctl listen --id b                      # be client "b"
  hubctl send b hello`,
	}
	a.MakeRoot(root)
	Group(root)
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", envOr("SWITCHBOARD_SERVER", defaultServer), "`HOST:PORT[,…]` of the hub's nodes; the port is 7400 when left out (SWITCHBOARD_SERVER)")
	f.StringVar(&a.id, "id", os.Getenv("SWITCHBOARD_ID"), "client `ID` to be known as; made up when empty (SWITCHBOARD_ID)")
	a.CredentialFlags(f)
	root.AddCommand(a.devCommand(), a.nodeCommand())
	root.AddCommand(a.toHub(
		a.subCommand(), a.pubCommand(), a.historyCommand(),
		a.sendCommand(), a.listenCommand(),
		a.requestCommand(), a.replyCommand(),
		a.clientsCommand(), a.topicsCommand(), a.durablesCommand(), a.backupCommand(), a.restoreCommand(), a.listCommand(nodesList), a.listCommand(namespacesList),
		a.benchCommand(),
	)...)
	return root
}

// finish adds the commands that every root has, and makes them tell mistakes as all others do.
func finish(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Run = nil
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				switch {
				case err != nil:
					return Usagef(cmd, "%w", err)
				case len(rest) > 0:
					return unknownCommand(cmd, about, rest[0])
				}
				about.InitDefaultHelpFlag()
				about.InitDefaultVersionFlag()
				return about.Help()
			}
		case "completion":
			Group(cmd)
			for _, shell := range cmd.Commands() {
				shell.Args = Args(cobra.NoArgs)
			}
		}
	}
}

// MakeRoot gives a command what is the same for every root: how it tells mistakes,
// and the flag for the output.
func (a *App) MakeRoot(root *cobra.Command) {
	root.Version = a.Version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = a.checkGlobals
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return Usagef(cmd, "%w", err) })
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "`format` of the output: text or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// CredentialFlags adds the flags that say who this is, and whom it trusts.
func (a *App) CredentialFlags(f *pflag.FlagSet) {
	f.StringVar(&a.tokenFile, "token-file", os.Getenv("SWITCHBOARD_TOKEN_FILE"), "`file` with the token that proves who this is (SWITCHBOARD_TOKEN_FILE)")
	f.StringVar(&a.caFile, "ca-file", os.Getenv("SWITCHBOARD_CA_FILE"), "PEM `file` with the hub's CA; turns TLS on (SWITCHBOARD_CA_FILE)")
	f.StringVar(&a.certFile, "cert-file", os.Getenv("SWITCHBOARD_CERT_FILE"), "PEM `file` with the certificate that proves who this is; needs --key-file (SWITCHBOARD_CERT_FILE)")
	f.StringVar(&a.keyFile, "key-file", os.Getenv("SWITCHBOARD_KEY_FILE"), "PEM `file` with the key of --cert-file (SWITCHBOARD_KEY_FILE)")
}

// Group makes a command be only the parent of others.
func Group(cmd *cobra.Command) {
	cmd.Args = Args(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func (a *App) checkGlobals(cmd *cobra.Command, _ []string) error {
	if a.output != "text" && a.output != "json" {
		return Usagef(cmd, "output format %q: want text or json", a.output)
	}
	return nil
}

// JSON says whether the output is for scripts.
func (a *App) JSON() bool { return a.output == "json" }

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// connect connects as the global flags say. opts come after them.
func (a *App) connect(ctx context.Context, opts ...client.Option) (*client.Client, error) {
	return a.connectTo(ctx, a.server, opts...)
}

func (a *App) connectTo(ctx context.Context, server string, opts ...client.Option) (*client.Client, error) {
	all := []client.Option{client.WithID(a.clientID()), client.WithName("hubctl", a.Version)}
	if a.place != nil {
		door, err := a.place.Door(ctx)
		if err != nil {
			return nil, err
		}
		server = door.Server
		all = append(all, client.WithDialer(door.Dial))
		if door.TLS != nil {
			all = append(all, client.WithTLS(door.TLS))
		}
	}
	if a.tokenFile != "" {
		all = append(all, client.WithTokenFile(a.tokenFile))
	}
	if a.caFile != "" {
		all = append(all, client.WithCAFile(a.caFile))
	}
	if a.certFile != "" || a.keyFile != "" {
		all = append(all, client.WithCertificateFiles(a.certFile, a.keyFile))
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := client.Connect(ctx, server, append(all, opts...)...)
	if err != nil {
		return nil, explainConnect(err)
	}
	return c, nil
}

// explainConnect adds to an error what the person can do about it.
func explainConnect(err error) error {
	if _, unreachable := errors.AsType[*client.UnreachableError](err); unreachable && errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf(`%w; start one with "hubctl dev" or name one with --server`, err)
	}
	if coded, ok := errors.AsType[*wire.Error](err); ok && coded.Code == wire.CodeInvalidClientID {
		return fmt.Errorf("%w; name another one with --id", err)
	}
	return err
}

// clientID returns the id to connect with, which stays the same for a run.
func (a *App) clientID() wire.ClientID {
	if a.id == "" {
		a.id = madeUpID()
	}
	return a.id
}

// madeUpID says where a client that nobody named runs.
func madeUpID() wire.ClientID {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host, _, _ = strings.Cut(host, ".")
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read crashes the program instead
	id := fmt.Sprintf("hubctl-%.64s-%d-%s", host, os.Getpid(), hex.EncodeToString(b[:]))
	if wire.CheckClientID(id) != nil { // a strange host name
		return fmt.Sprintf("hubctl-%d-%s", os.Getpid(), hex.EncodeToString(b[:]))
	}
	return id
}

// Tellf writes a line for people to the standard error.
func (a *App) Tellf(format string, args ...any) {
	text := fmt.Sprintf(a.Program+": "+format, args...)
	_, _ = io.WriteString(a.ErrOut, harmless(text)+"\n") // nowhere else to complain
}

// notices are the options of a client that stays connected for long: what
// happens to the connection is told.
func (a *App) notices() []client.Option {
	connects := 0 // of the callbacks' goroutine alone
	return []client.Option{
		client.OnConnect(func(s client.Server) {
			if connects++; connects > 1 {
				a.Tellf("connected again, to %s (%s)", s.Node, s.Address)
			}
		}),
		client.OnDisconnect(func(err error) { a.Tellf("disconnected: %v", err) }),
		client.OnError(func(err error) { a.Tellf("%v", err) }),
	}
}
