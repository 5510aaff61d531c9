package commctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// runFlags are what a command takes.
type runFlags struct {
	selector string
	hosts    []string
	timeout  time.Duration
	atOnce   int
	noWait   bool
	format   *format
}

func (a *App) runCommand() *cobra.Command {
	var r runFlags
	cmd := &cobra.Command{
		Use: "run CLUSTER -- COMMAND [ARG]...", Short: "Run a command on the hosts of a cluster",
		Long: `Run a command once on each host of a cluster, as root and on all of them at once, and
print what it prints, each line behind its host. No shell reads the arguments; for
one, run sh -c. It waits for no other operation and keeps none from running.

What it printed and how it ended on each host stays on record: 'commctl logs' shows
it again, 'commctl operations retry' runs it on the hosts that failed, and 'commctl
operations cancel' ends it. It goes on when commctl does not.

The exit code is 5 when the command failed on a host, or a host could not be reached,
and 9 when it was begun, or may have been, and commctl did not see its end.`,
		Example: "  commctl run web -- uname -r\n  commctl run -l env=prod --timeout 1m web -- systemctl is-active sshd\n  commctl run --at-once 10 web -- sh -c 'df -h / | tail -n 1'",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("give a cluster and, after --, the command to run on its hosts")
			}
			if err := nameArgs(cobra.MinimumNArgs(2), 0, 1)(cmd, args); err != nil {
				return err
			}
			return checkArgv(args[1:])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&r.selector, "selector", "l", "", "only on hosts whose labels fit `SELECTOR`, such as env=prod")
	f.StringSliceVar(&r.hosts, "host", nil, "only on `HOST`, which is in the cluster; may be given again")
	f.DurationVar(&r.timeout, "timeout", 0, "how long it may take on a host, with the time to reach it, 1s to 24h; then it is ended there (default 10m0s)")
	f.IntVar(&r.atOnce, "at-once", 0, "on so many hosts at a time (default on all)")
	f.BoolVar(&r.noWait, "no-wait", false, "begin it and show the operation")
	r.format = outputFlag(cmd, "")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		// A script that found none means none, and must not reach all, nor take the default.
		switch {
		case f.Changed("host") && (len(r.hosts) == 0 || slices.Contains(r.hosts, "")):
			return exitf(exitUsage, "--host names no host; leave it out to run the command on all hosts of the cluster")
		case f.Changed("selector") && strings.TrimSpace(r.selector) == "":
			return exitf(exitUsage, "--selector is empty; leave it out to run the command on all hosts of the cluster")
		case f.Changed("timeout") && r.timeout <= 0:
			return exitf(exitUsage, "--timeout is %s, it must be 1s to 24h; leave it out for 10m0s", r.timeout)
		case f.Changed("at-once") && r.atOnce <= 0:
			return exitf(exitUsage, "--at-once is %d, it must be 1 or more; leave it out to run the command on all hosts at a time", r.atOnce)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), args[0], args[1:], r) }
	return cmd
}

func (a *App) run(ctx context.Context, cluster string, argv []string, r runFlags) error {
	body := client.CommandPost{Argv: argv, Selector: r.selector, Hosts: r.hosts, AtOnce: r.atOnce}
	if r.timeout != 0 {
		body.Timeout = fleet.Lasting(r.timeout)
	}
	params := &client.RunCommandParams{IdempotencyKey: idempotencyKey()}
	op, err := begin[client.Operation](ctx, a, beginning{
		what: "command of " + cluster, look: listOf(cluster),
		send: func(ctx context.Context, c *client.ClientWithResponses) (*http.Response, error) {
			return c.RunCommand(ctx, cluster, params, body)
		},
	})
	switch {
	case err != nil:
		return err
	case r.noWait:
		return renderOne(a, *r.format, operationView, op)
	}
	// First of all, so that nobody begins it again, whatever follows.
	fmt.Fprintf(a.Err, "operation %s: %s was begun\n", op.Id, legible(title(op)))
	if *r.format != "" {
		err = a.stay(ctx, waitFlags{wait: true}, *r.format, op.Id)
	} else {
		err = a.printRun(ctx, op)
	}
	return unlessEnded(op.Id, err)
}

// unlessEnded makes an error, after which the end of an operation is not known, say so.
func unlessEnded(id string, err error) error {
	var known *exitError
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &known) && known.code == exitFailed {
		return err
	}
	// Without the cause, which would decide the exit code.
	return exitf(exitUnknown, "operation %s was begun, and commctl did not see its end: %v. To see it: commctl operations get %s", id, err, id)
}

// printRun prints what hosts print until the command has ended, and then how it went.
func (a *App) printRun(ctx context.Context, op client.Operation) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	r := a.newRunning(c, op)
	err = r.follow(ctx, a)
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.Err, "The command goes on. To see it: commctl logs -f %s; to end it: commctl operations cancel --force %s\n", op.Id, op.Id)
	}
	if err != nil {
		return err
	}
	if err := r.tellEnd(); err != nil {
		return err
	}
	if op = r.op; fleet.OperationState(op.State) == fleet.OperationSucceeded {
		return nil
	}
	failed, _, _ := failuresOf(ctx, c, op) // what may not be read, or not now, is left out
	if err := printNext(a.Err, op, failed); err != nil {
		return err
	}
	return exitf(exitFailed, "%s %s", title(op), because(string(op.State), op.Reason))
}
