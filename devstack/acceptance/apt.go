package acceptance

import (
	"context"

	"commissaire/internal/remote/nspawntest"
)

const (
	// aptLedger has a line for each apt-get update, with which each upgrade begins.
	aptLedger = "/var/lib/apt.ledger"
	aptHook   = `APT::Update::Pre-Invoke { "echo update >>` + aptLedger + `"; };` + "\n"

	aptSlow = "echo ran >>" + toolLedger + "\nuntil [ -e " + releaseFile + " ]; do sleep 0.2; done"

	// containerd is a daemon that does nothing; who installs it has to start it.
	containerd = `printf '#!/bin/sh\nexec sleep infinity\n' >/usr/bin/containerd
chmod 755 /usr/bin/containerd
printf '[Service]\nExecStart=/usr/bin/containerd\n[Install]\nWantedBy=multi-user.target\n' >/lib/systemd/system/containerd.service
systemctl daemon-reload`
)

// aptSystem is Debian's.
func aptSystem(from *nspawntest.Repository) system {
	return system{
		runtime: "containerd", process: "apt-get",
		version: `dpkg-query -W -f '${Version}' "$1"`,
		begun:   "wc -l <" + aptLedger,
		check:   "apt-get -q -q check; dpkg --audit",
		all:     "dpkg-query -W",
		setUp: func(ctx context.Context, machines []*nspawntest.Machine) error {
			err := from.Publish(ctx,
				nspawntest.Package{Name: tool, Version: "1.0"},
				nspawntest.Package{Name: "containerd", Version: "1.0", Postinst: containerd})
			if err != nil {
				return err
			}
			return each(machines, func(m *nspawntest.Machine) error { return from.Install(ctx, m, tool) })
		},
		publish: func(ctx context.Context, version string, slow bool) error {
			p := nspawntest.Package{Name: tool, Version: version}
			if slow {
				p.Postinst = aptSlow
			}
			return from.Publish(ctx, p)
		},
	}
}
