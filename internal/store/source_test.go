package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func ptr[T any](v T) *T { return &v }

// sourced registers a host with a source.
func (f *fixture) sourced(t testing.TB, address, source string) {
	t.Helper()
	_, op, err := f.PutHost(t.Context(), HostPut{Address: address, Source: source, Creds: creds("key"), Labels: map[string]string{"mine": "1"}})
	require.NoError(t, err)
	_, err = f.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(t.Context(), op.ID, address)
	require.NoError(t, err)
	require.NoError(t, f.RecordFacts(t.Context(), op.ID, address, measured))
	_, err = f.EndHostRun(t.Context(), HostRunEnd{OperationID: op.ID, Address: address, State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
}

var measured = fleet.Facts{OS: "debian", OSVersion: "12", CPUs: 2, Memory: 1000, Space: 5000, BootID: "b", PackageManager: "apt"}

// sync orders a sync and begins it.
func (f *fixture) sync(t testing.TB, source string, dryRun bool) fleet.Operation {
	t.Helper()
	op, created, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindSync, Source: source, DryRun: dryRun, RequestedBy: "tester"})
	require.NoError(t, err)
	require.True(t, created)
	op, err = f.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	return op
}

func (f *fixture) get(t testing.TB, address string) fleet.Host {
	t.Helper()
	h, err := f.Host(t.Context(), address)
	require.NoError(t, err)
	return h
}

// diff is what the step of a host printed.
func (f *fixture) diff(t testing.TB, id, address string) string {
	t.Helper()
	steps, err := f.Steps(t.Context(), id, address)
	require.NoError(t, err)
	require.Len(t, steps, 1)
	require.Equal(t, fleet.StepSync, steps[0].Name)
	require.Equal(t, fleet.StepSucceeded, steps[0].State)
	chunks, err := f.Output(t.Context(), steps[0].ID, 0, 0)
	require.NoError(t, err)
	text := ""
	for _, c := range chunks {
		text += string(c.Data)
	}
	return text
}

func TestSync(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, address := range []string{"a", "b", "c"} {
		f.sourced(t, address, "cmdb")
	}
	f.sourced(t, "d", "other")
	found := map[string]fleet.SourceFacts{
		"a": {OS: ptr("fedora"), CPUs: ptr(8), Labels: map[string]string{"env": "prod"}},
		"b": {CPUs: ptr(2)},
		"d": {CPUs: ptr(64)},
		"x": {}, "y": {},
	}

	dry := f.sync(t, "cmdb", true)
	require.Equal(t, 3, dry.Hosts)
	counts, err := f.SyncHosts(ctx, dry.ID, found)
	require.NoError(t, err)
	want := fleet.SyncCounts{Changed: 1, Same: 1, Missing: 1, Strangers: []string{"x", "y"}}
	require.Equal(t, want, counts)
	const diff = "- os: debian\n+ os: fedora\n- cpus: 2\n+ cpus: 8\n+ labels.env: prod\n"
	require.Equal(t, diff, f.diff(t, dry.ID, "a"))
	require.Equal(t, "debian", f.get(t, "a").OS, "a dry run changes no host")
	require.NoError(t, f.EndOperation(ctx, dry.ID, fleet.OperationSucceeded, ""))

	op := f.sync(t, "cmdb", false)
	before := f.get(t, "a")
	for range 2 { // repeating it changes nothing
		counts, err = f.SyncHosts(ctx, op.ID, found)
		require.NoError(t, err)
		require.Equal(t, want, counts)
	}
	require.Equal(t, diff, f.diff(t, op.ID, "a"))
	require.Empty(t, f.diff(t, op.ID, "b"))
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, []fleet.HostRunState{fleet.HostRunSucceeded, fleet.HostRunSucceeded, fleet.HostRunSkipped}, []fleet.HostRunState{runs[0].State, runs[1].State, runs[2].State})
	require.Equal(t, "source cmdb does not know this host; its facts stay as they are", runs[2].Reason)
	after := f.get(t, "a")
	require.Equal(t, map[string]string{"mine": "1", "env": "prod"}, after.Labels)
	require.Equal(t, []any{"fedora", "12", 8, 1000, int64(5000)}, []any{after.OS, after.OSVersion, after.CPUs, after.Memory, after.Space})
	require.Equal(t, []any{before.State, before.LastCheck, before.Source, before.BootID, "apt"}, []any{after.State, after.LastCheck, after.Source, after.BootID, after.PackageManager}, "these are ours")
	require.Equal(t, measured.CPUs, f.get(t, "d").CPUs, "it has another source")
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))
	ended, err := f.Operation(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, &want, ended.Sync)
	_, err = f.SyncHosts(ctx, op.ID, found)
	require.Equal(t, fleet.Conflict, fleet.KindOf(err), "it has ended")

	hosts, last, err := f.SourceUse(ctx, []string{"cmdb", "other", "unused"})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"cmdb": 3, "other": 1}, hosts)
	require.Len(t, last, 1)
	require.Equal(t, op.ID, last["cmdb"].ID)
}

// TestScheduledSyncsRecordChangesOnly: they come for ever, and nobody deletes them.
func TestScheduledSyncsRecordChangesOnly(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.exec(t, "INSERT INTO host (tenant, address, state, source, cpus) SELECT 'default', 'h' || i, 'disassociated', 'cmdb', 4 FROM generate_series(1, 1200) i")
	found := map[string]fleet.SourceFacts{}
	found["stranger"] = fleet.SourceFacts{}
	for i := range 1100 {
		found[fmt.Sprint("h", i+1)] = fleet.SourceFacts{CPUs: ptr(4)}
	}
	sync := func() (id string, counts fleet.SyncCounts) {
		op, _, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindSync, Source: "cmdb", RequestedBy: fleet.BySchedule})
		require.NoError(t, err)
		require.Zero(t, op.Hosts)
		_, err = f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		for range 2 { // repeating it changes nothing
			counts, err = f.SyncHosts(ctx, op.ID, found)
			require.NoError(t, err)
		}
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))
		ended, err := f.Operation(ctx, op.ID)
		require.NoError(t, err)
		require.Equal(t, &counts, ended.Sync)
		return op.ID, counts
	}
	rows := func(id string) string {
		return f.scan(t, `SELECT concat_ws(' ', (SELECT count(*) FROM host_run WHERE operation_id = $1), (SELECT count(*) FROM step WHERE operation_id = $1),
			(SELECT count(*) FROM event WHERE operation_id = $1 AND address <> ''))`, id)
	}
	sync() // the source has said nothing before
	id, counts := sync()
	require.Equal(t, fleet.SyncCounts{Same: 1100, Missing: 100, Strangers: []string{"stranger"}}, counts)
	require.Equal(t, "0 0 0", rows(id))

	found["h7"], found["h9"] = fleet.SourceFacts{CPUs: ptr(8)}, fleet.SourceFacts{CPUs: ptr(4), Memory: ptr(9)}
	id, counts = sync()
	require.Equal(t, fleet.SyncCounts{Changed: 2, Same: 1098, Missing: 100, Strangers: []string{"stranger"}}, counts)
	require.Equal(t, "2 2 6", rows(id))
	require.Equal(t, "- cpus: 4\n+ cpus: 8\n", f.diff(t, id, "h7"))
	require.Equal(t, 8, f.get(t, "h7").CPUs)
	op, err := f.Operation(ctx, id)
	require.NoError(t, err)
	require.Equal(t, 2, op.Hosts)
}

// TestSourceStandsAboveTheHost: what is found on the host does not undo what its source
// has said.
func TestSourceStandsAboveTheHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.sourced(t, "a", "cmdb")
	op := f.sync(t, "cmdb", false)
	_, err := f.SyncHosts(ctx, op.ID, map[string]fleet.SourceFacts{"a": {CPUs: ptr(8), Labels: map[string]string{"env": "prod", "old": "x"}}})
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))

	again, _, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindBootstrap, Host: "a"})
	require.NoError(t, err)
	_, err = f.BeginOperation(ctx, again.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(ctx, again.ID, "a")
	require.NoError(t, err)
	newer := fleet.Facts{OS: "debian", OSVersion: "13", CPUs: 3, Memory: 2000, Space: 1, BootID: "b2", PackageManager: "apt"}
	require.NoError(t, f.RecordFacts(ctx, again.ID, "a", newer))
	h := f.get(t, "a")
	require.Equal(t, []any{"13", 8, 2000, "b2"}, []any{h.OSVersion, h.CPUs, h.Memory, h.BootID})

	// While another operation is at work on the host: a sync waits for nobody.
	op = f.sync(t, "cmdb", false)
	_, err = f.SyncHosts(ctx, op.ID, map[string]fleet.SourceFacts{"a": {Labels: map[string]string{"env": "dev"}}})
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))
	h = f.get(t, "a")
	require.Equal(t, map[string]string{"mine": "1", "env": "dev"}, h.Labels, "labels that it no longer says are gone")
	require.Equal(t, 8, h.CPUs, "until the host is asked again")
	require.NoError(t, f.RecordFacts(ctx, again.ID, "a", newer))
	require.Equal(t, 3, f.get(t, "a").CPUs)

	op = f.sync(t, "cmdb", false)
	_, err = f.SyncHosts(ctx, op.ID, map[string]fleet.SourceFacts{"a": {CPUs: ptr(9)}})
	require.NoError(t, err)
	require.NoError(t, f.PutHostSource(ctx, "a", ""))
	require.NoError(t, f.RecordFacts(ctx, again.ID, "a", newer))
	h = f.get(t, "a")
	require.Equal(t, []any{"", 3}, []any{h.Source, h.CPUs}, "a source that is taken away says nothing any more")

	require.NoError(t, f.PutHostSource(ctx, "a", "cmdb"))
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationSucceeded, ""))
	op = f.sync(t, "cmdb", false)
	_, err = f.SyncHosts(ctx, op.ID, map[string]fleet.SourceFacts{"a": {Labels: map[string]string{"env": "prod"}}})
	require.NoError(t, err)
	f.exec(t, "UPDATE host SET watch_facts = now()")
	require.NoError(t, f.PutHostSource(ctx, "a", "cmdb"))
	require.Equal(t, map[string]string{"mine": "1", "env": "prod"}, f.get(t, "a").Labels)
	require.NoError(t, f.PutHostSource(ctx, "a", "other"))
	require.Equal(t, map[string]string{"mine": "1"}, f.get(t, "a").Labels)
	require.Equal(t, "true", f.scan(t, "SELECT (watch_facts < now() - interval '1 year')::text FROM host WHERE address = 'a'"), "the next check reads its facts")
	require.Equal(t, fleet.NotFound, fleet.KindOf(f.PutHostSource(ctx, "nowhere", "")))
}

func TestHostsThatChangeDuringASync(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, address := range []string{"added", "gone", "moved", "full"} {
		f.sourced(t, address, "cmdb")
	}
	op := f.sync(t, "cmdb", false)
	for _, address := range []string{"added", "gone"} {
		_, err := f.DeleteHost(ctx, address, "tester")
		require.NoError(t, err)
	}
	f.sourced(t, "added", "cmdb")
	require.NoError(t, f.PutHostSource(ctx, "moved", "other"))
	labels := map[string]string{}
	for i := range fleet.MaxLabels {
		labels[fmt.Sprint("l", i)] = "x"
	}
	require.NoError(t, f.PutHostLabels(ctx, "full", labels))
	found := map[string]fleet.SourceFacts{}
	for _, address := range []string{"added", "gone", "moved", "full"} {
		found[address] = fleet.SourceFacts{CPUs: ptr(99), Labels: map[string]string{"env": "prod"}}
	}
	counts, err := f.SyncHosts(ctx, op.ID, found)
	require.NoError(t, err)
	require.Equal(t, fleet.SyncCounts{Missing: 4, Strangers: []string{"gone"}}, counts)
	reasons := map[string]string{}
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	for _, r := range runs {
		reasons[r.Address] = r.Reason
	}
	require.Equal(t, map[string]string{"added": "the host was removed since", "gone": "the host was removed since", "moved": "the host has another source since",
		"full": "with the labels of its source the host would have too many; its facts stay as they are"}, reasons)
	for _, address := range []string{"added", "moved", "full"} {
		require.Equal(t, measured.CPUs, f.get(t, address).CPUs, address)
	}
}

func TestSourceAges(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for _, source := range []string{"never-good", "good"} {
		for hours, state := range map[int]fleet.OperationState{1: fleet.OperationFailed, 3: fleet.OperationSucceeded, 5: fleet.OperationFailed} {
			op := f.sync(t, source, false)
			if source == "never-good" {
				state = fleet.OperationFailed
			}
			require.NoError(t, f.EndOperation(ctx, op.ID, state, "x"))
			f.exec(t, "UPDATE operation SET created = now() - make_interval(hours => $2), finished = now() - make_interval(hours => $2) WHERE id = $1", op.ID, hours)
		}
		dry := f.sync(t, source, true)
		require.NoError(t, f.EndOperation(ctx, dry.ID, fleet.OperationSucceeded, ""))
	}
	f.exec(t, "UPDATE operation SET created = now() - interval '9 hours' WHERE id = (SELECT id FROM operation WHERE source = 'never-good' ORDER BY id LIMIT 1)")
	ages, err := f.SourceAges(ctx, []string{"never-good", "good", "unused"})
	require.NoError(t, err)
	require.Len(t, ages, 2)
	require.InDelta(t, 3*time.Hour, ages["good"], float64(time.Minute))
	require.InDelta(t, 9*time.Hour, ages["never-good"], float64(time.Minute))
}

// TestOneSyncAtATime: of those that ask at once, one gets the others' answer.
func TestOneSyncAtATime(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	first := f.sync(t, "cmdb", false)
	again, created, err := f.StartOperation(ctx, NewOperation{Kind: fleet.KindSync, Source: "cmdb"})
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, first.ID, again.ID)
	_, _, err = f.StartOperation(ctx, NewOperation{Kind: fleet.KindSync, Source: "cmdb", DryRun: true})
	require.Equal(t, fleet.Conflict, fleet.KindOf(err))
	require.ErrorContains(t, err, "(sync of source cmdb) is running; wait for its end and repeat the request then")
	f.sync(t, "other", true)
	_, _, err = f.StartOperation(ctx, NewOperation{Kind: fleet.KindSync, Source: "cmdb", Host: "h"})
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))

	// An end from outside: what is open is skipped, and no host is touched.
	f.sourced(t, "a", "third")
	op := f.sync(t, "third", false)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "it does not answer"))
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunSkipped, runs[0].State)
	require.Equal(t, fleet.HostDisassociated, f.get(t, "a").State)
}

// TestSyncsAtOnce: a worker that everybody thought dead syncs beside its successor.
func TestSyncsAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, "INSERT INTO host (tenant, address, state, source) SELECT 'default', 'h' || i, 'disassociated', 'cmdb' FROM generate_series(1, 1200) i")
	op := f.sync(t, "cmdb", false)
	found := map[string]fleet.SourceFacts{}
	for i := range 2400 {
		found[fmt.Sprint("h", i+1)] = fleet.SourceFacts{CPUs: ptr(i)}
	}
	var twins sync.WaitGroup
	for range 2 {
		twins.Go(func() {
			counts, err := f.SyncHosts(t.Context(), op.ID, found)
			if err == nil && (counts.Changed != 1199 || counts.Same != 1 || len(counts.Strangers) != 1000 || counts.More != 200) {
				err = fmt.Errorf("counted %+v", counts)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	twins.Wait()
	require.Equal(t, "1200", f.scan(t, "SELECT count(*)::text FROM step WHERE operation_id = $1", op.ID))
	require.Equal(t, "1199", f.scan(t, "SELECT count(*)::text FROM output"))
}
