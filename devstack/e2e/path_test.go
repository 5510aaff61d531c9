package e2e

import (
	"bytes"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

// The whole path: three hosts are bootstrapped and restarted, and everything
// that can be read of it is true.
func TestBootstrapAndRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.worker()
	hosts := slices.Clone(s.Fleet.Hosts())
	slices.SortFunc(hosts, func(a, b *remotetest.Host) int { return strings.Compare(b.Address(), a.Address()) })
	var order, bootIDs []string // joined against the alphabet, so that sorting would show
	for _, h := range hosts {
		order, bootIDs = append(order, h.Address()), append(bootIDs, h.BootID())
	}
	require.NoError(t, hosts[0].OnCommand("uname", "seq 1 60000"), "more output than one page")
	s.bootstrap(harness.Cluster, hosts...)
	for _, h := range hosts {
		s.rightAfterBootstrap(h)
	}
	s.rightOutput(hosts)

	s.orderRestart(harness.Cluster)
	var grown [][]string
	var v restartView
	s.until(limit, "the restart to end", func() bool {
		v = s.restart(harness.Cluster)
		if len(grown) == 0 || len(grown[len(grown)-1]) != len(v.Restarted) {
			grown = append(grown, v.Restarted)
		}
		require.LessOrEqual(t, len(v.InProcess), 1, "one host at a time")
		return v.Status != "in_process"
	})
	require.Equal(t, "finished", v.Status)
	require.NotEmpty(t, v.FinishedAt)
	require.Empty(t, v.InProcess)
	for i, restarted := range grown { // by the ledgers below, one after the other
		require.Equal(t, order[:len(restarted)], restarted, "grows in join order")
		require.True(t, i == 0 || len(restarted) > len(grown[i-1]), "only grows")
	}
	require.Equal(t, order, v.Restarted)
	s.rebootedOnce(hosts...)
	s.rolledInOrder(hosts)
	s.rightAfterRestart(hosts, bootIDs)
}

func fingerprint(t *testing.T, authorizedKey string) string {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(authorizedKey))
	require.NoError(t, err)
	return ssh.FingerprintSHA256(key)
}

func (s *site) rightAfterBootstrap(h *remotetest.Host) {
	s.t.Helper()
	v := s.host(h)
	require.Equal(s.t, []string{h.Address(), "disassociated", "debian", "12", h.BootID(), fingerprint(s.t, h.HostKey()), harness.Cluster, ""},
		[]string{v.Address, v.Status, v.OS, v.OSVersion, v.BootID, v.HostKey, v.Cluster, v.Reason})
	cpus, err := exec.Command("getconf", "_NPROCESSORS_ONLN").Output()
	require.NoError(s.t, err)
	require.Equal(s.t, strings.TrimSpace(string(cpus)), strconv.Itoa(v.CPUs))
	require.Positive(s.t, v.Memory)
	require.NotEmpty(s.t, v.LastCheck)
	var status struct {
		Type string
		Host struct{ Status string }
	}
	s.get(hostPath(h)+"/status", &status)
	require.Equal(s.t, "host_only disassociated", status.Type+" "+status.Host.Status)
	require.Equal(s.t, 1, h.Count("uname", "-a"), "asked once")
	require.Zero(s.t, reboots(h))
}

// rightOutput compares what is stored with what the hosts printed.
func (s *site) rightOutput(hosts []*remotetest.Host) {
	s.t.Helper()
	uname, err := exec.Command("uname", "-a").Output()
	require.NoError(s.t, err)
	lines, err := exec.Command("seq", "1", "60000").Output()
	require.NoError(s.t, err)
	for i, h := range hosts {
		want := uname
		if i == 0 {
			want = append(lines, uname...)
		}
		op := s.latest("kind=bootstrap&host=" + h.Address())
		require.True(s.t, bytes.Equal(want, s.output(op.ID, h.Address(), "prepare")), "every byte that %s printed, and no other", h.Name())
		var names []string
		for _, step := range s.steps(op.ID) {
			names = append(names, step.Name+" "+step.State)
			if step.Name == "prepare" {
				require.Equal(s.t, int64(len(want)), step.OutputSize)
				require.Equal(s.t, 0, *step.ExitCode)
			}
		}
		require.Equal(s.t, []string{"investigate succeeded", "prepare succeeded"}, names)
	}
}

// output reads all output of a step, page by page.
func (s *site) output(operation, address, step string) (all []byte) {
	s.t.Helper()
	for {
		r := s.ask(http.StatusOK, http.MethodGet, "operations/"+operation+"/hosts/"+address+"/steps/"+step+"/output?offset="+strconv.Itoa(len(all)), nil)
		if len(r.Body) == 0 {
			require.Equal(s.t, "true", r.Header.Get("Output-Ended"))
			return all
		}
		all = append(all, r.Body...)
	}
}

// rolledInOrder wants, by the hosts' ledgers, that each host was told to reboot
// only after the one before it had come back.
func (s *site) rolledInOrder(hosts []*remotetest.Host) {
	s.t.Helper()
	var last remotetest.Entry
	for i, h := range hosts {
		entries, err := h.Ledger()
		require.NoError(s.t, err)
		reboot := slices.IndexFunc(entries, func(e remotetest.Entry) bool { return e.What == "systemctl" && e.Args == "reboot" })
		require.GreaterOrEqual(s.t, reboot, 0)
		if i > 0 {
			require.True(s.t, entries[reboot].Time.After(last.Time), "%s before its turn", h.Name())
		}
		last = entries[len(entries)-1]
		require.Equal(s.t, "boot", last.What, "%v", entries)
	}
}

func (s *site) rightAfterRestart(hosts []*remotetest.Host, before []string) {
	s.t.Helper()
	op := s.latest("kind=restart&cluster=" + harness.Cluster)
	require.Equal(s.t, []string{"succeeded", "", harness.User}, []string{op.State, op.Reason, op.RequestedBy})
	var steps []string
	for _, step := range s.steps(op.ID) {
		require.Equal(s.t, "succeeded", step.State)
		steps = append(steps, step.Address+" "+step.Name)
	}
	var want []string
	runs := s.hostRuns(op.ID)
	require.Len(s.t, runs, len(hosts))
	for i, h := range hosts {
		for _, name := range []string{"check", "reboot", "wait", "verify"} {
			want = append(want, h.Address()+" "+name)
		}
		require.Equal(s.t, hostRunView{Address: h.Address(), State: "succeeded", BootID: before[i]}, runs[i])
		require.NotEqual(s.t, before[i], h.BootID())
		require.Equal(s.t, h.BootID(), s.host(h).BootID, "facts are refreshed")
		require.Equal(s.t, "boot id "+h.BootID()+"\n", string(s.output(op.ID, h.Address(), "wait")))
	}
	require.Equal(s.t, want, steps)
	var c struct {
		Status string
		Hosts  struct{ Total, Available, Unavailable int }
	}
	s.get("cluster/"+harness.Cluster, &c)
	require.Equal(s.t, len(hosts), c.Hosts.Total)
	require.Equal(s.t, len(hosts), c.Hosts.Unavailable, "v0 counts active hosts only as available, and a restart makes none active")
}
