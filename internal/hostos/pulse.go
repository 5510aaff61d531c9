package hostos

import (
	_ "embed"
	"errors"
	"strings"
)

// PulseScript is a POSIX sh script that prints what ParsePulse reads. It only reads. On
// the host it honours COMMISSAIRE_BOOT_ID_FILE, as FactsScript does.
//
//go:embed pulse.sh
var PulseScript string

// Pulse is the least that tells how a host is.
type Pulse struct {
	BootID string
	// Moving is "initializing", "starting" or "stopping" while the host boots or shuts
	// down, as systemctl(1) says it (is-system-running), else "". A system without systemd
	// never says so.
	Moving string
}

// ParsePulse reads what PulseScript printed. A host without a usable boot id is an error.
func ParsePulse(out string) (Pulse, error) {
	var p Pulse
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "boot_id":
			p.BootID = value
		case "system":
			if state := ParseSystemState(value); SystemBooting(state) || state == "stopping" {
				p.Moving = state
			}
		}
	}
	if !validToken(p.BootID) {
		return Pulse{}, errors.New("the host has no readable boot id (/proc/sys/kernel/random/boot_id)")
	}
	return p, nil
}
