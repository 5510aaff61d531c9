package hostos

import (
	_ "embed"
	"fmt"
	"strings"

	"commissaire/internal/fleet"
)

//go:embed script/installed_rpm.sh
var rpmInstalled string

// ParseInstalled reads the answer to Installed of any family: which of the packages
// are missing, in their order. An answer that leaves one out is an error, since
// neither may be guessed.
func ParseInstalled(packages []string, exit int, stdout string) (missing []string, err error) {
	if exit != 0 {
		return nil, fmt.Errorf("the host does not say what is installed (exit code %d)", exit)
	}
	verdicts := map[string]string{}
	for line := range strings.Lines(stdout) {
		if verdict, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
			verdicts[name] = verdict
		}
	}
	for _, name := range packages {
		switch verdicts[name] {
		case "installed":
		case "missing":
			missing = append(missing, name)
		default:
			return nil, fmt.Errorf("the host does not say whether %s is installed", name)
		}
	}
	return missing, nil
}

// checkPackages refuses names that are no names of packages: one could be read as an
// option, a pattern for many, or a verb of apt-get, for which "x-" is "remove x" and
// "x^" a task. Its "x+" is what is asked for, and g++ ends so.
func checkPackages(names []string) error {
	if len(names) == 0 {
		return fleet.Errorf(fleet.Invalid, "no package is named to install")
	}
	for _, name := range names {
		if len(name) > 128 || !namePattern.MatchString(name) || strings.HasSuffix(name, "-") || strings.HasSuffix(name, "^") {
			return fleet.Errorf(fleet.Invalid, "%q is no name of a package", name)
		}
	}
	return nil
}
