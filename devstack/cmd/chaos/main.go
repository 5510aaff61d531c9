// Command chaos does harm at every point of bootstrap, restart, upgrade and deploy
// and says what was lost, doubled or left stuck. Its last line is for machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"commissaire/devstack/chaos"
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
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	o := chaos.Options{Binary: *binary, Dir: *dir, Lanes: *lanes, Out: os.Stdout}
	if *only != "" {
		var err error
		if o.Only, err = regexp.Compile(*only); err != nil {
			return err
		}
	}
	if o.Dir == "" {
		var err error
		if o.Dir, err = os.MkdirTemp("", "chaos-"); err != nil {
			return err
		}
		if err := os.Chmod(o.Dir, 0o711); err != nil { // Postgres runs as another user when we are root
			return err
		}
	}
	result, err := chaos.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("%w (state is kept in %s)", err, o.Dir)
	}
	for _, p := range result.Unreached {
		fmt.Println("not reached:", p)
	}
	fmt.Println(result)
	if !result.OK() {
		return errors.New("a promise was broken or a point was not reached; state is kept in " + o.Dir)
	}
	if *dir == "" {
		return os.RemoveAll(o.Dir)
	}
	return nil
}
