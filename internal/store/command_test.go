package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// order puts a command on record.
func (f *fixture) order(t testing.TB, cluster string, n NewCommand) fleet.Operation {
	t.Helper()
	if n.Argv == nil {
		n.Argv = []string{"uname", "-r"}
	}
	n.Timeout = fleet.Duration(time.Minute)
	op, created, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindCommand, Cluster: cluster, Command: &n, RequestedBy: "tester"})
	require.NoError(t, err)
	require.True(t, created)
	return op
}

func (f *fixture) pinned(t testing.TB, cluster string, n int) []string {
	t.Helper()
	hosts := f.hosts(t, cluster, n)
	f.exec(t, "UPDATE host SET host_key = 'k', host_key_print = 'p', host_key_pinned = now()")
	return hosts
}

func (f *fixture) runStates(t testing.TB, id string) (all []string) {
	t.Helper()
	runs, err := f.HostRuns(t.Context(), id)
	require.NoError(t, err)
	for _, r := range runs {
		all = append(all, r.Address+" "+string(r.State)+" "+r.Reason)
	}
	return all
}

func TestCommandsHoldNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 2)
	first, second := f.order(t, "c", NewCommand{}), f.order(t, "c", NewCommand{})
	require.NotEqual(t, first.ID, second.ID)
	require.Equal(t, 2, first.Hosts)
	require.Equal(t, []string{"uname", "-r"}, first.Command.Argv)
	for _, op := range []fleet.Operation{first, second} {
		_, err := f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		page, err := f.TakeUpCommand(ctx, op.ID, 0, 2, "")
		require.NoError(t, err)
		require.Len(t, page.Hosts, 2)
	}
	restart := f.start(t, fleet.KindRestart, "c", "")
	c, err := f.Claim(ctx, restart.ID, 1, time.Hour)
	require.NoError(t, err)
	require.Len(t, c.Assignments, 1, "a command is in nobody's way")
	bootstrap := f.start(t, fleet.KindBootstrap, "", "h2")
	_, err = f.BeginHostRun(ctx, bootstrap.ID, "h2")
	require.NoError(t, err)
	third := f.order(t, "c", NewCommand{})
	_, err = f.BeginOperation(ctx, third.ID)
	require.NoError(t, err)
	page, err := f.TakeUpCommand(ctx, third.ID, 0, 2, "")
	require.NoError(t, err)
	require.Len(t, page.Hosts, 2, "nobody is in a command's way")

	states := []fleet.HostState{f.state(t, "h1"), f.state(t, "h2")}
	require.NoError(t, f.EndOperation(ctx, first.ID, fleet.OperationFailed, "its workflow was terminated"))
	require.Equal(t, states, []fleet.HostState{f.state(t, "h1"), f.state(t, "h2")}, "hosts stay as they are")
	require.Equal(t, []string{"h1 failed its workflow was terminated", "h2 failed its workflow was terminated"}, f.runStates(t, first.ID))
	_, err = f.TakeUpCommand(ctx, first.ID, 0, 2, "")
	requireKind(t, fleet.Conflict, err)
	require.NoError(t, f.DeleteCluster(ctx, "c"), "nothing holds it")
}

func TestCommandChoosesHosts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.cluster(t, "empty")
	f.pinned(t, "c", 3)
	f.exec(t, `UPDATE host SET labels = '{"env": "prod"}' WHERE address <> 'h2'`)
	for _, tt := range []struct {
		n    NewCommand
		want []string
	}{
		{NewCommand{}, []string{"h1", "h2", "h3"}},
		{NewCommand{Command: fleet.Command{Selector: "env=prod"}}, []string{"h1", "h3"}},
		{NewCommand{Hosts: []string{"h3", "h2"}}, []string{"h2", "h3"}},
		{NewCommand{Command: fleet.Command{Selector: "env=prod"}, Hosts: []string{"h3", "h2"}}, []string{"h3"}},
	} {
		op := f.order(t, "c", tt.n)
		runs, err := f.HostRuns(t.Context(), op.ID)
		require.NoError(t, err)
		var got []string
		for _, r := range runs {
			got = append(got, r.Address)
		}
		require.Equal(t, tt.want, got)
		op, err = f.Operation(t.Context(), op.ID)
		require.NoError(t, err)
		require.Equal(t, tt.n.Selector, op.Command.Selector, "it stays on record")
	}
	for field, n := range map[string]NewCommand{"selector": {Command: fleet.Command{Selector: "env=test"}}, "hosts": {Hosts: []string{"h1", "h9"}}} {
		n.Argv, n.Timeout = []string{"x"}, fleet.Duration(time.Minute)
		_, _, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindCommand, Cluster: "c", Command: &n})
		requireKind(t, fleet.Invalid, err)
		require.ErrorContains(t, err, field)
	}
	_, _, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindCommand, Cluster: "empty", Command: &NewCommand{}})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "has no hosts")
	_, _, err = f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindCommand, Cluster: "nope", Command: &NewCommand{}})
	requireKind(t, fleet.NotFound, err)
}

// TestCommandRecord: what is written twice, by whomever, is there once.
func TestCommandRecord(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 3)
	op := f.order(t, "c", NewCommand{})
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	page, err := f.TakeUpCommand(ctx, op.ID, 0, 2, "")
	require.NoError(t, err)
	require.Equal(t, []string{"h1 running ", "h2 running ", "h3 pending "}, f.runStates(t, op.ID))
	h1, h2 := page.Hosts[0], page.Hosts[1]
	require.Equal(t, []any{"h1", 22, "k", "root", int64(0), false, ""}, []any{h1.Address, h1.Port, h1.HostKey, h1.Creds.RemoteUser, h1.OutputTo, h1.Again, h1.Failed})
	require.Equal(t, "key", string(h1.Creds.PrivateKey.Reveal()))

	code := 3
	writes := []CommandWrite{
		{StepID: h1.StepID, Data: []byte("abc"), Size: 103, TailStart: 100, Tail: []byte("xyz"), End: fleet.HostRunFailed, State: fleet.StepFailed, Reason: "exit code 3\x00", ExitCode: &code},
		{StepID: h2.StepID, Data: []byte("begun")},
	}
	require.NoError(t, f.RecordCommands(ctx, op.ID, writes))
	require.ErrorIs(t, f.RecordCommands(ctx, op.ID, writes), ErrOvertaken)
	steps, err := f.Steps(ctx, op.ID, "")
	require.NoError(t, err)
	require.Equal(t, []any{fleet.StepFailed, "exit code 3\uFFFD", 3, int64(103), int64(103), int64(6)},
		[]any{steps[0].State, steps[0].Reason, *steps[0].ExitCode, steps[0].OutputSize, steps[0].OutputTo, steps[0].Stored})
	require.Equal(t, []any{fleet.StepRunning, int64(5), int64(5), int64(5)}, []any{steps[1].State, steps[1].OutputSize, steps[1].OutputTo, steps[1].Stored})
	chunks, err := f.Output(ctx, h1.StepID, 0, 0)
	require.NoError(t, err)
	require.Equal(t, []fleet.OutputChunk{{Offset: 0, Data: []byte("abc")}, {Offset: 100, Data: []byte("xyz")}}, chunks)

	page, err = f.TakeUpCommand(ctx, op.ID, 0, 3, "")
	require.NoError(t, err)
	require.Len(t, page.Hosts, 2)
	require.Equal(t, []any{"h2", h2.StepID, int64(5), true, "h3", false}, []any{page.Hosts[0].Address, page.Hosts[0].StepID, page.Hosts[0].OutputTo, page.Hosts[0].Again, page.Hosts[1].Address, page.Hosts[1].Again})
	running, stop, err := f.CommandState(ctx, op.ID, 0, 3)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"h2": true, "h3": true}, running)
	require.Empty(t, stop)
	_, err = f.Steer(ctx, op.ID, SteerAction{Action: "pause", By: "alice"})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "it can only be cancelled")
	// What stands in the way of a host is its waiting and an event, once.
	noted := func() []string {
		runs, err := f.HostRuns(ctx, op.ID)
		require.NoError(t, err)
		steps, err := f.Steps(ctx, op.ID, "h2")
		require.NoError(t, err)
		return []string{runs[1].Waiting, steps[0].Reason, runs[2].Waiting}
	}
	for range 2 {
		require.NoError(t, f.RecordCommands(ctx, op.ID, []CommandWrite{{StepID: h2.StepID, Start: 5, Note: "silent", Noted: true}}))
		require.Equal(t, []string{"silent", "silent", ""}, noted())
	}
	page, err = f.TakeUpCommand(ctx, op.ID, 0, 3, "")
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, []bool{page.Hosts[0].Noted, page.Hosts[1].Noted})
	require.NoError(t, f.RecordCommands(ctx, op.ID, []CommandWrite{{StepID: h2.StepID, Start: 5, Noted: true}}))
	require.Equal(t, []string{"", "", ""}, noted())
	require.Equal(t, "running:,running:silent,running:", f.scan(t, `SELECT string_agg(state || ':' || reason, ',' ORDER BY xid, seq) FROM event WHERE operation_id = $1 AND address = 'h2' AND kind = 'step'`, op.ID))

	_, err = f.Steer(ctx, op.ID, SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	_, stop, err = f.CommandState(ctx, op.ID, 0, 3)
	require.NoError(t, err)
	require.Equal(t, "cancelled by alice", stop)

	end := CommandWrite{StepID: h2.StepID, Start: 5, Size: 5, End: fleet.HostRunSucceeded, State: fleet.StepSucceeded}
	require.NoError(t, f.RecordCommands(ctx, op.ID, []CommandWrite{end}))
	_, err = f.TakeUpCommand(ctx, op.ID, 0, 3, "cancelled")
	require.NoError(t, err)
	ending, err := f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, "ends the commands on the hosts at work", ending.Waiting)
	p, err := f.Progress(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.Progress{Total: 3, Running: 1, Succeeded: 1, Failed: 1}, p)
	done, err := f.EndCommand(ctx, op.ID, "", false)
	require.NoError(t, err)
	require.Equal(t, []any{fleet.OperationCancelled, "cancelled by alice"}, []any{done.State, done.Reason})
	require.Equal(t, []string{"h1 failed exit code 3\uFFFD", "h2 succeeded ", "h3 failed cancelled by alice"}, f.runStates(t, op.ID))
	again, err := f.EndCommand(ctx, op.ID, "too late", false)
	require.NoError(t, err)
	require.Equal(t, done, again)

	require.Equal(t, "h1 running, command running, command failed, h1 failed",
		f.scan(t, `SELECT string_agg(CASE kind WHEN 'step' THEN step ELSE address END || ' ' || state, ', ' ORDER BY xid, seq)
			FROM (SELECT * FROM event WHERE operation_id = $1 AND address = 'h1' AND state <> 'pending' ORDER BY xid, seq) e`, op.ID))
}

// TestCommandIsRetried on the hosts on which it did not succeed.
func TestCommandIsRetried(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 2)
	op := f.order(t, "c", NewCommand{Command: fleet.Command{Argv: []string{"false"}, AtOnce: 1}})
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	page, err := f.TakeUpCommand(ctx, op.ID, 0, 1, "")
	require.NoError(t, err)
	require.NoError(t, f.RecordCommands(ctx, op.ID, []CommandWrite{{StepID: page.Hosts[0].StepID, End: fleet.HostRunSucceeded, State: fleet.StepSucceeded}}))
	done, err := f.EndCommand(ctx, op.ID, "nobody went on with it", false)
	require.NoError(t, err)
	require.Equal(t, "nobody went on with it", done.Reason)

	_, _, err = f.StartOperation(ctx, NewOperation{RetryOf: op.ID, Policy: fleet.Policy{MaxUnavailable: fleet.Count(1)}})
	requireKind(t, fleet.Invalid, err)
	retry, created, err := f.StartOperation(ctx, NewOperation{RetryOf: op.ID})
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, []any{fleet.KindCommand, 1, op.Command, op.ID}, []any{retry.Kind, retry.Hosts, retry.Command, retry.RetryOf})
	require.Equal(t, []string{"h2 pending "}, f.runStates(t, retry.ID))
	_, err = f.PreviewOperation(ctx, NewOperation{RetryOf: op.ID})
	requireKind(t, fleet.Conflict, err)
}

// TestCommandRecordOfALiar: what one host says keeps no other from its record.
func TestCommandRecordOfALiar(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 2)
	op := f.order(t, "c", NewCommand{})
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	page, err := f.TakeUpCommand(ctx, op.ID, 0, 2, "")
	require.NoError(t, err)
	require.NoError(t, f.RecordCommands(ctx, op.ID, []CommandWrite{
		{StepID: page.Hosts[0].StepID, Data: []byte("ok"), Size: 2, End: fleet.HostRunSucceeded, State: fleet.StepSucceeded},
		{StepID: page.Hosts[1].StepID, Data: []byte("lies"), Tail: []byte("tail"), TailStart: 3, Size: 2, End: fleet.HostRunSucceeded, State: fleet.StepSucceeded},
	}))
	require.Equal(t, []string{"h1 succeeded ", "h2 succeeded "}, f.runStates(t, op.ID))
	chunks, err := f.Output(ctx, page.Hosts[1].StepID, 0, 0)
	require.NoError(t, err)
	require.Equal(t, []fleet.OutputChunk{{Data: []byte("lies")}}, chunks)
}

// TestCommandThatRanNowhere has not succeeded.
func TestCommandThatRanNowhere(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.pinned(t, "c", 2)
	op := f.order(t, "c", NewCommand{})
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	require.NoError(t, f.DeleteCluster(ctx, "c"))
	page, err := f.TakeUpCommand(ctx, op.ID, 0, 2, "")
	require.NoError(t, err)
	require.Empty(t, page.Hosts)
	done, err := f.EndCommand(ctx, op.ID, "", false)
	require.NoError(t, err)
	require.Equal(t, []any{fleet.OperationFailed, "2 of 2 hosts were skipped"}, []any{done.State, done.Reason})
}
