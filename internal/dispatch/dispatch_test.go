package dispatch

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/converter"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// How long something may take that has nothing to wait for, and how often it is
// looked at.
const (
	limit = 2 * time.Minute
	tick  = 10 * time.Millisecond
)

// rig is a dispatcher between a real record and a frontend.
type rig struct {
	*Dispatcher
	t        *testing.T
	frontend *frontend
	record   *store.Store // of the default tenant
	db       *store.DB
	sql      *pgxpool.Pool
}

// allTenants is the record as the dispatcher sees it.
type allTenants struct{ *store.DB }

func (s allTenants) EndOperation(ctx context.Context, tenant, id string, state fleet.OperationState, reason string) error {
	return s.For(tenant).EndOperation(ctx, id, state, reason)
}

func (s allTenants) LeftCordons(ctx context.Context, olderThan time.Duration, limit int) (hosts []workflows.HostRef, err error) {
	left, err := s.DB.LeftCordons(ctx, olderThan, limit)
	for _, c := range left {
		hosts = append(hosts, workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: c.Tenant, OperationID: c.OperationID}, Address: c.Address})
	}
	return hosts, err
}

func newRig(t *testing.T) *rig {
	t.Helper()
	key := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(key))
	sealer, err := secret.OpenKeyFile(key)
	require.NoError(t, err)
	dsn := pgtest.New(t)
	db, err := store.Open(t.Context(), dsn, sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	sql, err := pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(sql.Close)
	f, c := newFrontend(t)
	return &rig{
		Dispatcher: New(c, allTenants{db}, Options{TaskQueue: "queue", Timing: workflows.Timing{Step: time.Minute}}, slog.New(slog.DiscardHandler)),
		t:          t, frontend: f, record: db.For(fleet.DefaultTenant), db: db, sql: sql,
	}
}

// rollout accepts a restart of a cluster that it makes.
func (r *rig) rollout(cluster string) fleet.Operation {
	r.t.Helper()
	_, err := r.record.PutCluster(r.t.Context(), store.ClusterPut{Name: cluster})
	require.NoError(r.t, err)
	op, _, err := r.record.StartOperation(r.t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: cluster, RequestedBy: "alice", RequestID: "r1"})
	require.NoError(r.t, err)
	return op
}

// bootstrap accepts the bootstrap of a host that it adds.
func (r *rig) bootstrap(address string) fleet.Operation {
	r.t.Helper()
	_, op, err := r.record.PutHost(r.t.Context(), store.HostPut{
		Address: address, Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))}, RequestedBy: "alice",
	})
	require.NoError(r.t, err)
	return *op
}

// running begins an operation in the record, so long ago.
func (r *rig) running(op fleet.Operation, ago time.Duration) fleet.Operation {
	r.t.Helper()
	_, err := r.record.BeginOperation(r.t.Context(), op.ID)
	require.NoError(r.t, err)
	r.exec(`UPDATE operation SET started = started - $2::interval WHERE id = $1`, op.ID, ago.String())
	return op
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.sql.Exec(r.t.Context(), sql, args...)
	require.NoError(r.t, err)
}

func (r *rig) operation(op fleet.Operation) fleet.Operation {
	r.t.Helper()
	op, err := r.record.Operation(r.t.Context(), op.ID)
	require.NoError(r.t, err)
	return op
}

// runs runs the dispatcher until the test ends.
func (r *rig) runs() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.t.Cleanup(func() { cancel(); running.Wait() })
}

func (r *rig) until(what string, check func(f *frontend) bool) {
	r.t.Helper()
	require.Eventually(r.t, func() (ok bool) {
		r.frontend.locked(func() { ok = check(r.frontend) })
		return ok
	}, limit, tick, what)
}

func TestAWorkflowIsStartedUnderTheNameOfItsOperation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.rollout("web")
	r.Start(t.Context(), op)
	r.Start(t.Context(), r.bootstrap("192.0.2.1"))
	require.Len(t, r.frontend.starts, 2)
	rollout, bootstrap := r.frontend.starts[0], r.frontend.starts[1]
	require.Equal(t, "cluster/default/web", rollout.WorkflowId)
	require.Equal(t, "Rollout", rollout.WorkflowType.Name)
	require.Equal(t, "queue", rollout.TaskQueue.Name)
	var in workflows.RolloutInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(rollout.Input, &in))
	require.Equal(t, workflows.RolloutInput{RolloutRef: workflows.RolloutRef{
		OperationRef: workflows.OperationRef{Tenant: "default", OperationID: op.ID}, Cluster: "web", Kind: fleet.KindRestart, Timing: workflows.Timing{Step: time.Minute},
	}}, in)
	var memo string
	require.NoError(t, converter.GetDefaultDataConverter().FromPayload(rollout.Memo.Fields[workflows.MemoOperation], &memo))
	require.Equal(t, op.ID, memo)
	require.Contains(t, rollout.SearchAttributes.IndexedFields, workflows.AttributeCluster.GetName())
	require.Equal(t, "host/default/192.0.2.1", bootstrap.WorkflowId)
	require.Equal(t, "Bootstrap", bootstrap.WorkflowType.Name)
}

func TestStartingTwiceIsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Start(t.Context(), r.rollout("web"))
	r.exec(`UPDATE operation SET created = created - interval '1 minute'`)
	require.NoError(t, r.startPending(t.Context()))
	require.NoError(t, r.startPending(t.Context()))
	require.Len(t, r.frontend.starts, 1)
}

func TestWhatCannotBeStartedNowIsStartedSoon(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.runs()
	r.frontend.locked(func() { r.frontend.answer = serviceerror.NewNamespaceNotFound("not yet") })
	r.Start(t.Context(), r.rollout("web"))
	require.Empty(t, r.frontend.starts)
	r.frontend.locked(func() { r.frontend.answer = nil })
	r.until("the workflow to be started", func(f *frontend) bool { return len(f.starts) == 1 })
}

// Another API process may have accepted it and died.
func TestWhatNobodyStartedIsStarted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rollout("web")
	r.exec(`UPDATE operation SET created = created - interval '1 minute'`)
	r.runs()
	r.until("the workflow to be started", func(f *frontend) bool { return len(f.starts) == 1 })
}

func TestAnOperationOfAnUnknownKindIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.rollout("web")
	op.Kind = "dance"
	require.ErrorContains(t, r.start(t.Context(), op), `of unknown kind "dance"`)
	require.Empty(t, r.frontend.starts)
}

// A host has the same workflow id in each of its operations.
func TestCancelMeetsTheRunOfItsOperationOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.bootstrap("192.0.2.1")
	require.NoError(t, r.Cancel(t.Context(), op))
	require.Empty(t, r.frontend.cancels, "nothing runs")

	other := op
	other.ID = "another"
	r.Start(t.Context(), other)
	require.NoError(t, r.Cancel(t.Context(), op))
	require.Empty(t, r.frontend.cancels, "somebody else's runs under the name")

	require.NoError(t, r.Cancel(t.Context(), other))
	require.Equal(t, []string{"run-1"}, r.frontend.cancels)

	r.frontend.locked(func() { r.frontend.answer = serviceerror.NewUnavailable("away") })
	require.Equal(t, fleet.Unavailable, fleet.KindOf(r.Cancel(t.Context(), other)))
	r.frontend.locked(func() { r.frontend.answer = nil })

	r.frontend.runs[workflows.WorkflowID(op)].status = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	require.NoError(t, r.Cancel(t.Context(), other))
	require.Len(t, r.frontend.cancels, 1, "it has ended")
}

func TestOrphansEndWithWhatBecameOfTheirWorkflows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const old = 2 * orphanAge
	young, runs, gone := r.running(r.rollout("young"), -time.Hour), r.running(r.rollout("runs"), old), r.running(r.rollout("gone"), old)
	terminated, completed, renamed := r.running(r.rollout("terminated"), old), r.running(r.rollout("completed"), old), r.running(r.bootstrap("192.0.2.1"), old)
	for _, op := range []fleet.Operation{runs, terminated, completed} {
		r.Start(t.Context(), op)
	}
	r.frontend.runs[workflows.WorkflowID(terminated)].status = enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
	r.frontend.runs[workflows.WorkflowID(completed)].status = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	next := renamed
	next.ID = "the host's next operation"
	r.Start(t.Context(), next)

	r.frontend.answer = serviceerror.NewPermissionDenied("not now", "")
	require.Error(t, r.endOrphans(t.Context()))
	require.Equal(t, fleet.OperationRunning, r.operation(gone).State, "no answer is no end")
	r.frontend.answer = nil

	require.NoError(t, r.endOrphans(t.Context()))
	for _, op := range []fleet.Operation{young, runs} {
		require.Equal(t, fleet.OperationRunning, r.operation(op).State, op.Cluster)
	}
	for _, c := range []struct {
		op  fleet.Operation
		how string
	}{
		{gone, "is not there any more"},
		{terminated, "was terminated"},
		{completed, "ended as Completed without ending the operation"},
		{renamed, "is not there any more"},
	} {
		op := r.operation(c.op)
		require.Equal(t, fleet.OperationFailed, op.State)
		require.Equal(t, "its workflow in Temporal "+c.how+"; what runs on a host goes on there; look at the hosts before repeating it", op.Reason)
	}
}

func TestARolloutIsWokenUntilItHasLooked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.running(r.rollout("web"), 0)
	r.Start(t.Context(), op)
	_, err := r.record.Steer(t.Context(), op.ID, store.SteerAction{Action: "pause", By: "alice"})
	require.NoError(t, err)
	r.Wake(t.Context(), op)
	require.Equal(t, []string{"cluster/default/web wake"}, r.frontend.signals)
	r.exec(`UPDATE rollout SET steered = now() + interval '1 hour'`) // the moment lasts until we have looked
	require.NoError(t, r.wakeUnseen(t.Context()))
	require.Len(t, r.frontend.signals, 1, "it is given a moment")
	r.exec(`UPDATE rollout SET steered = now() - interval '1 minute'`)
	require.NoError(t, r.wakeUnseen(t.Context()))
	require.NoError(t, r.wakeUnseen(t.Context()))
	require.Len(t, r.frontend.signals, 3)
	_, err = r.record.Claim(t.Context(), op.ID, 1, time.Hour)
	require.NoError(t, err)
	require.NoError(t, r.wakeUnseen(t.Context()))
	require.Len(t, r.frontend.signals, 3, "it has looked")
}

// A signal that was lost with its API process is sent by any other.
func TestRunWakes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.running(r.rollout("web"), 0)
	r.Start(t.Context(), op)
	_, err := r.record.Steer(t.Context(), op.ID, store.SteerAction{Action: "pause", By: "alice"})
	require.NoError(t, err)
	r.exec(`UPDATE rollout SET steered = steered - interval '1 minute'`)
	r.runs()
	r.until("the signal", func(f *frontend) bool { return len(f.signals) > 0 })
}

func TestNobodyToWakeIsNoFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	op := r.rollout("web")
	require.NoError(t, r.wake(t.Context(), op))
	r.frontend.answer = serviceerror.NewPermissionDenied("no", "")
	require.Error(t, r.wake(t.Context(), op))
	r.Wake(t.Context(), op)
}

func TestReadyAsksOnceASecond(t *testing.T) {
	t.Parallel()
	f, c := newFrontend(t)
	d := New(c, nil, Options{}, slog.New(slog.DiscardHandler))
	begun := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := d.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	asked := f.checks
	require.LessOrEqual(t, asked, 1+int(time.Since(begun)/healthFor), "once, unless the machine is busy for seconds")

	f.locked(func() { f.answer = serviceerror.NewPermissionDenied("no", "") })
	d.checked = time.Now().Add(time.Hour) // the answer does not become old until we have looked
	require.NoError(t, d.Ready(t.Context()), "the answer is a second old at most")
	d.checked = time.Now().Add(-healthFor)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var refused *fleet.Error
	require.ErrorAs(t, d.Ready(t.Context()), &refused)
	require.Equal(t, fleet.Unavailable, refused.Kind)
	require.Equal(t, asked+1, f.checks)

	f.locked(func() { f.answer = nil })
	d.checked = d.checked.Add(-healthFor)
	require.NoError(t, d.Ready(gone), "the answer is everybody's, so it does not end with who asked")
}

// A host run that ended with its node cordoned, say because somebody terminated its
// workflow, has the node let go by one workflow of its own.
func TestCordonsThatAreLeftAreTakenBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.record.PutCluster(t.Context(), store.ClusterPut{Name: "web"})
	require.NoError(t, err)
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		_, _, err := r.record.PutHost(t.Context(), store.HostPut{
			Address: address, Cluster: "web", Creds: secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte("key"))},
		})
		require.NoError(t, err)
	}
	op := r.rollout("web")
	r.exec(`UPDATE host_run SET cordon = 'out', cordon_manager = 'kube' WHERE operation_id = $1 AND address <> '192.0.2.3'`, op.ID)
	require.NoError(t, r.uncordonLeft(t.Context()))
	require.Empty(t, r.frontend.starts, "it is at work")

	ends := func(address, ago string) {
		r.exec(`UPDATE host_run SET state = 'failed', reason = 'lost', finished = now() - $3::interval WHERE operation_id = $1 AND address = $2`, op.ID, address, ago)
	}
	ends("192.0.2.1", "1 minute")
	require.NoError(t, r.uncordonLeft(t.Context()))
	require.NoError(t, r.uncordonLeft(t.Context()), "it runs already")
	require.Len(t, r.frontend.starts, 1, "the other is at work")
	start := r.frontend.starts[0]
	require.Equal(t, "cordon/default/"+op.ID+"/192.0.2.1", start.WorkflowId)
	require.Equal(t, "Uncordon", start.WorkflowType.Name)
	var in workflows.HostInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(start.Input, &in))
	require.Equal(t, workflows.HostInput{
		HostRef: workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: "default", OperationID: op.ID}, Address: "192.0.2.1"},
		Timing:  workflows.Timing{Step: time.Minute},
	}, in)

	// One that ended without success is followed by another.
	r.frontend.runs[start.WorkflowId].status = enumspb.WORKFLOW_EXECUTION_STATUS_FAILED
	ends("192.0.2.2", "1 second")
	clear(r.letGo) // as after a while
	r.runs()
	r.until("both to be let go", func(f *frontend) bool {
		n := 0
		for _, s := range f.starts { // what else is pending is started, too
			if s.WorkflowType.Name == "Uncordon" {
				n++
			}
		}
		return n == 3
	})
}

// A dry run says what it knows also when no worker answers.
func TestADiagnosisThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.frontend.answer = serviceerror.NewPermissionDenied("no", "")
	found, unknown, err := r.Diagnose(t.Context(), "default", "web", []string{"a"}, fleet.Drain{})
	require.NoError(t, err)
	require.Empty(t, found)
	require.Contains(t, unknown, "no worker answered")

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = r.Diagnose(gone, "default", "web", []string{"a"}, fleet.Drain{})
	require.ErrorIs(t, err, context.Canceled)
}

// TestManyPendingOperations: those of a large cluster that was deleted are started one
// page after the other, without a pause of a whole round in between. A page on which
// everything has been started already is no reason to hurry.
func TestManyPendingOperations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec(`INSERT INTO operation (id, tenant, kind, host, manager, created) SELECT gen_random_uuid(), 'default', 'unregister', 'h' || i, 'k', now() - interval '1 minute' FROM generate_series(1, $1::integer) i`, sweepLimit)
	hurries := func() bool {
		select {
		case <-r.kick:
			return true
		default:
			return false
		}
	}
	require.NoError(t, r.startPending(t.Context()))
	require.True(t, hurries())
	require.NoError(t, r.startPending(t.Context()))
	require.False(t, hurries())
	require.Len(t, r.frontend.starts, sweepLimit)
	r.exec(`UPDATE operation SET state = 'running', started = now()`)
	r.rollout("web")
	r.exec(`UPDATE operation SET created = created - interval '1 minute'`)
	require.NoError(t, r.startPending(t.Context()))
	require.False(t, hurries(), "the last page")
	require.Len(t, r.frontend.starts, sweepLimit+1)
}
