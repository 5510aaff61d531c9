package hostos

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

var (
	//go:embed script/change_zypper.sh
	zypperChange string
	//go:embed script/leftover_zypper.sh
	zypperLeftover string
	//go:embed script/reboot_zypper.sh
	zypperReboot string
)

var _ = register(zypper{packages: packages{"zypper"}})

// zypper is SUSE's, by zypper(8).
type zypper struct {
	packages
	rolling bool // by whole snapshots, see rollings
}

// rollings are the os-release(5) IDs of SUSE's systems that are published as snapshots.
// One comes after the other by "zypper dist-upgrade" only, which may replace and remove
// packages (en.opensuse.org/openSUSE:Tumbleweed_upgrade); "update" leaves such behind
// and then says that all is done.
var rollings = []string{"opensuse-tumbleweed", "opensuse-slowroll"}

func (z zypper) on(os string) Family {
	z.rolling = slices.Contains(rollings, os)
	return z
}

func (zypper) systems() []string {
	return append([]string{"opensuse", "opensuse-leap", "sles", "sled"}, rollings...)
}

func (z zypper) Upgrade() []string {
	if z.rolling {
		return waiting(zypperChange, "upgrade", "dist-upgrade", "-y", "--no-allow-vendor-change")
	}
	return waiting(zypperChange, "upgrade", "update", "-y")
}

func (zypper) Leftover() []string { return waiting(zypperLeftover, "leftover") }

func (zypper) Installed(packages []string) []string {
	return shell(rpmInstalled, "installed", packages...)
}

func (zypper) Install(packages []string) ([]string, error) {
	return waiting(zypperChange, "install", append([]string{"install", "-y"}, packages...)...), checkPackages(packages)
}

func (zypper) RebootNeeded() []string {
	return waiting(zypperReboot+kernelReboot, "reboot-needed")
}

// ParseLeftover reads one name a line. zypper says by 100 and 101 that it found
// something.
func (zypper) ParseLeftover(exit int, stdout string) ([]string, error) {
	if exit != 0 && exit != 100 && exit != 101 {
		return nil, fmt.Errorf("zypper cannot say which updates are left (exit code %d)", exit)
	}
	var left []string
	for line := range strings.Lines(stdout) {
		if name, ok := token(line); ok && len(left) < leftoverMost {
			left = append(left, name)
		}
	}
	return left, nil
}
