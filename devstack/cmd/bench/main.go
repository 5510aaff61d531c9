// Command bench measures the product beside what is there without it: reads of the API
// beside a bare handler, a command on 50 real hosts beside ssh, parallel-ssh, clush and
// Ansible, and a command on thousands of simulated hosts. Its lines that begin with
// "bench:" are for machines.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"commissaire/devstack/bench"
	"commissaire/devstack/scale"
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

// The parts of a run.
const (
	partReads     = "reads"
	partFanOut    = "fanout"
	partSimulated = "simulated"
)

// settings are those of the command line.
type settings struct {
	parts, sizes string
	write        string
	limit        time.Duration
	reads        bench.Options
	fanOut       bench.FanOutOptions
}

func run(ctx context.Context) error {
	if address, dsn, peer := strings.Cut(os.Getenv(bench.PeerEnv), " "); peer {
		return bench.ServePeer(ctx, address, dsn)
	}
	if len(os.Args) > 1 {
		if done, err := play(ctx, os.Args[1], os.Args[2:]); done {
			return err
		}
	}
	var s settings
	flag.StringVar(&s.parts, "parts", strings.Join([]string{partReads, partFanOut, partSimulated}, ","), "what to measure")
	flag.StringVar(&s.write, "write", "", "folder of the repository, into whose docs/benchmarks.md the results are written")
	flag.DurationVar(&s.limit, "limit", 15*time.Minute, "how long all of it may take")
	flag.StringVar(&s.reads.Binary, "commissaire", "bin/commissaire", "commissaire")
	flag.StringVar(&s.fanOut.Commctl, "commctl", "bin/commctl", "commctl")
	flag.IntVar(&s.reads.Steps, "steps", 1_000_000, "of reads: steps on record")
	flag.IntVar(&s.reads.Rounds, "rounds", 5, "rounds of each side or contender")
	flag.DurationVar(&s.reads.Round, "round", 4*time.Second, "of reads: how long a round is")
	flag.IntVar(&s.fanOut.Hosts, "hosts", 50, "of fanout: real sshd hosts")
	flag.DurationVar(&s.fanOut.Limit, "fanout-limit", 6*time.Minute, "of fanout: when no other round begins, but for the first three")
	only := flag.String("only", "", "of fanout: names of contenders, as in its lines; all when empty")
	flag.StringVar(&s.sizes, "sizes", "500,10000", "of simulated: hosts of each fleet")
	flag.Parse()
	if flag.NArg() > 0 || s.reads.Rounds < 1 || s.fanOut.Hosts < 1 {
		return errors.New("needs at least one host and one round, and takes flags only; see -help")
	}
	if *only != "" {
		s.fanOut.Only = strings.Split(*only, ",")
	}
	return s.measure(ctx)
}

// play is what the processes do that this command starts of itself.
func play(ctx context.Context, role string, args []string) (played bool, err error) {
	switch {
	case role == bench.RoleKeeper && len(args) == 0:
		return true, bench.Keep(os.Stdin, os.Stdout)
	case role == bench.RoleHosts && len(args) == 3:
		count, err := strconv.Atoi(args[2])
		if err != nil {
			return true, err
		}
		return true, bench.ServeHosts(ctx, args[0], args[1], count)
	case role == bench.RoleTemporal && len(args) == 1:
		return true, scale.ServeTemporal(ctx, args[0], os.Stdin, os.Stdout)
	default:
		return false, nil
	}
}

func (s settings) measure(ctx context.Context) error {
	parts := strings.Split(s.parts, ",")
	for _, part := range parts {
		if !slices.Contains([]string{partReads, partFanOut, partSimulated}, part) {
			return fmt.Errorf("-parts %q: not one of %s, %s, %s", part, partReads, partFanOut, partSimulated)
		}
	}
	sizes, err := bench.ParseSizes(s.sizes)
	if err != nil {
		return fmt.Errorf("-sizes %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done within %s", s.limit))
	defer cancel()
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
	r := bench.Report{Machine: bench.Describe(ctx)}
	fmt.Println("bench: on", r.Machine)
	// A part that fails does not take the others with it.
	var errs []error
	if slices.Contains(parts, partReads) {
		r.Reads, err = s.measureReads(ctx, filepath.Join(dir, partReads))
		errs = append(errs, err)
	}
	if slices.Contains(parts, partFanOut) {
		o := s.fanOut
		o.Binary, o.Dir, o.Rounds, o.Out = s.reads.Binary, filepath.Join(dir, partFanOut), s.reads.Rounds, os.Stdout
		f, err := bench.CompareFanOut(ctx, o)
		if err == nil {
			r.FanOut = &f
		}
		errs = append(errs, err)
	}
	if slices.Contains(parts, partSimulated) {
		o := bench.SimulatedOptions{Binary: s.reads.Binary, Dir: filepath.Join(dir, partSimulated), Sizes: sizes, Out: os.Stdout}
		r.Simulated, err = bench.Simulate(ctx, o)
		errs = append(errs, err)
		for _, one := range r.Simulated {
			if one.Failure != "" {
				errs = append(errs, fmt.Errorf("%d simulated hosts: %s", one.Hosts, one.Failure))
			}
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	if s.write != "" { // what there is, also when a part failed
		errs = append(errs, r.Write(s.write))
	}
	return errors.Join(errs...)
}

func (s settings) measureReads(ctx context.Context, dir string) ([]bench.Read, error) {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	o := s.reads
	o.Dir, o.Out = dir, io.MultiWriter(os.Stdout, &said)
	if err := bench.Reads(ctx, o); err != nil {
		return nil, err
	}
	return bench.ParseReads(said.String())
}
