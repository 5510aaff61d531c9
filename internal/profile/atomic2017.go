package profile

import (
	"fmt"
	"slices"

	"commissaire/internal/fleet"
)

// DefaultMirror is the registry that Atomic2017 takes when no other is set.
const DefaultMirror = "http://127.0.0.1:8080"

const dockerConfig = "/etc/sysconfig/docker"

// atomicFamilies are those for which the profile was made, and bootc, which came of
// them.
var atomicFamilies = []string{"dnf", "yum", "rpm-ostree", "bootc"}

func atomic2017(in Input) (Content, error) {
	family, err := in.family()
	if err != nil {
		return Content{}, err
	}
	if !slices.Contains(atomicFamilies, family.Name()) {
		return Content{}, fleet.Errorf(fleet.NotReady, "the profile %s is for Fedora, CentOS and RHEL, and the host upgrades by %s; choose the profile %s", Atomic2017, family.Name(), ContainerHost)
	}
	network, err := in.network()
	if err != nil {
		return Content{}, err
	}
	c := Content{Services: append(slices.Clone(network.services), "docker")}
	if c.Files, err = network.files(in); err != nil {
		return Content{}, err
	}
	docker, err := dockerFile(in.Settings.RegistryMirror)
	if err != nil {
		return Content{}, err
	}
	c.Files = append(c.Files, docker)
	packages := append(append([]string{"libselinux-python"}, network.packages...), "docker")
	if in.Manager != nil && in.Manager.Type == fleet.ContainerManagerKubernetes {
		files, err := atomicKubelet(in)
		if err != nil {
			return Content{}, err
		}
		c.Files = append(c.Files, files...)
		c.Services = append(c.Services, atomicKubeServices...)
		if len(in.Manager.CA) == 0 {
			c.Notes = append(c.Notes, "The kubelet does not check who the Kubernetes API is, since the container manager has no certificate_ca_path.")
		}
		packages = append(packages, "kubernetes-node")
	}
	if !family.Stages() {
		c.install(in, family, packages...)
	}
	return c, nil
}

func dockerFile(mirror string) (File, error) {
	if mirror == "" {
		mirror = DefaultMirror
	}
	if _, err := parseURL(mirrorField, mirror); err != nil {
		return File{}, err
	}
	// Proxies may stand in it, with passwords.
	return concealing(public(dockerConfig, fmt.Sprintf("OPTIONS='--registry-mirror=%s --selinux-enabled --log-driver=journald'\nDOCKER_CERT_PATH=/etc/docker\n", mirror), "docker")), nil
}
