package commctl

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) clusterCommand() *cobra.Command {
	return group("cluster", "Clusters, and what is rolled over their hosts",
		a.clusterCreate(), a.clusterDelete(), a.clusterGet(), a.clusterList(),
		a.clusterOperation("deploy", "Bring the hosts of a cluster to a version of their system"),
		a.clusterOperation("restart", "Restart the hosts of a cluster"),
		a.clusterOperation("upgrade", "Upgrade the hosts of a cluster"),
		a.clusterPolicy(), a.clusterBastion(),
	)
}

var clusterView = view[client.ClusterDetail]{
	name: func(c client.ClusterDetail) string { return c.Name },
	columns: []column[client.ClusterDetail]{
		{head: "NAME", cell: func(c client.ClusterDetail) string { return c.Name }},
		{head: "STATUS", cell: func(c client.ClusterDetail) string { return string(c.Status) }},
		{head: "HOSTS", cell: func(c client.ClusterDetail) string { return strconv.Itoa(c.Hosts.Total) }},
		{head: "AVAILABLE", cell: func(c client.ClusterDetail) string { return strconv.Itoa(c.Hosts.Available) }},
		{head: "NETWORK", wide: true, cell: func(c client.ClusterDetail) string { return c.Network }},
		{head: "CONTAINER-MANAGER", wide: true, cell: func(c client.ClusterDetail) string { return c.ContainerManager }},
		{head: "PROFILE", wide: true, cell: func(c client.ClusterDetail) string { return c.Profile }},
		{head: "BASTION", wide: true, cell: func(c client.ClusterDetail) string { return c.Bastion }},
	},
}

// nameView shows lists that hold names alone.
func nameView(head string) view[string] {
	same := func(name string) string { return name }
	return view[string]{name: same, columns: []column[string]{{head: head, cell: same}}}
}

func (a *App) clusterCreate() *cobra.Command {
	body := struct {
		Type             string `json:"type"` // nobody reads it any more, but old servers do
		Network          string `json:"network"`
		ContainerManager string `json:"container_manager"`
		Profile          string `json:"profile,omitempty"` // unknown to old servers, as what follows
		Bastion          string `json:"bastion,omitempty"`
	}{Type: "kubernetes", Network: "default"}
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a cluster, or change its network, container manager, profile and bastion", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster create web\n  commctl cluster create --container-manager kube web\n  commctl cluster create --profile none web",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.old(cmd.Context(), http.MethodPut, route("cluster", args[0]), body)
		},
	}
	choiceFlag(cmd, &body.Type, "type", "t", []string{"kubernetes", "host_only"}, "`TYPE` of cluster, for old servers: kubernetes or host_only")
	cmd.Flags().StringVarP(&body.Network, "network", "n", body.Network, "`NAME` of its network")
	cmd.Flags().StringVarP(&body.ContainerManager, "container-manager", "c", "", "`NAME` of its container manager")
	cmd.Flags().StringVar(&body.Bastion, "bastion", "", "`HOST` through which its hosts are reached, by its address")
	choiceFlag(cmd, &body.Profile, "profile", "", []string{"none", "container-host", "atomic-2017"}, "`NAME` of what a bootstrap puts on its hosts: none, container-host or atomic-2017 (default: as the server is configured)")
	return cmd
}

func (a *App) clusterDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Short: "Delete clusters; their hosts stay", Args: nameArgs(cobra.MinimumNArgs(1), 0, allArgs),
		Example: "  commctl cluster delete web",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deleteEach(cmd.Context(), routes("cluster", args), a.remove)
		},
	}
}

// routes gives the paths of several things of a kind.
func routes(kind string, names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = route(kind, name)
	}
	return all
}

func (a *App) clusterGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a cluster and its hosts", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster get web\n  commctl cluster get -o json web",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return oldGet(a, cmd, *format, clusterView, route("cluster", args[0]))
	}
	return cmd
}

func (a *App) clusterList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the names of all clusters", Args: cobra.NoArgs,
		Example: "  commctl cluster list",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return oldList(a, cmd, *format, nameView("NAME"), route("clusters"))
	}
	return cmd
}
