package hostos

import (
	_ "embed"
	"encoding/xml"
	"fmt"
)

var (
	//go:embed script/upgrade_zypper.sh
	zypperUpgrade string
	//go:embed script/leftover_zypper.sh
	zypperLeftover string
	//go:embed script/reboot_zypper.sh
	zypperReboot string
)

var _ = register(zypper{packages{"zypper"}})

// zypper is SUSE's, by zypper(8).
type zypper struct{ packages }

func (zypper) systems() []string {
	return []string{"opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sled"}
}

func (zypper) Upgrade() []string      { return waiting(zypperUpgrade, "upgrade") }
func (zypper) Leftover() []string     { return shell(zypperLeftover, "leftover") }
func (zypper) RebootNeeded() []string { return shell(zypperReboot+kernelReboot, "reboot-needed") }

// ParseLeftover reads the elements <update name="…"> of list-updates, which
// lists what can be installed. 100 and 101 say that something is there, too.
func (zypper) ParseLeftover(exit int, stdout string) ([]string, error) {
	if exit != 0 && exit != 100 && exit != 101 {
		return nil, fmt.Errorf("zypper cannot say which updates are left (exit code %d)", exit)
	}
	var stream struct {
		Updates []struct {
			Name string `xml:"name,attr"`
		} `xml:"update-status>update-list>update"`
	}
	if err := xml.Unmarshal([]byte(stdout), &stream); err != nil {
		return nil, fmt.Errorf("zypper's list of updates cannot be read: %w", err)
	}
	var left []string
	for _, u := range stream.Updates {
		if name, ok := token(u.Name); ok && len(left) < leftoverMost {
			left = append(left, name)
		}
	}
	return left, nil
}
