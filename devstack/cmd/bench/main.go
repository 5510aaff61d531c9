// Command bench measures reads of the API at 10,000 hosts and 1,000,000 steps
// beside a bare handler. Its lines that begin with "bench: path=" are for machines.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"commissaire/devstack/bench"
)

func main() {
	// The root of the process: what a signal ends is ended through it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if address, dsn, peer := strings.Cut(os.Getenv(bench.PeerEnv), " "); peer {
		return bench.ServePeer(ctx, address, dsn)
	}
	o := bench.Options{Out: os.Stdout}
	flag.StringVar(&o.Binary, "commissaire", "bin/commissaire", "commissaire")
	flag.IntVar(&o.Steps, "steps", 1_000_000, "steps on record")
	flag.IntVar(&o.Rounds, "rounds", 5, "rounds of each side, for each path")
	flag.DurationVar(&o.Round, "round", 4*time.Second, "how long a round is")
	flag.Parse()
	// The starting thread must live: children die with it (Pdeathsig).
	runtime.LockOSThread()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // Postgres runs as another user when we are root
		return err
	}
	o.Dir = dir
	return bench.Reads(ctx, o)
}
