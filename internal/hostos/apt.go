package hostos

import (
	_ "embed"
	"fmt"
	"strings"
)

var (
	//go:embed script/change_apt.sh
	aptChange string
	//go:embed script/installed_apt.sh
	aptInstalled string
	//go:embed script/leftover_apt.sh
	aptLeftover string
	//go:embed script/reboot_apt.sh
	aptReboot string
	//go:embed script/reboot_kernel.sh
	kernelReboot string
)

var _ = register(apt{packages{"apt"}})

// apt is Debian's, by apt-get(8) and dpkg(1).
type apt struct{ packages }

func (apt) systems() []string      { return []string{"debian", "ubuntu", "raspbian", "linuxmint"} }
func (apt) Upgrade() []string      { return waiting(aptChange, "upgrade", "--with-new-pkgs", "upgrade") }
func (apt) Leftover() []string     { return shell(aptLeftover, "leftover") }
func (apt) RebootNeeded() []string { return shell(aptReboot+kernelReboot, "reboot-needed") }

func (apt) Installed(packages []string) []string {
	return shell(aptInstalled, "installed", packages...)
}

// Install takes nothing away: with -y alone apt-get would also remove what stands in
// the way, such as all of Docker where its own containerd is.
func (apt) Install(packages []string) ([]string, error) {
	return waiting(aptChange, "install", append([]string{"--no-remove", "install"}, packages...)...), checkPackages(packages)
}

// ParseLeftover reads lines "Inst name …" of a simulation, and of dpkg --audit
// lines that begin with one space and a name.
func (apt) ParseLeftover(exit int, stdout string) ([]string, error) {
	if exit != 0 {
		return nil, fmt.Errorf("apt-get cannot say which updates are left (exit code %d)", exit)
	}
	var left []string
	for line := range strings.Lines(stdout) {
		rest, inst := strings.CutPrefix(line, "Inst ")
		if !inst && (len(line) < 2 || line[0] != ' ' || line[1] == ' ') {
			continue
		}
		name, ok := token(rest)
		switch {
		case !ok || len(left) == leftoverMost:
		case inst:
			left = append(left, name)
		default:
			left = append(left, name+" (not fully installed)")
		}
	}
	return left, nil
}
