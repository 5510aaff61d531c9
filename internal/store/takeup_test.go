package store

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// A host that was handed out before a pause and is taken up after it goes back, and
// comes again when somebody resumes.
func TestAPauseHoldsForHostsThatWereHandedOut(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2)}})
	c := f.claims(t, op.ID, 1)
	require.Len(t, c.Assignments, 2)
	require.NoError(t, f.TakeUp(ctx, op.ID, "h1", 1))
	_, err := f.Steer(ctx, op.ID, SteerAction{Action: "pause", By: "alice"})
	require.NoError(t, err)

	require.NoError(t, f.TakeUp(ctx, op.ID, "h1", 1), "what has begun goes on")
	for range 2 {
		require.ErrorIs(t, f.TakeUp(ctx, op.ID, "h2", 1), ErrGivenBack)
	}
	p, err := f.Progress(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, 1, p.Running)
	require.Equal(t, 2, p.Pending)
	require.Len(t, f.claims(t, op.ID, 1).Assignments, 1, "a repeated turn does not give it again")
	require.Empty(t, f.claims(t, op.ID, 2).Assignments)

	_, err = f.Steer(ctx, op.ID, SteerAction{Action: "resume", By: "alice"})
	require.NoError(t, err)
	require.Equal(t, []Assignment{{"h2", false, 2, 3, false}}, f.claims(t, op.ID, 3).Assignments)
	require.ErrorIs(t, f.TakeUp(ctx, op.ID, "h2", 1), ErrGivenBack, "its old holder comes too late")
	require.Nil(t, f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h2", State: fleet.HostRunFailed, Reason: "late", Turn: 1}))
	require.NoError(t, f.TakeUp(ctx, op.ID, "h2", 3))
	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, fleet.HostRunRunning, runs[1].State, "and changes nothing")
}

func TestHostsAreNotTakenUpAfterACancelOrTooManyFailures(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 3)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(3)}})
	require.Len(t, f.claims(t, op.ID, 1).Assignments, 3)
	require.NoError(t, f.TakeUp(ctx, op.ID, "h1", 1))
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "broken", Turn: 1})
	require.ErrorIs(t, f.TakeUp(ctx, op.ID, "h2", 1), ErrGivenBack)
	_, err := f.Steer(ctx, op.ID, SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	require.ErrorIs(t, f.TakeUp(ctx, op.ID, "h3", 1), ErrGivenBack)
	require.Equal(t, fleet.OperationCancelled, f.claims(t, op.ID, 2).End)
}

// Pause and begin race: who is told that it is paused finds no host that begins
// after that.
func TestPauseAgainstTakeUp(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.hosts(t, "c", 1)
	op := f.rollout(t, NewOperation{})
	for turn := 1; turn <= 20; turn++ {
		require.Len(t, f.claims(t, op.ID, turn).Assignments, 1)
		var both sync.WaitGroup
		var taken, paused error
		both.Go(func() { taken = f.TakeUp(ctx, op.ID, "h1", turn) })
		both.Go(func() { _, paused = f.Steer(ctx, op.ID, SteerAction{Action: "pause", By: "alice"}) })
		both.Wait()
		require.NoError(t, paused)
		if taken == nil {
			return // it began before the pause, and then there is nothing to give back
		}
		require.ErrorIs(t, taken, ErrGivenBack)
		_, err := f.Steer(ctx, op.ID, SteerAction{Action: "resume", By: "alice"})
		require.NoError(t, err)
	}
}
