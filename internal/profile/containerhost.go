package profile

import (
	"fmt"

	"commissaire/internal/hostos"
)

// containerHost prepares today's way. Networks of flannel are not its affair: a
// cluster brings its own.
func containerHost(in Input) (Content, error) {
	family, err := in.family()
	if err != nil {
		return Content{}, err
	}
	if in.Manager != nil && in.Manager.Kubelet {
		return node(in, family)
	}
	runtime := podman
	if family.Name() == "apt" {
		runtime = containerd
	}
	files, err := runtime.mirror(in.Settings.RegistryMirror)
	if err != nil {
		return Content{}, err
	}
	c := Content{Files: files}
	if runtime.pkg == containerd.pkg && len(files) > 0 {
		c.Notes = []string{fmt.Sprintf("Who pulls by containerd's CRI, such as a kubelet or crictl, gets images from the mirror only when config_path in %s is %q; nerdctl looks there by itself.", containerdConfig, certsDir)}
	}
	if !family.Stages() {
		c.install(in, family, runtime.pkg)
		c.Services = runtime.services
	}
	return c, nil
}

// install adds packages, a group of each, with the commands that make them known.
func (c *Content) install(in Input, family hostos.Family, names ...string) {
	c.Repositories = family.EnableRepositories(in.Host.OS, in.Host.OSVersion)
	for _, name := range names {
		c.Packages = append(c.Packages, []string{name})
	}
}
