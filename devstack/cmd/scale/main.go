// Command scale restarts thousands of simulated hosts through the real product
// and says what that took. With the argument nodes they are nodes of a Kubernetes, in two
// clusters that are restarted at once. Its last line is for machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run() error {
	o := scale.Options{Out: os.Stdout}
	flag.StringVar(&o.Binary, "commissaire", "bin/commissaire", "commissaire")
	flag.StringVar(&o.Dir, "dir", "", "folder for logs and state; kept when given, else a temporary one that is removed after a good run")
	flag.IntVar(&o.Hosts, "hosts", 1000, "hosts to restart")
	flag.Uint64Var(&o.Seed, "seed", 1, "seed of the times that reboots take")
	flag.StringVar(&o.MaxUnavailable, "max-unavailable", "10%", "hosts that may be down at once, a number or a percentage; empty for one after another, without a policy")
	flag.StringVar(&o.Together, "together", "8%", "of nodes: how many of them both rollouts may have away together")
	flag.IntVar(&o.Slots, "slots", 0, "steps that the worker runs at a time; 0 for its default")
	flag.DurationVar(&o.Shutdown, "shutdown", 200*time.Millisecond, "from the order to reboot until a host's port is closed, half to one and a half of it")
	flag.DurationVar(&o.Downtime, "downtime", 2*time.Second, "how long the port is closed then, half to one and a half of it")
	flag.DurationVar(&o.Limit, "limit", time.Hour, "how long the restart may take")
	flag.Parse()
	ofNodes := flag.Arg(0) == "nodes"
	if flag.NArg() > 1 || flag.NArg() == 1 && !ofNodes || o.Hosts < 1 {
		return errors.New("needs at least one host; the only argument may be nodes; see -help")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	temporary := o.Dir == ""
	if temporary {
		var err error
		if o.Dir, err = harness.TempDir("scale-"); err != nil {
			return err
		}
	}
	ok, err := measure(ctx, o, ofNodes)
	if err != nil {
		return fmt.Errorf("%w (state is kept in %s)", err, o.Dir)
	}
	if !ok {
		return errors.New("a promise was broken; state is kept in " + o.Dir)
	}
	if temporary {
		return os.RemoveAll(o.Dir)
	}
	return nil
}

// measure carries out the restart and prints what came of it.
func measure(ctx context.Context, o scale.Options, ofNodes bool) (ok bool, err error) {
	if ofNodes {
		r, err := scale.Nodes(ctx, o)
		if err != nil {
			return false, err
		}
		for _, p := range r.Problems {
			fmt.Println("nodes:", p)
		}
		fmt.Println(r)
		return r.OK(), nil
	}
	r, err := scale.Run(ctx, o)
	if err != nil {
		return false, err
	}
	for _, p := range r.Problems {
		fmt.Println("scale:", p)
	}
	fmt.Printf("scale: at most %d hosts were down at once, %d may be\n", r.DownMost, r.Budget)
	fmt.Println(r)
	return r.OK(), nil
}
