package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// machines are hosts of every kind that an upgrade knows.
var machines = []remotetest.HostConfig{
	{Name: "debian", OS: remotetest.OS{ID: "debian", VersionID: "12"}},
	{Name: "fedora", OS: remotetest.OS{ID: "fedora", VersionID: "43"}},
	{Name: "centos", OS: remotetest.OS{ID: "centos", VersionID: "7"}},
	{Name: "suse", OS: remotetest.OS{ID: "opensuse-leap", VersionID: "15.6"}},
	{Name: "ostree", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
	{Name: "bootc", OS: remotetest.OS{ID: "centos", VersionID: "10", Bootc: true}},
}

func newSiteWith(t *testing.T, machines []remotetest.HostConfig, env ...string) *site {
	t.Helper()
	return newSiteOn(t, harness.Options{Postgres: shared.postgres, Temporal: shared.address(), Machines: machines, Env: env})
}

// policy is a body that orders an operation by a policy, nil for none.
func policy(members map[string]any) map[string]any {
	if members == nil {
		return map[string]any{}
	}
	return map[string]any{"policy": members}
}

// order begins an operation on the cluster and gives it.
func (s *site) order(kind string, body map[string]any) operationView {
	s.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	s.ask(http.StatusCreated, http.MethodPut, "cluster/"+harness.Cluster+"/"+kind, body)
	return s.latest("kind=" + kind + "&cluster=" + harness.Cluster)
}

// steer does something about an operation.
func (s *site) steer(op operationView, what string, body any) {
	s.t.Helper()
	s.ask(http.StatusOK, http.MethodPost, "operations/"+op.ID+"/"+what, body)
}

// end waits for the end of an operation.
func (s *site) end(op operationView) operationView {
	s.t.Helper()
	s.until(2*limit, "the end of "+op.Kind+" "+op.ID, func() bool {
		s.get("operations/"+op.ID, &op)
		return op.State != "pending" && op.State != "running"
	})
	return op
}

// waiting waits until an operation says that it waits for something like this.
func (s *site) waiting(op operationView, what string) {
	s.t.Helper()
	s.until(limit, "the operation to wait: "+what, func() bool {
		s.get("operations/"+op.ID, &op)
		return strings.Contains(op.Waiting, what)
	})
}

// stepNames are the steps of one host in an operation, in order.
func (s *site) stepNames(op operationView, h *remotetest.Host) (names []string) {
	s.t.Helper()
	for _, step := range s.steps(op.ID) {
		if step.Address == h.Address() {
			names = append(names, step.Name)
		}
	}
	return names
}

func boots(h *remotetest.Host) int { return h.Reboots() }

// An upgrade of hosts of every kind: each by its own commands, verified, and
// rebooted once where the host says that it is needed.
func TestUpgradeOfAMixedCluster(t *testing.T) {
	t.Parallel()
	s := newSiteWith(t, machines)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	for _, h := range hosts[:4] {
		require.NoError(t, h.Publish("bash", "2.0"))
	}
	for _, h := range hosts[:2] { // and a reboot for these
		require.NoError(t, h.Publish("systemd", "2.0"))
	}
	for _, h := range hosts[4:] {
		require.NoError(t, h.PublishOSTree("2.0"))
	}
	op := s.end(s.order("upgrade", policy(map[string]any{"max_unavailable": 2})))
	require.Equal(t, "succeeded", op.State, op.Reason)
	for i, h := range hosts {
		want := []string{"check", "upgrade", "verify-packages", "reboot-needed", "verify"}
		switch {
		case i < 2:
			want = []string{"check", "upgrade", "verify-packages", "reboot-needed", "reboot", "wait", "verify"}
			require.Equal(t, "2.0", h.Package("systemd"))
			s.rebootedOnce(h)
		case i < 4:
			require.Zero(t, boots(h), h.Name())
		default:
			want = []string{"stage", "check", "reboot-needed", "reboot", "wait", "verify"}
			require.Equal(t, "2.0", h.Booted(), h.Name())
			s.rebootedOnce(h)
		}
		if i < 4 {
			require.Equal(t, "2.0", h.Package("bash"), h.Name())
		}
		require.Equal(t, want, s.stepNames(op, h), h.Name())
		require.Equal(t, "disassociated", s.host(h).Status)
	}

	// Once more: there is nothing left to do, and nobody reboots.
	again := s.end(s.order("upgrade", policy(map[string]any{"max_unavailable": "100%"})))
	require.Equal(t, "succeeded", again.State, again.Reason)
	for i, h := range hosts {
		want := 0
		if i < 2 || i >= 4 {
			want = 1
		}
		require.Equal(t, want, boots(h), h.Name())
	}
}

// A deploy stages everywhere, then reboots in slots, and proves what was booted.
func TestDeploy(t *testing.T) {
	t.Parallel()
	s := newSiteWith(t, []remotetest.HostConfig{
		{Name: "o1", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
		{Name: "o2", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
		{Name: "o3", OS: remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}},
	})
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	for _, h := range hosts {
		require.NoError(t, h.PublishOSTree("43.7"))
		require.NoError(t, h.PublishOSTree("44.0"))
	}
	op := s.end(s.order("deploy", map[string]any{"version": "43.7"}))
	require.Equal(t, "succeeded", op.State, op.Reason)
	for _, h := range hosts {
		require.Equal(t, "43.7", h.Booted())
		s.rebootedOnce(h)
	}

	// A version that nobody has is found out before any host is taken away.
	op = s.end(s.order("deploy", map[string]any{"version": "99.9"}))
	require.Equal(t, "failed", op.State)
	require.Contains(t, op.Reason, "step stage: rpm-ostree ended with exit code 1")
	require.Contains(t, op.Reason, "Version 99.9 not found", "the reason has the command's last lines")
	require.Contains(t, op.Reason, "host 127.")
	for _, h := range hosts {
		require.Equal(t, 1, boots(h))
	}
}

// Hosts that cannot take a deploy refuse it before anything runs.
func TestDeployOnHostsWithoutOSTree(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	p := s.refused(http.StatusConflict, http.MethodPut, "cluster/"+harness.Cluster+"/deploy", map[string]any{"version": "43.7"})
	require.Contains(t, p.Detail, "have neither OSTree nor bootc")
	require.Contains(t, p.Detail, hosts[0].Address())
	p = s.refused(http.StatusBadRequest, http.MethodPut, "cluster/"+harness.Cluster+"/deploy", map[string]any{})
	require.Equal(t, "version", p.Errors[0].Field)
	require.Zero(t, s.count("SELECT count(*) FROM operation WHERE kind = 'deploy'"))
}

// Canaries, an approval by another API process days later, a pause, another
// policy in flight, a failure, and a retry of what is left.
func TestSteering(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	require.NoError(t, hosts[3].OnCommand("systemctl", `case $1 in reboot) echo "Failed to talk to init daemon." >&2; exit 1 ;; esac`))
	op := s.order("restart", policy(map[string]any{"canary": map[string]any{"hosts": 1, "then": "approve"}}))
	s.waiting(op, "waits for approval")
	s.rebootedOnce(hosts[0])
	require.Zero(t, boots(hosts[1]))

	harness.Kill(s.Server) // no process owns the operation
	server, err := s.Start("server")
	require.NoError(t, err)
	s.Server = server
	require.NoError(t, s.Ready(t.Context()))
	s.steer(op, "pause", nil)
	s.steer(op, "approve", nil)
	s.waiting(op, "paused by "+harness.User)
	require.Zero(t, boots(hosts[1]), "approved, but paused")
	s.ask(http.StatusCreated, http.MethodPut, "operations/"+op.ID+"/policy", map[string]any{"max_unavailable": 2})
	p := s.refused(http.StatusBadRequest, http.MethodPut, "operations/"+op.ID+"/policy", map[string]any{"order": map[string]any{"by": "name"}})
	require.Equal(t, "order", p.Errors[0].Field)
	s.steer(op, "resume", nil)
	op = s.end(op)
	require.Equal(t, "failed", op.State)
	require.Contains(t, op.Reason, "step reboot: the reboot command ended with exit code 1; it said: Failed to talk to init daemon.")
	s.refused(http.StatusConflict, http.MethodPost, "operations/"+op.ID+"/pause", nil)

	require.NoError(t, hosts[3].OnCommand("systemctl", ""))
	before := boots(hosts[1])
	s.ask(http.StatusCreated, http.MethodPost, "operations/"+op.ID+"/retry", nil)
	retry := s.end(s.latest("kind=restart"))
	require.Equal(t, "succeeded", retry.State, retry.Reason)
	require.Equal(t, op.ID, retry.RetryOf)
	var touched []string
	for _, run := range s.hostRuns(retry.ID) {
		touched = append(touched, run.Address)
	}
	require.NotContains(t, touched, hosts[0].Address(), "what succeeded is left alone")
	require.Contains(t, touched, hosts[3].Address())
	// Whether it had its turn before the failure is a matter of time.
	require.Equal(t, before == 0, slices.Contains(touched, hosts[1].Address()))
	for _, h := range hosts {
		require.Equal(t, 1, boots(h), h.Name())
	}
}

// Cancel lets the hosts at work finish; forced, it ends their commands at once.
func TestCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	reboot := s.gate(hosts[0], "systemctl", "reboot")
	op := s.order("restart", nil)
	reboot.reached()
	s.steer(op, "cancel", nil)
	reboot.open()
	op = s.end(op)
	require.Equal(t, "cancelled", op.State)
	require.Equal(t, "cancelled by "+harness.User, op.Reason)
	s.rebootedOnce(hosts[0])
	require.Equal(t, "succeeded", s.hostRuns(op.ID)[0].State, "the host at work is brought to its end")
	require.Zero(t, boots(hosts[1]))

	require.NoError(t, hosts[0].Publish("bash", "2.0"))
	require.NoError(t, hosts[0].OnCommand("apt-get", `case " $* " in *" -s "*|*update*) ;; *upgrade*) echo begun; sleep 600 ;; esac`))
	op = s.order("upgrade", nil)
	s.until(limit, "the upgrade to run", func() bool {
		return s.count("SELECT count(*) FROM step WHERE name = 'upgrade' AND stored_to > 0") > 0
	})
	s.steer(op, "cancel", map[string]any{"force": true})
	op = s.end(op)
	require.Equal(t, "cancelled", op.State)
	require.Contains(t, s.hostRuns(op.ID)[0].Reason, "step upgrade: cancelled; its command was ended by signal 15")
	require.Equal(t, "1.0", hosts[0].Package("bash"), "the command was ended on the host")
	require.Zero(t, s.count("SELECT count(*) FROM host_run WHERE state IN ('staging', 'running')"))
}

// The same order under the same key is the same operation, for ever.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.worker()
	s.bootstrap(harness.Cluster, s.Fleet.Hosts()...)
	path := "cluster/" + harness.Cluster + "/restart"
	first := s.keyed("key-1", http.StatusCreated, path, nil)
	op := s.end(s.latest("kind=restart"))
	require.Equal(t, "succeeded", op.State, op.Reason)
	s.keyed("key-1", http.StatusOK, path, nil)
	require.NotEmpty(t, first)
	require.Equal(t, 1, s.count("SELECT count(*) FROM operation WHERE kind = 'restart'"))
	r := s.keyed("key-1", http.StatusConflict, "cluster/"+harness.Cluster+"/upgrade", nil)
	require.Contains(t, string(r), "Idempotency-Key")
	s.rebootedOnce(s.Fleet.Hosts()...)
}

func (s *site) keyed(key string, status int, path string, body any) []byte {
	s.t.Helper()
	r := s.answer(status, http.MethodPut, path, body, http.Header{"Idempotency-Key": {key}})
	require.Equal(s.t, status, r.Code, "%s", r.Body)
	return r.Body
}

// A dry run says what would happen, by the same commands, and changes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s := newSiteWith(t, machines)
	s.worker()
	hosts := s.Fleet.Hosts()
	s.bootstrap(harness.Cluster, hosts...)
	before := s.count("SELECT count(*) FROM operation")
	var plan struct {
		Slots int
		Hosts []struct {
			Address string
			Steps   []struct {
				Name     string
				Commands [][]string
			}
		}
	}
	r := s.ask(http.StatusOK, http.MethodPut, "cluster/"+harness.Cluster+"/upgrade?dry_run=true", policy(map[string]any{"max_unavailable": "34%", "order": map[string]any{"by": "name"}}))
	require.NoError(t, jsonInto(r.Body, &plan))
	require.Equal(t, 2, plan.Slots)
	require.Len(t, plan.Hosts, len(hosts))
	var addresses []string
	for _, h := range plan.Hosts {
		addresses = append(addresses, h.Address)
	}
	require.True(t, slices.IsSorted(addresses), "%v", addresses)
	require.Contains(t, string(r.Body), "rpm-ostree")
	require.Contains(t, string(r.Body), "bootc")
	require.Contains(t, string(r.Body), "systemctl")
	require.Equal(t, before, s.count("SELECT count(*) FROM operation"))
	for _, h := range hosts {
		require.Zero(t, boots(h))
	}
}
