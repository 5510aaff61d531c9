package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"commissaire/internal/fleet"
)

type syncView struct {
	ID, State, Reason, Source string
	RequestedBy               string `json:"requested_by"`
	DryRun                    bool   `json:"dry_run"`
	Sync                      *fleet.SyncCounts
}

// synced orders a sync and waits for its end.
func (s *site) synced(query string) (v syncView) {
	s.t.Helper()
	var begun syncView
	require.NoError(s.t, jsonInto(s.ask(http.StatusCreated, http.MethodPost, "sources/"+query, map[string]any{}).Body, &begun))
	s.until(limit, "the end of "+query, func() bool {
		v = syncView{} // members that are not there stay as they were
		s.get("operations/"+begun.ID, &v)
		return fleet.OperationState(v.State).Ended()
	})
	return v
}

// TestSources: facts come from an inventory over HTTP, stand above what is found on the
// host, and the operation says what has changed. A source that fails changes nothing.
func TestSources(t *testing.T) {
	t.Parallel()
	var answer atomic.Pointer[string]
	inventory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, *answer.Load())
	}))
	t.Cleanup(inventory.Close)
	headers := filepath.Join(t.TempDir(), "headers")
	require.NoError(t, os.WriteFile(headers, []byte("Authorization: Bearer hunter2\n"), 0o600))
	script := filepath.Join(t.TempDir(), "inventory")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho \"password: $COMMISSAIRE_DATABASE_URL\" >&2; exit 1\n"), 0o755))
	s := newSite(t, 2, fmt.Sprintf(`COMMISSAIRE_HOST_SOURCES=[{"name": "cmdb", "type": "http-json", "url": %q, "headers_file": %q, "refresh": "168h"},
		{"name": "files", "type": "ansible", "path": %q}]`, inventory.URL, headers, script))
	s.worker()
	a, b := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1]
	s.bootstrap("web", a, b)
	for _, h := range s.Fleet.Hosts() {
		s.ask(http.StatusCreated, http.MethodPut, hostPath(h)+"/source", map[string]any{"source": "cmdb"})
	}
	host := func() (v struct {
		OS                     string `json:"os"`
		CPUs                   int    `json:"cpus"`
		Status, Source, Reason string
		Labels                 map[string]string
		LastCheck              string `json:"last_check"`
	}) {
		s.get(hostPath(a), &v)
		return v
	}
	before := host()

	text := fmt.Sprintf(`[{"address": %q, "cpus": 99, "labels": {"env": "prod"}, "owner": "x"}, {"address": "stranger.example"}]`, a.Address())
	answer.Store(&text)
	dry := s.synced("cmdb/sync?dry_run=true")
	require.Equal(t, "succeeded", dry.State, dry.Reason)
	want := &fleet.SyncCounts{Changed: 1, Missing: 1, Strangers: []string{"stranger.example"}}
	require.Equal(t, want, dry.Sync)
	require.Equal(t, before, host(), "a dry run changes nothing")

	done := s.synced("cmdb/sync")
	require.Equal(t, "succeeded", done.State, done.Reason)
	require.Equal(t, want, done.Sync)
	after := host()
	require.Equal(t, []any{99, map[string]string{"env": "prod"}, before.OS, before.Status, before.LastCheck, "cmdb"},
		[]any{after.CPUs, after.Labels, after.OS, after.Status, after.LastCheck, after.Source})
	require.Equal(t, fmt.Sprintf("- cpus: %d\n+ cpus: 99\n+ labels.env: prod\n", before.CPUs), string(s.output(done.ID, a.Address(), "sync")))
	var runs struct {
		Hosts []struct{ Address, State, Reason string }
	}
	s.get("operations/"+done.ID+"/hosts?state=skipped", &runs)
	require.Len(t, runs.Hosts, 1)
	require.Equal(t, b.Address(), runs.Hosts[0].Address)
	require.Contains(t, runs.Hosts[0].Reason, "does not know this host")

	s.ask(http.StatusCreated, http.MethodPut, hostPath(a)+"/bootstrap", map[string]any{})
	s.ready(a)
	require.Equal(t, 99, host().CPUs, "what is found on the host does not undo it")

	for text, why := range map[string]string{`<html>`: "source cmdb: its answer is no list in JSON", `[{"address": "a", "cpus": -1}]`: "entry 1: cpus must be a number of processors"} {
		answer.Store(&text)
		failed := s.synced("cmdb/sync")
		require.Equal(t, "failed", failed.State)
		require.Contains(t, failed.Reason, why)
		require.Equal(t, 99, host().CPUs)
	}
	failed := s.synced("files/sync")
	require.Equal(t, "source files: it ended with exit status 1; the log of the worker has what it said", failed.Reason)
	log, err := os.ReadFile(filepath.Join(s.Dir, "worker.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "password:")
	require.NotContains(t, string(log), "postgres://", "the program has nothing of our environment")
	require.NotContains(t, string(log), "hunter2")

	// The schedule orders a sync as a person does.
	nobody := "[]"
	answer.Store(&nobody)
	handle := s.Temporal.ScheduleClient().GetHandle(t.Context(), "refresh/default/cmdb")
	s.until(limit, "the schedule", func() bool { _, err := handle.Describe(t.Context()); return err == nil })
	require.NoError(t, handle.Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	s.until(limit, "the sync that the schedule ordered", func() bool {
		var sources []struct {
			Name     string
			Hosts    int
			LastSync syncView `json:"last_sync"`
		}
		s.get("sources", &sources)
		last := sources[0].LastSync
		return sources[0].Name == "cmdb" && sources[0].Hosts == 2 && last.RequestedBy == "schedule" && last.State == "succeeded" && last.Sync.Missing == 2
	})

	for _, format := range []string{"ansible", "ssh-config", "known-hosts"} {
		require.Contains(t, string(s.ask(http.StatusOK, http.MethodGet, "inventory?format="+format, nil).Body), b.Address())
	}
}
