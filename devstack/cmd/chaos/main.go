// Command chaos does harm at every point of bootstrap, restart, upgrade, deploy and
// command, and says what was lost, doubled or left stuck. With the name of a proof (once,
// pause, reboot) it carries out that one instead, and with k8s it does harm to rollouts
// over the nodes of a Kubernetes. Its last line is for machines.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"commissaire/devstack/chaos"
	"commissaire/devstack/chaos/proof"
	"commissaire/devstack/harness"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run() error {
	binary := flag.String("commissaire", "bin/commissaire-chaos", "commissaire, built with -tags chaos")
	dir := flag.String("dir", "", "folder for logs and state; kept when given, else a temporary one that is removed after a good run")
	lanes := flag.Int("lanes", 6, "installations side by side")
	only := flag.String("only", "", "try only points that match this regular expression, such as 'restart host.reboot'")
	count := flag.Int("count", 0, "of a proof: commands, trials, runs, or hosts of each sort; 0 for what it promises")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "of k8s: what happens in which run")
	first := flag.Int("first", 1, "of k8s: number of the first run, to repeat one of a seed")
	flag.Parse()
	var chosen *regexp.Regexp
	if *only != "" {
		var err error
		if chosen, err = regexp.Compile(*only); err != nil {
			return err
		}
	}
	proven := proof.Proofs[flag.Arg(0)]
	if flag.Arg(0) == "k8s" {
		proven = func(ctx context.Context, p proof.Options) (proof.Result, error) {
			return chaos.Nodes(ctx, chaos.NodeOptions{Binary: p.Binary, Dir: p.Dir, Lanes: *lanes, Runs: cmp.Or(p.Count, 300), First: *first, Seed: *seed, Only: chosen, Out: p.Out})
		}
	}
	if flag.NArg() > 1 || flag.NArg() == 1 && proven == nil {
		return errors.New("the only argument may be the name of a proof: once, pause, reboot or k8s")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	o := chaos.Options{Binary: *binary, Dir: *dir, Lanes: *lanes, Only: chosen, Out: os.Stdout}
	if o.Dir == "" {
		var err error
		if o.Dir, err = harness.TempDir("chaos-"); err != nil {
			return err
		}
	}
	ok, err := try(ctx, o, proven, *count)
	if err != nil {
		return fmt.Errorf("%w (state is kept in %s)", err, o.Dir)
	}
	if !ok {
		return errors.New("a promise was broken or a point was not reached; state is kept in " + o.Dir)
	}
	if *dir == "" {
		return os.RemoveAll(o.Dir)
	}
	return nil
}

// try tries all points, or carries out a proof, and prints what came of it.
func try(ctx context.Context, o chaos.Options, proven func(context.Context, proof.Options) (proof.Result, error), count int) (ok bool, err error) {
	if proven != nil {
		result, err := proven(ctx, proof.Options{Binary: o.Binary, Dir: o.Dir, Count: count, Out: o.Out})
		if err != nil {
			return false, err
		}
		fmt.Fprintln(o.Out, result)
		return result.OK(), nil
	}
	result, err := chaos.Run(ctx, o)
	if err != nil {
		return false, err
	}
	for _, p := range result.Unreached {
		fmt.Fprintln(o.Out, "not reached:", p)
	}
	fmt.Fprintln(o.Out, result)
	return result.OK(), nil
}
