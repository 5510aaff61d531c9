package profile

import (
	"fmt"
	"strings"
)

// runtime is what runs containers.
type runtime struct {
	pkg      string   // which brings it
	services []string // none when it needs no service
	endpoint string   // of its CRI, for a kubelet; "" when it has none
	// mirror gives the files by which images of Docker Hub come from a mirror; none
	// for "".
	mirror func(url string) ([]File, error)
}

var (
	containerd = runtime{
		pkg: "containerd", services: []string{"containerd"}, endpoint: "unix:///run/containerd/containerd.sock",
		mirror: containerdMirror,
	}
	crio = runtime{
		pkg: "cri-o", services: []string{"crio"}, endpoint: "unix:///var/run/crio/crio.sock",
		mirror: func(url string) ([]File, error) { return registriesConf(url, "crio") },
	}
	podman = runtime{
		pkg: "podman", mirror: func(url string) ([]File, error) { return registriesConf(url) },
	}
)

// certsDir is where containerd finds the mirrors of a registry (its docs/hosts.md), for
// every pull anew. For pulls over the CRI its config_path must say so, which
// containerdConfig does and the configurations of Debian and Ubuntu do not.
const certsDir = "/etc/containerd/certs.d"

func containerdMirror(url string) ([]File, error) {
	if url == "" {
		return nil, nil
	}
	if _, err := parseURL(mirrorField, url); err != nil {
		return nil, err
	}
	// Headers may stand in it, with a password for the mirror.
	return []File{concealing(public(certsDir+"/docker.io/hosts.toml", fmt.Sprintf(`server = "https://registry-1.docker.io"

[host."%s"]
  capabilities = ["pull", "resolve"]
`, url)))}, nil
}

// registriesConf is a mirror for podman and CRI-O, by
// containers-registries.conf.d(5).
func registriesConf(url string, restarts ...string) ([]File, error) {
	if url == "" {
		return nil, nil
	}
	u, err := parseURL(mirrorField, url)
	if err != nil {
		return nil, err
	}
	_, location, _ := strings.Cut(url, "://") // as it is given: nothing in it is decoded
	return []File{public("/etc/containers/registries.conf.d/50-commissaire.conf", fmt.Sprintf(`[[registry]]
location = "docker.io"

[[registry.mirror]]
location = "%s"
insecure = %t
`, strings.TrimRight(location, "/"), u.Scheme == "http"), restarts...)}, nil
}
