package acceptance

import (
	"context"

	"commissaire/internal/remote/nspawntest"
)

const (
	fedora = "ID=fedora\nVERSION_ID=43\nPRETTY_NAME=\"Fedora Linux 43, of a test\"\n"

	dnfSlow = `local f = io.open("` + toolLedger + `", "a") f:write("ran\n") f:close()
while not posix.stat("` + releaseFile + `") do posix.sleep(1) end`
)

// dnfSystem is that of machines with dnf; the first of them builds the packages.
func dnfSystem(from *nspawntest.Repository) system {
	var builder *nspawntest.Machine
	return system{
		runtime: "podman", process: "dnf",
		version: `rpm -q --qf '%{VERSION}' "$1"`,
		begun:   "grep -c 'Command: dnf .*update -y' /var/log/dnf.log || true",
		check:   "dnf -C -q check",
		all:     "rpm -qa | sort",
		setUp: func(ctx context.Context, machines []*nspawntest.Machine) error {
			builder = machines[0]
			if err := from.PublishRPM(ctx, builder, nspawntest.RPM{Name: tool, Version: "1.0"}, nspawntest.RPM{Name: "podman", Version: "1.0"}); err != nil {
				return err
			}
			return each(machines, func(m *nspawntest.Machine) error { return from.InstallRPM(ctx, m, tool) })
		},
		publish: func(ctx context.Context, version string, slow bool) error {
			p := nspawntest.RPM{Name: tool, Version: version}
			if slow {
				p.Post = dnfSlow
			}
			return from.PublishRPM(ctx, builder, p)
		},
	}
}
