package nspawntest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// archive is where this machine's own packages come from.
type archive struct {
	uri, components string
	proxy           string // apt's, which debootstrap does not know of
}

// aptArchive asks apt for the archive of a release, so that a configured mirror
// is used and no address is built in.
func aptArchive(ctx context.Context, suite string) (archive, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return archive{}, fmt.Errorf("ask apt for its package archive: %w", err)
	}
	var found archive
	var components []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != suite {
			continue
		}
		if found.uri == "" {
			found.uri = f[0]
		}
		if f[0] == found.uri {
			components = append(components, f[2])
		}
	}
	if found.uri == "" {
		return archive{}, fmt.Errorf("apt has no package archive for %s; look at /etc/apt/sources.list.d, then run apt-get update", suite)
	}
	found.components = strings.Join(components, ",")
	out, err = exec.CommandContext(ctx, "apt-config", "shell", "proxy", "Acquire::http::Proxy").Output()
	if err != nil {
		return archive{}, fmt.Errorf("ask apt for its proxy: %w", err)
	}
	proxy, _ := strings.CutPrefix(strings.TrimSpace(string(out)), "proxy=")
	found.proxy = strings.Trim(proxy, "'")
	return found, nil
}

// codename is this machine's release, as its archive calls it.
func codename() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME: not a Debian or Ubuntu machine")
}
