package store

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestVitalsOfAnEmptyRecord(t *testing.T) {
	t.Parallel()
	v, err := setup(t).db.Vitals(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Hosts)
	require.Empty(t, v.Unfinished)
	require.Zero(t, v.Cordons)
	require.Zero(t, v.CordonAge)
	require.Empty(t, v.NoKeys)
}

func TestVitals(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "web")
	f.cluster(t, "db")
	f.hosts(t, "web", 2)
	pending := f.newHost(t, "h9", "")
	running := f.start(t, fleet.KindRestart, "web", "")
	paused := f.start(t, fleet.KindRestart, "db", "")
	for _, op := range []fleet.Operation{running, paused} {
		_, err := f.BeginOperation(t.Context(), op.ID)
		require.NoError(t, err)
	}
	_, err := f.Steer(t.Context(), paused.ID, SteerAction{Action: "pause", By: "tester"})
	require.NoError(t, err)
	old := func(id string, hours int) {
		f.exec(t, `UPDATE operation SET created = created - make_interval(hours => $2) WHERE id = $1`, id, hours)
		f.exec(t, `UPDATE event SET at = at - make_interval(hours => $2) WHERE operation_id = $1`, id, hours)
	}
	old(pending.ID, 1)
	old(running.ID, 2)
	old(paused.ID, 3)
	// A cordon that is out belongs to its rollout until its host run has ended.
	f.exec(t, `UPDATE host_run SET cordon = 'out', cordon_manager = 'kube' WHERE operation_id = $1`, running.ID)
	f.exec(t, `UPDATE host_run SET state = 'failed', reason = 'x', started = now(), finished = now() - interval '4 hours'
		WHERE operation_id = $1 AND address = 'h1'`, running.ID)
	f.exec(t, `UPDATE event SET at = at - interval '2 hours' WHERE operation_id = $1 AND kind = 'host' AND state = 'failed'`, running.ID)

	v, err := f.db.Vitals(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[fleet.HostState]int{fleet.HostInvestigating: 1, fleet.HostDisassociated: 2}, v.Hosts)
	require.Len(t, v.Unfinished, 3)
	for i, want := range []Unfinished{
		{fleet.KindBootstrap, "pending", 1, time.Hour},
		{fleet.KindRestart, "running", 1, 2 * time.Hour},
		{fleet.KindRestart, "waiting", 1, 3 * time.Hour},
	} {
		got := v.Unfinished[i]
		require.InDelta(t, want.Quiet, got.Quiet, float64(time.Minute), "%+v", got)
		got.Quiet = want.Quiet
		require.Equal(t, want, got)
	}
	require.Equal(t, 1, v.Cordons)
	require.InDelta(t, 4*time.Hour, v.CordonAge, float64(time.Minute))
	require.Empty(t, v.NoKeys)
	stranger, err := Open(t.Context(), f.dsn, newSealer(t))
	require.NoError(t, err)
	defer stranger.Close()
	v, err = stranger.Vitals(t.Context())
	require.NoError(t, err)
	require.Equal(t, []uint32{f.db.sealer.PrimaryKeyID()}, v.NoKeys)

	// What a command prints is progress, too.
	f.exec(t, `WITH s AS (INSERT INTO step (operation_id, tenant, address, name, attempt) VALUES ($1, 'default', 'h2', 'check', 1) RETURNING id)
		INSERT INTO output (step_id, position, data) SELECT id, 0, 'x' FROM s`, running.ID)
	f.exec(t, `UPDATE event SET at = at - interval '2 hours' WHERE operation_id = $1 AND kind = 'step'`, running.ID)
	v, err = f.db.Vitals(t.Context())
	require.NoError(t, err)
	require.Less(t, v.Unfinished[1].Quiet, time.Minute)
}

// TestVitalsUseIndexes: a server asks for them every few seconds.
func TestVitalsUseIndexes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, manyRows+"ANALYZE;")
	for sql, args := range map[string][]any{unfinishedVitalsSQL: {unfinishedMost}, countCordonsSQL: nil} {
		rows, err := f.sql.Query(t.Context(), "EXPLAIN "+sql, args...)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		for _, line := range plan {
			require.NotRegexp(t, `Seq Scan on (operation|host_run|event|output|rollout)\b`, line, "%s: %s", sql, plan)
		}
	}
}
