package acceptance

import (
	"context"
	"encoding/json"
	"fmt"

	"commissaire/internal/remote/nspawntest"
)

// Versions of the image: machines are made with the first and upgraded to the second;
// the third is what is deployed.
const (
	imageSecond = "2.0"
	imageThird  = "3.0"
)

// edited is a file that an administrator changes, which all deployments must keep.
const edited = "/etc/motd"

// images is what happens to machines that boot images.
func (r *run) images(ctx context.Context, g group) error {
	for _, m := range g.machines {
		if err := r.repository.TrackImages(ctx, m); err != nil {
			return err
		}
		if _, err := sh(ctx, m, "echo "+m.Name()+" >"+edited); err != nil {
			return err
		}
	}
	bootstrapped := func(ctx context.Context, m *nspawntest.Machine) (string, error) {
		d, err := look(ctx, m)
		return d.String(), err
	}
	if err := r.bootstrapTwice(ctx, g, bootstrapped, "ostree admin status"); err != nil {
		return err
	}
	if err := r.repository.PublishImage(ctx, imageSecond); err != nil {
		return err
	}
	if err := r.boot(ctx, g, "upgrade", nil, imageSecond, "upgraded", &r.result.Upgrades); err != nil {
		return err
	}
	if err := r.repository.PublishImage(ctx, imageThird); err != nil {
		return err
	}
	if err := r.boot(ctx, g, "deploy", map[string]any{"version": imageThird}, imageThird, "deployed", &r.result.Deploys); err != nil {
		return err
	}
	if err := r.restart(ctx, g); err != nil {
		return err
	}
	// The product has no order to roll back: the version before is deployed again.
	return r.boot(ctx, g, "deploy", map[string]any{"version": imageSecond}, imageSecond, "rolled back by a deploy of the version before", &r.result.Deploys)
}

// boot carries out what must have machines boot another version of the image.
func (r *run) boot(ctx context.Context, g group, kind string, members map[string]any, want, what string, counter *int) error {
	before, err := bootIDs(g)
	if err != nil {
		return err
	}
	was := map[*nspawntest.Machine]deployment{}
	for _, m := range g.machines {
		if was[m], err = look(ctx, m); err != nil {
			return err
		}
	}
	if err := r.carryOut(ctx, kind, g.cluster, members); err != nil {
		return err
	}
	return each(g.machines, func(m *nspawntest.Machine) error {
		now, err := look(ctx, m)
		if err != nil {
			return err
		}
		if now.version != want || now.checksum == was[m].checksum {
			return fmt.Errorf("it booted %s and not image %s", now, want)
		}
		kept, err := sh(ctx, m, "cat "+edited)
		if err != nil || kept != m.Name() {
			return fmt.Errorf("%s has %q, not what was written (%v)", edited, kept, err)
		}
		r.count(counter)
		return r.rebooted(m, before[m], fmt.Sprintf("%s: it booted %s, earlier %s, with the change of %s", what, now, was[m], edited))
	})
}

// deployment is what a machine has booted.
type deployment struct{ version, checksum string }

func (d deployment) String() string {
	return fmt.Sprintf("image %s, commit %.8s", d.version, d.checksum)
}

// look says what a machine has booted, by what its root is, its own release file and
// libostree, which must agree.
func look(ctx context.Context, m *nspawntest.Machine) (deployment, error) {
	says, err := sh(ctx, m, `. /etc/os-release; echo "$OSTREE_VERSION"`)
	if err != nil {
		return deployment{}, err
	}
	out, err := sh(ctx, m, "rpm-ostree status --json")
	if err != nil {
		return deployment{}, err
	}
	var status struct {
		Deployments []struct {
			Version, Checksum string
			Booted            bool
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return deployment{}, err
	}
	for _, d := range status.Deployments {
		if !d.Booted {
			continue
		}
		// libostree knows the booted deployment by the root's device and inode.
		if d.Version != says {
			return deployment{}, fmt.Errorf("%s: libostree has booted %s and the system says it is %s", m.Name(), d.Version, says)
		}
		return deployment{d.Version, d.Checksum}, nil
	}
	return deployment{}, fmt.Errorf("%s: libostree knows no booted deployment: %s", m.Name(), out)
}
