package histories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"commissaire/devstack/harness"
	"commissaire/devstack/overlay"
	"commissaire/devstack/temporal"
	"commissaire/internal/kubetest"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// Options say where the product is and where the histories go.
type Options struct {
	Root string // of the product's module
	Out  string // folder of all revisions; "" is the one of package workflows
	Dir  string // for state and logs; empty or missing
	Only string // name of the one story to play; "" for all
	Say  io.Writer
}

const startTimeout = time.Minute

// few makes a rollout of three hosts keep its slots as one of hundreds does.
var few = overlay.Edit{File: "workflows/rollout.go", Old: "	manyHosts = 200\n", New: "	manyHosts = 2\n"}

// Run records every history anew, for the present revision.
func Run(ctx context.Context, o Options) (err error) {
	if o.Out == "" {
		o.Out = filepath.Join(o.Root, "workflows/testdata/histories")
	}
	binary, keeping := filepath.Join(o.Dir, "commissaire"), filepath.Join(o.Dir, "commissaire-keeping")
	if err := overlay.Build(ctx, o.Root, binary); err != nil {
		return err
	}
	if err := overlay.Build(ctx, o.Root, keeping, few); err != nil {
		return err
	}
	begin, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	pg, err := privatepg.Start(begin, privatepg.Options{Dir: filepath.Join(o.Dir, "postgres"), NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop(privatepg.Immediate)) }()
	log, err := os.Create(filepath.Join(o.Dir, "temporal.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	server, err := temporal.Start(begin, temporal.Options{PostgresDSN: pg.DSN("postgres"), NoUI: true, LongHistory: map[string]int{long: longEvents}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	var kube *kubetest.Cluster // for stories with nodes
	if o.Only == "" || slices.ContainsFunc(nodeStories, func(s story) bool { return s.name == o.Only }) {
		if kube, err = kubetest.Start(begin); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, kube.Close()) }()
	}

	out := filepath.Join(o.Out, strconv.Itoa(workflows.Revision))
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	sources, err := makeSources(filepath.Join(o.Dir, "sources"))
	if err != nil {
		return err
	}
	for _, part := range []struct {
		harness.Options
		stories []story
	}{
		{harness.Options{Name: "histories", Binary: binary, Machines: machines(stories)}, stories},
		{harness.Options{Name: "keeping", Binary: keeping, Machines: machines(keepingStories)}, keepingStories},
		{harness.Options{Name: "watching", Binary: binary, Machines: machines(watchStories), Env: []string{"COMMISSAIRE_WATCH_INTERVAL=1s"}}, watchStories},
		{harness.Options{Name: long, Binary: binary, Machines: machines(longStories)}, longStories},
		{harness.Options{Name: "sources", Binary: binary, Machines: machines(sourceStories), Env: []string{sources}}, sourceStories},
		{harness.Options{Name: "nodes", Binary: binary, Machines: machines(nodeStories)}, nodeStories},
	} {
		if o.Only != "" && !slices.ContainsFunc(part.stories, func(s story) bool { return s.name == o.Only }) {
			continue
		}
		part.Dir, part.Postgres, part.Temporal = o.Dir, pg, server.Addr()
		part.Env = append(part.Env, "COMMISSAIRE_REBOOT_TIMEOUT=8s")
		if err := record(ctx, part.Options, part.stories, o.Only, kube, out, o.Say); err != nil {
			return err
		}
	}
	return nil
}

// record plays stories one after another on an installation of their own.
func record(ctx context.Context, o harness.Options, stories []story, only string, kube *kubetest.Cluster, out string, say io.Writer) error {
	i, err := harness.New(ctx, o)
	if err != nil {
		return err
	}
	defer i.Close()
	w, err := i.Start("worker")
	if err != nil {
		return err
	}
	defer harness.Kill(w)
	hosts := i.Fleet.Hosts()
	for _, s := range stories {
		r := &recorder{Installation: i, ctx: ctx, kube: kube, cluster: s.name, hosts: hosts[:len(s.hosts)], out: out, say: say}
		hosts = hosts[len(s.hosts):]
		if only != "" && s.name != only {
			continue
		}
		if s.play(r); r.err != nil {
			return fmt.Errorf("%s: %w", s.name, r.err)
		}
	}
	return nil
}

func machines(stories []story) (out []remotetest.HostConfig) {
	for _, s := range stories {
		for _, os := range s.hosts {
			out = append(out, remotetest.HostConfig{Name: "h" + strconv.Itoa(len(out)+1), OS: os})
		}
	}
	return out
}
