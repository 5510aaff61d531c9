package store

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func (f *fixture) step(t testing.TB) fleet.Step {
	t.Helper()
	op := f.newHost(t, "h", "")
	_, err := f.BeginHostRun(t.Context(), op.ID, "h")
	require.NoError(t, err)
	step, err := f.BeginStep(t.Context(), op.ID, "h", "prepare", 1)
	require.NoError(t, err)
	return step
}

func (f *fixture) read(t testing.TB, step, offset int64, limit int) (out []byte, chunks []fleet.OutputChunk) {
	t.Helper()
	chunks, err := f.Output(t.Context(), step, offset, limit)
	require.NoError(t, err)
	for _, c := range chunks {
		out = append(out, c.Data...)
	}
	return out, chunks
}

func TestSteps(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.newHost(t, "h", "")
	_, err := f.BeginStep(ctx, op.ID, "h", "prepare", 1)
	requireKind(t, fleet.Conflict, err)
	_, err = f.BeginHostRun(ctx, op.ID, "h")
	require.NoError(t, err)

	steps := together(8, func(int) fleet.Step {
		s, err := f.BeginStep(ctx, op.ID, "h", "prepare", 1)
		if err != nil {
			t.Error(err)
		}
		return s
	})
	for _, s := range steps {
		require.Equal(t, steps[0], s, "one row for name and attempt")
	}
	second, err := f.BeginStep(ctx, op.ID, "h", "prepare", 2)
	require.NoError(t, err)
	require.NotEqual(t, steps[0].ID, second.ID)

	code := 3
	end := StepEnd{StepID: second.ID, State: fleet.StepFailed, ExitCode: &code, Reason: "exit code 3", OutputSize: 99}
	stands, err := f.EndStep(ctx, end)
	require.NoError(t, err)
	require.Equal(t, fleet.StepFailed, stands.State)
	later, err := f.EndStep(ctx, StepEnd{StepID: second.ID, State: fleet.StepSucceeded})
	require.NoError(t, err)
	require.Equal(t, stands, later, "a second ending learns of the first")
	_, err = f.EndStep(ctx, StepEnd{StepID: second.ID, State: fleet.StepRunning})
	require.Error(t, err)
	_, err = f.EndStep(ctx, StepEnd{StepID: 1 << 40, State: fleet.StepFailed})
	requireKind(t, fleet.NotFound, err)
	_, err = f.db.For("other").EndStep(ctx, end)
	requireKind(t, fleet.NotFound, err)

	again, err := f.BeginStep(ctx, op.ID, "h", "prepare", 2)
	require.NoError(t, err)
	require.Equal(t, fleet.StepFailed, again.State, "an ended step is given as it is")
	require.Equal(t, &code, again.ExitCode)
	require.Equal(t, int64(99), again.OutputSize)
	require.False(t, again.Finished.IsZero())

	for address, count := range map[string]int{"": 2, "h": 2, "other": 0} {
		list, err := f.Steps(ctx, op.ID, address)
		require.NoError(t, err)
		require.Len(t, list, count)
	}
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationCancelled, "by ann"))
	_, err = f.BeginStep(ctx, op.ID, "h", "prepare", 2)
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "was cancelled: by ann")
}

func TestAppendOutput(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	step := f.step(t)
	for _, c := range []struct {
		offset int64
		data   string
		stored int64
	}{
		{0, "hello ", 6},
		{0, "hello ", 6},
		{0, "hello world", 6},
		{9, "x", 6},
		{6, "", 6},
		{6, "w\x00\xffld", 11},
	} {
		stored, err := f.AppendOutput(ctx, step.ID, c.offset, []byte(c.data))
		require.NoError(t, err)
		require.Equal(t, c.stored, stored)
	}
	out, _ := f.read(t, step.ID, 0, 0)
	require.Equal(t, "hello w\x00\xffld", string(out))
	list, err := f.Steps(ctx, step.OperationID, "h")
	require.NoError(t, err)
	require.Equal(t, int64(11), list[0].Stored)
	require.Equal(t, int64(11), list[0].OutputSize)

	_, err = f.AppendTail(ctx, step.ID, 11, 10, []byte("x"))
	require.Error(t, err)
	stored, err := f.AppendTail(ctx, step.ID, 0, 1000, []byte("tail"))
	require.NoError(t, err)
	require.Equal(t, int64(11), stored)
	stored, err = f.AppendTail(ctx, step.ID, 11, 1000, []byte("tail"))
	require.NoError(t, err)
	require.Equal(t, int64(1004), stored)
	_, err = f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepSucceeded, OutputSize: 1004})
	require.NoError(t, err)
	list, err = f.Steps(ctx, step.OperationID, "h")
	require.NoError(t, err)
	require.Equal(t, int64(15), list[0].Stored)
	require.Equal(t, int64(1004), list[0].OutputSize)

	for _, c := range []struct {
		offset int64
		limit  int
		want   []fleet.OutputChunk
	}{
		{0, 3, []fleet.OutputChunk{{Offset: 0, Data: []byte("hel")}}},
		{4, 4, []fleet.OutputChunk{{Offset: 4, Data: []byte("o ")}, {Offset: 6, Data: []byte("w\x00")}}},
		{8, 0, []fleet.OutputChunk{{Offset: 8, Data: []byte("\xffld")}, {Offset: 1000, Data: []byte("tail")}}},
		{11, 0, []fleet.OutputChunk{{Offset: 1000, Data: []byte("tail")}}},
		{500, 2, []fleet.OutputChunk{{Offset: 1000, Data: []byte("ta")}}},
		{1002, 0, []fleet.OutputChunk{{Offset: 1002, Data: []byte("il")}}},
		{1004, 0, []fleet.OutputChunk{}},
		{5000, 0, []fleet.OutputChunk{}},
		{-5, 1, []fleet.OutputChunk{{Offset: 0, Data: []byte("h")}}},
	} {
		_, chunks := f.read(t, step.ID, c.offset, c.limit)
		require.Equal(t, c.want, chunks, "from %d, %d bytes", c.offset, c.limit)
	}

	_, err = f.AppendOutput(ctx, step.ID, 1004, []byte("late"))
	requireKind(t, fleet.Conflict, err)
	_, err = f.AppendOutput(ctx, 1<<40, 0, []byte("x"))
	requireKind(t, fleet.NotFound, err)
	_, err = f.db.For("other").AppendOutput(ctx, step.ID, 0, []byte("x"))
	requireKind(t, fleet.NotFound, err)
	_, err = f.Output(ctx, 1<<40, 0, 0)
	requireKind(t, fleet.NotFound, err)
	_, err = f.db.For("other").Output(ctx, step.ID, 0, 0)
	requireKind(t, fleet.NotFound, err)
}

// TestConcurrentWriters lets twins of one worker store the same output in
// chunks of their own, head first and then the tail after a gap.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	const head, tailFrom, size = 60_000, 90_000, 100_000
	f := setup(t)
	step := f.step(t)
	printed := make([]byte, size)
	for i := range printed {
		printed[i] = byte(rand.Uint32())
	}
	errs := together(3, func(i int) error {
		var at int64
		for at < size {
			var err error
			if at < head {
				n := min(int64(1+rand.IntN(2000*(i+1))), head-at)
				at, err = f.AppendOutput(t.Context(), step.ID, at, printed[at:at+n])
			} else {
				from := max(at, tailFrom)
				n := min(int64(1+rand.IntN(700*(i+1))), size-from)
				at, err = f.AppendTail(t.Context(), step.ID, at, from, printed[from:from+n])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		require.NoError(t, err)
	}
	var got []byte
	var at int64
	for at < size {
		_, chunks := f.read(t, step.ID, at, 7777)
		require.NotEmpty(t, chunks)
		for _, c := range chunks {
			require.True(t, c.Offset == at || at == head && c.Offset == tailFrom, "chunk at %d after %d", c.Offset, at)
			got = append(got, c.Data...)
			at = c.Offset + int64(len(c.Data))
		}
	}
	want := append(bytes.Clone(printed[:head]), printed[tailFrom:]...)
	require.True(t, bytes.Equal(want, got), "every byte once, in order")
	list, err := f.Steps(t.Context(), step.OperationID, "h")
	require.NoError(t, err)
	require.Equal(t, int64(len(want)), list[0].Stored)
}

// TestOutputEnd is the end of what is stored, in however many chunks it came.
func TestOutputEnd(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	step := f.step(t).ID
	end := func() string {
		t.Helper()
		end, err := f.OutputEnd(ctx, step)
		require.NoError(t, err)
		return string(end)
	}
	require.Empty(t, end())
	var all []byte
	for _, chunk := range [][]byte{[]byte("a\n"), {0, 0xff}, bytes.Repeat([]byte("long"), 1000), []byte("bcd"), []byte("e\n")} {
		_, err := f.AppendOutput(ctx, step, int64(len(all)), chunk)
		require.NoError(t, err)
		all = append(all, chunk...)
		require.Equal(t, string(all[max(0, len(all)-fleet.OutputEnd):]), end())
	}
	_, err := f.AppendTail(ctx, step, int64(len(all)), 1<<20, []byte("tail"))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(end(), "e\ntail"))
	for i := range 40 {
		_, err := f.AppendOutput(ctx, step, 1<<20+4+int64(i), []byte{'0' + byte(i%10)})
		require.NoError(t, err)
	}
	require.Equal(t, "4567890123456789", end(), "of so many small chunks the last")
	other, err := f.db.For("other").OutputEnd(ctx, step)
	require.NoError(t, err)
	require.Empty(t, other)
}
