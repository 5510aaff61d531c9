package histories

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// sourceStories need an installation that has sources.
var sourceStories = []story{{"sourced", []remotetest.OS{debian}, syncs}}

// makeSources writes an inventory that is good, one that is none and a program that takes
// long, and gives the setting that makes sources of them.
func makeSources(dir string) (env string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var entries []string
	for _, s := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"good", `{"all": {"hosts": ["stranger.example"]}}`, 0o600},
		{"bad", `{"all": 7}`, 0o600},
		{"slow", "#!/bin/sh\nsleep 60\n", 0o700},
	} {
		path := filepath.Join(dir, s.name)
		if err := os.WriteFile(path, []byte(s.text), s.mode); err != nil {
			return "", err
		}
		entries = append(entries, `{"name": "`+s.name+`", "type": "ansible", "path": "`+path+`", "refresh": "24h"}`)
	}
	return "COMMISSAIRE_HOST_SOURCES=[" + strings.Join(entries, ", ") + "]", nil
}

// syncs end well, fail and are cancelled; refreshes order one, and cannot while the record
// is not to be had.
func syncs(r *recorder) {
	for source, state := range map[string]string{"good": "succeeded", "bad": "failed"} {
		r.call(http.MethodPost, "sources/"+source+"/sync", nil)
		r.ends("kind=sync", state)
		r.write(workflows.SourceWorkflowID(fleet.DefaultTenant, source), map[string]string{"good": "Sync-finished", "bad": "Sync-failed"}[source])
	}
	slow := workflows.SourceWorkflowID(fleet.DefaultTenant, "slow")
	r.call(http.MethodPost, "sources/slow/sync", nil)
	r.until("the sync to begin", func() (bool, error) {
		op, err := r.operation("kind=sync")
		return op.State == "running", err
	})
	r.try(func() error { return r.Temporal.CancelWorkflow(r.ctx, slow, "") })
	r.ends("kind=sync", "cancelled")
	r.write(slow, "Sync-cancelled")

	r.refreshes("good", "Refresh-finished")
	r.try(func() error {
		return pgx.BeginFunc(r.ctx, r.DB, func(tx pgx.Tx) error {
			if _, err := tx.Exec(r.ctx, "LOCK TABLE operation"); err != nil {
				return err
			}
			r.refreshes("bad", "Refresh-away")
			return r.err
		})
	})
}

// refreshes has the schedule of a source start its workflow.
func (r *recorder) refreshes(source, name string) {
	id := "refresh/" + fleet.DefaultTenant + "/" + source
	schedule := r.Temporal.ScheduleClient().GetHandle(r.ctx, id)
	r.until("the schedule", func() (bool, error) {
		_, err := schedule.Describe(r.ctx)
		return err == nil, nil
	})
	r.try(func() error { return schedule.Trigger(r.ctx, client.ScheduleTriggerOptions{}) })
	r.write(id+"-*", name)
}
