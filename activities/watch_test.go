package activities_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// watched is a database with hosts of one cluster, as bootstraps have left them.
type watched struct {
	*store.Store
	sql   *pgxpool.Pool
	fleet *remotetest.Fleet
	watch *activities.Watch

	mu    sync.Mutex
	found map[fleet.WatchState]int // what was counted
}

func newWatched(t *testing.T, hosts int) *watched {
	t.Helper()
	dsn, keys := pgtest.New(t), filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(keys))
	sealer, err := secret.OpenKeyFile(keys)
	require.NoError(t, err)
	db, err := store.Open(t.Context(), dsn, sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	w := &watched{Store: db.For(fleet.DefaultTenant), fleet: remotetest.New(t, hosts), found: map[fleet.WatchState]int{}}
	w.sql, err = pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(w.sql.Close)
	w.watch = activities.NewWatch(func(string) activities.WatchStore { return w.Store }, func(found fleet.WatchState, took time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.found[found]++
	})
	t.Cleanup(w.watch.Close)
	_, err = w.PutCluster(t.Context(), store.ClusterPut{Name: cluster})
	require.NoError(t, err)
	for _, h := range w.fleet.Hosts() {
		w.add(t, h, h.Address(), h.Port(), h.User())
	}
	return w
}

func (w *watched) add(t *testing.T, h *remotetest.Host, address string, port int, user string) {
	t.Helper()
	_, op, err := w.PutHost(t.Context(), store.HostPut{
		Address: address, Port: port, Cluster: cluster, HostKey: h.HostKey(),
		Creds: secret.HostCreds{RemoteUser: user, PrivateKey: secret.NewText([]byte(w.fleet.ClientKey()))},
	})
	require.NoError(t, err)
	_, err = w.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = w.BeginHostRun(t.Context(), op.ID, address)
	require.NoError(t, err)
	require.NoError(t, w.RecordFacts(t.Context(), op.ID, address, fleet.Facts{OS: "nothing", BootID: h.BootID()}))
	_, err = w.EndHostRun(t.Context(), store.HostRunEnd{OperationID: op.ID, Address: address, State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	require.NoError(t, err)
	require.NoError(t, w.EndOperation(t.Context(), op.ID, fleet.OperationSucceeded, ""))
}

var watchInput = workflows.WatchInput{Tenant: fleet.DefaultTenant, Cluster: cluster, Slow: 5 * time.Second, Failures: 3, Facts: time.Hour}

// page checks all hosts once.
func (w *watched) page(t *testing.T, in workflows.WatchInput) workflows.WatchCounts {
	t.Helper()
	counts, err := w.try(workflows.WatchPageInput{WatchInput: in})
	require.NoError(t, err)
	return counts
}

func (w *watched) try(in workflows.WatchPageInput) (counts workflows.WatchCounts, err error) {
	env := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
	return w.in(env, in)
}

func (w *watched) in(env *testsuite.TestActivityEnvironment, in workflows.WatchPageInput) (counts workflows.WatchCounts, err error) {
	env.RegisterActivityWithOptions(w.watch.Page, activity.RegisterOptions{Name: workflows.WatchPage.Name})
	value, err := env.ExecuteActivity(workflows.WatchPage.Name, in)
	if err != nil {
		return counts, err
	}
	return counts, value.Get(&counts)
}

func (w *watched) host(t *testing.T, address string) fleet.Host {
	t.Helper()
	h, err := w.Host(t.Context(), address)
	require.NoError(t, err)
	return h
}

// TestWhatChecksFind meets real hosts in every state that a check tells apart.
func TestWhatChecksFind(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 9)
	names := []string{"healthy", "moved", "refused port", "hung", "refused key", "changed key", "going down", "no shell", "another's reboot"}
	at := map[string]*remotetest.Host{}
	for i, h := range w.fleet.Hosts() {
		at[names[i]] = h
	}
	slow, err := remotetest.NewProxy(at["moved"])
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, slow.Close()) })
	slow.Set(remotetest.Fault{Delay: 80 * time.Millisecond})
	w.add(t, at["moved"], slow.Address(), slow.Port(), at["moved"].User())
	require.NoError(t, at["refused port"].Refuse())
	require.NoError(t, at["hung"].Hang())
	t.Cleanup(func() { _ = at["hung"].Unhang() })
	_, err = w.sql.Exec(t.Context(), "UPDATE host_creds SET remote_user = 'nobody-here' WHERE address = $1", at["refused key"].Address())
	require.NoError(t, err)
	require.NoError(t, at["changed key"].NewHostKey(t.Context()))
	require.NoError(t, at["going down"].OnCommand("systemctl", "echo stopping; exit 1"))
	require.NoError(t, at["another's reboot"].Stop())
	require.NoError(t, at["another's reboot"].Start(t.Context()))

	in := watchInput
	in.Slow = 700 * time.Millisecond // a login takes many round trips of 160 ms
	wants := map[string]struct {
		state  fleet.WatchState
		reason string
	}{
		"healthy":          {fleet.WatchHealthy, ""},
		"refused port":     {fleet.WatchUnreachable, "connection refused"},
		"hung":             {fleet.WatchUnreachable, ""},
		"refused key":      {fleet.WatchAuthRefused, "does not accept user nobody-here"},
		"changed key":      {fleet.WatchKeyChanged, "the host presents key SHA256:"},
		"going down":       {fleet.WatchRebooting, "its system is stopping"},
		"another's reboot": {fleet.WatchHealthy, ""},
	}
	var counts workflows.WatchCounts
	pages, unreachable := 0, 0
	for fits := false; !fits && pages < 5; pages++ { // a busy machine may be too slow for a check
		counts = w.page(t, in)
		require.Equal(t, 10, counts.Healthy+counts.Slow+counts.Unreachable+counts.AuthRefused+counts.KeyChanged+counts.Rebooting)
		unreachable += counts.Unreachable
		fits = w.host(t, slow.Address()).Watch.State == fleet.WatchSlow
		for name, want := range wants {
			is := w.host(t, at[name].Address()).Watch.State
			fits = fits && (is == want.state || want.state == fleet.WatchHealthy && is == fleet.WatchSlow)
		}
	}
	for name, want := range wants {
		h := w.host(t, at[name].Address())
		require.Contains(t, []fleet.WatchState{want.state, map[bool]fleet.WatchState{true: fleet.WatchSlow}[want.state == fleet.WatchHealthy]}, h.Watch.State, "%s: %s", name, h.Watch.Reason)
		require.Contains(t, h.Watch.Reason, want.reason, name)
		require.Equal(t, fleet.HostDisassociated, h.State, name)
		require.Equal(t, name == "another's reboot", !h.Watch.Rebooted.IsZero(), name)
		require.WithinDuration(t, time.Now(), h.Watch.Checked, time.Minute)
	}
	back := w.host(t, at["another's reboot"].Address())
	require.Equal(t, at["another's reboot"].BootID(), back.BootID)
	require.Equal(t, "debian", back.OS, "facts are read again after a reboot")
	require.Equal(t, "nothing", w.host(t, at["healthy"].Address()).OS, "and not without need")
	far := w.host(t, slow.Address())
	require.Equal(t, fleet.WatchSlow, far.Watch.State)
	require.Regexp(t, `^it took [0-9.]+m?s to answer$`, far.Watch.Reason)
	require.Equal(t, 10*pages, w.found[fleet.WatchHealthy]+w.found[fleet.WatchSlow]+w.found[fleet.WatchUnreachable]+w.found[fleet.WatchAuthRefused]+w.found[fleet.WatchKeyChanged]+w.found[fleet.WatchRebooting])
	require.Equal(t, unreachable, w.found[fleet.WatchUnreachable])
	require.NotContains(t, fmt.Sprint(counts), "PRIVATE KEY")
}

func TestAHostIsLostAndFound(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	h, other := w.fleet.Hosts()[0], w.fleet.Hosts()[1]
	require.NoError(t, h.Refuse())
	for i := range 3 {
		require.Equal(t, fleet.HostDisassociated, w.host(t, h.Address()).State)
		counts := w.page(t, watchInput)
		require.Equal(t, map[bool]int{true: 1}[i == 2], counts.Lost)
		require.Equal(t, 1, counts.Unreachable)
	}
	lost := w.host(t, h.Address())
	require.Equal(t, fleet.HostFailed, lost.State)
	require.True(t, strings.HasPrefix(lost.Reason, "unreachable at 3 checks in a row: connect: "), lost.Reason)
	require.NoError(t, h.Accept(t.Context()))
	require.Equal(t, 1, w.page(t, watchInput).Found)
	require.Equal(t, fleet.HostDisassociated, w.host(t, h.Address()).State)
	require.Equal(t, fleet.HostDisassociated, w.host(t, other.Address()).State)
	for _, one := range []*remotetest.Host{h, other} {
		require.Zero(t, one.Reboots(), "checks change nothing")
	}
}

// TestABootThatDoesNotEnd: sshd answers, and one unit keeps the system from being up.
func TestABootThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 1)
	h := w.fleet.Hosts()[0]
	require.NoError(t, h.OnCommand("systemctl", "echo starting; exit 1"))
	require.Equal(t, 1, w.page(t, watchInput).Rebooting)
	require.Equal(t, "its system is starting", w.host(t, h.Address()).Watch.Reason)
	_, err := w.sql.Exec(t.Context(), "UPDATE host SET watch_since = watch_since - $1::text::interval", fleet.RebootingMost.String())
	require.NoError(t, err)
	for i := range 3 {
		require.Equal(t, fleet.HostDisassociated, w.host(t, h.Address()).State)
		counts := w.page(t, watchInput)
		require.Equal(t, workflows.WatchCounts{Rebooting: 1, Lost: map[bool]int{true: 1}[i == 2]}, counts)
	}
	lost := w.host(t, h.Address())
	require.Equal(t, fleet.HostFailed, lost.State)
	require.Regexp(t, "^rebooting at 3 checks in a row: its system is starting since .*Z, which is too long$", lost.Reason)
	require.NoError(t, h.OnCommand("systemctl", ""))
	require.Equal(t, 1, w.page(t, watchInput).Found)
	require.Equal(t, fleet.HostDisassociated, w.host(t, h.Address()).State)
}

// TestAnOperationOvertakesACheck: what a check finds while an operation begins is not
// written.
func TestAnOperationOvertakesACheck(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 1)
	h := w.fleet.Hosts()[0]
	hold := filepath.Join(h.Dir(), "checked")
	require.NoError(t, h.OnCommand("systemctl", `: >"$FLEET_HOST/checked"; while [ -e "$FLEET_HOST/checked" ]; do sleep 0.02; done`))
	done := make(chan workflows.WatchCounts, 1)
	go func() {
		counts, _ := w.try(workflows.WatchPageInput{WatchInput: watchInput})
		done <- counts
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(hold); return err == nil }, patience, 5*time.Millisecond)
	op, _, err := w.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindRestart, Cluster: cluster})
	require.NoError(t, err)
	_, err = w.BeginHostRun(t.Context(), op.ID, h.Address())
	require.NoError(t, err)
	require.NoError(t, h.OnCommand("systemctl", ""))
	require.NoError(t, os.Remove(hold))
	require.Equal(t, 1, (<-done).Overtaken)
	require.Zero(t, w.host(t, h.Address()).Watch)
	require.Zero(t, w.page(t, watchInput), "an operation holds the only host")
}

func TestAWorkerThatStopsHandsThePageOver(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 1)
	require.NoError(t, w.fleet.Hosts()[0].Hang())
	t.Cleanup(func() { _ = w.fleet.Hosts()[0].Unhang() })
	env := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
	stop := make(chan struct{})
	env.SetWorkerStopChannel(stop)
	env.SetWorkerOptions(worker.Options{})
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	_, err := w.in(env, workflows.WatchPageInput{WatchInput: watchInput})
	require.ErrorContains(t, err, "this worker is stopping")
	require.Zero(t, w.host(t, w.fleet.Hosts()[0].Address()).Watch, "it did not wait for the check to end")
}

func TestThePlanOfAWatch(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 1)
	plan, err := w.watch.Plan(t.Context(), watchInput)
	require.NoError(t, err)
	require.Empty(t, plan.Bounds, "one page")
}
