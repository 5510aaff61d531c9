package commctl

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

// completionTime is how long a shell waits for names.
const completionTime = 3 * time.Second

// source gives names for completion, each with a tab and a description where one
// helps. args are those before.
type source func(ctx context.Context, c *client.ClientWithResponses, args []string) ([]string, error)

// completions lets the shell complete names that are on the server: those of the
// arguments by the path of their command, and those of flags.
func (a *App) completions(root *cobra.Command) {
	operations := []source{operationNames}
	byPath := map[string][]source{
		"cluster delete":           {clusterNames},
		"cluster get":              {clusterNames},
		"host join":                {hostNames, clusterNames},
		"host unjoin":              {hostNames, clusterNames},
		"host list":                {clusterNames},
		"logs":                     {operationNames, operationHostNames, stepNames},
		"run":                      {clusterNames},
		"wait":                     operations,
		"operations steps":         {operationNames, operationHostNames},
		"tokens get":               {tokenIDs},
		"tokens revoke":            {tokenIDs},
		"join-tokens revoke":       {joinTokenIDs},
		"network get":              {networkNames},
		"network delete":           {networkNames},
		"container_manager get":    {managerNames},
		"container_manager delete": {managerNames},
	}
	for _, verb := range []string{"get", "hosts", "watch", "pause", "resume", "approve", "cancel", "retry", "policy get", "policy set"} {
		byPath["operations "+verb] = operations
	}
	for _, verb := range []string{"upgrade start", "upgrade status", "restart start", "restart status", "deploy start", "deploy status", "policy get", "policy set", "policy delete"} {
		byPath["cluster "+verb] = []source{clusterNames}
	}
	for _, verb := range []string{"delete", "get", "status", "ssh", "trust", "labels get", "labels set", "labels unset", "bootstrap start", "bootstrap status", "creds get", "creds set"} {
		byPath["host "+verb] = []source{hostNames}
	}
	byFlag := map[string]source{"cluster": clusterNames, "network": networkNames, "container-manager": managerNames, "host": hostNames}

	var walk func(cmd *cobra.Command, path string)
	walk = func(cmd *cobra.Command, path string) {
		if sources := byPath[path]; sources != nil {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				at := len(args)
				if strings.HasSuffix(path, " delete") || strings.HasSuffix(path, " revoke") {
					at = 0 // which take any number
				}
				if path == "host creds set" && at == 1 {
					return nil, cobra.ShellCompDirectiveDefault // a file
				}
				if at >= len(sources) {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return a.names(cmd.Context(), sources[at], args, typed)
			}
		}
		for name, from := range byFlag {
			if cmd.Flags().Lookup(name) != nil {
				// The only error is that there is one already.
				_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
					return a.names(cmd.Context(), from, args, typed)
				})
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
	walk(root, "")
}

// names asks the server for names. What goes wrong is no name: nobody wants to
// read about it, or be asked for a password, in the middle of a line.
func (a *App) names(ctx context.Context, from source, args []string, typed string) (fitting []string, _ cobra.ShellCompDirective) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	a.Ask = func(string, bool) (string, error) { return "", errNoTerminal }
	a.Err = io.Discard
	c, err := a.clientTelling(io.Discard)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := from(ctx, c, args)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, name := range found {
		if !strings.HasPrefix(name, typed) {
			continue
		}
		shown, description, more := strings.Cut(name, "\t")
		if shown = cell(shown); more {
			shown += "\t" + cell(description)
		}
		fitting = append(fitting, shown)
	}
	return fitting, cobra.ShellCompDirectiveNoFileComp
}

// The sources.

func clusterNames(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	return fetch[[]string](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListClusters(ctx) })
}

func networkNames(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	return fetch[[]string](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListNetworks(ctx) })
}

func managerNames(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	return fetch[[]string](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListContainerManagers(ctx) })
}

func hostNames(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	hosts, err := fetch[[]client.Host](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListHosts(ctx, &client.ListHostsParams{}) })
	return described(hosts, func(h client.Host) string { return h.Address + "\t" + string(h.Status) }), err
}

// operationNames are the clusters and the ids of the newest operations.
func operationNames(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	page, err := fetch[client.OperationPage](ctx, func(ctx context.Context) (*http.Response, error) {
		return c.ListOperations(ctx, &client.ListOperationsParams{Limit: pointer(30)})
	})
	var clusters []string
	for _, o := range page.Operations {
		if name := o.Cluster + "\tits operation"; o.Cluster != "" && !slices.Contains(clusters, name) {
			clusters = append(clusters, name)
		}
	}
	return append(clusters, described(page.Operations, func(o client.Operation) string {
		return o.Id + "\t" + title(o) + ", " + operationState(o) + ", " + shortTime(o.CreatedAt)
	})...), err
}

func operationHostNames(ctx context.Context, c *client.ClientWithResponses, args []string) ([]string, error) {
	id, err := findOperation(ctx, c, io.Discard, args[0])
	if err != nil {
		return nil, err
	}
	hosts, err := operationHosts(ctx, c, id, "")
	return described(hosts, func(h client.HostRun) string { return h.Address + "\t" + h.State }), err
}

func stepNames(ctx context.Context, c *client.ClientWithResponses, args []string) ([]string, error) {
	id, err := findOperation(ctx, c, io.Discard, args[0])
	if err != nil {
		return nil, err
	}
	steps, err := operationSteps(ctx, c, id, args[1])
	return described(steps, func(s client.Step) string { return s.Name + "\t" + s.State }), err
}

func tokenIDs(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	tokens, err := fetch[[]client.Token](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListTokens(ctx) })
	return described(tokens, func(t client.Token) string { return t.Id + "\t" + t.Name }), err
}

func joinTokenIDs(ctx context.Context, c *client.ClientWithResponses, _ []string) ([]string, error) {
	tokens, err := fetch[[]client.JoinToken](ctx, func(ctx context.Context) (*http.Response, error) { return c.ListJoinTokens(ctx) })
	return described(tokens, func(t client.JoinToken) string { return t.Id + "\t" + t.Cluster }), err
}

func described[T any](items []T, text func(T) string) []string {
	var all []string
	for _, item := range items {
		all = append(all, text(item))
	}
	return all
}
