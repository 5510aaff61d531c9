package commctl

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) inventoryCommand() *cobra.Command {
	return group("inventory", "All hosts, for other programs", a.inventoryExport())
}

func (a *App) inventoryExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Write all hosts as another program reads them", Args: cobra.NoArgs,
		Long: `Write all hosts as another program reads them:

  ansible      what a dynamic inventory of Ansible prints with --list; each cluster
               is a group
  ssh-config   for an Include in ~/.ssh/config
  known-hosts  the pinned host keys, for a UserKnownHostsFile`,
		Example: "  commctl inventory export --format ansible >inventory.json\n  commctl inventory export --format known-hosts >~/.ssh/known_hosts.commissaire",
	}
	format := "ansible"
	choiceFlag(cmd, &format, "format", "", []string{"ansible", "ssh-config", "known-hosts"}, "`FORMAT`: ansible, ssh-config or known-hosts")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		r, body, err := exchange(cmd.Context(), func(ctx context.Context) (*http.Response, error) {
			return c.GetInventory(ctx, &client.GetInventoryParams{Format: client.InventoryFormat(format)})
		})
		if err != nil {
			return err
		}
		if format == "ansible" {
			if err := foreign(r, body); err != nil {
				return err
			}
		}
		_, err = a.Out.Write(body)
		return err
	}
	return cmd
}
