// Command build builds the programs of package kubetest into the user's cache.
// Run it in the folder of the repository; make build-kube does.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"commissaire/internal/kubetest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := kubetest.Build(ctx, ".", os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "build-kube:", err)
		os.Exit(1)
	}
	dir, err := kubetest.BinDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build-kube:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
