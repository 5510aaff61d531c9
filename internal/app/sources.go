package app

import (
	"fmt"

	"commissaire/internal/config"
	"commissaire/internal/hostsource"
)

// hostSources makes the sources of the settings. Servers only need to know which there
// are; workers ask them.
func hostSources(c *config.Config) ([]hostsource.Configured, error) {
	var specs []hostsource.Spec
	for _, p := range c.HostSources {
		specs = append(specs, hostsource.Spec{Name: p.Name, Options: p.Options})
	}
	all, err := hostsource.Build(specs)
	if err != nil {
		return nil, fmt.Errorf("host-sources: %w", err)
	}
	return all, nil
}
