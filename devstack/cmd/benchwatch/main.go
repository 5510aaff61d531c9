// Command benchwatch says what it takes to watch thousands of simulated hosts. Its last
// line is for machines.
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
		fmt.Fprintln(os.Stderr, "benchwatch:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == "temporal" {
		return scale.ServeTemporal(ctx, os.Args[2], os.Stdin, os.Stdout)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o := scale.WatchOptions{Out: os.Stdout, Temporal: []string{self, "temporal"}}
	flag.StringVar(&o.Binary, "commissaire", "bin/commissaire", "commissaire")
	flag.IntVar(&o.Hosts, "hosts", 10000, "hosts to watch")
	flag.DurationVar(&o.Interval, "interval", time.Minute, "how often each is checked")
	flag.IntVar(&o.Rounds, "rounds", 3, "intervals to measure")
	flag.Parse()
	if flag.NArg() > 0 || o.Hosts < 1 || o.Rounds < 1 {
		return errors.New("needs at least one host and one round, and takes flags only; see -help")
	}
	if o.Dir, err = harness.TempDir("benchwatch-"); err != nil {
		return err
	}
	result, err := scale.Watch(ctx, o)
	if err != nil {
		return fmt.Errorf("%w (state is kept in %s)", err, o.Dir)
	}
	fmt.Println(result)
	if !result.OK() {
		return errors.New("worker and Temporal need more than a processor or 1 GB, or hosts were left out; state is kept in " + o.Dir)
	}
	return os.RemoveAll(o.Dir)
}
