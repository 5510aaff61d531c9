package activities_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// wanted is what each step does to the host, however often it is carried out: the
// commands in its ledger and how often.
var wanted = map[string]map[string]int{
	workflows.StepPrepare: {"uname": 1},
	workflows.StepReboot:  {"systemctl": 1, "boot": 1},
	workflows.StepUpgrade: {"apt-get": 1},
	workflows.StepStage:   {"rpm-ostree": 1},
}

// forEachStep tests every step, brought to where it comes next.
func forEachStep(t *testing.T, test func(t *testing.T, r *rig, step string)) {
	t.Parallel()
	try := func(on track, step string) {
		t.Run(on.name+" "+step, func(t *testing.T) {
			t.Parallel()
			r := open(t, pgtest.New(t), on)
			r.upTo(t, step)
			test(t, r, step)
		})
	}
	for _, step := range bootstrapSteps {
		try(restart, step)
	}
	for _, step := range restart.steps {
		try(restart, step)
	}
	// What they do as a restart does is not tried again.
	for _, step := range []string{workflows.StepCheck, workflows.StepUpgrade, workflows.StepVerifyPackages, workflows.StepRebootNeeded, workflows.StepSettle} {
		try(upgrade, step)
	}
	for _, step := range []string{workflows.StepStage, workflows.StepVerify} {
		try(deploy, step)
	}
}

// settle waits until the host is back after a reboot, and gives what happened
// to it.
func (r *rig) settle(t *testing.T, step string, before map[string]int) map[string]int {
	t.Helper()
	if step == workflows.StepReboot {
		_, err := r.do(r.crew(t), workflows.StepWait, how{})
		require.NoError(t, err)
	}
	return r.since(t, before)
}

func (r *rig) requireOnce(t *testing.T, step string, before map[string]int) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	maps.Copy(want, wanted[step])
	for what, n := range r.settle(t, step, before) {
		command, _, _ := strings.Cut(what, " ")
		got[command] += n
	}
	require.Equal(t, want, got)
	require.Equal(t, fleet.StepSucceeded, r.row(t, step).State)
	r.output(t, step)
}

func TestTwice(t *testing.T) {
	forEachStep(t, func(t *testing.T, r *rig, step string) {
		before := r.effects(t)
		c := r.crew(t)
		first, err := r.do(c, step, how{})
		require.NoError(t, err)
		printed := r.output(t, step)

		// Nobody was told: Temporal has it repeated, and the record answers.
		again, err := r.do(c, step, how{})
		require.NoError(t, err)
		require.Equal(t, first, again)

		// The worker died before it wrote the end down: another one goes over it.
		_, err = r.sql.Exec(t.Context(), `UPDATE step SET state = 'running', finished = NULL, exit_code = NULL WHERE id = $1`, r.row(t, step).ID)
		require.NoError(t, err)
		again, err = r.do(r.crew(t), step, how{attempt: 2})
		require.NoError(t, err)
		require.Equal(t, first, again)

		r.requireOnce(t, step, before)
		require.Equal(t, printed, r.output(t, step))
	})
}

func TestTwiceAtOnce(t *testing.T) {
	forEachStep(t, func(t *testing.T, r *rig, step string) {
		before := r.effects(t)
		answers := make(chan any, 3)
		for i := range cap(answers) {
			c := r.crew(t) // each on a worker of its own
			go func() {
				answer, err := r.do(c, step, how{attempt: int32(i + 1)})
				if err != nil {
					answer = err
				}
				answers <- answer
			}()
		}
		first := <-answers
		require.NotImplements(t, (*error)(nil), first)
		for range cap(answers) - 1 {
			require.Equal(t, first, <-answers)
		}
		r.requireOnce(t, step, before)
	})
}

// While one attempt cannot get at the host, another one, on a better placed
// worker, ends the step.
func TestEndedByAnother(t *testing.T) {
	for _, end := range []store.StepEnd{
		{State: fleet.StepSucceeded},
		{State: fleet.StepFailed, Reason: "it broke; it said: what the host printed"},
	} {
		t.Run(string(end.State), func(t *testing.T) {
			forEachStep(t, func(t *testing.T, r *rig, step string) {
				before := r.effects(t)
				require.NoError(t, r.host.Refuse())
				late := r.beside(r.crew(t), step, how{})
				eventually(t, func() bool { return r.row(t, step).ID != 0 }, "the step begins")
				end.StepID = r.row(t, step).ID
				_, err := r.EndStep(t.Context(), end)
				require.NoError(t, err)
				require.NoError(t, r.host.Accept(t.Context()))

				err = await(t, late)
				if end.State == fleet.StepSucceeded {
					require.NoError(t, err)
				} else {
					require.Equal(t, "it broke", requireRefused(t, "failed", err))
				}
				require.Empty(t, r.since(t, before), "a step that is over starts nothing")
				require.Equal(t, end.State, r.row(t, step).State)
				require.Equal(t, end.Reason, r.row(t, step).Reason)
			})
		})
	}
}
