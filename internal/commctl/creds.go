package commctl

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"commissaire/api/client"
)

func (a *App) hostCreds() *cobra.Command {
	return group("creds", "With what the server logs in to a host", a.hostCredsGet(), a.hostCredsSet())
}

// credsView shows credentials without the key.
var credsView = view[client.HostCredsStored]{
	name: func(c client.HostCredsStored) string { return c.RemoteUser },
	columns: []column[client.HostCredsStored]{
		{head: "HOST", cell: func(c client.HostCredsStored) string { return c.Address }},
		{head: "USER", cell: func(c client.HostCredsStored) string { return c.RemoteUser }},
	},
}

func (a *App) hostCredsGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ADDRESS", Short: "Show who logs in to a host, and with --show-key the private key", Args: cobra.ExactArgs(1),
		Long: `Show who logs in to a host. With --show-key the private key is the answer, as it was
given, or in base64 as a member of JSON and YAML. It needs role admin, and the audit
log keeps that it was read, also without --show-key.`,
		Example: "  commctl host creds get 192.0.2.10\n  (umask 077; commctl host creds get --show-key 192.0.2.10 >key)",
	}
	format := outputFlag(cmd, formatTable)
	var showKey bool
	cmd.Flags().BoolVar(&showKey, "show-key", false, "print the private key")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		creds, err := fetch[client.HostCreds](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.GetHostCreds(ctx, address) })
		if err != nil {
			return err
		}
		user := client.HostCredsStored{Address: creds.Address, RemoteUser: creds.RemoteUser}
		switch {
		case !showKey || *format == formatName:
			return renderOne(a, *format, credsView, user)
		case *format == formatJSON || *format == formatYAML:
			return render(a, *format, credsView, nil, creds)
		}
		key, err := base64.StdEncoding.DecodeString(creds.SshPrivKey)
		if err != nil {
			return errors.New("the stored private key is not base64")
		}
		fmt.Fprintf(a.Err, "Private key of %s at %s:\n", legible(user.RemoteUser), legible(user.Address))
		_, err = a.Out.Write(key)
		return err
	})
}

func (a *App) hostCredsSet() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "set ADDRESS SSH-PRIV-KEY", Short: "Replace the user and the private key that log in to a host", Args: cobra.ExactArgs(2),
		Long: `Replace the user and the private key that log in to a host. SSH-PRIV-KEY is a file, or
'-' for standard input; the key must have no passphrase. Without --remote-user the
user is root, whoever it was before.

The host is not asked: 'commctl host bootstrap start' finds out whether they are good.`,
		Example: "  commctl host creds set 192.0.2.10 ~/.ssh/id_ed25519\n  commctl host creds set --remote-user cloud 192.0.2.10 - <key",
	}
	format := outputFlag(cmd, formatTable)
	cmd.Flags().StringVar(&user, "remote-user", "", "`USER` who logs in (default root)")
	return a.addressed(cmd, func(cmd *cobra.Command, address string, rest []string) error {
		key, err := a.readFile(cmd.Context(), rest[0])
		if err != nil {
			return fmt.Errorf("SSH-PRIV-KEY: %w", err)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		body := client.HostCredsPut{RemoteUser: user, SshPrivKey: base64.StdEncoding.EncodeToString(key)}
		stored, err := fetch[client.HostCredsStored](cmd.Context(), func(ctx context.Context) (*http.Response, error) { return c.PutHostCreds(ctx, address, body) })
		if err != nil {
			return err
		}
		return renderOne(a, *format, credsView, stored)
	})
}
