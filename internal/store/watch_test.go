package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

const (
	watchedKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	otherKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g"
	limitLost  = 3
)

// watchable registers a host with a pinned key and bootstraps it.
func (f *fixture) watchable(t testing.TB, address, cluster string) {
	t.Helper()
	_, op, err := f.PutHost(t.Context(), HostPut{Address: address, Cluster: cluster, HostKey: watchedKey, Creds: creds("key")})
	require.NoError(t, err)
	f.bootstrap(t, *op, fleet.HostRunSucceeded, fleet.HostPrepared)
}

// toCheck reads one host as a check does.
func (f *fixture) toCheck(t testing.TB, address string) HostToCheck {
	t.Helper()
	h, err := f.Host(t.Context(), address)
	require.NoError(t, err)
	hosts, sealed, err := f.HostsToCheck(t.Context(), h.Cluster, "", "", time.Hour)
	require.NoError(t, err)
	require.Zero(t, sealed)
	for _, h := range hosts {
		if h.Address == address {
			return h
		}
	}
	t.Fatalf("%s is not to be checked", address)
	return HostToCheck{}
}

// found records a check of a host that was read before; it says whether that was written.
func (f *fixture) found(t testing.TB, h HostToCheck, state fleet.WatchState) bool {
	t.Helper()
	c := Checked{Host: h, At: h.Read, State: state}
	if state.Reached() {
		c.BootID = h.BootID
		if !state.Works() {
			c.Reason = "its system is starting"
		}
	} else {
		c.Reason = "connect: no route"
	}
	done, err := f.RecordChecks(t.Context(), []Checked{c}, limitLost)
	require.NoError(t, err)
	return done.Written == 1
}

func (f *fixture) check(t testing.TB, address string, states ...fleet.WatchState) fleet.Host {
	t.Helper()
	for _, state := range states {
		require.True(t, f.found(t, f.toCheck(t, address), state))
	}
	h, err := f.Host(t.Context(), address)
	require.NoError(t, err)
	return h
}

func TestLostAndFound(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	f.watchable(t, "held", "c")
	f.watchable(t, "free", "")
	f.watchable(t, "leaver", "c")
	for _, address := range []string{"held", "free", "leaver"} {
		before := f.check(t, address)
		require.Zero(t, before.Watch)
		h := f.check(t, address, fleet.WatchUnreachable, fleet.WatchAuthRefused)
		require.Equal(t, before.State, h.State, "two are not enough")
		require.Equal(t, fleet.Watch{State: fleet.WatchAuthRefused, Reason: "connect: no route", Since: h.Watch.Checked, Failures: 2, Checked: h.Watch.Checked}, h.Watch)
		require.Equal(t, before.LastCheck, h.LastCheck, "nobody has reached it")
		h = f.check(t, address, fleet.WatchHealthy)
		require.Zero(t, h.Watch.Failures)
		require.Equal(t, h.Watch.Checked, h.LastCheck)

		h = f.check(t, address, fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable)
		require.Equal(t, fleet.HostFailed, h.State)
		require.Equal(t, "unreachable at 3 checks in a row: connect: no route", h.Reason)
		require.Equal(t, 4, h.Watch.Failures)
		require.True(t, h.Watch.Since.Before(h.Watch.Checked))
		require.True(t, h.StateSince.Before(h.Watch.Checked))
		require.Equal(t, string(before.State), f.scan(t, "SELECT watch_prior FROM host WHERE address = $1", address))

		h = f.check(t, address, fleet.WatchRebooting)
		require.Equal(t, fleet.HostFailed, h.State, "it answers, but does not work yet")
		if address == "leaver" {
			require.NoError(t, f.RemoveMember(t.Context(), "c", address))
			before.State = fleet.HostDisassociated
		}
		h = f.check(t, address, fleet.WatchSlow)
		require.Equal(t, before.State, h.State)
		require.Empty(t, h.Reason)
		require.Zero(t, h.Watch.Failures)
		require.Empty(t, f.scan(t, "SELECT watch_prior FROM host WHERE address = $1", address))
	}
}

// TestAnotherMachineOfABrokenHost: of a host that an operation has failed over its key, and
// not checks, the reason says what helps once the new key is accepted.
func TestAnotherMachineOfABrokenHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.watchable(t, "broken", "")
	f.watchable(t, "whole", "")
	op, _, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindBootstrap, Host: "broken"})
	require.NoError(t, err)
	f.bootstrap(t, op, fleet.HostRunFailed, fleet.HostBroke)
	before, err := f.Host(t.Context(), "broken")
	require.NoError(t, err)
	require.Equal(t, fleet.HostFailed, before.State)
	require.NotContains(t, before.Reason, "bootstrap it")
	for _, c := range []struct{ address, key, says string }{
		{"broken", watchedKey, before.Reason},
		{"broken", otherKey, otherKeyReason},
		{"whole", otherKey, ""},
	} {
		_, err = f.AcceptHostKey(t.Context(), c.address, c.key)
		require.NoError(t, err)
		h, err := f.Host(t.Context(), c.address)
		require.NoError(t, err)
		require.Equal(t, c.says, h.Reason)
	}
}

// TestAnotherMachineIsNotFound: a machine that was made anew answers well, and has nothing of
// what a bootstrap does.
func TestAnotherMachineIsNotFound(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for address, found := range map[string]fleet.WatchState{"changed": fleet.WatchKeyChanged, "away": fleet.WatchUnreachable} {
		f.watchable(t, address, "")
		before := f.check(t, address, found, found, found)
		require.Equal(t, fleet.HostFailed, before.State)

		_, err := f.AcceptHostKey(t.Context(), address, watchedKey)
		require.NoError(t, err)
		h, err := f.Host(t.Context(), address)
		require.NoError(t, err)
		require.Equal(t, before.Reason, h.Reason, "the key that was pinned")

		_, err = f.AcceptHostKey(t.Context(), address, otherKey)
		require.NoError(t, err)
		h = f.check(t, address, fleet.WatchHealthy)
		require.Equal(t, fleet.HostFailed, h.State)
		require.Contains(t, h.Reason, "bootstrap it")
		require.Equal(t, fleet.WatchHealthy, h.Watch.State)

		op, _, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindBootstrap, Host: address})
		require.NoError(t, err)
		f.bootstrap(t, op, fleet.HostRunSucceeded, fleet.HostPrepared)
		h = f.check(t, address, found, found, found, fleet.WatchHealthy)
		require.Equal(t, fleet.HostDisassociated, h.State, "from now on checks bring it back")
	}
}

// TestChecksHealNothingElse: what failed a host otherwise is not undone by a good check.
func TestChecksHealNothingElse(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	down := []fleet.WatchState{fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable}
	broke := func(t *testing.T, address string) {
		op := f.start(t, fleet.KindRestart, "c", "")
		_, err := f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		_, err = f.BeginHostRun(ctx, op.ID, address)
		require.NoError(t, err)
		require.NoError(t, f.endRun(ctx, op.ID, address, fleet.HostRunFailed, "step reboot: no", fleet.HostBroke))
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x"))
	}
	for name, c := range map[string]struct {
		before []fleet.WatchState
		fail   func(t *testing.T, address string)
		reason string
	}{
		"broken":            {nil, broke, "step reboot: no"},
		"lost, then broken": {down, broke, "step reboot: no"},
		"lost, then broken by the binary before this one": {down, func(t *testing.T, address string) {
			f.exec(t, "UPDATE host SET state = 'failed', reason = 'old' WHERE address = $1", address)
		}, "old"},
	} {
		t.Run(name, func(t *testing.T) {
			f.watchable(t, "h", "c")
			f.check(t, "h", c.before...)
			c.fail(t, "h")
			h := f.check(t, "h", fleet.WatchHealthy)
			require.Equal(t, fleet.HostFailed, h.State)
			require.Equal(t, c.reason, h.Reason)
			require.Equal(t, fleet.WatchHealthy, h.Watch.State, "what was found is known all the same")
			h = f.check(t, "h", down...)
			require.Equal(t, c.reason, h.Reason, "it has failed already")
			_, err := f.DeleteHost(ctx, "h", "ann")
			require.NoError(t, err)
		})
	}

	f.watchable(t, "back", "c")
	f.check(t, "back", down[:2]...)
	op := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginHostRun(ctx, op.ID, "back")
	require.NoError(t, err)
	_, err = f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	require.NoError(t, f.RecordFacts(ctx, op.ID, "back", fleet.Facts{OS: "fedora", BootID: "b2"}))
	require.NoError(t, f.endRun(ctx, op.ID, "back", fleet.HostRunSucceeded, "", fleet.HostRecovered))
	h := f.check(t, "back", fleet.WatchUnreachable)
	require.Equal(t, 1, h.Watch.Failures, "an operation has reached it meanwhile")
}

// TestAHostThatNothingWasDoneToComesBack: a rollout that could not reach a host, and so did
// nothing to it, takes nothing from it, whether checks had lost it before or not.
func TestAHostThatNothingWasDoneToComesBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.managed(t, "c", "m", fleet.ContainerManagerTrivial)
	down := []fleet.WatchState{fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable}
	const gaveUp = "step check: gave up after 2m0s: unreachable"
	roll := func(t *testing.T, reason string, event fleet.HostEvent) fleet.Operation {
		op := f.start(t, fleet.KindRestart, "c", "")
		_, err := f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		_, err = f.BeginHostRun(ctx, op.ID, "h")
		require.NoError(t, err)
		require.NoError(t, f.endRun(ctx, op.ID, "h", fleet.HostRunFailed, reason, event))
		require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x"))
		return op
	}
	for name, c := range map[string]struct {
		before func(t *testing.T)
		reason string
		then   func(t *testing.T)
		back   fleet.HostState
	}{
		"it worked": {reason: gaveUp, back: fleet.HostActive},
		"lost":      {before: func(t *testing.T) { f.check(t, "h", down...) }, reason: "unreachable at 3 checks in a row: connect: no route", back: fleet.HostActive},
		"it worked, and left its cluster": {reason: gaveUp, back: fleet.HostDisassociated, then: func(t *testing.T) {
			require.NoError(t, f.RemoveMember(ctx, "c", "h"))
		}},
		"broken":           {before: func(t *testing.T) { roll(t, "step reboot: no", fleet.HostBroke) }, reason: "step reboot: no", back: fleet.HostFailed},
		"broken later":     {reason: gaveUp, back: fleet.HostFailed, then: func(t *testing.T) { roll(t, "step reboot: no", fleet.HostBroke) }},
		"another host key": {reason: gaveUp, back: fleet.HostFailed, then: func(t *testing.T) { _, err := f.AcceptHostKey(ctx, "h", otherKey); require.NoError(t, err) }},
	} {
		t.Run(name, func(t *testing.T) {
			f.watchable(t, "h", "c")
			require.Equal(t, fleet.HostActive, f.state(t, "h"))
			if c.before != nil {
				c.before(t)
			}
			op := roll(t, gaveUp, fleet.HostLost)
			h, err := f.Host(ctx, "h")
			require.NoError(t, err)
			require.Equal(t, fleet.HostFailed, h.State)
			require.Equal(t, c.reason, h.Reason)
			require.Equal(t, c.before == nil, h.OperationID == op.ID, "who has failed it")
			if c.then != nil {
				c.then(t)
			}
			h = f.check(t, "h", fleet.WatchHealthy)
			require.Equal(t, c.back, h.State)
			require.Equal(t, c.back == fleet.HostFailed, h.Reason != "")
			_, err = f.DeleteHost(ctx, "h", "ann")
			require.NoError(t, err)
		})
	}

	f.watchable(t, "h", "c")
	roll(t, gaveUp, fleet.HostLost)
	h := f.check(t, "h", down...)
	require.Equal(t, "unreachable at 3 checks in a row: connect: no route", h.Reason, "what is known now")
}

// TestABootThatHangs: a host that answers and is never up is lost to checks, and found.
func TestABootThatHangs(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	later := func(address string) {
		f.exec(t, "UPDATE host SET watch_since = watch_since - $2::text::interval WHERE address = $1", address, fleet.RebootingMost.String())
	}
	const tooLong = `its system is starting since [-0-9]+T[:0-9]+Z, which is too long$`
	for address, before := range map[string][]fleet.WatchState{
		"worked": nil,
		"lost":   {fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable, fleet.WatchUnreachable},
	} {
		f.watchable(t, address, "c")
		f.check(t, address, before...)
		state := f.state(t, address)
		h := f.check(t, address, fleet.WatchRebooting, fleet.WatchRebooting, fleet.WatchRebooting, fleet.WatchRebooting)
		require.Equal(t, state, h.State, "it may take its time")
		require.Equal(t, "its system is starting", h.Watch.Reason)
		require.Zero(t, h.Watch.Failures)

		later(address)
		h = f.check(t, address, fleet.WatchRebooting, fleet.WatchRebooting)
		require.Equal(t, state, h.State)
		require.Equal(t, 2, h.Watch.Failures)
		require.Equal(t, fleet.WatchRebooting, h.Watch.State)
		require.Regexp(t, "^"+tooLong, h.Watch.Reason)
		require.Contains(t, h.Watch.Reason, h.Watch.Since.Format("2006-01-02T15:04:05Z"))
		require.Equal(t, h.Watch.Checked, h.LastCheck, "it was reached")
		h = f.check(t, address, fleet.WatchRebooting, fleet.WatchRebooting)
		require.Equal(t, fleet.HostFailed, h.State)
		require.Regexp(t, "^rebooting at 3 checks in a row: "+tooLong, h.Reason)

		h = f.check(t, address, fleet.WatchHealthy)
		require.Equal(t, fleet.HostDisassociated, h.State)
		require.Zero(t, h.Watch.Failures)
		h = f.check(t, address, fleet.WatchRebooting)
		require.Equal(t, "its system is starting", h.Watch.Reason, "it boots once more")
	}

	// What was before an operation reached it is another boot.
	later("worked")
	op := f.start(t, fleet.KindUpgrade, "c", "")
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(ctx, op.ID, "worked")
	require.NoError(t, err)
	require.NoError(t, f.RecordFacts(ctx, op.ID, "worked", fleet.Facts{OS: "fedora", BootID: "b2"}))
	require.NoError(t, f.endRun(ctx, op.ID, "worked", fleet.HostRunSucceeded, "", fleet.HostRecovered))
	h := f.check(t, "worked", fleet.WatchRebooting, fleet.WatchRebooting)
	require.Zero(t, h.Watch.Failures)
	require.WithinDuration(t, h.Watch.Checked, h.Watch.Since, time.Minute)
}

// TestFresherTruthStays: a check that something has overtaken changes nothing.
func TestFresherTruthStays(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	begin := func(t *testing.T) fleet.Operation {
		op := f.start(t, fleet.KindRestart, t.Name(), "")
		_, err := f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		_, err = f.BeginHostRun(ctx, op.ID, t.Name())
		require.NoError(t, err)
		return op
	}
	for name, overtake := range map[string]func(t *testing.T, h HostToCheck){
		"deleted": func(t *testing.T, h HostToCheck) {
			_, err := f.DeleteHost(ctx, h.Address, "ann")
			require.NoError(t, err)
		},
		"added-again": func(t *testing.T, h HostToCheck) {
			_, err := f.DeleteHost(ctx, h.Address, "ann")
			require.NoError(t, err)
			f.watchable(t, h.Address, t.Name())
		},
		"another-port": func(t *testing.T, h HostToCheck) {
			_, _, err := f.PutHost(ctx, HostPut{Address: h.Address, Port: 2222, Creds: creds("key")})
			require.NoError(t, err)
		},
		"another-host-key": func(t *testing.T, h HostToCheck) {
			_, err := f.AcceptHostKey(ctx, h.Address, otherKey)
			require.NoError(t, err)
		},
		"other-credentials": func(t *testing.T, h HostToCheck) {
			require.NoError(t, f.PutHostCreds(ctx, h.Address, creds("other")))
		},
		"an-operation-at-work": func(t *testing.T, h HostToCheck) { begin(t) },
		"an-operation-that-ended": func(t *testing.T, h HostToCheck) {
			op := begin(t)
			require.NoError(t, f.endRun(ctx, op.ID, h.Address, fleet.HostRunSucceeded, "", fleet.HostRecovered))
		},
		"a-later-check": func(t *testing.T, h HostToCheck) { f.check(t, h.Address, fleet.WatchHealthy) },
	} {
		t.Run(name, func(t *testing.T) {
			f.cluster(t, t.Name())
			f.watchable(t, t.Name(), t.Name())
			h := f.toCheck(t, t.Name())
			overtake(t, h)
			row := `SELECT coalesce((SELECT to_json(h)::text FROM host h WHERE address = $1), 'gone')`
			before := f.scan(t, row, h.Address)
			require.False(t, f.found(t, h, fleet.WatchUnreachable))
			require.Equal(t, before, f.scan(t, row, h.Address))
		})
	}

	f.cluster(t, "again")
	f.watchable(t, "again", "again")
	h := f.toCheck(t, "again")
	require.True(t, f.found(t, h, fleet.WatchUnreachable))
	require.False(t, f.found(t, h, fleet.WatchUnreachable), "repeating it changes nothing")
	require.Equal(t, 1, f.check(t, "again").Watch.Failures)
}

func TestRebootsOfOthersAreNoted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.watchable(t, "h", "c")
	boots := func(id string) fleet.Host {
		h := f.toCheck(t, "h")
		facts := &fleet.Facts{OS: "fedora", OSVersion: "44", CPUs: 8, Memory: 1, Space: 2, OSTree: true, PackageManager: "dnf", BootID: id}
		_, err := f.RecordChecks(ctx, []Checked{{Host: h, At: h.Read, State: fleet.WatchHealthy, BootID: id, Facts: facts}}, limitLost)
		require.NoError(t, err)
		return f.check(t, "h")
	}
	require.Zero(t, boots("b1").Watch.Rebooted)
	h := boots("b2")
	require.Equal(t, h.Watch.Checked, h.Watch.Rebooted)
	require.Equal(t, "b2 fedora 44 8 true dnf", fmt.Sprint(h.BootID, " ", h.OS, " ", h.OSVersion, " ", h.CPUs, " ", h.OSTree, " ", h.PackageManager))
	noted := h.Watch.Rebooted
	require.Equal(t, noted, boots("b2").Watch.Rebooted)

	// A rollout orders a reboot, fails, and the host comes back after that.
	op := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(ctx, op.ID, "h")
	require.NoError(t, err)
	_, err = f.SetHostRunBootID(ctx, op.ID, "h", "b2")
	require.NoError(t, err)
	_, err = f.BeginStep(ctx, op.ID, "h", fleet.StepReboot, 1)
	require.NoError(t, err)
	require.NoError(t, f.endRun(ctx, op.ID, "h", fleet.HostRunFailed, "too slow", fleet.HostBroke))
	require.Equal(t, noted, boots("b2").Watch.Rebooted)
	require.Equal(t, noted, boots("b3").Watch.Rebooted, "that was the operation")
	h = boots("b4")
	require.Equal(t, h.Watch.Checked, h.Watch.Rebooted)
}

func TestWhatIsWatched(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.exec(t, "INSERT INTO tenant (name) VALUES ('other')")
	all, err := f.db.Watched(ctx)
	require.NoError(t, err)
	require.Equal(t, []fleet.Watched{{Tenant: "default"}, {Tenant: "default", Cluster: "c"}, {Tenant: "other"}}, all)

	for i := range 7 {
		f.watchable(t, fmt.Sprint("h", i), "c")
	}
	f.watchable(t, "alone", "")
	f.newHost(t, "new", "c")   // not bootstrapped
	f.host(t, "unpinned", "c") // no key to expect
	f.start(t, fleet.KindBootstrap, "", "h6")
	f.exec(t, "UPDATE host SET state = 'investigating' WHERE address = 'h6'")
	op := f.start(t, fleet.KindRestart, "c", "")
	_, err = f.BeginHostRun(ctx, op.ID, "h1")
	require.NoError(t, err)
	f.exec(t, "UPDATE host_creds SET sealed = 'x' WHERE address = 'h5'")

	for hosts, want := range map[int][]string{1: {"h0", "h1", "h2", "h3", "h4"}, 2: {"h1", "h3"}, 3: {"h2"}, 4: {"h3"}, 6: {}, 10: {}} {
		bounds, err := f.WatchPages(ctx, "c", hosts, 100)
		require.NoError(t, err)
		require.Equal(t, want, bounds, "%d a page", hosts)
		var found []string
		for i := range len(bounds) + 1 {
			after, upTo := "", ""
			if i > 0 {
				after = bounds[i-1]
			}
			if i < len(bounds) {
				upTo = bounds[i]
			}
			page, _, err := f.HostsToCheck(ctx, "c", after, upTo, time.Hour)
			require.NoError(t, err)
			for _, h := range page {
				found = append(found, h.Address)
			}
		}
		require.Equal(t, []string{"h0", "h2", "h3", "h4"}, found)
	}
	bounds, err := f.WatchPages(ctx, "c", 1, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"h2"}, bounds, "more hosts a page rather than more pages")
	_, sealed, err := f.HostsToCheck(ctx, "c", "", "", time.Hour)
	require.NoError(t, err)
	require.Equal(t, 1, sealed)

	free, _, err := f.HostsToCheck(ctx, "", "", "", time.Hour)
	require.NoError(t, err)
	require.Len(t, free, 1)
	h := free[0]
	require.Equal(t, []any{"alone", 22, watchedKey, "b1", false, "root"}, []any{h.Address, h.Port, h.HostKey, h.BootID, h.Facts, h.Creds.RemoteUser})
	require.True(t, h.Creds.PrivateKey.Equal(secret.NewText([]byte("key"))))
	for age, old := range map[string]bool{"25 minutes": false, "61 minutes": true} {
		f.exec(t, "UPDATE host SET watch_facts = now() - $1::text::interval WHERE address = 'alone'", age)
		require.Equal(t, old, f.toCheck(t, "alone").Facts, age)
	}

	standing, err := f.db.WatchStanding(ctx)
	require.NoError(t, err)
	require.Equal(t, WatchStanding{Found: map[fleet.WatchState]int{fleet.WatchNever: 10}}, standing)
	f.check(t, "alone", fleet.WatchHealthy)
	f.exec(t, "UPDATE host SET watched = now() - interval '1 hour' WHERE address = 'alone'")
	f.exec(t, "UPDATE host SET watch_state = 'slow', watch_since = now(), watched = now() - interval '2 hours' WHERE tenant = 'default' AND address = (SELECT min(address) FROM host WHERE watch_state = '' AND tenant = 'default')")
	standing, err = f.db.WatchStanding(ctx)
	require.NoError(t, err)
	require.Equal(t, map[fleet.WatchState]int{fleet.WatchNever: 8, fleet.WatchHealthy: 1, fleet.WatchSlow: 1}, standing.Found)
	require.InDelta(t, time.Hour, *standing.Newest, float64(time.Minute))
}

// TestWatchRaces lets checks, operations, deletions and additions meet. No check may
// change a host that is another one since, or that an operation works on or has worked on
// since the check began, and nobody meets a deadlock.
func TestWatchRaces(t *testing.T) {
	t.Parallel()
	const rounds, hosts = 15, 4
	f := setup(t)
	ctx := t.Context()
	written := 0
	for round := range rounds {
		cluster := fmt.Sprint("c", round)
		f.cluster(t, cluster)
		address := func(i int) string { return fmt.Sprintf("h%d-%d", round, i) }
		for i := range hosts {
			f.watchable(t, address(i), cluster)
			f.check(t, address(i), fleet.WatchUnreachable, fleet.WatchUnreachable) // the next one fails it
		}
		var checks []Checked
		for i := range hosts {
			h := f.toCheck(t, address(i))
			checks = append(checks, Checked{Host: h, At: h.Read, State: fleet.WatchUnreachable, Reason: "x"})
		}
		op := f.start(t, fleet.KindRestart, cluster, "")
		_, err := f.BeginOperation(ctx, op.ID)
		require.NoError(t, err)
		record := func() error {
			done, err := f.RecordChecks(ctx, checks, limitLost)
			written += done.Written
			return err
		}
		calls := []func() error{
			record,
			func() error { _, err := f.DeleteHost(ctx, address(0), "ann"); return err },
			func() error {
				if _, err := f.DeleteHost(ctx, address(1), "ann"); err != nil {
					return err
				}
				_, _, err := f.PutHost(ctx, HostPut{Address: address(1), HostKey: watchedKey, Creds: creds("key")})
				return err
			},
			func() error {
				if _, err := f.BeginHostRun(ctx, op.ID, address(2)); err != nil {
					return err
				}
				return f.endRun(ctx, op.ID, address(2), fleet.HostRunSucceeded, "", fleet.HostRecovered)
			},
			func() error { return f.DeleteCluster(ctx, cluster) },
		}
		rand.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
		for _, err := range together(len(calls), func(i int) error { return calls[i]() }) {
			if err != nil && fleet.KindOf(err) != fleet.NotFound {
				requireKind(t, fleet.Conflict, err)
			}
		}
		_, err = f.Host(ctx, address(0))
		requireKind(t, fleet.NotFound, err)
		again, err := f.Host(ctx, address(1))
		require.NoError(t, err)
		require.Equal(t, fleet.HostInvestigating, again.State)
		require.Zero(t, again.Watch, "a check of the host that was deleted")
		run, err := f.HostRuns(ctx, op.ID)
		require.NoError(t, err)
		worked, err := f.Host(ctx, address(2))
		require.NoError(t, err)
		for _, r := range run {
			if r.Address == address(2) && r.State == fleet.HostRunSucceeded {
				require.Equal(t, fleet.HostDisassociated, worked.State, "the operation is the fresher truth, whoever was first")
			}
		}
		last, err := f.Host(ctx, address(3))
		require.NoError(t, err)
		require.Equal(t, fleet.HostFailed, last.State)
	}
	require.GreaterOrEqual(t, written, rounds, "the host that nobody else touches is written in each")
}

// TestWatchProperty compares hosts with a model, after random checks and operations.
func TestWatchProperty(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		cluster, address := fmt.Sprint("c", n), fmt.Sprint("h", n)
		held := rapid.Bool().Draw(rt, "held")
		state := fleet.HostDisassociated
		if held {
			f.managed(t, cluster, fmt.Sprint("m", n), fleet.ContainerManagerTrivial)
			state = fleet.HostActive
		} else {
			f.cluster(t, cluster)
		}
		f.watchable(t, address, cluster)
		works, failures, lost := state, 0, false
		end := func(to fleet.HostRunState, event fleet.HostEvent) {
			op := f.start(t, fleet.KindRestart, cluster, "")
			_, err := f.BeginOperation(ctx, op.ID)
			require.NoError(t, err)
			_, err = f.BeginHostRun(ctx, op.ID, address)
			require.NoError(t, err)
			if to == fleet.HostRunSucceeded {
				require.NoError(t, f.RecordFacts(ctx, op.ID, address, fleet.Facts{OS: "fedora", BootID: uuid.NewString()}))
				failures = 0
			}
			require.NoError(t, f.endRun(ctx, op.ID, address, to, "broken", event))
			require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x"))
			lost = lost && event == fleet.HostLost
		}
		check := func(found fleet.WatchState) {
			hosts, _, err := f.HostsToCheck(ctx, cluster, "", "", time.Hour)
			require.NoError(t, err)
			require.True(t, f.found(t, hosts[0], found))
			switch {
			case found.Failed():
				failures++
				if failures >= limitLost && state != fleet.HostFailed {
					state, lost = fleet.HostFailed, true
				}
			default:
				failures = 0
				if found.Works() && lost {
					state, lost = works, false
				}
			}
		}
		what := append([]string{"break", "work", "give up at check"}, states()...)
		for _, happens := range rapid.SliceOfN(rapid.SampledFrom(what), 1, 15).Draw(rt, "what happens") {
			switch happens {
			case "break":
				end(fleet.HostRunFailed, fleet.HostBroke)
				state = fleet.HostFailed
			case "give up at check":
				end(fleet.HostRunFailed, fleet.HostLost)
				if state != fleet.HostFailed {
					state, lost = fleet.HostFailed, true
				}
			case "work":
				end(fleet.HostRunSucceeded, fleet.HostRecovered)
				state = works
			default:
				check(fleet.WatchState(happens))
			}
			want := fmt.Sprint(state, " ", lost)
			require.Equal(rt, want, f.scan(t, "SELECT state || ' ' || (watch_prior <> '') FROM host WHERE address = $1", address), happens)
		}
	})
}

// states are those that checks find, the failed ones more often.
func states() (out []string) {
	for _, s := range fleet.WatchStates {
		out = append(out, string(s))
		if s.Failed() {
			out = append(out, string(s), string(s))
		}
	}
	return out
}
