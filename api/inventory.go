package api

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// The hosts as other programs read them. An address is a name or an IP literal, and a
// user a login name, so none of them needs quotes in any of these formats.

func (h *handlers) GetInventory(ctx context.Context, r gen.GetInventoryRequestObject) (gen.GetInventoryResponseObject, error) {
	hosts, err := h.Store.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	switch r.Params.Format {
	case gen.Ansible:
		return gen.GetInventory200JSONResponse(ansibleInventory(hosts)), nil
	case gen.SshConfig:
		return gen.GetInventory200TextResponse(sshConfig(hosts)), nil
	}
	return gen.GetInventory200TextResponse(knownHosts(hosts)), nil
}

// ansibleInventory is what a dynamic inventory prints with --list, with a group for each
// cluster.
func ansibleInventory(hosts []store.InventoryHost) map[string]any {
	vars, jumps := map[string]any{}, jumps(hosts)
	groups := map[string][]string{} // by the name of the cluster
	for _, h := range hosts {
		v := map[string]any{
			"ansible_host": h.Address, "ansible_port": h.Port, "ansible_user": h.RemoteUser,
			"commissaire_status": h.State, "commissaire_labels": some(h.Labels),
		}
		for name, text := range map[string]string{"cluster": h.Cluster, "os": h.OS, "os_version": h.OSVersion, "package_manager": h.PackageManager} {
			if text != "" {
				v["commissaire_"+name] = text
			}
		}
		if jump := jumps[h.Through]; jump != "" {
			v["ansible_ssh_common_args"] = "-o ProxyJump=" + jump
		}
		vars[h.Address] = v
		groups[h.Cluster] = append(groups[h.Cluster], h.Address)
	}
	inventory := map[string]any{"_meta": map[string]any{"hostvars": vars}}
	children := []string{"ungrouped"}
	inventory["ungrouped"] = map[string]any{"hosts": list(groups[""])}
	delete(groups, "")
	for cluster, name := range groupNames(slices.Collect(maps.Keys(groups))) {
		children = append(children, name)
		inventory[name] = map[string]any{"hosts": groups[cluster]}
	}
	slices.Sort(children[1:])
	inventory["all"] = map[string]any{"children": children}
	return inventory
}

// groupNames gives clusters names as Ansible wants groups to be called: of letters, digits
// and '_', which stands for '-', too. Clusters that would share such a name have others
// all, so that nobody means one of them and gets another.
func groupNames(clusters []string) map[string]string {
	plain := strings.NewReplacer("-", "_")
	exact := strings.NewReplacer("-", "_d", "_", "_u") // every name gives another one
	users := map[string]int{}
	for _, c := range clusters {
		users[plain.Replace(c)]++
	}
	names := map[string]string{}
	for _, c := range clusters {
		names[c] = "cluster_" + plain.Replace(c)
		if users[plain.Replace(c)] > 1 {
			names[c] = "exact_" + exact.Replace(c)
		}
	}
	return names
}

// sshConfig is for an Include of ssh_config(5).
func sshConfig(hosts []store.InventoryHost) string {
	var b strings.Builder
	jumps := jumps(hosts)
	for _, h := range hosts {
		fmt.Fprintf(&b, "Host %s\n    HostName %s\n    Port %d\n    User %s\n", h.Address, h.Address, h.Port, h.RemoteUser)
		if jump := jumps[h.Through]; jump != "" {
			fmt.Fprintf(&b, "    ProxyJump %s\n", jump)
		}
	}
	return b.String()
}

// jumps is how ssh(1) names the hosts that are bastions of others, by their addresses.
func jumps(hosts []store.InventoryHost) map[string]string {
	names := map[string]string{}
	for _, h := range hosts {
		if h.Through != "" {
			names[h.Through] = ""
		}
	}
	for _, h := range hosts {
		if _, bastion := names[h.Address]; bastion {
			names[h.Address] = h.RemoteUser + "@" + net.JoinHostPort(h.Address, strconv.Itoa(h.Port))
		}
	}
	return names
}

// knownHosts is the file of host keys that sshd(8) describes. A host whose key is not
// pinned yet is a comment.
func knownHosts(hosts []store.InventoryHost) string {
	var b strings.Builder
	for _, h := range hosts {
		name := h.Address
		if h.Port != fleet.DefaultPort {
			name = "[" + h.Address + "]:" + strconv.Itoa(h.Port)
		}
		if h.HostKey == nil {
			fmt.Fprintf(&b, "# %s: no key is pinned yet\n", name)
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", name, h.HostKey.Key)
	}
	return b.String()
}
