// Command rest measures an installation that has nothing else to do: how long it
// takes from an order to the first answer of a host, and how much of a processor
// it uses while nothing happens. Its last line is for machines.
package main

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	apiclient "commissaire/api/client"
	"commissaire/devstack/harness"
	"commissaire/devstack/stack"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rest:", err)
		os.Exit(1)
	}
}

const hostCount = 5

func run() error {
	orders := flag.Int("orders", 20, "restarts of one host, one after another")
	idle := flag.Duration("idle", time.Minute, "how long nothing happens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := harness.TempDir("rest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := stack.Start(ctx, stack.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Stop()
	var configs []remotetest.HostConfig
	for i := range hostCount {
		configs = append(configs, remotetest.HostConfig{Name: fmt.Sprintf("h%d", i+1)})
	}
	hosts, err := remotetest.Open(ctx, filepath.Join(dir, "hosts"), configs...)
	if err != nil {
		return err
	}
	defer hosts.Close()
	m, err := prepare(ctx, s, hosts)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range *orders {
		d, err := m.order(ctx)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	before := processorTime()
	begin := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(*idle):
	}
	share := 100 * (processorTime() - before).Seconds() / time.Since(begin).Seconds()
	fmt.Printf("rest: hosts=%d orders=%d first_answer_ms_p50=%d first_answer_ms_p95=%d idle_cpu_percent=%.1f\n",
		hostCount, *orders, took[len(took)/2].Milliseconds(), took[len(took)*95/100].Milliseconds(), share)
	return nil
}

// measured is the host that is restarted again and again, in a cluster of its own.
type measured struct {
	api  *apiclient.ClientWithResponses
	host *remotetest.Host
}

const cluster = "measured"

// prepare bootstraps all hosts; the first is in the cluster.
func prepare(ctx context.Context, s *stack.Stack, hosts *remotetest.Fleet) (*measured, error) {
	api, err := s.Client()
	if err != nil {
		return nil, err
	}
	if _, err := api.PutClusterWithResponse(ctx, cluster, apiclient.ClusterPut{}); err != nil {
		return nil, err
	}
	for i, h := range hosts.Hosts() {
		put := apiclient.HostPut{Port: h.Port(), RemoteUser: h.User(), SshPrivKey: base64.StdEncoding.EncodeToString([]byte(hosts.ClientKey()))}
		if i == 0 {
			put.Cluster = cluster
		}
		r, err := api.PutHostWithResponse(ctx, h.Address(), put)
		if err != nil || r.StatusCode() != http.StatusCreated {
			return nil, fmt.Errorf("put host: %w %s", err, r.Status())
		}
	}
	for _, h := range hosts.Hosts() {
		if err := until(ctx, func() (bool, error) {
			r, err := api.GetHostWithResponse(ctx, h.Address())
			return err == nil && r.JSON200 != nil && r.JSON200.Status == apiclient.HostState(fleet.HostDisassociated), err
		}); err != nil {
			return nil, err
		}
	}
	return &measured{api, hosts.Hosts()[0]}, nil
}

// order restarts the host and gives the time until its first answer was on record,
// which is a little later than the first command on it. The connection of the last
// time went down with the host, so a new one is part of it.
func (m *measured) order(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	r, err := m.api.RestartClusterWithResponse(ctx, cluster, &apiclient.RestartClusterParams{}, apiclient.RestartClusterJSONRequestBody{})
	if err != nil || r.StatusCode() != http.StatusCreated {
		return 0, fmt.Errorf("restart: %w %s", err, r.Status())
	}
	kind, name, limit := apiclient.OperationKind(fleet.KindRestart), cluster, 1
	list, err := m.api.ListOperationsWithResponse(ctx, &apiclient.ListOperationsParams{Kind: &kind, Cluster: &name, Limit: &limit})
	if err != nil {
		return 0, err
	}
	id := list.JSON200.Operations[0].Id
	err = until(ctx, func() (bool, error) {
		op, err := m.api.GetOperationWithResponse(ctx, id)
		if err != nil {
			return false, err
		}
		return fleet.OperationState(op.JSON200.State).Ended(), nil
	})
	if err != nil {
		return 0, err
	}
	steps, err := m.api.ListOperationStepsWithResponse(ctx, id, &apiclient.ListOperationStepsParams{})
	if err != nil {
		return 0, err
	}
	for _, step := range steps.JSON200.Steps {
		if step.Name == "check" {
			answered, err := time.Parse(fleet.TimeFormat, step.FinishedAt)
			return answered.Sub(begin), err
		}
	}
	return 0, fmt.Errorf("operation %s has no step check", id)
}

func until(ctx context.Context, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		ok, err := check()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// processorTime is what this process and all that it started have used.
func processorTime() (all time.Duration) {
	const tick = 10 * time.Millisecond // USER_HZ, see proc(5)
	parents, used := map[int]int{}, map[int]time.Duration{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		used[pid] = time.Duration(user+system) * tick
	}
	for pid, d := range used {
		for p := pid; p > 1; p = parents[p] {
			if p == os.Getpid() {
				all += d
				break
			}
		}
	}
	return all
}
