package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// kube puts the hosts h<first>… into a cluster as nodes of a container manager of
// type kubernetes, which is there or gets these options.
func (f *fixture) kube(t testing.TB, cluster, manager string, options map[string]any, first, n int) {
	t.Helper()
	_, err := f.PutContainerManager(t.Context(), fleet.ContainerManager{Name: manager, Type: fleet.ContainerManagerKubernetes, Options: options})
	require.NoError(t, err)
	_, err = f.PutCluster(t.Context(), ClusterPut{Name: cluster, ContainerManager: &manager})
	require.NoError(t, err)
	f.exec(t, `INSERT INTO host (tenant, address, cluster, join_order, state, os, bootstrapped)
		SELECT 'default', 'h' || i, $1, i, 'active', 'fedora', now() FROM generate_series($2::integer, $2 + $3::integer - 1) i`, cluster, first, n)
	f.exec(t, "INSERT INTO node (tenant, address, manager) SELECT tenant, address, $2 FROM host WHERE cluster = $1", cluster, manager)
}

// cordoned is a rollout over nodes, of which the first has its slot and is cordoned.
func (f *fixture) cordoned(t testing.TB, hosts int) fleet.Operation {
	t.Helper()
	f.kube(t, "c", "k", map[string]any{"server_url": "https://192.0.2.1", "token": "hunter2"}, 1, hosts)
	op := f.rollout(t, NewOperation{})
	f.claims(t, op.ID, 1)
	_, err := f.BeginCordon(t.Context(), op.ID, "h1")
	require.NoError(t, err)
	return op
}

// cordonOf is the cordon of a host run, as the record has it.
func (f *fixture) cordonOf(t testing.TB, id, address string) string {
	t.Helper()
	return f.scan(t, "SELECT trim(cordon || ' ' || cordon_manager) FROM host_run WHERE operation_id = $1 AND address = $2", id, address)
}

func (f *fixture) left(t testing.TB) []HostCordon {
	t.Helper()
	left, err := f.db.LeftCordons(t.Context(), 0, 100)
	require.NoError(t, err)
	return left
}

func TestACordonGoesForward(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.cordoned(t, 2)
	options := map[string]any{"server_url": "https://192.0.2.1", "token": "hunter2"}
	for range 2 {
		m, err := f.BeginCordon(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.Equal(t, fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes, Options: options}, m)
		require.NoError(t, f.CordonStands(ctx, op.ID, "h1"))
		requireKind(t, fleet.Conflict, f.CordonRestored(ctx, op.ID, "h1"))
	}
	require.Equal(t, "out k", f.cordonOf(t, op.ID, "h1"))

	for range 2 {
		m, out, err := f.BeginRestore(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.True(t, out)
		require.Equal(t, options, m.Options)
		requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, "h1"))
		_, err = f.BeginCordon(ctx, op.ID, "h1")
		requireKind(t, fleet.Conflict, err)
	}
	require.Equal(t, "restoring k", f.cordonOf(t, op.ID, "h1"))
	require.Empty(t, f.left(t), "the slot is at it")

	for range 2 {
		require.NoError(t, f.CordonRestored(ctx, op.ID, "h1"))
		m, out, err := f.BeginRestore(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.False(t, out)
		require.Empty(t, m)
		_, err = f.BeginCordon(ctx, op.ID, "h1")
		requireKind(t, fleet.Conflict, err)
		requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, "h1"))
	}
	require.Equal(t, "restored k", f.cordonOf(t, op.ID, "h1"))
}

// A slot that does not know whether its cordon began takes it back, and with that keeps
// the one that is still on its way from beginning.
func TestACordonThatIsTakenBackFirst(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 1)
	op := f.rollout(t, NewOperation{})
	f.claims(t, op.ID, 1)
	requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, "h1"))
	for range 2 {
		_, out, err := f.BeginRestore(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.False(t, out)
		_, err = f.BeginCordon(ctx, op.ID, "h1")
		requireKind(t, fleet.Conflict, err)
	}
	require.Equal(t, "restored", f.cordonOf(t, op.ID, "h1"))
	require.NoError(t, f.CordonRestored(ctx, op.ID, "h1"))
}

// A host whose register found its node not Ready works again when a rollout has found it
// Ready.
func TestARolloutFindsItsNodeReady(t *testing.T) {
	t.Parallel()
	for _, found := range []bool{false, true} {
		f := setup(t)
		ctx := t.Context()
		op := f.cordoned(t, 1)
		f.exec(t, "UPDATE node SET ready = false")
		f.exec(t, "UPDATE host SET state = 'disassociated', reason = 'x'")
		want := fleet.HostDisassociated
		if found {
			require.NoError(t, f.NodeReady(ctx, op.ID, "h1"))
			require.NoError(t, f.NodeReady(ctx, op.ID, "h1"))
			want = fleet.HostActive
		}
		f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Turn: 1})
		h, err := f.Host(ctx, "h1")
		require.NoError(t, err)
		require.Equal(t, want, h.State)
	}
}

// Only the container manager that was asked can say so, of the node that it was asked for.
func TestNodesThatWereNotFoundReady(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.cordoned(t, 2)
	f.exec(t, "INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'm', 'kubernetes', '', 1)")
	f.exec(t, "UPDATE node SET ready = false, manager = CASE address WHEN 'h1' THEN 'm' ELSE manager END")
	require.NoError(t, f.NodeReady(ctx, op.ID, "h1"))
	require.NoError(t, f.NodeReady(ctx, op.ID, "h2"), "it has no cordon")
	require.NoError(t, f.NodeReady(ctx, uuid.NewString(), "h1"))
	requireKind(t, fleet.NotFound, f.NodeReady(ctx, "no id", "h1"))
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM node WHERE ready"))
}

// NodeStands does not ask for a cordon, and for all else as CordonStands does.
func TestANodeStands(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 1)
	op := f.rollout(t, NewOperation{})
	requireKind(t, fleet.Conflict, f.NodeStands(ctx, op.ID, "h1")) // pending
	f.claims(t, op.ID, 1)
	require.NoError(t, f.NodeStands(ctx, op.ID, "h1"))
	requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, "h1"))
	requireKind(t, fleet.NotFound, f.NodeStands(ctx, op.ID, "h2"))
	requireKind(t, fleet.NotFound, f.NodeStands(ctx, "no id", "h1"))
	f.exec(t, "UPDATE host SET cluster = NULL")
	require.ErrorContains(t, f.NodeStands(ctx, op.ID, "h1"), `the host left cluster "c"`)
	f.exec(t, "DELETE FROM host")
	require.ErrorContains(t, f.NodeStands(ctx, op.ID, "h1"), "the host was removed from the inventory")
}

func TestWhatIsNotCordoned(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 3)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(2)}})
	f.claims(t, op.ID, 1)
	refused := func(kind fleet.Kind, id, address string) {
		t.Helper()
		_, err := f.BeginCordon(ctx, id, address)
		requireKind(t, kind, err)
	}
	refused(fleet.Conflict, op.ID, "h3") // pending
	refused(fleet.NotFound, op.ID, "h9")
	refused(fleet.NotFound, uuid.NewString(), "h1")
	refused(fleet.NotFound, "no id", "h1")
	f.exec(t, "DELETE FROM node WHERE address = 'h1'")
	refused(fleet.Conflict, op.ID, "h1")
	f.exec(t, "INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'm', 'trivial', '', 1)")
	f.exec(t, "INSERT INTO node (tenant, address, manager) VALUES ('default', 'h1', 'm')")
	refused(fleet.Conflict, op.ID, "h1")
	f.exec(t, "DELETE FROM host WHERE address = 'h2'")
	refused(fleet.NotFound, op.ID, "h2")
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x"))
	refused(fleet.Conflict, op.ID, "h1")
	require.Equal(t, "3", f.scan(t, "SELECT count(*)::text FROM host_run WHERE cordon = 'none' AND cordon_manager = ''"))

	// The others answer the same for what does not exist.
	for _, err := range []error{
		f.CordonStands(ctx, op.ID, "h9"), f.CordonStands(ctx, "no id", "h1"), f.CordonRestored(ctx, op.ID, "h9"), f.CordonRestored(ctx, "no id", "h1"),
	} {
		requireKind(t, fleet.NotFound, err)
	}
	_, _, err := f.BeginRestore(ctx, op.ID, "h9")
	requireKind(t, fleet.NotFound, err)
	other := f.db.For("other")
	requireKind(t, fleet.NotFound, other.CordonStands(ctx, op.ID, "h1"))
	_, _, err = other.BeginRestore(ctx, op.ID, "h1")
	requireKind(t, fleet.NotFound, err)
}

// TestAHostThatIsLost: one whose workflow ends from outside is failed when a step was on
// record that does something to it, and not by those that look, or are at its node.
func TestAHostThatIsLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps    []string
		cordoned bool
		broke    bool
		down     bool
	}{
		"before the first step":    {},
		"in diagnose":              {steps: []string{"check", "diagnose"}},
		"before the cordon is out": {steps: []string{"check", "diagnose", "stage", "reboot-needed", "cordon"}},
		"in drain":                 {steps: []string{"check", "diagnose", "cordon", "drain"}, cordoned: true, down: true},
		"while it is let go":       {steps: []string{"check", "diagnose", "cordon", "drain", "uncordon"}, cordoned: true, down: true},
		"in upgrade":               {steps: []string{"check", "diagnose", "cordon", "drain", "upgrade"}, cordoned: true, broke: true, down: true},
		"after an upgrade":         {steps: []string{"check", "upgrade", "reboot-needed"}, broke: true, down: true},
		"while it is let go after": {steps: []string{"check", "diagnose", "cordon", "drain", "reboot", "uncordon"}, cordoned: true, broke: true, down: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := fleet.HostActive
			if c.broke {
				state = fleet.HostFailed
			}
			begun := func() (*fixture, fleet.Operation) {
				f := setup(t)
				f.kube(t, "c", "k", nil, 1, 2)
				op := f.rollout(t, NewOperation{})
				f.claims(t, op.ID, 1)
				if c.cordoned {
					_, err := f.BeginCordon(t.Context(), op.ID, "h1")
					require.NoError(t, err)
				}
				for _, step := range c.steps {
					_, err := f.BeginStep(t.Context(), op.ID, "h1", step, 1)
					require.NoError(t, err)
				}
				return f, op
			}
			f, op := begun()
			require.NoError(t, f.EndSlot(t.Context(), op.ID, Assignment{Slot: 1, Turn: 1}, "lost"))
			require.Equal(t, state, f.state(t, "h1"))
			require.Equal(t, fmt.Sprint("failed ", c.down), f.scan(t, "SELECT state || ' ' || down FROM host_run WHERE address = 'h1'"))
			f, op = begun()
			require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "terminated"))
			require.Equal(t, state, f.state(t, "h1"))
			require.Equal(t, "failed terminated", f.scan(t, "SELECT state || ' ' || reason FROM host_run WHERE address = 'h1'"))
			require.Equal(t, fleet.HostActive, f.state(t, "h2"))
		})
	}
}

// TestCordonsThatAreLeft ends what bears a cordon in every way there is.
func TestCordonsThatAreLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(t *testing.T, f *fixture, op fleet.Operation)
		gone bool // the host
	}{
		"the host run failed": {end: func(t *testing.T, f *fixture, op fleet.Operation) {
			f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x", Turn: 1})
		}},
		"it even succeeded": {end: func(t *testing.T, f *fixture, op fleet.Operation) {
			f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Turn: 1})
		}},
		"the slot was lost": {end: func(t *testing.T, f *fixture, op fleet.Operation) {
			require.NoError(t, f.EndSlot(t.Context(), op.ID, Assignment{Slot: 1, Turn: 1}, "lost"))
		}},
		"cancelled": {end: func(t *testing.T, f *fixture, op fleet.Operation) {
			require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationCancelled, "cancelled"))
		}},
		"the host was deleted": {gone: true, end: func(t *testing.T, f *fixture, op fleet.Operation) {
			_, err := f.DeleteHost(t.Context(), "h1", "ann")
			require.NoError(t, err)
			f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x", Turn: 1})
		}},
		"the cluster was deleted": {end: func(t *testing.T, f *fixture, op fleet.Operation) {
			require.NoError(t, f.DeleteCluster(t.Context(), "c"))
			f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x", Turn: 1})
			require.Equal(t, fleet.OperationCancelled, f.claims(t, op.ID, 2).End)
			require.NoError(t, f.EndOperation(t.Context(), op.ID, fleet.OperationCancelled, "x"))
		}},
	} {
		for _, began := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", restoring ", began), func(t *testing.T) {
				t.Parallel()
				f := setup(t)
				ctx := t.Context()
				op := f.cordoned(t, 2)
				require.Empty(t, f.left(t))
				if began {
					_, _, err := f.BeginRestore(ctx, op.ID, "h1")
					require.NoError(t, err)
				}
				c.end(t, f, op)

				require.Equal(t, []HostCordon{{fleet.DefaultTenant, op.ID, "h1"}}, f.left(t))
				left, err := f.db.LeftCordons(ctx, time.Minute, 100)
				require.NoError(t, err)
				require.Empty(t, left, "it has ended just now")
				requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, "h1"))
				_, err = f.BeginCordon(ctx, op.ID, "h1")
				require.Error(t, err)

				// Only the step that takes it back begins.
				_, err = f.BeginStep(ctx, op.ID, "h1", "drain", 2)
				require.Error(t, err)
				_, err = f.BeginStep(ctx, op.ID, "h2", fleet.StepUncordon, 2)
				require.Error(t, err, "no cordon is out there")
				step, err := f.BeginStep(ctx, op.ID, "h1", fleet.StepUncordon, 2)
				require.NoError(t, err)
				m, out, err := f.BeginRestore(ctx, op.ID, "h1")
				require.NoError(t, err)
				require.True(t, out)
				require.Equal(t, "hunter2", m.Options["token"])
				require.Len(t, f.left(t), 1, "until it is known")
				require.NoError(t, f.CordonRestored(ctx, op.ID, "h1"))
				require.Empty(t, f.left(t))
				for range 2 {
					step, err = f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepSucceeded})
					require.NoError(t, err)
					require.Equal(t, fleet.StepSucceeded, step.State)
				}
				_, err = f.BeginStep(ctx, op.ID, "h1", fleet.StepUncordon, 3)
				require.Error(t, err, "it is back")
			})
		}
	}
}

// TestWhenACordonStandsNoMore: a host that has left its cluster in any way is not drained
// any further, though its host run goes on.
func TestWhenACordonStandsNoMore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens func(t *testing.T, f *fixture, op fleet.Operation)
		why     string
	}{
		"the host was deleted": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			_, err := f.DeleteHost(t.Context(), "h1", "ann")
			require.NoError(t, err)
		}, "the host was removed from the inventory, so its node is left alone"},
		"it was added again": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			f.exec(t, "UPDATE host SET created = now() + interval '1 s' WHERE address = 'h1'")
		}, "the host was removed and added again, so its node is left alone"},
		"it left the cluster": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			require.NoError(t, f.RemoveMember(t.Context(), "c", "h1"))
		}, `the host left cluster "c", so its node is left alone`},
		"it is in another one": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			f.cluster(t, "d")
			f.exec(t, "UPDATE host SET cluster = 'd' WHERE address = 'h1'")
		}, `the host left cluster "c", so its node is left alone`},
		"the cluster was deleted": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			require.NoError(t, f.DeleteCluster(t.Context(), "c"))
		}, `cluster "c" was deleted, so its nodes are left alone`},
		"there is another one of its name": {func(t *testing.T, f *fixture, _ fleet.Operation) {
			f.exec(t, "UPDATE cluster SET created = now() + interval '1 s' WHERE name = 'c'")
		}, `cluster "c" was deleted, so its nodes are left alone`},
		"the operation has ended": {func(t *testing.T, f *fixture, op fleet.Operation) {
			f.exec(t, "UPDATE operation SET state = 'failed', finished = now() WHERE id = $1", op.ID)
		}, "is not to cordon the node of host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			op := f.cordoned(t, 2)
			require.NoError(t, f.CordonStands(t.Context(), op.ID, "h1"))
			c.happens(t, f, op)
			err := f.CordonStands(t.Context(), op.ID, "h1")
			requireKind(t, fleet.Conflict, err)
			require.ErrorContains(t, err, c.why)
			require.Equal(t, "out k", f.cordonOf(t, op.ID, "h1"), "until it is taken back")
		})
	}
}

// The step that takes a cordon back goes on after the host run and the operation have
// closed it.
func TestTheEndOfAStepThatTakesACordonBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.cordoned(t, 1)
	drain, err := f.BeginStep(ctx, op.ID, "h1", "drain", 1)
	require.NoError(t, err)
	first, err := f.BeginStep(ctx, op.ID, "h1", fleet.StepUncordon, 1)
	require.NoError(t, err)
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "step uncordon: no answer", Turn: 1})
	second, err := f.BeginStep(ctx, op.ID, "h1", fleet.StepUncordon, 2)
	require.NoError(t, err)
	require.NoError(t, f.EndOperation(ctx, op.ID, fleet.OperationFailed, "x"))
	again, err := f.BeginStep(ctx, op.ID, "h1", fleet.StepUncordon, 2)
	require.NoError(t, err)
	require.Equal(t, second.ID, again.ID)
	require.Equal(t, fleet.StepIndeterminate, again.State)

	for _, c := range []struct {
		step fleet.Step
		want fleet.StepState
	}{{drain, fleet.StepIndeterminate}, {first, fleet.StepFailed}, {second, fleet.StepSucceeded}} {
		got, err := f.EndStep(ctx, StepEnd{StepID: c.step.ID, State: fleet.StepSucceeded})
		require.NoError(t, err)
		require.Equal(t, c.want, got.State, "%s %d", c.step.Name, c.step.Attempt)
	}
	got, err := f.EndStep(ctx, StepEnd{StepID: second.ID, State: fleet.StepFailed, Reason: "late"})
	require.NoError(t, err)
	require.Equal(t, fleet.StepSucceeded, got.State, "the first ending stays")
}

func TestTheOrderOfLeftCordons(t *testing.T) {
	t.Parallel()
	f := setup(t)
	leave := func(cluster, manager string, first int, hosts ...string) {
		f.kube(t, cluster, manager, nil, first, 5)
		op := f.startOn(t, cluster, 5)
		f.claims(t, op.ID, 1)
		for _, address := range hosts {
			_, err := f.BeginCordon(t.Context(), op.ID, address)
			require.NoError(t, err)
			f.ends(t, HostRunEnd{OperationID: op.ID, Address: address, State: fleet.HostRunFailed, Reason: "x", Turn: 1})
		}
	}
	leave("c", "k", 1, "h3", "h1", "h5", "h2")
	leave("d", "l", 11, "h12", "h11")
	left, err := f.db.LeftCordons(t.Context(), 0, 5)
	require.NoError(t, err)
	var hosts []string
	for _, c := range left {
		hosts = append(hosts, c.Address)
	}
	require.Equal(t, []string{"h3", "h12", "h1", "h11", "h5"}, hosts, "none has to wait for a container manager that does not answer")
}

func TestDeletingAContainerManagerWithCordons(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.kube(t, "c", "k", nil, 1, 8)
	f.kube(t, "d", "other", nil, 11, 1)
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(8)}})
	f.claims(t, op.ID, 1)
	elsewhere := f.start(t, fleet.KindRestart, "d", "")
	f.claims(t, elsewhere.ID, 1)
	_, err := f.BeginCordon(ctx, elsewhere.ID, "h11")
	require.NoError(t, err)

	const advice = "; wait for the end, or delete it by force and uncordon "
	_, err = f.BeginCordon(ctx, op.ID, "h1")
	require.NoError(t, err)
	err = f.DeleteContainerManager(ctx, "k")
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, "1 node is cordoned by operation "+op.ID+" (h1)"+advice+"it yourself", err.Error())
	for i := 2; i <= 7; i++ {
		_, err := f.BeginCordon(ctx, op.ID, fmt.Sprint("h", i))
		require.NoError(t, err)
	}
	_, _, err = f.BeginRestore(ctx, op.ID, "h2")
	require.NoError(t, err)
	_, _, err = f.BeginRestore(ctx, op.ID, "h7")
	require.NoError(t, err)
	require.NoError(t, f.CordonRestored(ctx, op.ID, "h7"))
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunFailed, Reason: "x", Turn: 1})
	err = f.DeleteContainerManager(ctx, "k")
	requireKind(t, fleet.Conflict, err)
	require.Equal(t, "6 nodes are cordoned by operation "+op.ID+" (h1, h2, h3, h4, h5 and 1 more)"+advice+"them yourself", err.Error())

	ended, err := f.Store.DeleteContainerManager(ctx, "k", true)
	require.NoError(t, err)
	require.Empty(t, ended, "rollouts go on")
	require.Equal(t, "h1 left, h2 left, h3 left, h4 left, h5 left, h6 left, h7 restored, h8 none",
		f.scan(t, "SELECT string_agg(address || ' ' || cordon, ', ' ORDER BY address) FROM host_run WHERE operation_id = $1", op.ID))
	const why = "container manager k was deleted; if the node is cordoned it stays so until one of that name is created again, or somebody uncordons it"
	require.Equal(t, "h1 running, h2 running, h3 failed, h4 running, h5 running, h6 running",
		f.scan(t, "SELECT string_agg(address || ' ' || state, ', ' ORDER BY address) FROM event WHERE operation_id = $1 AND reason = $2", op.ID, why))
	require.Empty(t, f.left(t))
	require.Equal(t, "out other", f.cordonOf(t, elsewhere.ID, "h11"))

	// When there is one of that name again, they are taken back.
	_, err = f.PutContainerManager(ctx, fleet.ContainerManager{Name: "k", Type: fleet.ContainerManagerKubernetes})
	require.NoError(t, err)
	for _, host := range []string{"h1", "h2", "h3"} {
		_, out, err := f.BeginRestore(ctx, op.ID, host)
		require.NoError(t, err)
		require.True(t, out)
		require.NoError(t, f.CordonRestored(ctx, op.ID, host))
		requireKind(t, fleet.Conflict, f.CordonStands(ctx, op.ID, host))
		_, err = f.BeginCordon(ctx, op.ID, host)
		requireKind(t, fleet.Conflict, err)
		require.Equal(t, "restored k", f.cordonOf(t, op.ID, host))
	}
	_, err = f.BeginCordon(ctx, op.ID, "h8")
	requireKind(t, fleet.Conflict, err)
	_, err = f.Store.DeleteContainerManager(ctx, "k", true)
	require.NoError(t, err, "by force, also with nothing to be forced")
	_, err = f.Store.DeleteContainerManager(ctx, "k", true)
	requireKind(t, fleet.NotFound, err)
}

// A server of the version before deletes a container manager whatever is out there.
func TestACordonWithoutAContainerManager(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.cordoned(t, 1)
	f.exec(t, "DELETE FROM container_manager")
	f.ends(t, HostRunEnd{OperationID: op.ID, Address: "h1", State: fleet.HostRunFailed, Reason: "x", Turn: 1})
	require.Len(t, f.left(t), 1)
	for range 2 {
		_, out, err := f.BeginRestore(ctx, op.ID, "h1")
		require.NoError(t, err)
		require.False(t, out)
		require.Equal(t, "left k", f.cordonOf(t, op.ID, "h1"))
		require.Empty(t, f.left(t))
	}
}

// TestWhichHostsAreNodes: all of a cluster whose container manager is of a type with nodes,
// also those that it does not hold (the diagnosis stops them), and also when a slot is handed
// on or asked for again.
func TestWhichHostsAreNodes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.kube(t, "c", "other", nil, 0, 0)
	f.kube(t, "c", "k", nil, 1, 6)
	f.exec(t, "UPDATE node SET manager = 'other' WHERE address = 'h2'")
	f.exec(t, "DELETE FROM node WHERE address = 'h3'")
	op := f.rollout(t, NewOperation{Policy: fleet.Policy{MaxUnavailable: fleet.Count(3)}})
	want := []Assignment{{"h1", false, 1, 1, true}, {"h2", false, 2, 1, true}, {"h3", false, 3, 1, true}}
	for range 2 {
		require.Equal(t, want, f.claims(t, op.ID, 1).Assignments)
	}
	for range 2 {
		e := HostRunEnd{OperationID: op.ID, Address: "h3", State: fleet.HostRunSucceeded, Turn: 1, Next: true}
		require.Equal(t, &Assignment{"h4", false, 3, 1, true}, f.ends(t, e))
	}
	f.exec(t, "UPDATE container_manager SET type = 'trivial' WHERE name = 'k'")
	e := HostRunEnd{OperationID: op.ID, Address: "h4", State: fleet.HostRunSucceeded, Turn: 1, Next: true}
	require.Equal(t, &Assignment{"h5", false, 3, 1, false}, f.ends(t, e))
	require.Equal(t, []Assignment{{"h1", false, 1, 1, false}, {"h2", false, 2, 1, false}, {"h5", false, 3, 1, false}}, f.claims(t, op.ID, 1).Assignments)
}
