package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// nodes makes a cluster whose hosts are nodes of Kubernetes.
func (b *bundle) nodes(t testing.TB, cluster string, addresses ...string) {
	t.Helper()
	b.v0(t, "PUT /containermanager/kube", `{"type":"kubernetes","options":{"server_url":"https://192.0.2.1:6443"}}`, 201, "")
	b.cluster(t, cluster, addresses...)
	b.exec(t, "UPDATE cluster SET container_manager = 'kube' WHERE name = $1", cluster)
	b.exec(t, "INSERT INTO node (tenant, address, manager) SELECT tenant, address, 'kube' FROM host WHERE address = ANY ($1)", addresses)
}

// diagnoses has a worker say what is in the way of drains.
func (b *bundle) diagnoses(says diagnose) {
	b.dispatcher.mu.Lock()
	defer b.dispatcher.mu.Unlock()
	b.dispatcher.diagnose = says
}

func (b *bundle) planOf(t testing.TB, request, body string) (p gen.Plan) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(b.v0(t, request+"?dry_run=true", body, 200, "").body), &p))
	return p
}

// TestDryRunOverNodes: what would be in the way of drains is named, and nothing changes.
func TestDryRunOverNodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.nodes(t, "web", "h1", "h2", "h3", "h4")
	b.readyHost(t, "h5", "") // is to be a node, and is none yet
	b.exec(t, "UPDATE host SET cluster = 'web', join_order = 99 WHERE address = 'h5'")
	grace := fleet.Duration(0)
	budget := fleet.Finding{Cause: "budget", Object: "budget shop/cart", Pods: []string{"shop/cart-1"}, Detail: "allows no eviction now", Blocks: true, Passes: true}
	lone := fleet.Finding{Cause: "unmanaged", Object: "pod shop/lone", Pods: []string{"shop/lone"}, Detail: "has no controller", Blocks: true}
	known := fleet.Finding{Cause: "cordoned", Object: "node h3", Detail: "has been cordoned by somebody else"}
	lost := fleet.Finding{Cause: "node_missing", Object: "node h5", Detail: "is not registered with container manager kube", Blocks: true}
	b.diagnoses(func(cluster string, addresses []string, d fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		require.Equal(t, "web", cluster)
		require.Equal(t, []string{"h1", "h2", "h3", "h4", "h5"}, addresses)
		require.Equal(t, fleet.Drain{GracePeriod: &grace, Skip: "app=x"}, d)
		return map[string]fleet.HostDiagnosis{
			"h1": {Findings: []fleet.Finding{budget, lone}, More: 7}, "h2": {Findings: []fleet.Finding{budget}}, "h3": {Findings: []fleet.Finding{known}},
			"h5": {Findings: []fleet.Finding{lost}},
		}, "", nil
	})
	before, starts := b.rows(t), b.dispatcher.starts()
	a := b.v0(t, "PUT /cluster/web/restart?dry_run=true", `{"policy":{"drain":{"grace_period":0,"skip":"app=x"},"min_ready":30}}`, 200, "")
	shape(t, "plan-nodes.json", a.body)
	require.Equal(t, before, b.rows(t), "nothing is stored")
	require.Equal(t, starts, b.dispatcher.starts())

	b.diagnoses(nil)
	for _, policy := range []string{`{"drain":{"disabled":true}}`, `{}`} {
		p := b.planOf(t, "PUT /cluster/web/restart", `{"policy":`+policy+`}`)
		for _, h := range p.Hosts {
			require.Nil(t, h.Findings)
			require.Empty(t, h.Blocks)
		}
		if policy == `{}` {
			require.Equal(t, []string{"what is in the way of draining nodes is not known: no worker"}, p.Blocks)
			require.Contains(t, fmt.Sprint(p.Hosts[0].Steps), "cordon")
		} else {
			require.Empty(t, p.Blocks)
			require.NotContains(t, fmt.Sprint(p.Hosts[0].Steps), "cordon")
		}
	}
	b.diagnoses(func(string, []string, fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		return nil, "container manager kube does not answer", nil
	})
	p := b.planOf(t, "PUT /cluster/web/upgrade", "")
	require.Equal(t, []string{"what is in the way of draining nodes is not known: container manager kube does not answer"}, p.Blocks)
	b.diagnoses(func(string, []string, fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		return nil, "", errors.New("a bug")
	})
	b.v0(t, "PUT /cluster/web/upgrade?dry_run=true", "", 500, "")

	// A retry has a dry run, too.
	b.v0(t, "PUT /cluster/web/restart", "", 201, "")
	op := b.lastStarted()
	require.NoError(t, b.store.EndOperation(t.Context(), op.ID, fleet.OperationFailed, "x"))
	var asked []string
	b.diagnoses(func(_ string, addresses []string, _ fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		asked = addresses
		return nil, "", nil
	})
	p = b.planOf(t, "POST /operations/"+op.ID+"/retry", "")
	require.Equal(t, []string{"h1", "h2", "h3", "h4", "h5"}, asked)
	require.Empty(t, *p.Hosts[0].Findings, "looked at, and nothing is in the way")
}

func TestDryRunDiagnosesTheFirstHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.nodes(t, "c")
	b.manyHosts(t, "c", 1000)
	b.exec(t, "INSERT INTO node (tenant, address, manager) SELECT tenant, address, 'kube' FROM host")
	b.diagnoses(func(_ string, addresses []string, _ fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		require.Len(t, addresses, 500)
		require.Equal(t, "host-00500", addresses[499])
		found := map[string]fleet.HostDiagnosis{}
		for _, address := range addresses[:7] {
			found[address] = fleet.HostDiagnosis{Findings: []fleet.Finding{{Cause: "finalizer", Object: "pod a/b", Detail: "has the finalizer x", Blocks: true}}}
		}
		return found, "", nil
	})
	p := b.planOf(t, "PUT /cluster/c/restart", "")
	require.Equal(t, []string{"7 hosts could not be drained: host-00001, host-00002, host-00003, host-00004, host-00005 and 2 more"}, p.Blocks)
	require.NotNil(t, p.Hosts[499].Findings)
	require.Nil(t, p.Hosts[500].Findings)
	require.Equal(t, "its node could not be drained: pod a/b has the finalizer x", p.Hosts[6].Blocks)
}

// TestPlanHasTheStepsOfNodes, where the node is cordoned before what takes the host away.
func TestPlanHasTheStepsOfNodes(t *testing.T) {
	t.Parallel()
	steps := func(kind fleet.OperationKind, p fleet.Policy, h fleet.Host) (names []string) {
		for _, s := range planHost(fleet.Operation{Kind: kind, Version: "44", Policy: p}, store.PreviewHost{Host: h, Node: true}).Steps {
			names = append(names, s.Name)
		}
		return slices.Compact(names)
	}
	reboot := func(r fleet.RebootPolicy) fleet.Policy { return fleet.Policy{Reboot: &r} }
	fedora, atomic := fleet.Host{OS: "fedora", PackageManager: "dnf"}, fleet.Host{OS: "fedora", OSTree: true}
	require.Equal(t, []string{"check", "diagnose", "cordon", "drain", "reboot", "wait", "verify", "node-ready", "uncordon"}, steps(fleet.KindRestart, fleet.Policy{}, fedora))
	require.Equal(t, []string{"check", "diagnose", "cordon", "drain", "reboot", "wait", "verify", "node-ready", "settle", "node-settle", "uncordon"}, steps(fleet.KindRestart, fleet.Policy{MinReady: fleet.Lasting(1e9)}, atomic))
	require.Equal(t, []string{"check", "diagnose", "cordon", "drain", "upgrade", "verify-packages", "reboot-needed", "reboot", "wait", "verify", "node-ready", "uncordon"}, steps(fleet.KindUpgrade, fleet.Policy{}, fedora))
	require.Equal(t, []string{"check", "diagnose", "cordon", "drain", "upgrade", "verify-packages", "reboot-needed", "verify", "node-ready", "uncordon"}, steps(fleet.KindUpgrade, reboot(fleet.RebootNever), fedora))
	require.Equal(t, []string{"check", "diagnose", "stage", "reboot-needed", "cordon", "drain", "reboot", "wait", "verify", "node-ready", "uncordon"}, steps(fleet.KindDeploy, fleet.Policy{}, atomic))
	require.Equal(t, []string{"check", "stage", "reboot-needed", "verify"}, steps(fleet.KindDeploy, reboot(fleet.RebootNever), atomic))
	require.NotContains(t, steps(fleet.KindRestart, fleet.Policy{Drain: &fleet.Drain{Disabled: true}}, fedora), "cordon")
}

// TestDrainOfAPolicy: what is wrong with a member of drain is told by its name,
// wherever a policy is taken.
func TestDrainOfAPolicy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cluster(t, "c", "h1")
	b.v0(t, "PUT /cluster/c/restart", "", 201, "")
	running := b.lastStarted().ID
	b.cluster(t, "d", "h2")
	b.v0(t, "PUT /cluster/d/restart", "", 201, "")
	ended := b.lastStarted().ID
	require.NoError(t, b.store.EndOperation(t.Context(), ended, fleet.OperationFailed, "x"))
	before := b.rows(t)

	flags := []string{`1`, `"true"`, `null`, `[]`, `{}`}
	times := []string{`true`, `null`, `[]`, `{}`, `"soon"`, `""`, `-1`, `"-1s"`, `"9000h"`, `31536001`, `99999999999999999999`}
	for member, values := range map[string][]string{
		"disabled":                     flags,
		"ignore_daemon_sets":           flags,
		"delete_emptydir_data":         flags,
		"force":                        flags,
		"timeout":                      append([]string{`"999ms"`, `"1ns"`}, times...),
		"grace_period":                 append([]string{`"1500ms"`, `"0.5s"`}, times...),
		"skip_wait_for_delete_timeout": times,
		"skip":                         {`1`, `null`, `[]`, `{}`, `"a b"`, `"=x"`, `"app in (a"`},
		"speed":                        {`1`},
	} {
		for _, value := range values {
			drain := `{"drain":{"` + member + `":` + value + `}}`
			for _, request := range []string{"PUT /cluster/c/restart", "PUT /cluster/c/upgrade?dry_run=true", "POST /operations/" + ended + "/retry"} {
				a := b.v0(t, request, `{"policy":`+drain+`}`, 400, "")
				require.Equal(t, []string{"policy.drain." + member}, blamed(t, a), "%s %s", request, drain)
			}
			for _, request := range []string{"PUT /cluster/c/policy", "PUT /operations/" + running + "/policy"} {
				a := b.v0(t, request, drain, 400, "")
				require.Equal(t, []string{"drain." + member}, blamed(t, a), "%s %s", request, drain)
			}
		}
	}
	for _, value := range []string{`1`, `null`, `[]`, `"x"`, `true`} {
		require.Equal(t, []string{"policy.drain"}, blamed(t, b.v0(t, "PUT /cluster/c/restart", `{"policy":{"drain":`+value+`}}`, 400, "")), value)
	}
	require.Equal(t, before, b.rows(t), "nothing is stored")

	const whole = `{"drain":{"disabled":true,"timeout":"5m0s","grace_period":"0s","ignore_daemon_sets":false,"delete_emptydir_data":true,"force":true,"skip":"app=x,tier!=db","skip_wait_for_delete_timeout":"1m0s"}}`
	b.v0(t, "PUT /cluster/c/policy", whole, 201, whole)
	b.v0(t, "GET /cluster/c/policy", "", 200, whole)
	b.v0(t, "PUT /operations/"+running+"/policy", `{"drain":{"timeout":300}}`, 201, `{"drain":{"timeout":"5m0s"}}`)
	b.v0(t, "PUT /operations/"+running+"/policy", `{"drain":{"force":true}}`, 201, `{"drain":{"force":true}}`) // as a whole
}

// TestDeleteContainerManagerByForce: while nodes are cordoned it takes a word, and the
// right one.
func TestDeleteContainerManagerByForce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.nodes(t, "web", "h1", "h2")
	b.v0(t, "PUT /cluster/web/restart", `{"policy":{"max_unavailable":2}}`, 201, "")
	op := b.lastStarted()
	b.claim(t, op.ID, 1)
	for _, h := range []string{"h1", "h2"} {
		_, err := b.store.BeginHostRun(t.Context(), op.ID, h)
		require.NoError(t, err)
		m, err := b.store.BeginCordon(t.Context(), op.ID, h)
		require.NoError(t, err)
		require.Equal(t, "kube", m.Name)
	}
	for _, query := range []string{"", "?force=false"} {
		a := b.v0(t, "DELETE /containermanager/kube"+query, "", 409, "")
		require.Contains(t, a.body, "2 nodes are cordoned by operation "+op.ID+" (h1, h2)")
	}
	for query, blame := range map[string]string{"?force=1": "force", "?force=": "force", "?force=True": "force", "?force=true&force=true": "force", "?froce=true": "froce"} {
		require.Equal(t, []string{blame}, blamed(t, b.v0(t, "DELETE /containermanager/kube"+query, "", 400, "")), query)
	}
	b.v0(t, "GET /containermanagers", "", 200, `["kube"]`)
	b.v0(t, "DELETE /containermanager/kube?force=true", "", 200, "[]")
	b.v0(t, "DELETE /containermanager/kube?force=true", "", 404, "")
	// Events can be read when all that began before them has ended, in other tests, too.
	require.Eventually(t, func() bool {
		events, err := b.store.Events(t.Context(), op.ID, store.EventFilter{Limit: 100})
		require.NoError(t, err)
		var told []string
		for _, e := range events {
			if strings.Contains(e.Reason, "container manager kube was deleted") {
				told = append(told, e.Address)
			}
		}
		slices.Sort(told)
		return slices.Equal(told, []string{"h1", "h2"})
	}, time.Minute, 50*time.Millisecond)
}

// TestDryRunUnderASharedBudget: no more hosts go at once than the container manager lets.
func TestDryRunUnderASharedBudget(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.nodes(t, "web", "h1", "h2", "h3", "h4", "h5")
	b.diagnoses(func(string, []string, fleet.Drain) (map[string]fleet.HostDiagnosis, string, error) {
		return nil, "", nil
	})
	for limit, want := range map[string]int{`null`: 3, `9`: 3, `3`: 3, `2`: 2, `"50%"`: 2, `"1%"`: 1} {
		b.exec(t, "UPDATE container_manager SET options = jsonb_build_object('max_unavailable', $1::jsonb)", limit)
		p := b.planOf(t, "PUT /cluster/web/restart", `{"policy":{"max_unavailable":3}}`)
		require.Equal(t, want, p.Slots, limit)
		if want == 3 {
			require.Empty(t, p.Blocks)
		} else {
			require.Equal(t, []string{fmt.Sprintf("container manager kube lets %d of its nodes be away at once, over all rollouts", want)}, p.Blocks)
		}
	}
}

// TestSharedBudgetOfAContainerManager is one of its options.
func TestSharedBudgetOfAContainerManager(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const server = `"server_url":"https://192.0.2.1:6443","max_unavailable":`
	for i, good := range []string{`1`, `"2"`, `"10%"`} {
		name := fmt.Sprintf("kube%d", i)
		b.v0(t, "PUT /containermanager/"+name, `{"type":"kubernetes","options":{`+server+good+`}}`, 201, `{"name":"`+name+`","type":"kubernetes","options":{`+server+good+`}}`)
	}
	for _, bad := range []string{`0`, `"0%"`, `-1`, `1.5`, `"101%"`, `"some"`, `""`, `null`, `true`, `[]`, `{}`} {
		a := b.v0(t, "PUT /containermanager/kube", `{"type":"kubernetes","options":{`+server+bad+`}}`, 400, "")
		require.Equal(t, []string{"options.max_unavailable"}, blamed(t, a), bad)
	}
}
