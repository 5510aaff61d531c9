package privatepg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// binaryPlaces are where distributions install the server: Debian and Ubuntu,
// the PGDG packages for Fedora and RHEL, from source. Fedora's own are on PATH.
var binaryPlaces = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"}

// oldestMajor has all that the schema uses (ON DELETE SET NULL with columns).
const oldestMajor = 15

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// findBinaries gives the directory with initdb and postgres: of the wanted
// major version when there is data already, else the newest.
func findBinaries(ctx context.Context, given, major string) (string, error) {
	dirs := []string{given}
	if given == "" {
		dirs = candidates()
	}
	type found struct {
		dir   string
		major int
	}
	var all []found
	for _, dir := range dirs {
		if m, err := majorOf(ctx, dir); err == nil {
			all = append(all, found{dir, m})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(b.major, a.major) })
	for _, f := range all {
		if major == strconv.Itoa(f.major) || major == "" && f.major >= oldestMajor {
			return f.dir, nil
		}
	}
	looked := strings.Join(dirs, ", ")
	if major != "" {
		return "", fmt.Errorf("the data there needs PostgreSQL %s, which is not installed (looked in %s); run: apt-get install postgresql-%s", major, looked, major)
	}
	return "", fmt.Errorf("no PostgreSQL server of version %d or newer found (looked in %s); run: apt-get install postgresql (Fedora: dnf install postgresql-server), or give the DSN of a server that you run", oldestMajor, looked)
}

func candidates() []string {
	var dirs []string
	for _, pattern := range binaryPlaces {
		// The patterns are constants, so Glob cannot fail.
		m, _ := filepath.Glob(pattern)
		dirs = append(dirs, m...)
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if len(dirs) == 0 {
		return append(slices.Clone(binaryPlaces), "PATH")
	}
	return dirs
}

func majorOf(ctx context.Context, dir string) (int, error) {
	if info, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || info.Mode()&0o111 == 0 {
		return 0, errors.New("no initdb")
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("unknown version %q", out)
	}
	return strconv.Atoi(string(m[1]))
}
