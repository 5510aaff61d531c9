package cloudinit

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/devstack/temporal"
	"commissaire/internal/privatepg"
	"commissaire/internal/remote/nspawntest"
)

const (
	// address is that of the API in the machines' network: on its bridge.
	address  = "10.77.255.1"
	endpoint = "https://" + address + ":8000"

	limit = 5 * time.Minute // far more than anything here takes, the programs built cold on a busy machine
)

// installation is one whose API server and worker are in the machines' network,
// besides the one that the test and commctl talk to.
type installation struct {
	*harness.Installation
	t        *testing.T
	dir      string
	program  string
	commctl  string
	frontend string // of Temporal
	ca       string // file
}

func start(t *testing.T) *installation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	i := &installation{t: t, dir: t.TempDir()}
	// Postgres runs as another user when we are root.
	for dir := i.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o711))
	}
	require.NoError(t, harness.Build(ctx, "../..", i.dir, "", "commissaire", "commctl"))
	i.program, i.commctl = filepath.Join(i.dir, "commissaire"), filepath.Join(i.dir, "commctl")

	postgres, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(i.dir, "postgres"), NoSync: true, MaxConnections: 200})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, postgres.Stop(privatepg.Immediate)) })
	temporal, err := temporal.Start(ctx, temporal.Options{PostgresDSN: postgres.DSN("postgres"), NoUI: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, temporal.Stop()) })
	i.frontend = temporal.Addr()
	i.Installation, err = harness.New(ctx, harness.Options{Dir: i.dir, Name: "cloudinit", Binary: i.program, Postgres: postgres, Temporal: temporal.Addr()})
	require.NoError(t, err)
	t.Cleanup(i.Close)
	require.NoError(t, i.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster, nil))
	return i
}

// serve starts an API server with TLS and a worker where the machines are.
func (i *installation) serve(ms *nspawntest.Machines, pemFile string) {
	i.t.Helper()
	require.NoError(i.t, ms.Expose(i.frontend))
	for role, env := range map[string][]string{
		"server": {"COMMISSAIRE_LISTEN_INTERFACE=" + address, "COMMISSAIRE_LISTEN_PORT=8000", "COMMISSAIRE_TLS_PEMFILE=" + pemFile},
		"worker": nil,
	} {
		cmd := ms.Command(i.t.Context(), i.program, role)
		cmd.Env = append(i.Environment(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(i.t, i.Launch(cmd, role))
		i.t.Cleanup(func() { harness.Kill(cmd) })
	}
}

// userData runs commctl as an operator does, on a machine of its own.
func (i *installation) userData(args ...string) string {
	i.t.Helper()
	home := i.t.TempDir()
	config, err := json.Marshal(map[string]any{"endpoint": i.API, "username": harness.User, "password": harness.Password})
	require.NoError(i.t, err)
	require.NoError(i.t, os.WriteFile(filepath.Join(home, ".commissaire.json"), config, 0o600))
	cmd := exec.CommandContext(i.t.Context(), i.commctl, append([]string{"user-data", "-e", endpoint, "--ca-file", i.ca, "-c", harness.Cluster}, args...)...)
	cmd.Env = []string{"HOME=" + home}
	out, err := cmd.Output()
	require.NoError(i.t, err)
	return string(out)
}

func (i *installation) get(path string, into any) {
	i.t.Helper()
	r, err := i.Request(i.t.Context(), http.MethodGet, path, nil)
	require.NoError(i.t, err)
	require.Equal(i.t, http.StatusOK, r.Code, "%s: %s", path, r.Body)
	require.NoError(i.t, json.Unmarshal(r.Body, into))
}

func (i *installation) until(what string, check func() bool) {
	i.t.Helper()
	require.NoError(i.t, harness.Until(i.t.Context(), limit, what, func() (bool, error) { return check(), nil }))
}

// seed is what a cloud gives a machine: the NoCloud data source reads it from its
// disk. The network is the one that the machine has.
func seed(name, userData string) map[string]string {
	const dir = "var/lib/cloud/seed/nocloud/"
	return map[string]string{
		dir + "user-data":                       userData,
		dir + "meta-data":                       "instance-id: iid-" + name + "\nlocal-hostname: " + name + "\n",
		"etc/cloud/cloud.cfg.d/99-network.cfg":  "network: {config: disabled}\nlocale: C.UTF-8\n", // the tree has no others
		"etc/ssh/sshd_config.d/nspawntest.conf": "",                                               // sshd reads ~/.ssh/authorized_keys
	}
}

// Machines add themselves while they boot: one as root and one as a user that is
// made for it. Of two with the same user-data one gets in.
func TestMachinesAddThemselves(t *testing.T) {
	t.Parallel()
	if err := nspawntest.Available(); err != nil {
		t.Skip(err) // no root, or no systemd-container: the error says which
	}
	i := start(t)
	certificate, key := selfSigned(t)
	i.ca = filepath.Join(i.dir, "ca.pem")
	require.NoError(t, os.WriteFile(i.ca, certificate, 0o600))
	pemFile := filepath.Join(i.dir, "server.pem")
	require.NoError(t, os.WriteFile(pemFile, append(certificate, key...), 0o600))

	once, other := i.userData(), i.userData("-r", "cloud-ops")
	for _, text := range []string{once, other} {
		whole := ""
		for _, part := range strings.Split(text, "\n\n") { // the head of each ends with an empty line
			whole += decode(part)
		}
		require.Contains(t, whole, `"join_token"`)
		require.NotContains(t, whole, "PRIVATE KEY")
		require.NotContains(t, whole, harness.Password)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // the first run builds a base
	defer cancel()
	ms, err := nspawntest.Open(ctx, nspawntest.Options{
		// debootstrap does not know that the second is a virtual package of the first.
		Count: 3, Packages: []string{"cloud-init", "python3-cffi-backend"},
		Files: []map[string]string{seed("h1", once), seed("h2", other), seed("h3", once)},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, m := range ms.All() {
			if t.Failed() {
				// The test's own context has ended by the time of a cleanup.
				log, _ := m.Run(context.Background(), "tail", "-n", "40", "/var/log/cloud-init-output.log")
				t.Logf("%s: %s", m.Name(), log)
			}
		}
		require.NoError(t, ms.Close())
	})
	all := ms.All()
	said := func(m *nspawntest.Machine) string {
		text, _ := m.Run(t.Context(), "cat", "/var/log/cloud-init-output.log") // there is none at first
		return text
	}
	for _, m := range all {
		i.until(m.Name()+" to ask for a server that is not there yet", func() bool {
			return strings.Contains(said(m), "Commissaire does not answer at "+endpoint)
		})
	}
	i.serve(ms, pemFile)
	output := make([]string, len(all))
	var wg sync.WaitGroup
	for n, m := range all {
		wg.Go(func() {
			// It fails when a script did, as on the machine that is not let in.
			_, _ = m.Run(t.Context(), "timeout", strconv.Itoa(int(limit.Seconds())), "cloud-init", "status", "--wait")
			output[n] = said(m)
		})
	}
	wg.Wait()
	for _, text := range output {
		require.Contains(t, text, "Finished booting")
	}
	require.Contains(t, output[1], "Commissaire response: 201 Created")
	first, second := all[0], all[2]
	if !strings.Contains(output[0], "Commissaire response: 201") {
		first, second = second, first
		output[0], output[2] = output[2], output[0]
	}
	require.Contains(t, output[0], "Commissaire response: 201 Created")
	require.NotContains(t, output[2], "response: 201")
	require.Contains(t, output[2], "refused this machine")

	var hosts []struct{ Address string }
	i.get("hosts", &hosts)
	require.Len(t, hosts, 2)
	in := []*nspawntest.Machine{first, all[1]}
	for n, m := range in {
		user := []string{"root", "cloud-ops"}[n]
		i.added(m, user)
	}
	_, err = second.Run(t.Context(), "sh", "-c", `test "$(find /root /var/lib/cloud/instance/scripts -name "id_*" -o -name commissaire-join | wc -l)" = 1`)
	require.NoError(t, err, "it keeps what it needs to try again, and nothing else")

	// They can be worked with, and do not add themselves again when they boot.
	require.NoError(t, i.Call(t.Context(), http.MethodPut, "cluster/"+harness.Cluster+"/restart", nil))
	var record struct {
		Status    string
		Restarted []string
	}
	i.until("the restart", func() bool {
		i.get("cluster/"+harness.Cluster+"/restart", &record)
		return record.Status != "in_process"
	})
	require.Equal(t, "finished", record.Status)
	require.ElementsMatch(t, []string{first.Address(), all[1].Address()}, record.Restarted)
	for _, m := range in {
		require.Equal(t, 1, m.Reboots())
		i.until("cloud-init of the second boot", func() bool {
			_, err := m.Run(t.Context(), "cloud-init", "status", "--wait")
			return err == nil
		})
		require.Equal(t, 1, strings.Count(said(m), "Commissaire response:"), said(m))
	}
}

// added wants a machine on record as it is, and on it nothing but our public key.
func (i *installation) added(m *nspawntest.Machine, user string) {
	i.t.Helper()
	t := i.t
	var bootstrap struct{ Status string }
	i.until(m.Name()+" to be bootstrapped", func() bool {
		i.get("host/"+m.Address()+"/bootstrap", &bootstrap)
		return bootstrap.Status != "in_process"
	})
	var host struct {
		Status, Cluster, Reason, OS string
		HostKey                     string `json:"host_key_fingerprint"`
		BootID                      string `json:"boot_id"`
	}
	i.get("host/"+m.Address(), &host)
	require.Equal(t, "finished", bootstrap.Status, host.Reason)
	require.Equal(t, "disassociated", host.Status)
	require.Equal(t, harness.Cluster, host.Cluster)
	require.Equal(t, "debian", host.OS)
	boot, err := m.BootID()
	require.NoError(t, err)
	require.Equal(t, boot, host.BootID)

	// cloud-init made new host keys; that of the image is of no use any more.
	public, err := m.Run(t.Context(), "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
	require.NoError(t, err)
	require.Equal(t, fingerprint(t, public), host.HostKey)
	require.NotEqual(t, fingerprint(t, m.HostKey()), host.HostKey)

	var creds struct {
		RemoteUser string `json:"remote_user"`
		Key        []byte `json:"ssh_priv_key"`
	}
	i.get("host/"+m.Address()+"/creds", &creds)
	require.Equal(t, user, creds.RemoteUser)
	signer, err := ssh.ParsePrivateKey(creds.Key)
	require.NoError(t, err)
	keys, err := m.Run(t.Context(), "sh", "-ec", `cd ~`+user+`/.ssh; stat -c "%a %U" authorized_keys; cat authorized_keys`)
	require.NoError(t, err)
	about, keys, _ := strings.Cut(keys, "\n")
	require.Equal(t, "600 "+user, about)
	require.Equal(t, ssh.FingerprintSHA256(signer.PublicKey()), fingerprint(t, keys))
	require.Equal(t, 1, strings.Count(keys, "ssh-"), keys)

	// No private key but those of sshd, and the script with the token is gone.
	found, err := m.Run(t.Context(), "sh", "-c", `grep -rl "PRIVATE KEY" /root /home /etc /var/lib /var/log /tmp --include=* 2>/dev/null | grep -v '^/etc/ssh/ssh_host_[a-z0-9]*_key$'; ls /var/lib/cloud/instance/scripts`)
	require.NoError(t, err)
	require.Empty(t, strings.TrimSpace(found))
}
