package activities_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// recordSteps are the steps that only move the record on, in the order in which
// an operation makes them.
var recordSteps = []struct {
	name string
	run  func(r *rig, c *crew, h how) (any, error)
}{
	{"operation.begin", func(r *rig, c *crew, h how) (any, error) {
		return execute(h, workflows.BeginOperation, c.record.BeginOperation, r.ref().OperationRef)
	}},
	{"operation.plan", func(r *rig, c *crew, h how) (any, error) {
		planned, err := execute(h, workflows.Plan, c.record.Plan, workflows.PlanInput{OperationRef: r.ref().OperationRef, Turn: 1, Hold: time.Hour})
		planned.Progress.ExpectedEnd = time.Time{} // a guess, made anew each time
		return planned, err
	}},
	{"host.begin", func(r *rig, c *crew, h how) (any, error) {
		return execute(h, workflows.BeginHost, c.record.BeginHost, r.ref())
	}},
	{"host.end", func(r *rig, c *crew, h how) (any, error) {
		return execute(h, workflows.EndHost, c.record.EndHost, workflows.HostEnd{
			HostRef: r.ref(), State: fleet.HostRunFailed, Reason: "it broke", Event: fleet.HostBroke,
		})
	}},
	{"operation.end", func(r *rig, c *crew, h how) (any, error) {
		return execute(h, workflows.EndOperation, c.record.EndOperation, workflows.OperationEnd{
			OperationRef: r.ref().OperationRef, State: fleet.OperationFailed, Reason: "a host failed",
		})
	}},
}

// ordered is a rig whose host has a restart on order that nobody has begun.
func ordered(t *testing.T) *rig {
	t.Helper()
	r := setup(t)
	r.add(t, r.host.Port())
	r.end(t, fleet.HostPrepared)
	var err error
	r.op, _, err = r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: cluster})
	require.NoError(t, err)
	return r
}

// picture is all that the record says of the operation and its host.
func (r *rig) picture(t *testing.T) (out []string) {
	t.Helper()
	rows, err := r.sql.Query(t.Context(), `SELECT row_to_json(o)::text FROM operation o
		UNION ALL SELECT row_to_json(r)::text FROM host_run r
		UNION ALL SELECT row_to_json(h)::text FROM host h ORDER BY 1`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var row string
		require.NoError(t, rows.Scan(&row))
		out = append(out, row)
	}
	require.NoError(t, rows.Err())
	return out
}

func TestRecordTwice(t *testing.T) {
	t.Parallel()
	r := ordered(t)
	a, b := r.crew(t), r.crew(t)
	for _, step := range recordSteps {
		first, err := step.run(r, a, how{})
		require.NoError(t, err, step.name)
		before := r.picture(t)
		again, err := step.run(r, b, how{attempt: 2})
		require.NoError(t, err, step.name)
		require.Equal(t, first, again, step.name)
		require.Equal(t, before, r.picture(t), "%s changes nothing the second time", step.name)
	}
}

func TestRecordTwiceAtOnce(t *testing.T) {
	t.Parallel()
	r := ordered(t)
	crews := []*crew{r.crew(t), r.crew(t), r.crew(t)}
	for _, step := range recordSteps {
		answers, errs := make([]any, len(crews)), make([]error, len(crews))
		var wg sync.WaitGroup
		for i, c := range crews {
			wg.Go(func() { answers[i], errs[i] = step.run(r, c, how{}) })
		}
		wg.Wait()
		for i := range crews {
			require.NoError(t, errs[i], step.name)
			require.Equal(t, answers[0], answers[i], step.name)
		}
	}
}

// A worker that slept through all the rest of the operation wakes at any step.
func TestRecordLate(t *testing.T) {
	t.Parallel()
	r := ordered(t)
	c := r.crew(t)
	for _, step := range recordSteps {
		_, err := step.run(r, c, how{})
		require.NoError(t, err, step.name)
	}
	before := r.picture(t)
	for _, step := range recordSteps {
		answer, err := step.run(r, c, how{})
		require.NoError(t, err, step.name)
		switch a := answer.(type) {
		case workflows.OperationBegun:
			require.True(t, a.Ended)
		case workflows.Planned:
			require.True(t, a.Ended)
			require.Empty(t, a.Hosts)
			require.Equal(t, "a host failed", a.Reason)
		case workflows.HostBegun:
			require.Equal(t, workflows.HostBegun{Ended: fleet.HostRunFailed, Reason: "it broke"}, a)
		}
	}
	require.Equal(t, before, r.picture(t))

	for _, step := range restartSteps { // and none of a host's steps begins
		_, err := r.do(c, step, how{})
		require.Contains(t, requireRefused(t, "conflict", err), "nothing more is done for it", step)
		require.Zero(t, r.row(t, step).ID)
	}
	require.Zero(t, r.host.Count("systemctl", "reboot"))
}

func TestHeldHost(t *testing.T) {
	t.Parallel()
	r := ordered(t)
	c := r.crew(t)
	begin := recordSteps[2]
	_, err := begin.run(r, c, how{})
	require.NoError(t, err)
	holder := r.op.ID
	r.op, _, err = r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindBootstrap, Host: r.host.Address()})
	require.NoError(t, err)
	for range 2 {
		answer, err := begin.run(r, c, how{})
		require.NoError(t, err)
		require.Equal(t, workflows.HostBegun{HeldBy: holder}, answer)
	}
}

// An error that nobody foresaw may pass by itself, but not for ever.
func TestSurprise(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepCheck)
	c := r.crew(t)
	_, err := r.sql.Exec(t.Context(), `ALTER TABLE step ADD CONSTRAINT surprise CHECK (attempt > 1) NOT VALID`)
	require.NoError(t, err)
	for attempt := range int32(9) {
		_, err := r.do(c, workflows.StepCheck, how{attempt: attempt + 1})
		requireRetried(t, err)
	}
	_, err = r.do(c, workflows.StepCheck, how{attempt: 10})
	said := requireRefused(t, "internal", err)
	require.Contains(t, said, "the worker's log says which")
	require.NotContains(t, said, "constraint")
}

// Nodes are drained unless the policy says otherwise.
func TestTheDrainOfAPolicy(t *testing.T) {
	t.Parallel()
	r := ordered(t)
	c := r.crew(t)
	force, off := &fleet.Drain{Force: true}, &fleet.Drain{Disabled: true}
	for _, x := range []struct{ policy, drains *fleet.Drain }{{nil, &fleet.Drain{}}, {force, force}, {off, nil}} {
		require.NoError(t, r.EndOperation(t.Context(), r.op.ID, fleet.OperationFailed, "the next one comes"))
		var err error
		r.op, _, err = r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: cluster, Policy: fleet.Policy{Drain: x.policy}})
		require.NoError(t, err)
		planned, err := execute(how{}, workflows.Plan, c.record.Plan, workflows.PlanInput{OperationRef: r.ref().OperationRef, Turn: 1, Hold: time.Hour})
		require.NoError(t, err)
		require.Equal(t, x.drains, planned.Policy.Drain)
	}
}
