package profile_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
	"commissaire/internal/profile"
	"commissaire/internal/remote/nspawntest"
)

// TestDropInOnAMachine: a real systemd runs our command line of the kubelet and no
// other one, also where kubeadm's drop-in is.
func TestDropInOnAMachine(t *testing.T) {
	ms := nspawntest.Start(t, 1, "")
	m := ms.All()[0]
	const drop = "/etc/systemd/system/kubelet.service.d/20-commissaire.conf"
	const write = `mkdir -p "${1%/*}" && printf %s "$2" >"$1"`
	for path, content := range map[string]string{
		"/usr/bin/kubelet":                                          "#!/bin/sh\nexec sleep 1000\n",
		"/lib/systemd/system/kubelet.service":                       "[Unit]\nDescription=kubelet\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n[Install]\nWantedBy=multi-user.target\n",
		"/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --kubeadm\n",
		drop: fileOf(t, profile.ContainerHost, "apt", "kubelet", drop),
	} {
		_, err := m.Run(t.Context(), "sh", "-ec", write, "write", path, content)
		require.NoError(t, err)
	}
	for _, argv := range [][]string{{"chmod", "755", "/usr/bin/kubelet"}, hostos.ReloadServices(), hostos.EnableService("kubelet"), hostos.StartService("kubelet")} {
		_, err := m.Run(t.Context(), argv...)
		require.NoError(t, err)
	}
	out, err := m.Run(t.Context(), hostos.ServiceState("kubelet")...)
	require.NoError(t, err)
	state, err := hostos.ParseServiceState(0, out)
	require.NoError(t, err)
	require.Equal(t, hostos.Service{Exists: true, Active: true, Enabled: true, State: "active (running)"}, state)
	out, err = m.Run(t.Context(), "systemctl", "show", "--property=ExecStart", "--value", "kubelet")
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(out, "argv[]="), out)
	require.Contains(t, out, "argv[]=/usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --hostname-override=192.0.2.20 ;")
}
