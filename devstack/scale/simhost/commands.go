package simhost

import (
	"fmt"
	"slices"
	"strings"

	"commissaire/internal/hostos"
)

// command does what a command does and gives its output and exit code. One that
// is not known here prints a line. The caller holds mu.
func (h *Host) command(argv []string) (out []byte, code int) {
	is := slices.Equal[[]string]
	switch {
	case is(argv, hostos.Reboot()):
		h.reboot()
		return nil, 0
	case is(argv, hostos.SystemState()):
		return []byte("running\n"), 0
	case is(argv, hostos.CanReboot()):
		return []byte("/usr/bin/systemctl\n"), 0
	case argv[0] == "echo":
		return []byte(strings.Join(argv[1:], " ") + "\n"), 0
	default:
		return []byte("simulated: " + strings.Join(argv, " ") + "\n"), 0
	}
}

// facts answers hostos.FactsScript. The caller holds mu.
func (h *Host) facts() []byte {
	return fmt.Appendf(nil, `os=debian
os_version="12"
ostree=false
cpus=2
memory_kib=2097152
space_kib=20971520
package_manager=apt
other_managers=
bootc=false
boot_id=%s
`, h.bootID)
}
