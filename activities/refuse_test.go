package activities_test

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// watch puts a listener on the host's address that counts who comes, and gives
// its port.
func (r *rig) watch(t *testing.T) (port int, came *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(r.host.Address(), "0"))
	require.NoError(t, err)
	came = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port, came
}

// The machine that was added under the address of one that is gone is another
// machine: the old operation has no business there.
func TestHostAddedAgain(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepReboot)
	old := r.op
	_, _, err := r.DeleteHost(t.Context(), r.host.Address(), store.Requester{Name: "tester"})
	require.NoError(t, err)
	port, came := r.watch(t)
	_, _, err = r.PutHost(t.Context(), store.HostPut{Address: r.host.Address(), Port: port, Cluster: cluster, Creds: r.creds()})
	require.NoError(t, err)
	_, err = r.AcceptHostKey(t.Context(), r.host.Address(), r.host.HostKey())
	require.NoError(t, err)

	r.op = old
	c := r.crew(t)
	for _, step := range slices.Concat(restartSteps, bootstrapSteps) {
		_, err := r.do(c, step, how{})
		requireRefused(t, string(fleet.NotFound), err)
		if step != workflows.StepCheck { // which ended before
			require.Zero(t, r.row(t, step).ID)
		}
	}
	require.Zero(t, came.Load(), "nobody logs in to the new machine")
}

func TestHostGone(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.upTo(t, workflows.StepReboot)
	_, _, err := r.DeleteHost(t.Context(), r.host.Address(), store.Requester{Name: "tester"})
	require.NoError(t, err)
	_, err = r.do(r.crew(t), workflows.StepReboot, how{})
	requireRefused(t, string(fleet.NotFound), err)
	require.Zero(t, r.host.Count("systemctl", "reboot"))
}

// Only the first contact may meet a key that nobody has seen.
func TestNoPinnedKey(t *testing.T) {
	t.Parallel()
	for _, step := range append(restartSteps, workflows.StepPrepare) {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			port, came := r.watch(t)
			r.add(t, port)
			r.boot = r.host.BootID()
			_, err := r.do(r.crew(t), step, how{})
			require.Contains(t, requireRefused(t, "failed", err), "not pinned")
			require.Equal(t, fleet.StepFailed, r.row(t, step).State)
			require.Zero(t, came.Load())
			require.NoDirExists(t, r.host.StateDir())
		})
	}
}

func TestHostKeyChanged(t *testing.T) {
	forEachStep(t, func(t *testing.T, r *rig, step string) {
		if step == workflows.StepInvestigate {
			// The first contact, made before: the bootstrap is repeated.
			_, err := r.do(r.crew(t), step, how{})
			require.NoError(t, err)
			_, err = r.sql.Exec(t.Context(), `UPDATE step SET state = 'running', finished = NULL, exit_code = NULL`)
			require.NoError(t, err)
		}
		before := r.effects(t)
		require.NoError(t, r.host.NewHostKey(t.Context()))
		_, err := r.do(r.crew(t), step, how{})
		require.Contains(t, requireRefused(t, "failed", err), "accept the new key")
		require.Equal(t, fleet.StepFailed, r.row(t, step).State)
		require.Empty(t, r.since(t, before))
	})
}
