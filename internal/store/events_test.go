package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestEventsTellAll(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 2)
	began := time.Now()
	op := f.rollout(t, NewOperation{})
	f.claims(t, op.ID, 1)
	step, err := f.BeginStep(ctx, op.ID, "h1", "reboot", 1)
	require.NoError(t, err)
	_, err = f.AppendOutput(ctx, step.ID, 0, []byte("bye"))
	require.NoError(t, err)
	code := 3
	_, err = f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepFailed, Reason: "no", ExitCode: &code})
	require.NoError(t, err)
	_, err = f.Steer(ctx, op.ID, SteerAction{Action: "pause", By: "ann"})
	require.NoError(t, err)
	_, err = f.SetOperationPolicy(ctx, op.ID, fleet.Policy{MaxFailures: fleet.Count(1)}, "ann", "")
	require.NoError(t, err)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x"})
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "a host failed"))

	var got []string
	for _, e := range f.allEvents(t, op.ID) {
		require.WithinRange(t, e.At, began.Add(-time.Minute), time.Now().Add(time.Minute))
		text := fmt.Sprintf("%s %s%s %s", e.Kind, e.Address, e.Step, e.State)
		switch {
		case e.Kind == "output":
			text += fmt.Sprintf(" %d %s", e.Offset, e.Data)
		case e.Kind == "steer":
			text += " " + e.By + e.Detail
		case e.ExitCode != nil:
			text += fmt.Sprintf(" %d", *e.ExitCode)
		}
		got = append(got, text)
	}
	require.Equal(t, []string{
		"operation  pending", "host h1 pending", "host h2 pending", "operation  running", "host h1 running",
		"step h1reboot running", "output h1reboot failed 0 bye", "step h1reboot failed 3",
		"steer  pause ann", `steer  policy ann{"max_failures":1}`,
		"host h1 failed", "operation  failed", "host h2 skipped",
	}, got)

	of, err := f.Events(ctx, op.ID, EventFilter{Host: "h2"})
	require.NoError(t, err)
	require.Len(t, of, 7, "the host's and the operation's own, no output")
	_, err = f.Events(ctx, op.ID, EventFilter{After: "junk"})
	requireKind(t, fleet.Invalid, err)
	require.ErrorContains(t, err, "Last-Event-ID")
	_, err = f.db.For("other").Events(ctx, op.ID, EventFilter{})
	requireKind(t, fleet.NotFound, err)
}

// TestNoEventIsSkipped holds a transaction open while others commit after it.
func TestNoEventIsSkipped(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	op := f.rollout(t, NewOperation{})
	seen := len(f.allEvents(t, op.ID))
	const note = "INSERT INTO event (tenant, operation_id, kind, state, detail) VALUES ('default', $1, 'steer', 'pause', $2)"
	late, err := f.sql.Begin(ctx)
	require.NoError(t, err)
	_, err = late.Exec(ctx, note, op.ID, "late")
	require.NoError(t, err)
	f.exec(t, note, op.ID, "early")
	settled := f.settledEvents(t, op.ID)
	require.Len(t, settled, seen, "what comes after an open transaction waits for it")
	more, err := f.EventsAfter(ctx, op.ID, EventFilter{After: settled[seen-1].ID, Output: true})
	require.NoError(t, err)
	require.True(t, more)
	require.NoError(t, late.Commit(ctx))
	all := f.allEvents(t, op.ID)
	require.Len(t, all, seen+2)
	more, err = f.EventsAfter(ctx, op.ID, EventFilter{After: all[seen+1].ID, Output: true})
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, "late", all[seen].Detail)

	// As after a restore on another server, which counts transactions anew.
	f.exec(t, "UPDATE event SET xid = (xid::text::bigint + 1000000)::text::xid8")
	require.Len(t, f.allEvents(t, op.ID), seen+2)
}

// TestPagesOfEventsAreBounded by bytes, and are read by the index before Postgres
// knows how many rows there are.
func TestPagesOfEventsAreBounded(t *testing.T) {
	t.Parallel()
	f := setup(t)
	step := f.step(t)
	const chunks, size = 40, 128 << 10
	for i := range int64(chunks) {
		_, err := f.AppendOutput(t.Context(), step.ID, i*size, make([]byte, size))
		require.NoError(t, err)
	}
	_, err := f.EndStep(t.Context(), StepEnd{StepID: step.ID, State: fleet.StepSucceeded})
	require.NoError(t, err)
	all := f.allEvents(t, step.OperationID)
	filter := EventFilter{Output: true, Limit: MaxPage}
	var read []Event
	for len(read) < len(all) {
		page, err := f.Events(t.Context(), step.OperationID, filter)
		require.NoError(t, err)
		require.NotEmpty(t, page)
		bytes := 0
		for _, e := range page {
			bytes += len(e.Data)
		}
		require.LessOrEqual(t, bytes, maxEventBytes+size)
		read = append(read, page...)
		filter.After = page[len(page)-1].ID
	}
	require.Equal(t, all, read)
	of, err := f.Events(t.Context(), step.OperationID, EventFilter{Host: step.Address, Output: true})
	require.NoError(t, err)
	require.NotEmpty(t, of[len(of)-1].Data)
	none, err := f.Events(t.Context(), step.OperationID, EventFilter{Host: "other", Output: true})
	require.NoError(t, err)
	for _, e := range none {
		require.Empty(t, e.Address)
	}

	conn, err := f.db.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "SET enable_bitmapscan = off")
	require.NoError(t, err)
	defer func() { _, _ = conn.Exec(t.Context(), "RESET enable_bitmapscan") }()
	for _, host := range []string{"", "h1"} {
		rows, err := conn.Query(t.Context(), "EXPLAIN "+eventsSQL, step.OperationID, "0", -1, host, true, 51, maxEventBytes)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		text := strings.Join(plan, "\n")
		require.Contains(t, text, "Index Scan using event_pk")
		require.Contains(t, text, "Index Scan using output_by_operation")
	}
}

func woken(t *testing.T, wake <-chan struct{}) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(2 * time.Minute):
		t.Fatal("nobody woke the follower")
	}
}

func TestChangesWakeFollowers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	op := f.rollout(t, NewOperation{})
	wake, leave := f.db.Changes(ctx, op.ID)
	woken(t, wake) // it listens now
	other, leaveOther := f.db.Changes(ctx, "01900000-0000-7000-8000-000000000000")
	f.claims(t, op.ID, 1)
	woken(t, wake)
	require.Empty(t, other, "only its own operation wakes a follower")

	// Everybody is woken after a lost connection.
	for len(wake) > 0 {
		<-wake
	}
	f.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN commissaire' AND datname = current_database()")
	woken(t, wake)
	woken(t, other)
	leave()
	leave()
	leaveOther()
	require.Empty(t, f.db.changes.followers)
}
