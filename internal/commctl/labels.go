package commctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

// label is one label as a table shows it.
type label struct{ name, value string }

var labelView = view[label]{
	name: func(l label) string { return l.name },
	columns: []column[label]{
		{head: "LABEL", cell: func(l label) string { return l.name }},
		{head: "VALUE", cell: func(l label) string { return l.value }},
	},
}

func (a *App) renderLabels(f format, labels client.Labels) error {
	var all []label
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, label{name, labels[name]})
	}
	return render(a, f, labelView, all, labels)
}

func (a *App) hostLabels() *cobra.Command {
	return group("labels", "Labels of hosts, by which selectors choose", a.hostLabelsGet(), a.hostLabelsSet(), a.hostLabelsUnset())
}

func getLabels(ctx context.Context, c *client.ClientWithResponses, address string) (client.Labels, error) {
	labels, err := fetch[client.Labels](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetHostLabels(ctx, address) })
	if labels == nil {
		labels = client.Labels{}
	}
	return labels, err
}

func (a *App) hostLabelsGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get HOST", Short: "Show the labels of a host", Args: cobra.ExactArgs(1),
		Example: "  commctl host labels get 192.0.2.10",
	}
	format := outputFlag(cmd, formatTable)
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		labels, err := getLabels(cmd.Context(), c, address)
		if err != nil {
			return err
		}
		return a.renderLabels(*format, labels)
	})
}

func (a *App) hostLabelsSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set HOST NAME=VALUE...", Short: "Set labels of a host; others stay", Args: cobra.MinimumNArgs(2),
		Example: "  commctl host labels set 192.0.2.10 env=prod rack=a1",
	}
	format := outputFlag(cmd, formatTable)
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		changes := map[string]string{}
		for _, pair := range rest {
			name, value, ok := strings.Cut(pair, "=")
			if !ok || name == "" {
				return fmt.Errorf("%q is not of the form NAME=VALUE", pair)
			}
			changes[name] = value
		}
		return a.changeLabels(cmd.Context(), address, *format, func(labels client.Labels) {
			maps.Copy(labels, changes)
		})
	})
}

func (a *App) hostLabelsUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset HOST NAME...", Short: "Take labels off a host", Args: cobra.MinimumNArgs(1),
		Example: "  commctl host labels unset 192.0.2.10 rack\n  commctl host labels unset --all 192.0.2.10",
	}
	format := outputFlag(cmd, formatTable)
	var all bool
	cmd.Flags().BoolVar(&all, "all", false, "take all labels off")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		if all == (len(rest) > 0) {
			return errors.New("name the labels, or say --all")
		}
		return a.changeLabels(cmd.Context(), address, *format, func(labels client.Labels) {
			if all {
				clear(labels)
			}
			for _, name := range rest {
				delete(labels, name)
			}
		})
	})
}

// changeLabels reads the labels of a host, changes and replaces them.
func (a *App) changeLabels(ctx context.Context, address string, f format, change func(client.Labels)) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	labels, err := getLabels(ctx, c, address)
	if err != nil {
		return err
	}
	change(labels)
	labels, err = fetch[client.Labels](ctx, func(ctx context.Context) (*http.Response, error) { return c.PutHostLabels(ctx, address, labels) })
	if err != nil {
		return err
	}
	return a.renderLabels(f, labels)
}
