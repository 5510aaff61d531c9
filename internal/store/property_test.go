package store

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"commissaire/internal/fleet"
)

// invariants are counts of rows of a tenant that must be zero whatever happened.
var invariants = map[string]string{
	"two unfinished operations on a cluster":    `SELECT count(*)::text FROM (SELECT FROM operation WHERE tenant = $1 AND finished IS NULL AND cluster IS NOT NULL GROUP BY cluster HAVING count(*) > 1) x`,
	"two unfinished operations on a host":       `SELECT count(*)::text FROM (SELECT FROM operation WHERE tenant = $1 AND finished IS NULL AND host IS NOT NULL GROUP BY host HAVING count(*) > 1) x`,
	"two operations at work on a host":          `SELECT count(*)::text FROM (SELECT FROM host_run WHERE tenant = $1 AND state IN ('staging', 'running') GROUP BY address HAVING count(*) > 1) x`,
	"open host runs in an ended operation":      `SELECT count(*)::text FROM host_run r JOIN operation o ON o.id = r.operation_id WHERE o.tenant = $1 AND o.finished IS NOT NULL AND r.finished IS NULL`,
	"open steps in an ended host run":           `SELECT count(*)::text FROM step s JOIN host_run r USING (operation_id, address) WHERE s.tenant = $1 AND r.finished IS NOT NULL AND s.finished IS NULL`,
	"counts that are wrong":                     `SELECT count(*)::text FROM rollout p WHERE p.tenant = $1 AND concat_ws(' ', pending, running, failed, skipped) <> (SELECT concat_ws(' ', count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'skipped')) FROM host_run r WHERE r.operation_id = p.operation_id)`,
	"hosts in a bootstrap that nobody does":     `SELECT count(*)::text FROM host h WHERE h.tenant = $1 AND h.state IN ('investigating', 'bootstrapping') AND NOT EXISTS (SELECT FROM operation o WHERE o.tenant = h.tenant AND o.host = h.address AND o.finished IS NULL)`,
	"hosts that somebody and nobody holds":      `SELECT count(*)::text FROM host h JOIN node n USING (tenant, address) JOIN container_manager m ON m.tenant = n.tenant AND m.name = n.manager WHERE h.tenant = $1 AND h.state = 'disassociated' AND m.type = 'trivial'`,
	"hosts that left and nobody removes":        `SELECT count(*)::text FROM node n WHERE n.tenant = $1 AND n.leaving AND NOT EXISTS (SELECT FROM operation o WHERE o.tenant = $1 AND o.host = n.address AND (o.finished IS NULL OR o.kind = 'unregister'))`,
	"operations that ask who is not there":      `SELECT count(*)::text FROM operation o WHERE o.tenant = $1 AND o.finished IS NULL AND o.manager <> '' AND NOT EXISTS (SELECT FROM container_manager m WHERE m.tenant = $1 AND m.name = o.manager)`,
	"unfinished operations without a host run":  `SELECT count(*)::text FROM operation o WHERE o.tenant = $1 AND o.finished IS NULL AND o.host IS NOT NULL AND NOT EXISTS (SELECT FROM host_run r WHERE r.operation_id = o.id)`,
	"unfinished operations on a host not there": `SELECT count(*)::text FROM operation o WHERE o.tenant = $1 AND o.finished IS NULL AND o.host IS NOT NULL AND o.kind <> 'unregister' AND NOT EXISTS (SELECT FROM host h WHERE h.tenant = o.tenant AND h.address = o.host)`,
}

// TestOperationsProperty runs random calls and checks the invariants after each
// of them, and that what has ended stays as it was.
func TestOperationsProperty(t *testing.T) {
	t.Parallel()
	f := setup(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		tenant := fmt.Sprint("run", run)
		f.exec(t, "INSERT INTO tenant (name) VALUES ($1)", tenant)
		m := &machine{t: t, f: f, s: caller{f.db.For(tenant)}, tenant: tenant, ended: map[string]fleet.Operation{}, endedRuns: map[string]fleet.HostRun{}}
		rt.Repeat(map[string]func(*rapid.T){
			"":                m.check,
			"put cluster":     m.putCluster,
			"delete cluster":  m.deleteCluster,
			"put host":        m.putHost,
			"delete host":     m.deleteHost,
			"add member":      m.addMember,
			"start":           m.start,
			"begin":           m.begin,
			"end":             m.end,
			"claim":           m.claim,
			"steer":           m.steer,
			"begin host run":  m.beginHostRun,
			"end host run":    m.endHostRun,
			"begin step":      m.beginStep,
			"record facts":    m.recordFacts,
			"replace members": m.replaceMembers,
			"remove member":   m.removeMember,
			"put manager":     m.putManager,
			"delete manager":  m.deleteManager,
			"claim node":      m.claimNode,
			"node removed":    m.nodeRemoved,
		})
	})
}

type machine struct {
	t         *testing.T
	f         *fixture
	s         caller
	tenant    string
	ops       []string
	ended     map[string]fleet.Operation
	endedRuns map[string]fleet.HostRun
}

var (
	clusterNames = rapid.SampledFrom([]string{"c1", "c2"})
	managerNames = rapid.SampledFrom([]string{"m1", "m2"})
	addresses    = rapid.SampledFrom([]string{"h1", "h2", "h3"})
)

// fine accepts the refusals that the store documents.
func (m *machine) fine(rt *rapid.T, err error) {
	if err != nil && !slices.Contains([]fleet.Kind{fleet.NotFound, fleet.Conflict, fleet.NotReady}, fleet.KindOf(err)) {
		rt.Fatalf("%v", err)
	}
}

func (m *machine) op(rt *rapid.T) string {
	if len(m.ops) == 0 {
		rt.Skip("no operation yet")
	}
	return rapid.SampledFrom(m.ops).Draw(rt, "op")
}

func (m *machine) note(op fleet.Operation) {
	if op.ID != "" && !slices.Contains(m.ops, op.ID) {
		m.ops = append(m.ops, op.ID)
	}
}

func (m *machine) noteAll(ops []fleet.Operation) {
	for _, op := range ops {
		m.note(op)
	}
}

func (m *machine) claimNode(rt *rapid.T) {
	_, err := m.s.ClaimNode(m.t.Context(), m.op(rt), addresses.Draw(rt, "address"))
	m.fine(rt, err)
}

func (m *machine) nodeRemoved(rt *rapid.T) {
	m.fine(rt, m.s.NodeRemoved(m.t.Context(), m.op(rt)))
}

func (m *machine) putCluster(rt *rapid.T) {
	manager := rapid.SampledFrom([]*string{nil, text(""), text("m1"), text("m2")}).Draw(rt, "manager")
	_, err := m.s.PutCluster(m.t.Context(), ClusterPut{Name: clusterNames.Draw(rt, "cluster"), ContainerManager: manager})
	m.fine(rt, err)
}

func (m *machine) deleteCluster(rt *rapid.T) {
	ops, err := m.s.Store.DeleteCluster(m.t.Context(), clusterNames.Draw(rt, "cluster"), tester)
	m.fine(rt, err)
	m.noteAll(ops)
}

func (m *machine) putHost(rt *rapid.T) {
	cluster := rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(rt, "cluster")
	_, op, err := m.s.PutHost(m.t.Context(), HostPut{Address: addresses.Draw(rt, "address"), Cluster: cluster, Creds: creds("key")})
	m.fine(rt, err)
	if op != nil {
		m.note(*op)
	}
}

func (m *machine) deleteHost(rt *rapid.T) {
	_, ops, err := m.s.Store.DeleteHost(m.t.Context(), addresses.Draw(rt, "address"), tester)
	m.fine(rt, err)
	m.noteAll(ops)
}

func (m *machine) addMember(rt *rapid.T) {
	ops, err := m.s.Store.AddMember(m.t.Context(), clusterNames.Draw(rt, "cluster"), addresses.Draw(rt, "address"), tester)
	m.fine(rt, err)
	m.noteAll(ops)
}

func (m *machine) replaceMembers(rt *rapid.T) {
	lists := rapid.SliceOfN(addresses, 0, 3)
	_, ops, err := m.s.Store.ReplaceMembers(m.t.Context(), clusterNames.Draw(rt, "cluster"), lists.Draw(rt, "old"), lists.Draw(rt, "new"), tester)
	m.fine(rt, err)
	m.noteAll(ops)
}

func (m *machine) removeMember(rt *rapid.T) {
	ops, err := m.s.Store.RemoveMember(m.t.Context(), clusterNames.Draw(rt, "cluster"), addresses.Draw(rt, "address"), tester)
	m.fine(rt, err)
	m.noteAll(ops)
}

func (m *machine) putManager(rt *rapid.T) {
	kinds := rapid.SampledFrom([]fleet.ContainerManagerType{fleet.ContainerManagerTrivial, fleet.ContainerManagerTrivial, fleet.ContainerManagerKubernetes})
	_, err := m.s.PutContainerManager(m.t.Context(), fleet.ContainerManager{Name: managerNames.Draw(rt, "manager"), Type: kinds.Draw(rt, "type")})
	m.fine(rt, err)
}

func (m *machine) deleteManager(rt *rapid.T) {
	m.fine(rt, m.s.DeleteContainerManager(m.t.Context(), managerNames.Draw(rt, "manager")))
}

func (m *machine) start(rt *rapid.T) {
	n := rapid.SampledFrom([]NewOperation{
		{Kind: fleet.KindRestart, Cluster: "c1"}, {Kind: fleet.KindRestart, Cluster: "c2"},
		{Kind: fleet.KindBootstrap, Host: "h1"}, {Kind: fleet.KindBootstrap, Host: "h2"}, {Kind: fleet.KindRestart, Host: "h1"},
	}).Draw(rt, "operation")
	op, _, err := m.s.StartOperation(m.t.Context(), n)
	m.fine(rt, err)
	m.note(op)
}

func (m *machine) begin(rt *rapid.T) {
	_, err := m.s.BeginOperation(m.t.Context(), m.op(rt))
	m.fine(rt, err)
}

func (m *machine) end(rt *rapid.T) {
	state := rapid.SampledFrom([]fleet.OperationState{fleet.OperationSucceeded, fleet.OperationFailed, fleet.OperationCancelled}).Draw(rt, "state")
	m.fine(rt, m.s.EndOperation(m.t.Context(), m.op(rt), state, rapid.SampledFrom([]string{"", "why"}).Draw(rt, "reason")))
}

func (m *machine) claim(rt *rapid.T) {
	_, err := m.s.Claim(m.t.Context(), m.op(rt), rapid.IntRange(1, 3).Draw(rt, "turn"), hold)
	m.fine(rt, err)
}

func (m *machine) steer(rt *rapid.T) {
	action := rapid.SampledFrom([]string{"pause", "resume", "cancel"}).Draw(rt, "action")
	_, err := m.s.Steer(m.t.Context(), m.op(rt), SteerAction{Action: action, By: "ann"})
	m.fine(rt, err)
}

func (m *machine) beginHostRun(rt *rapid.T) {
	_, err := m.s.BeginHostRun(m.t.Context(), m.op(rt), addresses.Draw(rt, "address"))
	m.fine(rt, err)
}

func (m *machine) endHostRun(rt *rapid.T) {
	end := rapid.SampledFrom([]struct {
		state fleet.HostRunState
		event fleet.HostEvent
	}{
		{fleet.HostRunSucceeded, fleet.HostPrepared}, {fleet.HostRunSucceeded, fleet.HostRegistered}, {fleet.HostRunSucceeded, fleet.HostRecovered}, {fleet.HostRunFailed, fleet.HostBroke},
		{fleet.HostRunSkipped, ""},
	}).Draw(rt, "end")
	m.fine(rt, m.s.endRun(m.t.Context(), m.op(rt), addresses.Draw(rt, "address"), end.state, "", end.event))
}

func (m *machine) beginStep(rt *rapid.T) {
	_, err := m.s.BeginStep(m.t.Context(), m.op(rt), addresses.Draw(rt, "address"), "reboot", 1)
	m.fine(rt, err)
}

func (m *machine) recordFacts(rt *rapid.T) {
	m.fine(rt, m.s.RecordFacts(m.t.Context(), m.op(rt), addresses.Draw(rt, "address"), fleet.Facts{OS: "fedora"}))
}

func (m *machine) check(rt *rapid.T) {
	ctx := m.t.Context()
	for name, sql := range invariants {
		if n := m.f.scan(m.t, sql, m.tenant); n != "0" {
			rt.Fatalf("%s: %s", name, n)
		}
	}
	for _, id := range m.ops {
		op, err := m.s.Operation(ctx, id)
		require.NoError(m.t, err)
		before, was := m.ended[id]
		if was && !reflect.DeepEqual(before, op) {
			rt.Fatalf("ended operation changed from %+v to %+v", before, op)
		}
		runs, err := m.s.HostRuns(ctx, id)
		require.NoError(m.t, err)
		for _, r := range runs {
			key := id + r.Address
			if before, was := m.endedRuns[key]; was && before != r {
				rt.Fatalf("ended host run changed from %+v to %+v", before, r)
			}
			if r.State.Ended() {
				m.endedRuns[key] = r
			}
		}
		if op.State.Ended() {
			m.ended[id] = op
		}
	}
}
