package activities_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// TestStepsGoThroughTheBastion: a step waits for a bastion that is being bootstrapped
// itself, or is away, and says so meanwhile.
func TestStepsGoThroughTheBastion(t *testing.T) {
	t.Parallel()
	r := setup(t)
	other := remotetest.New(t, 1) // with a key of its own
	bastion := other.Hosts()[0]
	_, _, err := r.PutHost(t.Context(), store.HostPut{
		Address: bastion.Address(), Port: bastion.Port(),
		Creds: secret.HostCreds{RemoteUser: bastion.User(), PrivateKey: secret.NewText([]byte(other.ClientKey()))},
	})
	require.NoError(t, err)
	r.add(t, r.host.Port())
	require.NoError(t, r.PutHostBastion(t.Context(), r.host.Address(), bastion.Address()))
	says := func(step, text string) func() bool {
		return func() bool { return strings.Contains(r.row(t, step).Reason, text) }
	}

	done := r.beside(r.crew(t), workflows.StepInvestigate, how{})
	eventually(t, says(workflows.StepInvestigate, "through bastion "+bastion.Address()+":2222: its host key is not pinned"), "it says what it waits for")
	_, err = r.AcceptHostKey(t.Context(), bastion.Address(), bastion.HostKey())
	require.NoError(t, err)
	require.NoError(t, await(t, done))

	require.NoError(t, bastion.Refuse())
	done = r.beside(r.crew(t), workflows.StepPrepare, how{})
	eventually(t, says(workflows.StepPrepare, "through bastion "+bastion.Address()+":2222: unreachable: connect"), "it says who is away")
	require.NoError(t, bastion.Accept(t.Context()))
	require.NoError(t, await(t, done))
}

// TestChecksGoThroughTheBastion: the bastion of a cluster is one of its hosts, which is
// reached straight.
func TestChecksGoThroughTheBastion(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	bastion, behind := w.fleet.Hosts()[0], w.fleet.Hosts()[1]
	address := bastion.Address()
	_, err := w.PutCluster(t.Context(), store.ClusterPut{Name: cluster, Bastion: &address})
	require.NoError(t, err)
	counts := w.page(t, watchInput)
	require.Equal(t, 2, counts.Healthy+counts.Slow)

	require.NoError(t, behind.Refuse())
	w.page(t, watchInput)
	require.True(t, w.host(t, bastion.Address()).Watch.State.Reached())
	h := w.host(t, behind.Address())
	require.Equal(t, fleet.WatchUnreachable, h.Watch.State)
	require.Contains(t, h.Watch.Reason, "through bastion "+address+":2222: it cannot connect to the host")
}
