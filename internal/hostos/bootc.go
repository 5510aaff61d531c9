package hostos

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"commissaire/internal/fleet"
)

//go:embed script/status_bootc.sh
var bootcStatus string

var bootcFamily = register(bootc{})

// bootc is a container image that boots, by bootc(8).
type bootc struct{ images }

func (bootc) Name() string { return "bootc" }

// Upgrade stages the newest image of the reference that the host follows. While
// another process changes the system, bootc waits for it without end; the
// deadline of the step is what ends it.
func (bootc) Upgrade() []string { return []string{"bootc", "upgrade"} }

// Deploy switches to the reference that version stands for; see imageOf. How the
// present image is fetched and whether its signature must hold stay as they are.
func (bootc) Deploy(version string, now Deployments) ([]string, error) {
	version, err := fleet.ParseVersion(version)
	if err != nil {
		return nil, err
	}
	image := imageOf(version, now.Booted)
	if image == "" {
		return nil, fleet.Errorf(fleet.NotReady, "the host does not say which image it runs, so %q is no image on it; give a whole reference", version)
	}
	argv := []string{"bootc", "switch"}
	switch now.Booted.signature {
	case "", `"insecure"`, "null":
	case `"containerPolicy"`:
		argv = append(argv, "--enforce-container-sigpolicy")
	default:
		return nil, fleet.Errorf(fleet.NotReady, "the host checks signatures of its image in a way that bootc switch would give up; switch it by hand")
	}
	if t := now.Booted.transport; t != "" && t != "registry" && !reference(version) {
		argv = append(argv, "--transport", t)
	}
	return append(argv, image), nil
}

// Rollback makes the earlier image the next to boot and drops one that is staged.
func (bootc) Rollback() ([]string, error) { return []string{"bootc", "rollback"}, nil }

func (bootc) Deployments() []string { return shell(bootcStatus, "status") }

func (f bootc) Leftover() []string { return f.Deployments() }
func (f bootc) ParseLeftover(exit int, stdout string) ([]string, error) {
	return leftover(f, exit, stdout)
}

func (f bootc) RebootNeeded() []string { return f.Deployments() }
func (f bootc) ParseRebootNeeded(exit int, stdout string) (bool, string, error) {
	return rebootNeeded(f, exit, stdout)
}

var digestPattern = regexp.MustCompile(`^sha(256|512):[0-9a-f]{64,128}$`)

// reference says whether a version is a whole image reference: neither a tag nor
// a digest of the image that the host runs.
func reference(version string) bool {
	return strings.ContainsAny(version, "/@:") && !digestPattern.MatchString(version)
}

// imageOf gives the image that a version means on a host that runs now: a
// reference is one, a digest or a tag is that of the present image. It is "" when
// the present image is not known.
func imageOf(version string, now Deployment) string {
	if reference(version) {
		return version
	}
	name, _, _ := strings.Cut(now.Image, "@")
	if name == "" {
		return ""
	}
	// A colon before the last slash is that of a registry's port.
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	if digestPattern.MatchString(version) {
		return name + "@" + version
	}
	return name + ":" + version
}

// bootcEntry is one of the up to three systems in "bootc status".
type bootcEntry struct {
	Image *struct {
		Image struct {
			Image     string          `json:"image"`
			Transport string          `json:"transport"`
			Signature json.RawMessage `json:"signature"`
		} `json:"image"`
		Version string `json:"version"`
		Digest  string `json:"imageDigest"`
	} `json:"image"`
}

// ParseDeployments reads "bootc status" as JSON (org.containers.bootc/v1 and its
// alphas).
func (bootc) ParseDeployments(exit int, stdout string) (Deployments, error) {
	var host struct {
		Status struct {
			Booted         *bootcEntry `json:"booted"`
			Staged         *bootcEntry `json:"staged"`
			Rollback       *bootcEntry `json:"rollback"`
			RollbackQueued bool        `json:"rollbackQueued"`
		} `json:"status"`
	}
	if exit != 0 {
		return Deployments{}, fmt.Errorf("bootc does not say what the host runs (exit code %d)", exit)
	}
	if err := json.Unmarshal([]byte(stdout), &host); err != nil {
		return Deployments{}, fmt.Errorf("the status of bootc cannot be read: %w", err)
	}
	next := host.Status.Staged
	if next == nil && host.Status.RollbackQueued {
		next = host.Status.Rollback
	}
	booted, err := host.Status.Booted.deployment()
	if err != nil {
		return Deployments{}, fmt.Errorf("the status of bootc, booted: %w", err)
	}
	if next == nil {
		return Deployments{Booted: booted}, nil
	}
	staged, err := next.deployment()
	if err != nil {
		return Deployments{}, fmt.Errorf("the status of bootc, staged: %w", err)
	}
	return Deployments{Booted: booted, Staged: staged}, nil
}

func (e *bootcEntry) deployment() (Deployment, error) {
	if e == nil || e.Image == nil || e.Image.Image.Image == "" {
		return Deployment{}, fmt.Errorf("it names no image")
	}
	i := e.Image
	d := Deployment{
		Version: i.Version, Checksum: i.Digest, Image: i.Image.Image,
		transport: i.Image.Transport, signature: string(i.Image.Signature),
	}
	if d.transport != "" && !transportPattern.MatchString(d.transport) {
		return Deployment{}, fmt.Errorf("it names an unreadable transport")
	}
	return d, d.check()
}

var transportPattern = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)
