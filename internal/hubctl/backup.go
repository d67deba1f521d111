package hubctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
)

func (a *App) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write what the hub keeps to a file, while it runs",
		Long: `Write what the hub keeps of topics with history to a file, or to the standard output,
while it runs: all that was acknowledged before, with its sequences, and the positions
of durable subscriptions. A file is there whole or not at all.`,
		Example: "  hubctl backup agents.backup\n  hubctl backup - | zstd > agents.backup.zst",
		Args:    Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				return unreadFails(a.backup(cmd.Context(), a.Out, false))
			}
			return WholeFile(args[0], func(f io.Writer) error { return a.backup(cmd.Context(), f, true) })
		},
	}
}

// WholeFile writes a file that is there only once it is complete.
func WholeFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("write %s: %w", path, failed.Err) // the name that was tried says nothing
	}
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (a *App) backup(ctx context.Context, to io.Writer, tell bool) error {
	c, err := a.connect(ctx, client.WithoutBroadcast())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing of ours is in flight
	total, err := c.Backup(ctx, to, a.progress)
	if err != nil {
		return err
	}
	if !tell { // the output is the backup
		a.Tellf("%s", summary(total))
		return nil
	}
	return a.showSummary(total)
}

func (a *App) restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Store a backup in a hub, or go on with it",
		Long: `Store a backup in a hub, with the same sequences and the positions of durable
subscriptions. The hub's settings say what is kept; ages count from now on.

What the hub has already of these topics stays, and has to be the same as in the
backup: a restore that was interrupted goes on where it was when it is run again. A
backup that is damaged, cut off, or of another hub, is refused before anything is
stored; the error names the topic and the sequence where they differ.`,
		Example: "  hubctl restore agents.backup\n  zstd -d agents.backup.zst && hubctl restore agents.backup",
		Args:    Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // it was only read
			c, err := a.connect(cmd.Context(), client.WithoutBroadcast())
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }() // nothing of ours is in flight
			total, err := c.Restore(cmd.Context(), f, a.progress)
			if err != nil {
				return err
			}
			return a.showSummary(total)
		},
	}
}

// progress tells of a topic that is done.
func (a *App) progress(topic string, artifacts uint64) { a.Tellf("%s: %d artifacts", topic, artifacts) }

func summary(total client.BackupSummary) string {
	return fmt.Sprintf("%d topics, %d artifacts, %d durable subscriptions, %d bytes", total.Topics, total.Artifacts, total.Durables, total.Bytes)
}

func (a *App) showSummary(total client.BackupSummary) error {
	text := summary(total)
	if a.JSON() {
		line, err := json.Marshal(total)
		if err != nil {
			return err
		}
		text = string(line)
	}
	_, err := fmt.Fprintln(a.Out, text)
	return err
}
