package hubctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func (a *App) pubCommand() *cobra.Command {
	var what content
	var lines bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "pub TOPIC [DATA|-]",
		Short: "Publish to a topic",
		Long: `Publish DATA, or with "-" the standard input, to a topic. When the topic keeps
history, the sequence is printed once the hub has the artifact for good. While a
majority of the topic's replicas is away it waits, for --timeout at most: then the
artifact may or may not be stored, and the exit status is 4. With --lines it waits for
as long as it takes.`,
		Example: `  hubctl pub orders.new '{"x":1}' -a tenant=acme --content-type application/json
  hubctl pub broadcast 'to every client'
  tail -f access.log | hubctl pub logs.web - --lines`,
		Args: Args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPublish(cmd, args[0]); err != nil {
				return err
			}
			if lines && (len(args) < 2 || args[1] != "-") {
				return Usagef(cmd, `--lines reads the standard input: give "-" as DATA`)
			}
			if timeout <= 0 {
				return Usagef(cmd, "timeout %v: want more than 0", timeout)
			}
			if lines {
				return a.pubLines(cmd, args[0], &what)
			}
			artifact, err := what.artifact(cmd, a.In, args[1:])
			if err != nil {
				return err
			}
			return a.pub(cmd.Context(), args[0], artifact, timeout)
		},
	}
	what.flags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait until the hub has it")
	cmd.Flags().BoolVar(&lines, "lines", false, "with -: publish each line by itself")
	return cmd
}

func (a *App) pub(ctx context.Context, topic string, artifact *wire.Artifact, timeout time.Duration) error {
	c, err := a.connect(ctx, client.WithoutBroadcast())
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	seq, err := c.Publish(waiting, topic, artifact)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not stored within %v: %w", timeout, err)
	}
	err = errors.Join(err, c.Close())
	if err != nil {
		return err
	}
	return a.printSequence(topic, seq)
}

// printSequence says where in its topic's history an artifact is, when it is.
func (a *App) printSequence(topic string, seq wire.Sequence) error {
	var err error
	switch {
	case a.JSON():
		err = EncodeJSON(a.Out, struct {
			Topic    string        `json:"topic"`
			Sequence wire.Sequence `json:"sequence,omitempty"`
		}{topic, seq})
	case seq != 0:
		_, err = fmt.Fprintln(a.Out, seq)
	}
	return err
}

// pubLines publishes each line of the standard input, many at a time, and
// prints their sequences in order.
func (a *App) pubLines(cmd *cobra.Command, topic string, what *content) error {
	artifact, err := what.artifact(cmd, a.In, nil)
	if err != nil {
		return err
	}
	c, err := a.connect(cmd.Context(), client.WithoutBroadcast())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	acks := make(chan client.Ack, client.DefaultInFlight)
	printed := make(chan error, 1)
	go func() { printed <- a.printSequences(ctx, cancel, topic, acks) }()

	err = a.eachLine(func(line []byte) error {
		artifact.Payload = line
		ack, err := c.PublishAsync(ctx, topic, artifact)
		if err != nil {
			return err
		}
		select {
		case acks <- ack:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(acks)
	if e := <-printed; e != nil {
		err = e // what was refused explains why publishing stopped
	}
	return errors.Join(err, c.Close())
}

// printSequences prints the sequence of each artifact; the first refusal
// cancels publishing.
func (a *App) printSequences(ctx context.Context, cancel context.CancelCauseFunc, topic string, acks <-chan client.Ack) error {
	var failed error
	for ack := range acks {
		if failed != nil {
			continue // drain, so that publishing can end
		}
		seq, err := ack.Wait(ctx)
		if err == nil {
			err = unreadFails(a.printSequence(topic, seq))
		}
		if err != nil {
			failed = err
			cancel(err)
		}
	}
	return failed
}

// eachLine calls f with each line of the standard input, without its end. The
// line is valid during the call.
func (a *App) eachLine(f func([]byte) error) error {
	r := bufio.NewReaderSize(a.In, 64<<10)
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, part...)
			continue
		}
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return fmt.Errorf("read the standard input: %w", err)
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if len(line) > 0 && line[len(line)-1] == '\n' {
			line = line[:len(line)-1]
		} else if end && len(line) == 0 {
			return nil
		}
		if err := f(line); err != nil {
			return err
		}
		long = long[:0]
		if end {
			return nil
		}
	}
}
