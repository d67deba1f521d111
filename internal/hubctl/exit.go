package hubctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode"
)

// The exit statuses, a contract with scripts.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNoClient = 3
	exitTimeout  = 4
)

// usageError is what the caller typed wrong.
type usageError struct {
	command string // whose help says how it goes
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%v\nTry '%s --help'.", e.err, e.command)
}

func (e *usageError) Unwrap() error { return e.err }

// Usagef is an error of the command line of cmd.
func Usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// Args makes the violations of a rule for arguments errors of usage.
func Args(rule cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch err := rule(cmd, args); {
		case err == nil:
			return nil
		case cmd.HasSubCommands() && len(args) > 0:
			return unknownCommand(cmd, cmd, args[0])
		default:
			return Usagef(cmd, "%d arguments don't fit %q", len(args), cmd.Use)
		}
	}
}

// unknownCommand is the error of cmd that parent has no command of that name.
func unknownCommand(cmd, parent *cobra.Command, name string) error {
	hint := ""
	parent.SuggestionsMinimumDistance = 2
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		hint = ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return Usagef(cmd, "unknown command %q%s", name, hint)
}

// unread reports whether an error is that nobody reads our output any more. (A connection
// that breaks is no error of a file.)
func unread(err error) bool {
	e, ok := errors.AsType[*fs.PathError](err)
	return ok && errors.Is(e, syscall.EPIPE)
}

// unreadFails makes a failure of it, for commands that have more to do than to print.
func unreadFails(err error) error {
	if unread(err) {
		return fmt.Errorf("not done to the end, for nobody reads the output any more: %v", err) //nolint:errorlint // so that it is none of those
	}
	return err
}

// exitStatus returns the status for an error, and whether to print it.
func exitStatus(ctx context.Context, err error) (status int, tell bool) {
	_, usage := errors.AsType[*usageError](err)
	_, noClient := errors.AsType[*client.NoClientError](err)
	switch {
	case err == nil:
		return exitDone, false
	case unread(err): // who reads our output has had enough
		return exitDone, false
	case usage, errors.Is(err, hubnode.ErrConfig):
		return exitUsage, true
	case noClient:
		return exitNoClient, true
	case ctx.Err() != nil: // interrupted: the person knows
		return exitFailed, false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return exitTimeout, true
	default:
		return exitFailed, true
	}
}
