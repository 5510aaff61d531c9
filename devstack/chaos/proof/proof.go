// Package proof tries promises about which one operation says little, over and
// over: a command runs once and its output is whole, whatever happens to workers,
// connections and sshd (Once); no host begins after a pause was acknowledged
// (Pause); no reboot is believed too early or asked for twice, and nothing runs on
// a host whose key has changed (Reboot).
//
// As in package chaos the product is the real binary, built with the tag chaos,
// on a real Postgres and a real Temporal, and what happened is counted by hosts.
package proof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"commissaire/devstack/harness"
	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
)

// Options say what to try.
type Options struct {
	Binary string // commissaire, built with the tag chaos
	Dir    string // for everything it leaves behind
	Count  int    // how often; 0 for what the promise says
	Out    io.Writer
}

// Result is one line for machines, and whether it is good.
type Result interface {
	fmt.Stringer
	OK() bool
}

// Proofs are all there are, by name.
var Proofs = map[string]func(context.Context, Options) (Result, error){
	"once":   Once,
	"pause":  Pause,
	"reboot": Reboot,
}

// with runs f on a Postgres and a Temporal of its own.
func with(ctx context.Context, o Options, f func(harness.Options) error) (err error) {
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), MaxConnections: 200})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Fast)) }()
	log, err := os.Create(filepath.Join(o.Dir, "temporal.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	server, err := temporal.Start(ctx, temporal.Options{PostgresDSN: pg.DSN("postgres"), NoUI: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	return f(harness.Options{Dir: o.Dir, Name: "proof", Binary: o.Binary, Postgres: pg, Temporal: server.Addr()})
}

// or is n, or otherwise when n is not given.
func or(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}
