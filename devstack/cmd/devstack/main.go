// Command devstack runs all of Commissaire on this machine: for development
// (up), and to see it work (demo).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"commissaire/devstack/demo"
	"commissaire/devstack/stack"
)

// exitInterrupted is what shells give for SIGINT.
const exitInterrupted = 130

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second interrupt ends this at once; Postgres and the hosts follow.
	context.AfterFunc(ctx, stop)
	err := root().ExecuteContext(ctx)
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "devstack: interrupted")
		os.Exit(exitInterrupted)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devstack:", err)
		os.Exit(1)
	}
}

// flags are common to all commands.
type flags struct {
	stack.Options
	explicit  bool // the state folder was given
	userState bool
}

func root() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "devstack",
		Short: "Run all of Commissaire on this machine",
		Long: "Runs a private Postgres, Temporal with its web UI, the API server and a worker in one process.\n" +
			"Everything listens on 127.0.0.1. The state stays in one folder, for the next time.",
		SilenceErrors: true, SilenceUsage: true,
	}
	p := cmd.PersistentFlags()
	p.StringVar(&f.Dir, "state-dir", ".state", "folder of the state")
	p.BoolVar(&f.userState, "user-state", false, "keep the state in $XDG_STATE_HOME/commissaire (~/.local/state/commissaire)")
	p.IntVar(&f.Port, "port", 8000, "port of the API; 0 for a free one")
	p.IntVar(&f.TemporalPort, "temporal-port", 7233, "port of the Temporal frontend; 0 for a free one")
	p.IntVar(&f.UIPort, "ui-port", 8233, "port of the Temporal web UI; 0 for a free one")
	cmd.MarkFlagsMutuallyExclusive("state-dir", "user-state")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		isolate()
		f.explicit = p.Changed("state-dir")
		f.Dir, err = f.stateDir()
		return err
	}
	cmd.AddCommand(upCommand(&f), demoCommand(&f))
	return cmd
}

func upCommand(f *flags) *cobra.Command {
	return &cobra.Command{Use: "up", Short: "Run the stack until Ctrl-C", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return f.run(cmd, os.Stderr, func(ctx context.Context, s *stack.Stack) error {
			demo.Addresses(cmd.OutOrStdout(), s)
			fmt.Fprintln(cmd.OutOrStdout(), "Ctrl-C stops it.")
			return s.Wait(ctx)
		})
	}}
}

func demoCommand(f *flags) *cobra.Command {
	exit := os.Getenv("DEMO_EXIT") == "1"
	cmd := &cobra.Command{
		Use: "demo", Short: "Run the stack with five sshd hosts and restart them one after another", Args: cobra.NoArgs,
		Long: "Runs the stack, starts five real sshd hosts on loopback addresses, bootstraps them into the cluster demo\n" +
			"by the REST API, restarts the cluster, and shows how that goes. Then it stays until Ctrl-C.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := openLog(filepath.Join(f.Dir, "commissaire.log"))
			if err != nil {
				return err
			}
			defer log.Close()
			return f.run(cmd, log, func(ctx context.Context, s *stack.Stack) error {
				d, err := demo.Start(ctx, s, filepath.Join(f.Dir, "hosts"), cmd.OutOrStdout())
				if err != nil {
					return err
				}
				err = d.Run(ctx)
				if err == nil && !exit {
					demo.Addresses(cmd.OutOrStdout(), s)
					fmt.Fprintln(cmd.OutOrStdout(), "It goes on running; Ctrl-C stops it.")
					err = s.Wait(ctx)
				}
				return errors.Join(err, d.Close())
			})
		},
	}
	cmd.Flags().BoolVar(&exit, "exit", exit, "end after the restart (also DEMO_EXIT=1)")
	return cmd
}

// run starts the stack, does f, and stops the stack. What the product logs goes
// to log.
func (f *flags) run(cmd *cobra.Command, log io.Writer, do func(context.Context, *stack.Stack) error) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	f.Logger = slog.New(slog.NewTextHandler(log, nil))
	f.Progress = out
	begin := time.Now()
	fmt.Fprintln(out, "Starting in", f.Dir)
	s, err := stack.Start(ctx, f.Options)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Ready after %.1fs.\n\n", time.Since(begin).Seconds())
	err = do(ctx, s)
	fmt.Fprintln(out, "Stopping.")
	return errors.Join(err, s.Stop())
}

// openLog opens the file for what the product says during the demo, whose
// terminal shows the hosts.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// isolate keeps settings that the user has for another Temporal away from the
// one in this process.
func isolate() {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "TEMPORAL_") {
			_ = os.Unsetenv(name)
		}
	}
	_ = os.Setenv("TEMPORAL_CONFIG_FILE", os.DevNull)
}
