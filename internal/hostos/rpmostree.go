package hostos

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"commissaire/internal/fleet"
)

var (
	//go:embed script/change_ostree.sh
	ostreeChange string
	//go:embed script/status_ostree.sh
	ostreeStatus string
)

var rpmOSTreeFamily = register(rpmOSTree{})

// rpmOSTree is an image of packages, by rpm-ostree(1).
type rpmOSTree struct{ images }

func (rpmOSTree) Name() string          { return "rpm-ostree" }
func (rpmOSTree) Upgrade() []string     { return ostree("upgrade") }
func (rpmOSTree) Deployments() []string { return shell(ostreeStatus, "status") }

// ostree is a change by rpm-ostree that waits for another one.
func ostree(args ...string) []string {
	return waiting(ostreeChange, "rpm-ostree", args...)
}

// Deploy takes a version or a checksum, as rpm-ostree does.
func (rpmOSTree) Deploy(version string, _ Deployments) ([]string, error) {
	version, err := fleet.ParseVersion(version)
	return ostree("deploy", version), err
}

// Rollback makes the earlier deployment the next to boot. When a change is staged, it
// drops that instead: the one that runs boots again.
func (rpmOSTree) Rollback() ([]string, error) { return ostree("rollback"), nil }

func (f rpmOSTree) Leftover() []string { return f.Deployments() }
func (f rpmOSTree) ParseLeftover(exit int, stdout string) ([]string, error) {
	return leftover(f, exit, stdout)
}

func (f rpmOSTree) RebootNeeded() []string { return f.Deployments() }
func (f rpmOSTree) ParseRebootNeeded(exit int, stdout string) (bool, string, error) {
	return rebootNeeded(f, exit, stdout)
}

// ParseDeployments reads "rpm-ostree status --json". The first deployment boots
// next; when it is not the booted one, it is staged, also where rpm-ostree is too
// old to stage and has written it at once.
func (rpmOSTree) ParseDeployments(exit int, stdout string) (Deployments, error) {
	var status struct {
		Deployments []struct {
			Version  string `json:"version"`
			Checksum string `json:"checksum"`
			Base     string `json:"base-checksum"`
			Image    string `json:"container-image-reference"`
			Booted   bool   `json:"booted"`
		} `json:"deployments"`
	}
	if exit != 0 {
		return Deployments{}, fmt.Errorf("rpm-ostree does not say what the host runs (exit code %d)", exit)
	}
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		return Deployments{}, fmt.Errorf("the status of rpm-ostree cannot be read: %w", err)
	}
	var now Deployments
	for i, d := range status.Deployments {
		if i > 0 && !d.Booted {
			continue // to roll back to, or pinned
		}
		read := Deployment{Version: d.Version, Checksum: d.Checksum, Base: d.Base, Image: d.Image}
		switch err := read.check(); {
		case err != nil:
			return Deployments{}, fmt.Errorf("the status of rpm-ostree: %w", err)
		case !d.Booted:
			now.Staged = read
		case !now.Booted.IsZero():
			return Deployments{}, fmt.Errorf("the status of rpm-ostree names two booted deployments")
		default:
			now.Booted = read
		}
	}
	if now.Booted.IsZero() {
		return Deployments{}, fmt.Errorf("the status of rpm-ostree names no booted deployment")
	}
	return now, nil
}
