// Command histories records the histories that the tests of package workflows
// replay.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"commissaire/devstack/harness"
	"commissaire/devstack/histories"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "histories:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	o := histories.Options{Say: os.Stdout}
	flag.StringVar(&o.Root, "root", ".", "folder of the product's module")
	flag.StringVar(&o.Out, "out", "", "folder to write to, below one for the revision; that of the tests when it is not given")
	flag.StringVar(&o.Only, "story", "", "the one story to play; all when it is not given")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.Dir, err = harness.TempDir("histories-"); err != nil {
		return err
	}
	if err := histories.Run(ctx, o); err != nil {
		return fmt.Errorf("%w (state is kept in %s)", err, o.Dir)
	}
	return os.RemoveAll(o.Dir)
}
