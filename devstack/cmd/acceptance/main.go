// Command acceptance lets the product bootstrap, upgrade, deploy, restart and roll
// back real machines, and prints what it saw on them. It needs root and what
// scripts/setup-nspawn installs. Its last line is for machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"commissaire/devstack/acceptance"
	"commissaire/devstack/harness"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
		os.Exit(1)
	}
}

func run() error {
	o := acceptance.Options{Out: os.Stdout}
	flag.StringVar(&o.Binary, "commissaire", "bin/commissaire", "commissaire")
	flag.IntVar(&o.APT, "apt", 2, "machines with apt")
	flag.IntVar(&o.DNF, "dnf", 2, "machines with dnf")
	flag.IntVar(&o.Images, "images", 2, "machines that boot OSTree deployments")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if o.Dir, err = harness.TempDir("acceptance-"); err != nil {
		return err
	}
	result, err := acceptance.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("%w (logs are kept in %s)", err, o.Dir)
	}
	fmt.Println(result)
	if !result.OK() {
		return errors.New("not all was as it must be; logs are kept in " + o.Dir)
	}
	return os.RemoveAll(o.Dir)
}
