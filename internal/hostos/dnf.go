package hostos

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

var (
	//go:embed script/change_dnf.sh
	dnfChange string
	//go:embed script/leftover_dnf.sh
	dnfLeftover string
	//go:embed script/reboot_rpm.sh
	rpmReboot string
)

var _ = register(dnf{packages{"dnf"}})

// dnf is Fedora's, by dnf(8) of version 4 or 5.
type dnf struct{ packages }

func (dnf) systems() []string { return []string{"fedora", "rocky", "almalinux"} }

func (d dnf) Upgrade() []string { return waiting(dnfChange, "upgrade", d.name, "update", "-y") }

// Install by yum succeeds when one of several names is unknown to it; Installed
// tells then.
func (d dnf) Install(packages []string) ([]string, error) {
	return waiting(dnfChange, "install", append([]string{d.name, "install", "-y"}, packages...)...), checkPackages(packages)
}

func (dnf) Installed(packages []string) []string {
	return shell(rpmInstalled, "installed", packages...)
}

func (d dnf) Leftover() []string     { return shell(dnfLeftover, "leftover", d.name) }
func (d dnf) RebootNeeded() []string { return shell(rpmReboot, "reboot-needed", d.name) }

// ParseLeftover reads check-update: lines "name.arch version repository", which
// may break after the name. Replaced packages come in a list of their own.
func (d dnf) ParseLeftover(exit int, stdout string) ([]string, error) {
	if exit != 0 && exit != 100 {
		return nil, fmt.Errorf("%s cannot say which updates are left (exit code %d)", d.name, exit)
	}
	if exit == 0 {
		return nil, nil
	}
	var left []string
	for line := range strings.Lines(stdout) {
		if strings.HasPrefix(line, "Obsoleting ") {
			break
		}
		name, ok := token(line)
		if ok && line[0] != ' ' && strings.Contains(name, ".") && len(left) < leftoverMost {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil, fmt.Errorf("%s says that updates are left, but not which", d.name)
	}
	slices.Sort(left)
	return slices.Compact(left), nil // repositories may offer the same
}
