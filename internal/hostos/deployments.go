package hostos

import (
	"errors"
	"regexp"
	"strings"
)

// Deployments are what a host that boots images runs, and what it boots next.
type Deployments struct {
	Booted Deployment
	// Staged is what the next boot brings in place of Booted, also when it is an
	// earlier one that somebody rolled back to. Zero when nothing changes.
	Staged Deployment
}

// Deployment is one bootable version of a whole system.
type Deployment struct {
	Version  string // as the image names itself, "" when it does not
	Checksum string // rpm-ostree: OSTree commit; bootc: digest of the image, "sha256:…"
	Base     string // rpm-ostree: commit below locally layered packages, "" without them
	Image    string // bootc, and rpm-ostree on images: reference, "" else

	// Of bootc, kept when another image is deployed.
	transport string
	signature string // how it must be signed, as bootc's JSON has it
}

// IsZero says whether there is no such deployment.
func (d Deployment) IsZero() bool { return d == Deployment{} }

var (
	// namePattern holds names of packages with architecture (deb-version(7), RPM).
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~:@^-]*$`)
	// imagePattern holds references of images. None begins like an option.
	imagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~:/@-]{0,511}$`)
	// checksumPattern holds OSTree commits and OCI digests.
	checksumPattern = regexp.MustCompile(`^([a-z0-9]+:)?[0-9a-f]{32,128}$`)
	// versionPattern holds what a deployment may call itself.
	versionPattern = regexp.MustCompile(`^[!-~][ -~]{0,127}$`)
)

// String names a deployment as well as it can be named: by its version, else by
// its image or checksum.
func (d Deployment) String() string {
	switch {
	case d.Version != "":
		return d.Version
	case d.Image != "":
		return d.Image
	}
	return d.Checksum
}

// Is says whether d is what a deploy of this version asks for.
func (d Deployment) Is(version string) bool {
	if d.IsZero() || version == "" {
		return false
	}
	if d.Image != "" && imageOf(version, d) == d.Image {
		return true
	}
	const short = 8 // digits of a checksum that name it
	abbreviated := len(version) >= short && (strings.HasPrefix(d.Checksum, version) || strings.HasPrefix(d.Base, version))
	return version == d.Version || abbreviated
}

// check refuses what no host answers: a deployment must be known by its checksum,
// and nothing in it may be harmful where it is shown or given to a command.
func (d *Deployment) check() error {
	if !checksumPattern.MatchString(d.Checksum) {
		return errors.New("a deployment has no readable checksum")
	}
	if d.Base != "" && !checksumPattern.MatchString(d.Base) {
		return errors.New("a deployment has an unreadable base checksum")
	}
	if d.Image != "" && !imagePattern.MatchString(d.Image) {
		return errors.New("a deployment has an unreadable image reference")
	}
	if !versionPattern.MatchString(d.Version) {
		d.Version = "" // for show only
	}
	return nil
}
