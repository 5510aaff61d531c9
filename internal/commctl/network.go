package commctl

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) networkCommand() *cobra.Command {
	return group("network", "Networks of containers", a.networkCreate(), a.networkDelete(), a.networkGet(), a.networkList())
}

var networkView = view[client.Network]{
	name: func(n client.Network) string { return n.Name },
	columns: []column[client.Network]{
		{head: "NAME", cell: func(n client.Network) string { return n.Name }},
		{head: "TYPE", cell: func(n client.Network) string { return string(n.Type) }},
		{head: "OPTIONS", wide: true, cell: func(n client.Network) string { return compact(n.Options) }},
	},
}

func (a *App) networkCreate() *cobra.Command {
	kind, options := "flannel_etcd", "{}"
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a network; it cannot be changed later", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: `  commctl network create -t flannel_server -o '{"address": "192.0.2.1:8080"}' overlay`,
		RunE: func(cmd *cobra.Command, args []string) error {
			members, err := object(options)
			if err != nil {
				return fmt.Errorf("--options: %w", err)
			}
			return a.old(cmd.Context(), http.MethodPut, route("network", args[0]), map[string]any{"type": kind, "options": members})
		},
	}
	choiceFlag(cmd, &kind, "type", "t", []string{"flannel_etcd", "flannel_server"}, "`TYPE` of network: flannel_etcd or flannel_server")
	cmd.Flags().StringVarP(&options, "options", "o", options, "options as a `JSON` object")
	return cmd
}

func (a *App) networkDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME...", Short: "Delete networks", Args: nameArgs(cobra.MinimumNArgs(1), 0, allArgs),
		Example: "  commctl network delete overlay",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deleteEach(cmd.Context(), routes("network", args), a.remove)
		},
	}
}

func (a *App) networkGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a network", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl network get default",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return oldGet(a, cmd, *format, networkView, route("network", args[0]))
	}
	return cmd
}

func (a *App) networkList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the names of all networks",
		Args:    cobra.MaximumNArgs(1), // old clients take a name here and do nothing with it
		Example: "  commctl network list",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return oldList(a, cmd, *format, nameView("NAME"), route("networks"))
	}
	return cmd
}

// object reads a JSON object.
func object(text string) (map[string]any, error) {
	value, err := decode([]byte(text))
	members, ok := value.(map[string]any)
	if err != nil || !ok {
		// The text may hold a secret, so it is not repeated.
		return nil, fmt.Errorf(`must be a JSON object such as '{"name": "value"}'`)
	}
	return members, nil
}

// compact shows options on a line.
func compact(options map[string]any) string {
	text, err := json.Marshal(options)
	if err != nil || len(options) == 0 {
		return ""
	}
	return string(text)
}
