package activities_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/profile"
	"commissaire/internal/remote/nspawntest"
	"commissaire/internal/store"
	"commissaire/workflows"
)

const kubeletFile = "/var/lib/kubelet/config.yaml"

// daemon is a package with a service that counts how often it was started. Nothing
// starts it but who is asked to.
func daemon(name string) nspawntest.Package {
	return nspawntest.Package{Name: name, Version: "1.0", Postinst: strings.ReplaceAll(`
printf '#!/bin/sh\necho started >>/var/lib/NAME.starts\necho "NAME says hello"\nexec sleep infinity\n' >/usr/bin/NAME
chmod 755 /usr/bin/NAME
printf '[Unit]\nDescription=NAME\n[Service]\nExecStart=/usr/bin/NAME\n[Install]\nWantedBy=multi-user.target\n' >/lib/systemd/system/NAME.service
systemctl daemon-reload`, "NAME", name)}
}

// machineRig is a rig whose host is a real machine with systemd, to become a node of
// Kubernetes.
type machineRig struct {
	*rig
	m *nspawntest.Machine
}

func newMachineRig(t *testing.T) *machineRig {
	t.Helper()
	if err := nspawntest.Available(); err != nil {
		t.Skip(err) // make test-machines installs what they need
	}
	r := &machineRig{rig: open(t, pgtest.New(t), restart)}
	signer, err := ssh.ParsePrivateKey([]byte(r.fleet.ClientKey()))
	require.NoError(t, err)
	ms := nspawntest.Start(t, 1, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	r.m = ms.All()[0]
	packages, err := ms.Repository()
	require.NoError(t, err)
	require.NoError(t, packages.Publish(t.Context(), daemon("containerd"), daemon("kubelet"), nspawntest.Package{Name: "tool", Version: "1.0"}))
	require.NoError(t, packages.Install(t.Context(), r.m, "tool"))

	ca, err := filepath.Abs("../internal/profile/testdata/pem/ca.crt")
	require.NoError(t, err)
	_, check, err := r.PutContainerManager(t.Context(), fleet.ContainerManager{Name: "kube", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
		"server_url": "https://192.0.2.10:6443", "certificate_ca_path": ca, "kubelet": true, "kubelet_bootstrap_token": "abcdef.0123456789abcdef",
	}})
	require.NoError(t, err)
	require.NoError(t, r.ContainerManagerChecked(t.Context(), "kube", check))
	kube := "kube"
	_, err = r.PutCluster(t.Context(), store.ClusterPut{Name: cluster, ContainerManager: &kube})
	require.NoError(t, err)
	at, err := ms.Forward(r.m)
	require.NoError(t, err)
	creds := r.creds()
	creds.RemoteUser = "ops" // by sudo
	_, op, err := r.PutHost(t.Context(), store.HostPut{Address: at.IP.String(), Port: at.Port, Cluster: cluster, Creds: creds})
	require.NoError(t, err)
	r.bootstrap(t, *op)
	return r
}

func (r *machineRig) ref() workflows.HostRef {
	return workflows.HostRef{OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: r.op.ID}, Address: r.op.Host}
}

// bootstrap begins one and carries out its first steps.
func (r *machineRig) bootstrap(t *testing.T, op fleet.Operation) {
	t.Helper()
	r.op = op
	_, err := r.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = r.BeginHostRun(t.Context(), op.ID, op.Host)
	require.NoError(t, err)
	c := r.crew(t)
	in := workflows.HostStep{HostRef: r.ref(), Step: workflows.StepInvestigate, Attempt: 1, Unreachable: patience}
	_, err = execute(how{}, workflows.Investigate, c.hosts.Investigate, in)
	require.NoError(t, err)
	in.Step = workflows.StepPrepare
	_, err = execute(how{}, workflows.Prepare, c.hosts.Prepare, in)
	require.NoError(t, err)
}

func (r *machineRig) again(t *testing.T) {
	t.Helper()
	_, err := r.EndHostRun(t.Context(), store.HostRunEnd{OperationID: r.op.ID, Address: r.op.Host, State: fleet.HostRunSucceeded, Event: fleet.HostPrepared})
	require.NoError(t, err)
	require.NoError(t, r.EndOperation(t.Context(), r.op.ID, fleet.OperationSucceeded, ""))
	op, _, err := r.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindBootstrap, Host: r.op.Host})
	require.NoError(t, err)
	r.bootstrap(t, op)
}

func (r *machineRig) content(c *crew, step string, h how) (err error) {
	in := workflows.ContentStep{Profile: profile.ContainerHost, HostStep: workflows.HostStep{HostRef: r.ref(), Step: step, Attempt: 1, Unreachable: patience}}
	switch step {
	case workflows.StepInstall:
		_, err = execute(h, workflows.Install, c.hosts.Install, in)
	case workflows.StepConfigure:
		_, err = execute(h, workflows.Configure, c.hosts.Configure, in)
	case workflows.StepServices:
		_, err = execute(h, workflows.Services, c.hosts.Services, in)
	}
	return err
}

// apply carries out all steps and gives what the record says of them.
func (r *machineRig) apply(t *testing.T) (notes []string) {
	t.Helper()
	for _, step := range contentSteps {
		require.NoError(t, r.content(r.crew(t), step, how{}), step)
		notes = append(notes, r.step(t, step).Reason)
	}
	return notes
}

func (r *machineRig) step(t *testing.T, name string) fleet.Step {
	t.Helper()
	steps, err := r.Steps(t.Context(), r.op.ID, r.op.Host)
	require.NoError(t, err)
	for _, s := range steps {
		if s.Name == name {
			return s
		}
	}
	return fleet.Step{}
}

func (r *machineRig) said(t *testing.T, step string) string {
	t.Helper()
	chunks, err := r.Output(t.Context(), r.step(t, step).ID, 0, 0)
	require.NoError(t, err)
	var out strings.Builder
	for _, c := range chunks {
		out.Write(c.Data)
	}
	return out.String()
}

func (r *machineRig) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := r.m.Run(t.Context(), "sh", "-ec", script)
	require.NoError(t, err)
	return out
}

// started waits until a daemon has counted its starts, which it does a moment after systemd
// takes it for started.
func (r *machineRig) started(t *testing.T, daemon string, times int, what string, args ...any) {
	t.Helper()
	eventually(t, func() bool { return strings.Count(r.sh(t, "cat /var/lib/"+daemon+".starts"), "\n") == times }, what, args...)
}

// state is what a bootstrap without changes must not touch.
func (r *machineRig) state(t *testing.T) string {
	t.Helper()
	return r.sh(t, `find /etc /var/lib/kubelet -type f ! -path /etc/mtab -printf '%p %i %m %u:%g %T@\n' | sort
		wc -l /var/lib/*.starts; systemctl show -p MainPID,ActiveEnterTimestamp containerd kubelet; sha256sum /var/lib/dpkg/status`)
}

// TestContentOnAMachine: a real systemd, apt and sudo. A second bootstrap changes
// nothing; what somebody changed is shown, kept once and put right; and wherever a
// worker dies the file is whole and its service restarted once.
func TestContentOnAMachine(t *testing.T) {
	t.Parallel()
	r := newMachineRig(t)
	notes := r.apply(t)
	require.Equal(t, "installed containerd, kubelet", notes[0])
	require.Equal(t, "7 of 7 files changed", notes[1])
	require.Equal(t, "containerd, kubelet: enabled and running", notes[2])
	said := r.said(t, workflows.StepConfigure)
	require.Contains(t, said, "\n+cgroupDriver: systemd\n")
	require.Contains(t, said, "/etc/kubernetes/bootstrap-kubelet.conf: new; its content is not shown\n")
	require.NotContains(t, said, "0123456789abcdef")
	require.Equal(t, "enabled\nenabled\n", r.sh(t, "systemctl is-enabled containerd kubelet"))
	require.Equal(t, "active\nactive\n", r.sh(t, "systemctl is-active containerd kubelet"))
	require.Equal(t, "600 root:root\n644 root:root\n", r.sh(t, "stat -c '%a %U:%G' /etc/kubernetes/bootstrap-kubelet.conf "+kubeletFile))
	require.Contains(t, r.sh(t, "systemctl show -p ExecStart kubelet"), "--hostname-override="+r.op.Host)

	r.started(t, "containerd", 1, "it was started once")
	r.started(t, "kubelet", 1, "it was started once")
	before := r.state(t)
	r.again(t)
	require.Equal(t, []string{"all packages are there already", "7 files are as they should be", "containerd, kubelet: enabled and running as before"}, r.apply(t))
	require.Equal(t, before, r.state(t))

	right := r.sh(t, "cat "+kubeletFile)
	for _, wrong := range []string{"first", "second"} {
		r.sh(t, "echo "+wrong+" >"+kubeletFile)
		r.again(t)
		require.Equal(t, []string{"all packages are there already", "1 of 7 files changed", "containerd, kubelet: enabled and running"}, r.apply(t))
		require.Contains(t, r.said(t, workflows.StepConfigure), "\n-"+wrong+"\n")
		require.Equal(t, right, r.sh(t, "cat "+kubeletFile))
		require.Equal(t, "first\n", r.sh(t, "cat "+kubeletFile+".before-commissaire"))
	}
	r.started(t, "containerd", 1, "it does not read that file")
	r.started(t, "kubelet", 3, "it does")

	starts := 3
	for _, dies := range contentSteps[1:] {
		for n, over := 0, false; !over; n++ {
			require.Less(t, n, 50)
			r.sh(t, "echo wrong >"+kubeletFile)
			r.again(t)
			for _, step := range contentSteps {
				if step == dies {
					left := n
					ctx, die := context.WithCancel(t.Context())
					c := r.crew(t)
					whole := c.hosts.Store
					c.hosts.Store = func(tenant string) activities.HostStore { return cutOff{whole(tenant), &left, die} }
					over = r.content(c, step, how{ctx: ctx}) == nil
					die()
					require.Contains(t, []string{right, "wrong\n"}, r.sh(t, "cat "+kubeletFile))
				}
				require.NoError(t, r.content(r.crew(t), step, how{}))
			}
			starts++
			require.Equal(t, right, r.sh(t, "cat "+kubeletFile))
			r.started(t, "kubelet", starts, "%s, killed before call %d", dies, n)
			require.Empty(t, r.sh(t, "ls -A /var/lib/commissaire/restart; find /etc /var/lib/kubelet -name '.*.commissaire.*'"))
		}
	}

	// A service that cannot run is named, with what it said last. The journal has that before
	// systemd takes the service for failed; while it writes, the service does not run.
	r.sh(t, `mkdir -p /run/systemd/system/kubelet.service.d
		printf '[Service]\nExecStopPost=journalctl --sync\n' >/run/systemd/system/kubelet.service.d/sync.conf; systemctl daemon-reload
		printf '#!/bin/sh\necho "no cgroups here" >&2\nexit 3\n' >/usr/bin/kubelet; echo wrong >`+kubeletFile)
	r.again(t)
	require.NoError(t, r.content(r.crew(t), workflows.StepInstall, how{}))
	require.NoError(t, r.content(r.crew(t), workflows.StepConfigure, how{}))
	why := requireRefused(t, string(fleet.StepFailed), r.content(r.crew(t), workflows.StepServices, how{}))
	require.Contains(t, why, "kubelet")
	require.Regexp(t, "it said: .*no cgroups here$", r.step(t, workflows.StepServices).Reason)
	journal := r.said(t, workflows.StepServices)
	require.Contains(t, journal, "journal of kubelet:\n")
	require.Contains(t, journal, "no cgroups here\n")
}
