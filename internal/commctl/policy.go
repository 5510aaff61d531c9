package commctl

import (
	"context"
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// policyMember is one member of a policy as a table shows it.
type policyMember struct{ name, value string }

var policyView = view[policyMember]{
	name: func(m policyMember) string { return m.name },
	columns: []column[policyMember]{
		{head: "MEMBER", cell: func(m policyMember) string { return m.name }},
		{head: "VALUE", cell: func(m policyMember) string { return m.value }},
	},
}

func (a *App) renderPolicy(f format, p fleet.Policy) error {
	var members []policyMember
	for _, m := range jsonMembers(p) {
		members = append(members, policyMember{m[0], m[1]})
	}
	return render(a, f, policyView, members, p)
}

func (a *App) clusterPolicy() *cobra.Command {
	return group("policy", "What rollouts of a cluster do when the command does not say",
		a.clusterPolicyGet(), a.clusterPolicySet(), a.clusterPolicyDelete())
}

func (a *App) clusterPolicyGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get CLUSTER", Short: "Show the policy of a cluster", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster policy get web",
	}
	format := outputFlag(cmd, formatTable)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := fetch[fleet.Policy](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetClusterPolicy(ctx, args[0]) })
		if err != nil {
			return err
		}
		return a.renderPolicy(*format, p)
	}
	return cmd
}

func (a *App) clusterPolicySet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set CLUSTER", Short: "Change the policy of a cluster; what is not given stays", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster policy set web --max-unavailable 10% --max-failures 2\n" +
			"  commctl cluster policy set web --window 'sat,sun 22:00-04:00 Europe/Berlin'\n" +
			"  commctl cluster policy set web --replace --policy policy.json",
	}
	format := outputFlag(cmd, formatTable)
	flags := a.policyOptions(cmd)
	var replace bool
	cmd.Flags().BoolVar(&replace, "replace", false, "forget what is not given")
	cmd.RunE = flags.blaming(func(cmd *cobra.Command, args []string) error {
		p, err := flags.read(cmd.Context())
		if err != nil {
			return err
		}
		if !flags.given() {
			return errNoPolicy
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		if !replace {
			old, err := fetch[fleet.Policy](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetClusterPolicy(ctx, args[0]) })
			if err != nil {
				return err
			}
			p = p.Over(old)
		}
		p, err = fetch[fleet.Policy](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.PutClusterPolicy(ctx, args[0], p) })
		if err != nil {
			return err
		}
		return a.renderPolicy(*format, p)
	})
	return cmd
}

var errNoPolicy = errors.New("say what to change, such as --max-unavailable 2")

func (a *App) clusterPolicyDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete CLUSTER", Short: "Forget the policy of a cluster", Args: nameArgs(cobra.ExactArgs(1), 0, 1),
		Example: "  commctl cluster policy delete web",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return order(cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.DeleteClusterPolicy(ctx, args[0]) })
		},
	}
}

func (a *App) operationsPolicy() *cobra.Command {
	return group("policy", "By what policy an operation rolls", a.operationsPolicyGet(), a.operationsPolicySet())
}

func (a *App) operationsPolicyGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get OPERATION", Short: "Show the policy that an operation follows", Args: operationArgs(cobra.ExactArgs(1)),
		Example: "  commctl operations policy get " + exampleID,
	}
	format := outputFlag(cmd, formatTable)
	return a.onOperation(cmd, func(cmd *cobra.Command, c *client.ClientWithResponses, id string, _ []string) error {
		p, err := fetch[fleet.Policy](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetOperationPolicy(ctx, id) })
		if err != nil {
			return err
		}
		return a.renderPolicy(*format, p)
	})
}

func (a *App) operationsPolicySet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set OPERATION", Short: "Change the policy of an operation while it runs; what is not given stays", Args: operationArgs(cobra.ExactArgs(1)),
		Long: `Change the policy of an operation while it runs; what is not given stays. Selector,
order and canaries are settled when it begins and cannot change.`,
		Example: "  commctl operations policy set --max-unavailable 1 " + exampleID,
	}
	format := outputFlag(cmd, formatTable)
	flags := a.policyOptions(cmd)
	cmd.RunE = flags.blaming(func(cmd *cobra.Command, args []string) error {
		p, err := flags.read(cmd.Context())
		if err != nil {
			return err
		}
		if !flags.given() {
			return errNoPolicy
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		id, err := findOperation(cmd.Context(), c, a.Err, args[0])
		if err != nil {
			return err
		}
		p, err = fetch[fleet.Policy](cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			return c.PutOperationPolicy(ctx, id, &client.PutOperationPolicyParams{IdempotencyKey: idempotencyKey()}, p)
		})
		if err != nil {
			return err
		}
		return a.renderPolicy(*format, p)
	})
	return cmd
}
