// Command commissaire is the control plane: the API server, the worker, and
// what an administrator needs around them.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"commissaire/internal/app"
	"commissaire/internal/config"
)

// Exit codes.
const (
	exitError = 1 // something failed; the message says what
	exitUsage = 2 // the command line or a setting is wrong
)

// gcPercent is the garbage collector's, where the environment does not say. What is live is
// small here and what comes and goes with each login is not: at Go's 100 a quarter of a
// worker's processor time went into collecting it.
const gcPercent = 300

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if err := root().ExecuteContext(ctx); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") { // several may be joined
			fmt.Fprintln(os.Stderr, "commissaire:", line)
		}
		var usage usageError
		if errors.As(err, &usage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitError)
	}
}

type usageError struct{ error }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "commissaire",
		Short:         "Roll operations over fleets of Linux hosts, durably",
		Long:          "Commissaire keeps an inventory of Linux hosts and rolls operations over them by SSH.\nEvery setting is a flag, a COMMISSAIRE_* variable or a member of the configuration file, in that order.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{config.FlagError(cmd.Flags(), err)} })
	config.Flags(cmd.PersistentFlags())
	cmd.AddCommand(
		process("server", "Serve the API", "commissaire server --users-file users.json --sealing-key-file seal.key", func(ctx context.Context, c *config.Config) error {
			return app.RunServer(ctx, c, app.Logger(c))
		}),
		process("worker", "Run steps on hosts", "commissaire worker --sealing-key-file seal.key", func(ctx context.Context, c *config.Config) error {
			return app.RunWorker(ctx, c, app.Logger(c))
		}),
		process("migrate", "Bring the database and the Temporal namespace up to date", "commissaire migrate --database-url-file dsn", func(ctx context.Context, c *config.Config) error {
			return app.Migrate(ctx, c, app.Logger(c))
		}),
		configCommand(), keyCommand(), passhashCommand(), versionCommand(),
	)
	return cmd
}

// process makes a command that needs the settings.
func process(use, short, example string, run func(context.Context, *config.Config) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: "  " + example, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := settings(cmd)
		if err != nil {
			return err
		}
		return run(cmd.Context(), c)
	}}
}

func settings(cmd *cobra.Command) (*config.Config, error) {
	loaded, err := load(cmd)
	if err != nil {
		return nil, err
	}
	return loaded.Config, nil
}

// load reads the settings, and logs what of them is ignored.
func load(cmd *cobra.Command) (*config.Loaded, error) {
	loaded, err := config.Load(cmd.Flags(), os.Environ(), cmd.InOrStdin())
	if err != nil {
		return nil, usageError{err}
	}
	warn(cmd, loaded)
	return loaded, nil
}

// warn logs what of the settings is ignored, and gives the logger they ask for.
func warn(cmd *cobra.Command, loaded *config.Loaded) *slog.Logger {
	log := app.Logger(loaded.Config)
	for _, warning := range loaded.Warnings {
		log.WarnContext(cmd.Context(), warning)
	}
	return log
}
