package commctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) containerManagerCommand() *cobra.Command {
	cmd := group("container_manager", "Container managers, with which hosts of clusters are registered",
		a.containerManagerCreate(), a.containerManagerUpdate(), a.containerManagerDelete(), a.containerManagerGet(), a.containerManagerList())
	cmd.Aliases = []string{"container-manager", "containermanager"}
	return cmd
}

var containerManagerView = view[client.ContainerManager]{
	name: func(c client.ContainerManager) string { return c.Name },
	columns: []column[client.ContainerManager]{
		{head: "NAME", cell: func(c client.ContainerManager) string { return c.Name }},
		{head: "TYPE", cell: func(c client.ContainerManager) string { return string(c.Type) }},
		{head: "OPTIONS", wide: true, cell: func(c client.ContainerManager) string { return compact(c.Options) }},
	},
}

func (a *App) containerManagerCreate() *cobra.Command {
	kind := "openshift"
	var options []string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a container manager", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl container_manager create -t kubernetes -o server_url=https://192.0.2.1:6443 -o token=sha256~example -o max_unavailable=10% kube\n" +
			`  commctl container_manager create -o '{"server_url": "https://192.0.2.1:8443"}' shift`,
		RunE: func(cmd *cobra.Command, args []string) error {
			merged, err := mergeOptions(options)
			if err != nil {
				return fmt.Errorf("--options: %w", err)
			}
			return a.old(cmd.Context(), http.MethodPut, route("containermanager", args[0]), map[string]any{"type": kind, "options": merged})
		},
	}
	choiceFlag(cmd, &kind, "type", "t", []string{"openshift", "kubernetes", "trivial"}, "`TYPE`: openshift, kubernetes or trivial")
	optionsFlag(cmd, &options)
	return cmd
}

func optionsFlag(cmd *cobra.Command, options *[]string) {
	cmd.Flags().StringArrayVarP(options, "options", "o", nil, "`KEY=VALUE`, such as kubelet=true, or a JSON object; may be repeated, the last one wins")
}

func (a *App) containerManagerUpdate() *cobra.Command {
	var options []string
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change options of a container manager; the others stay", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Long: `Change options of a container manager; the others stay, and so do its nodes. The
new ones are checked first, and the old ones are in force meanwhile. null in a
JSON object takes an option away. Do not point it to another cluster of
Kubernetes: nobody can tell, and its nodes are not there.`,
		Example: "  commctl container_manager update kube -o token=sha256~example\n" +
			`  commctl container_manager update kube -o '{"max_unavailable": null}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := mergeOptions(options)
			if err != nil {
				return fmt.Errorf("--options: %w", err)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			old, err := fetch[client.ContainerManager](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
				return c.GetContainerManager(ctx, args[0])
			})
			if err != nil {
				return err
			}
			merged := map[string]any{}
			maps.Copy(merged, old.Options) // secrets as they are shown, which leaves them as they are
			maps.Copy(merged, changes)
			maps.DeleteFunc(merged, func(_ string, value any) bool { return value == nil })
			return a.old(cmd.Context(), http.MethodPut, route("containermanager", args[0])+"?replace=true", map[string]any{"type": old.Type, "options": merged})
		},
	}
	optionsFlag(cmd, &options)
	_ = cmd.MarkFlagRequired("options")
	return cmd
}

// mergeOptions puts options together, each KEY=VALUE or a JSON object.
func mergeOptions(texts []string) (map[string]any, error) {
	merged := map[string]any{}
	for _, text := range texts {
		if strings.HasPrefix(strings.TrimSpace(text), "{") {
			members, err := object(text)
			if err != nil {
				return nil, err
			}
			maps.Copy(merged, members)
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, errors.New("must be KEY=VALUE or a JSON object")
		}
		merged[key] = value
	}
	return merged, nil
}

func (a *App) containerManagerDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "Delete container managers; their nodes stay there", Args: nameArgs(cobra.MinimumNArgs(1), 0, allArgs),
		Long: `Delete container managers; their nodes stay there. One where rollouts have nodes
cordoned is refused; with --force it goes nevertheless, and these nodes stay
cordoned until somebody uncordons them by hand.`,
		Example: "  commctl container_manager delete kube",
	}
	force := cmd.Flags().Bool("force", false, "also while nodes are cordoned there, which then stay so")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		remove := a.remove
		if *force {
			remove = a.removeByForce
		}
		return a.deleteEach(cmd.Context(), routes("containermanager", args), remove)
	}
	return cmd
}

// removeByForce deletes a container manager, and says what it leaves cordoned.
func (a *App) removeByForce(ctx context.Context, route string) (any, error) {
	status, answer, err := a.do(ctx, oldRequest{method: http.MethodDelete, route: route, notice: a.Out})
	if err != nil {
		return nil, err
	}
	if status != http.StatusConflict {
		return outcome(http.MethodDelete, route, status, answer)
	}
	if p, ok := problem(answer); ok {
		fmt.Fprintln(a.Err, "commctl: by force, though", legible(strings.Join(problemLines(p), "; ")))
	}
	return a.remove(ctx, route+"?force=true")
}

func (a *App) containerManagerGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a container manager; secrets among its options are not shown", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl container_manager get kube",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return oldGet(a, cmd, *format, containerManagerView, route("containermanager", args[0]))
	}
	return cmd
}

func (a *App) containerManagerList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the names of all container managers", Args: cobra.NoArgs,
		Example: "  commctl container_manager list",
	}
	format := outputFlag(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return oldList(a, cmd, *format, nameView("NAME"), route("containermanagers"))
	}
	return cmd
}
