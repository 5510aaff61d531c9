package nspawntest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// RPMPackages are what the machines need beyond their base to build, offer and
// upgrade RPM packages: Debian has dnf. See [Options].
var RPMPackages = []string{"dnf", "rpm", "createrepo-c", "dnf-plugins-core"}

// RPM is an RPM package of one small file.
type RPM struct {
	Name, Version string
	// Post is the script that runs after an install or upgrade, in rpm's own Lua: a
	// shell would be a package that nothing here provides. "" for none.
	Post string
}

func (p RPM) spec() string {
	post := ""
	if p.Post != "" {
		post = "%post -p <lua>\n" + p.Post + "\n"
	}
	return fmt.Sprintf(`Name: %[1]s
Version: %[2]s
Release: 1
Summary: a package for tests
License: Apache-2.0
BuildArch: noarch
AutoReqProv: no
%%description
A package for tests.
%%install
mkdir -p %%{buildroot}/usr/share/%[1]s
echo %[2]s > %%{buildroot}/usr/share/%[1]s/version
%[3]s%%files
/usr/share/%[1]s
`, p.Name, p.Version, post)
}

// PublishRPM builds packages on a machine that has RPMPackages, which must be the
// same each time, and offers them beside those of apt.
func (r *Repository) PublishRPM(ctx context.Context, builder *Machine, packages ...RPM) error {
	const script = `mkdir -p /var/lib/nspawntest-rpm
cd /var/lib/nspawntest-rpm
for spec; do
	printf %s "$spec" > /tmp/p.spec
	rpmbuild -bb --quiet --define "_topdir /tmp/rpmbuild" --define "_rpmdir $PWD" /tmp/p.spec >&2
done
createrepo_c --quiet . >&2
exec tar -c .`
	argv := []string{"sh", "-ec", script, "build"}
	for _, p := range packages {
		argv = append(argv, p.spec())
	}
	packed, err := builder.Run(ctx, argv...)
	if err != nil {
		return fmt.Errorf("build RPM packages: %w", err)
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(strings.NewReader(packed)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the RPM repository: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if files[path.Join("/rpm", header.Name)], err = io.ReadAll(archive); err != nil {
			return fmt.Errorf("read the RPM repository: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, content := range files {
		r.files[name] = content
	}
	return nil
}

// InstallRPM makes r the one package source of m's dnf, as an administrator would,
// and installs the newest of these packages from it. What is published later is
// seen by the next command: dnf would keep its lists for two days. Debian's plug-in
// that keeps a repository of what was installed is off: it wants keys.
func (r *Repository) InstallRPM(ctx context.Context, m *Machine, names ...string) error {
	const script = `mkdir -p /etc/yum.repos.d /etc/dnf/vars
printf '[main]\nenabled=0\n' > /etc/dnf/plugins/local.conf
. /etc/os-release
echo "$VERSION_ID" > /etc/dnf/vars/releasever
printf '[nspawntest]\nname=nspawntest\nbaseurl=%s/rpm/\ngpgcheck=0\nmetadata_expire=0\n' "$1" > /etc/yum.repos.d/nspawntest.repo
shift
dnf -q -y install "$@"`
	_, err := m.Run(ctx, append([]string{"sh", "-ec", script, "install", r.url}, names...)...)
	return err
}
