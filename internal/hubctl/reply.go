package hubctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func (a *App) replyCommand() *cobra.Command {
	var count int
	var contentType string
	cmd := &cobra.Command{
		Use:   "reply CMD [ARG…]",
		Short: "Answer requests with a command's output",
		Long: `Connect as --id and answer each request with the output of a command, until
Ctrl-C. The command gets the payload on its standard input, and in its
environment SWITCHBOARD_FROM, SWITCHBOARD_CONTENT_TYPE and each attribute as
SWITCHBOARD_ATTR_NAME, in capitals and with _ for what is no letter or digit.
When it fails, the requester is told with what it wrote to its standard error.`,
		Example: `  hubctl reply --id shout tr a-z A-Z
  hubctl reply --id clock -- date --utc +%FT%TZ
  hubctl request shout hello`,
		Args: Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 0 {
				return Usagef(cmd, "count %d: want 1 or more", count)
			}
			if _, err := exec.LookPath(args[0]); err != nil {
				return Usagef(cmd, "%w", err)
			}
			return a.reply(cmd.Context(), args, contentType, count)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	cmd.Flags().IntVar(&count, "count", 0, "end after `N` requests")
	cmd.Flags().StringVar(&contentType, "content-type", "", "media `type` of the answers")
	return cmd
}

func (a *App) reply(ctx context.Context, command []string, contentType string, count int) error {
	named := a.id != ""
	enough := make(chan struct{})
	var answered atomic.Int64
	opts := append(a.notices(), client.WithoutBroadcast(), client.WithHandler(
		func(ctx context.Context, artifact *wire.Artifact) (*wire.Artifact, error) {
			if answered.Add(1) == int64(count) {
				defer close(enough) // Close lets the answer go out
			}
			out, err := runCommand(ctx, command, artifact)
			if err != nil {
				return nil, err
			}
			return &wire.Artifact{Payload: out, ContentType: contentType}, nil
		}))
	c, err := a.connect(ctx, opts...)
	if err != nil {
		return OrInterrupted(ctx, err)
	}
	s := c.Server()
	a.Tellf("answering as %s with %q at %s (%s)", c.ID(), strings.Join(command, " "), s.Node, s.Address)
	if !named {
		a.Tellf("ask it with: hubctl request %s hello", c.ID())
	}
	select {
	case <-ctx.Done():
		_ = c.Close() // answers under way are given up with the commands
		return nil
	case <-enough:
		return c.Close()
	case <-c.Done():
		return c.Err()
	}
}

// runCommand returns what a command writes when it is given an artifact.
func runCommand(ctx context.Context, command []string, artifact *wire.Artifact) ([]byte, error) {
	const (
		pipesOpen = time.Second // what its children may hold its output open
		stderrMax = 512
	)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // running the person's command is the purpose
	cmd.Stdin = bytes.NewReader(artifact.Payload)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = pipesOpen
	cmd.Env = append(os.Environ(), "SWITCHBOARD_FROM="+artifact.From, "SWITCHBOARD_CONTENT_TYPE="+artifact.ContentType)
	for key, value := range artifact.Attributes {
		cmd.Env = append(cmd.Env, attributeVariable(key)+"="+strings.ReplaceAll(value, "\x00", ""))
	}
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		if len(text) > stderrMax {
			text = "…" + text[len(text)-stderrMax:]
		}
		if text != "" {
			return nil, fmt.Errorf("%s: %w: %s", command[0], err, text)
		}
		return nil, fmt.Errorf("%s: %w", command[0], err)
	}
	return stdout.Bytes(), nil
}

// attributeVariable returns the environment variable that carries an attribute.
func attributeVariable(key string) string {
	return "SWITCHBOARD_ATTR_" + strings.Map(func(r rune) rune {
		switch {
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			return unicode.ToUpper(r)
		default:
			return '_'
		}
	}, key)
}
