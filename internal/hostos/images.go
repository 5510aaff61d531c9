package hostos

import (
	"fmt"

	"commissaire/internal/fleet"
)

// images is what families have in common that boot a whole system. Their host
// runs what it booted, so what is left and whether a reboot is needed are one
// question: is there something staged?
type images struct{}

func (images) Stages() bool      { return true }
func (images) manager() string   { return "" }
func (images) systems() []string { return nil }

func (images) EnableRepositories(string, string) [][]string { return nil }

func (images) Installed(packages []string) []string {
	return shell(rpmInstalled, "installed", packages...)
}

func (images) Install([]string) ([]string, error) {
	return nil, fleet.Errorf(fleet.NotReady, "the host runs an image, on which nothing can be installed; put the packages into the image and deploy it")
}

// leftover reads what is staged by the family's own words for it.
func leftover(f Family, exit int, stdout string) ([]string, error) {
	now, err := f.ParseDeployments(exit, stdout)
	if err != nil || now.Staged.IsZero() {
		return nil, err
	}
	return []string{now.Staged.String()}, nil
}

func rebootNeeded(f Family, exit int, stdout string) (needed bool, why string, err error) {
	left, err := leftover(f, exit, stdout)
	if err != nil || len(left) == 0 {
		return false, "", err
	}
	return true, fmt.Sprintf("%s is staged", left[0]), nil
}
