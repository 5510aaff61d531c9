package activities_test

import (
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// What a command printed may be anything. It stays in Postgres: history is read
// by others.
func TestCommandFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ prints, last string }{
		"plain":        {`echo working; echo "disk full"`, "working / disk full"},
		"on stderr":    {`echo working; echo "disk full" >&2`, "working / disk full"},
		"no line end":  {`printf 'working\ndisk full'`, "working / disk full"},
		"escape codes": {`printf 'working\n\033]0;owned\007\033[31mdisk\r full\033[0m\n'`, "working / ]0;owned[31mdisk full[0m"},
		"NUL":          {`printf 'working\ndisk\000 full\n'`, "working / disk full"},
		"C1 controls":  {`printf 'working\n\302\233disk full\n'`, "working / disk full"},
		"broken UTF-8": {`printf 'working\ndisk\377 full\n'`, "working / disk full"},
		"nothing":      {`:`, ""},
		"blank end":    {`printf 'disk full\n\n\033\000\n \n'`, "disk full"},
		"many lines":   {`seq 9`, "7 / 8 / 9"},
		"unreadable":   {`printf '\033\000\n'`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			r.upTo(t, workflows.StepPrepare)
			require.NoError(t, r.host.OnCommand("uname", c.prints+"\nexit 3"))
			w := r.crew(t)
			for range 2 { // from the command, then from the record
				_, err := r.do(w, workflows.StepPrepare, how{})
				require.Equal(t, "uname ended with exit code 3", requireRefused(t, "failed", err))
				require.NotContains(t, err.Error(), "disk")
			}
			row := r.row(t, workflows.StepPrepare)
			require.Equal(t, fleet.StepFailed, row.State)
			require.NotNil(t, row.ExitCode)
			require.Equal(t, 3, *row.ExitCode)
			want := "uname ended with exit code 3"
			if c.last != "" {
				want += "; it said: " + c.last
			}
			require.Equal(t, want, row.Reason)
			require.True(t, utf8.ValidString(row.Reason))
			for _, char := range row.Reason {
				require.False(t, unicode.IsControl(char), "%q", row.Reason)
			}
		})
	}
}

// A reboot command that fails leaves the host where it is, and says so.
func TestRebootFails(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepReboot)
	require.NoError(t, r.host.OnCommand("systemctl", `echo "Failed to talk to init daemon." >&2; exit 1`))
	_, err := r.do(r.crew(t), workflows.StepReboot, how{})
	require.Equal(t, "the reboot command ended with exit code 1", requireRefused(t, "failed", err))
	require.Equal(t, "the reboot command ended with exit code 1; it said: Failed to talk to init daemon.", r.row(t, workflows.StepReboot).Reason)
	require.Equal(t, r.boot, r.host.BootID())
}

// A command that the host killed has ended nobody knows how far.
func TestCommandVanishes(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	r.slow(t)
	done := r.beside(r.crew(t), workflows.StepPrepare, how{})
	r.begun(t)
	require.NoError(t, r.host.Kill()) // its power is cut
	require.NoError(t, r.host.Start(t.Context()))
	require.Contains(t, requireRefused(t, "indeterminate", await(t, done)), "look at the host before repeating it")
	require.Equal(t, fleet.StepIndeterminate, r.row(t, workflows.StepPrepare).State)
	require.Zero(t, r.host.Count("uname", ""), "it is not started again")
}

// While a host cannot be reached, those who look on see why, and no more once it can.
func TestTroubleIsToldWhileItLasts(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepPrepare)
	require.NoError(t, r.host.Refuse())
	c := r.crew(t)
	done := r.beside(c, workflows.StepPrepare, how{})
	eventually(t, func() bool { return r.row(t, workflows.StepPrepare).Reason != "" }, "the step says what is wrong")
	said := r.row(t, workflows.StepPrepare)
	require.Equal(t, fleet.StepRunning, said.State)
	require.Regexp(t, `^trouble since \d{4}-\d\d-\d\dT[\d:.]+, given up after \S+ of it: .*refuse`, said.Reason)
	run := func() fleet.HostRun {
		runs, err := r.HostRuns(t.Context(), said.OperationID)
		require.NoError(t, err)
		return runs[0]
	}
	require.Equal(t, said.Reason, run().Waiting)
	require.NoError(t, r.host.Accept(t.Context()))
	require.NoError(t, await(t, done))
	require.Empty(t, r.row(t, workflows.StepPrepare).Reason)
	require.Empty(t, run().Waiting)
}
