package activities

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// TestSlotsComeBack, also from those who are not wanted any more when they get one.
func TestSlotsComeBack(t *testing.T) {
	t.Parallel()
	s := make(slots, 3)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		require.NoError(t, s.with(ended, func() error { return errors.New("it was begun") }, nil))
	}
	require.Empty(t, s)
	require.EqualError(t, s.with(t.Context(), func() error {
		require.Len(t, s, 1)
		return errors.New("begun")
	}, nil), "begun")
	require.Empty(t, s)
}

// TestSlotInVain: who waits for a slot does not when that is of no use any more.
func TestSlotInVain(t *testing.T) {
	t.Parallel()
	s := make(slots, 1)
	s <- struct{}{}
	asked := 0
	require.NoError(t, s.with(t.Context(), func() error { return errors.New("begun") }, func() (bool, error) {
		asked++
		return asked == 2, nil
	}))
	require.EqualError(t, s.with(t.Context(), nil, func() (bool, error) { return false, errors.New("no record") }), "no record")
	require.Len(t, s, 1)
}

// TakeAllSlots leaves none for a first try.
func (a *Commands) TakeAllSlots() {
	for range cap(a.slots.first) {
		a.slots.first <- struct{}{}
	}
}

// TestPageWaitsAlive: one that waits for its turn is not taken for dead, and waits no
// longer than it is wanted.
func TestPageWaitsAlive(t *testing.T) {
	t.Parallel()
	a := NewCommands(func(string) CommandStore { return nil }, nil)
	done, err := a.turns.take(t.Context(), "o")
	require.NoError(t, err)
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	env := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) { cancel() })
	env.RegisterActivity(a.Page)
	_, err = env.ExecuteActivity(a.Page, workflows.CommandPage{OperationRef: workflows.OperationRef{OperationID: "o"}})
	require.Error(t, err)
}

// TestOutlive ends some time after what it outlives, and at once when it is over.
func TestOutlive(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	longer, over := outlive(ctx, time.Millisecond)
	defer over()
	require.NoError(t, longer.Err())
	cancel()
	<-longer.Done()
	longer, over = outlive(ctx, time.Hour)
	over()
	<-longer.Done()
}

// TestTailThatCannotBe is left out: it would spoil the record of others.
func TestTailThatCannotBe(t *testing.T) {
	t.Parallel()
	r := newCommandRecord(2, nil)
	liar, honest := &commandHost{start: 4}, &commandHost{start: 4}
	for _, h := range []*commandHost{liar, honest} {
		_, err := r.print(t.Context(), h, 4, []byte("data"))
		require.NoError(t, err)
	}
	r.end(liar, store.CommandWrite{End: fleet.HostRunSucceeded, Tail: []byte("tail"), TailStart: 7})
	r.end(honest, store.CommandWrite{End: fleet.HostRunSucceeded, Tail: []byte("tail"), TailStart: 8})
	writes, _, _ := r.take(true)
	require.Len(t, writes, 2)
	require.Empty(t, writes[0].Tail)
	require.Equal(t, "tail", string(writes[1].Tail))
}

// TestStopNobodySaw: what may still run there, and what does not any more.
func TestStopNobodySaw(t *testing.T) {
	t.Parallel()
	s := commandStop{why: "the command took longer than 1s"}
	require.Equal(t, "the command took longer than 1s; the host could not be told to end it: no answer; the command may have been started there, and may still run", s.unknown("no answer").Reason)
	s.over = true
	require.Equal(t, "the command took longer than 1s; its command does not run there any more, but how it ended is not known: no answer", s.unknown("no answer").Reason)
}
