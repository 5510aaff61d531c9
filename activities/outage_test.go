package activities_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/workflows"
)

// Postgres goes away while a command prints, and comes back when it has ended.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	pg := pgtest.NewCluster(t)
	r := open(t, pg.DSN, restart)
	r.upTo(t, workflows.StepPrepare)
	before := r.effects(t)
	require.NoError(t, r.host.OnCommand("uname", `echo begun; while [ ! -e "$H/go" ]; do sleep 0.05; done
i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo "line $i"; done`))
	c := r.crew(t)
	done := r.beside(c, workflows.StepPrepare, how{})
	eventually(t, func() bool { return r.row(t, workflows.StepPrepare).OutputTo > 0 }, "the command prints")

	pg.Down(t, privatepg.Immediate)
	r.release(t)
	requireRetried(t, await(t, done))
	_, err := r.do(c, workflows.StepPrepare, how{attempt: 2}) // still away
	requireRetried(t, err)
	eventually(t, func() bool { return r.host.Count("uname", "") == 1 }, "the command goes on without us")

	pg.Up(t)
	r.sql.Reset()
	eventually(t, func() bool { _, err := r.Host(t.Context(), r.host.Address()); return err == nil }, "Postgres is back")
	eventually(t, func() bool {
		_, err := r.do(c, workflows.StepPrepare, how{attempt: 3})
		return err == nil
	}, "the step is brought to its end")
	r.requireOnce(t, workflows.StepPrepare, before)
	printed := r.output(t, workflows.StepPrepare)
	require.Equal(t, 2002, strings.Count(printed, "\n"))
	require.True(t, strings.HasPrefix(printed, "begun\nline 1\nline 2\n"))
}

// Of a long output the beginning and the end are kept, and a hole between.
func TestLongOutput(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	require.NoError(t, r.host.OnCommand("uname", `echo begun; head -c 70000000 /dev/zero; echo; echo the end`))
	c := r.crew(t)
	_, err := r.do(c, workflows.StepPrepare, how{})
	require.NoError(t, err)
	row := r.row(t, workflows.StepPrepare)
	require.Greater(t, row.OutputSize, int64(70000000))
	require.Equal(t, row.OutputSize, row.OutputTo)
	require.Less(t, row.Stored, int64(fleet.OutputHead)+1<<17)
	chunks, err := r.Output(t.Context(), row.ID, row.OutputSize-1000, 0)
	require.NoError(t, err)
	require.Contains(t, string(chunks[0].Data), "the end\n")
}
