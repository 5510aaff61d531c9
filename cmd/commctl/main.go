// Command commctl is the command line of Commissaire.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"commissaire/internal/commctl"
)

func main() {
	// The root of the process: what a signal ends is ended through it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := commctl.New(os.Stdin, os.Stdout, os.Stderr, os.Getenv).Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
