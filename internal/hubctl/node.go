package hubctl

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/hubnode"
)

// nodeCommand runs one node of "dev" in this process. It is hidden: people run
// the program hubnode.
func (a *App) nodeCommand() *cobra.Command {
	var file string
	var attached bool
	cmd := &cobra.Command{
		Use:    "node",
		Short:  "Run one node of hubctl dev",
		Hidden: true,
		Args:   Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if attached {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
				// The standard input is a pipe that ends with the process
				// that started this one, however it ends. Nobody waits for
				// this goroutine: it ends with the process at the latest.
				go func() {
					_, _ = io.Copy(io.Discard, a.In) // its end is all that counts
					cancel()
				}()
			}
			return hubnode.RunFile(ctx, hubnode.Options{ConfigFile: file, Version: a.Version, LogOutput: a.ErrOut})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "config `file`, YAML")
	cmd.Flags().BoolVar(&attached, "attached", false, "end when the standard input ends")
	_ = cmd.MarkFlagRequired("config") // the flag is there
	return cmd
}
