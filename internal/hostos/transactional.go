package hostos

import (
	"slices"

	"commissaire/internal/fleet"
)

// transactional are the os-release(5) IDs of SUSE's systems that run from a read-only
// snapshot. They have zypper, which fails there: packages change in a new snapshot,
// by transactional-update(8).
var transactional = []string{"opensuse-microos", "opensuse-leap-micro", "leap-micro", "sle-micro", "sle-micro-rancher", "sl-micro", "aeon", "kalpa"}

func refuseTransactional(os string) error {
	if !slices.Contains(transactional, os) {
		return nil
	}
	return fleet.Errorf(fleet.NotReady, "the host's system %q changes by transactional-update, which is not supported", os)
}
