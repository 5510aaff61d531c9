package hostos

import "strings"

var _ = register(yum{dnf{packages{"yum"}}})

// yum is dnf's predecessor, by yum(8) of version 3. It answers as dnf does.
type yum struct{ dnf }

func (yum) systems() []string { return []string{"centos", "rhel", "redhat", "ol"} }

// EnableRepositories is for RHEL 7 alone: container packages are in repositories
// there that a subscription does not switch on. CentOS has its own on.
func (yum) EnableRepositories(os, version string) [][]string {
	major, _, _ := strings.Cut(version, ".")
	if (os != "rhel" && os != "redhat") || major != "7" {
		return nil
	}
	return [][]string{{
		"subscription-manager", "repos",
		"--enable=rhel-7-server-extras-rpms", "--enable=rhel-7-server-optional-rpms",
	}}
}
