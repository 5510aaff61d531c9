package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/app"
	"commissaire/internal/config"
	"commissaire/internal/secret"
	"commissaire/internal/version"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Keys that seal credentials at rest"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "create FILE", Short: "Make a new key file (mode 0600) with one key; never overwrites", Args: cobra.ExactArgs(1),
			Example: "  commissaire key create /etc/commissaire/seal.key",
			RunE:    func(_ *cobra.Command, args []string) error { return secret.CreateKeyFile(args[0]) },
		},
		process("list", "List the keys: which one seals, which ones stored secrets need", "commissaire key list", func(ctx context.Context, c *config.Config) error {
			return app.ListKeys(ctx, c, cmd.OutOrStdout())
		}),
		&cobra.Command{
			Use: "add FILE", Short: "Add a new key, which opens but does not seal yet, and print its id", Args: cobra.ExactArgs(1),
			Example: "  commissaire key add /etc/commissaire/seal.key",
			RunE: func(cmd *cobra.Command, args []string) error {
				id, err := secret.AddKey(args[0])
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), id)
				}
				return err
			},
		},
		&cobra.Command{
			Use: "use FILE ID", Short: "Make a key the one that seals", Args: cobra.ExactArgs(2),
			Example: "  commissaire key use /etc/commissaire/seal.key 1234567890",
			RunE: func(_ *cobra.Command, args []string) error {
				id, err := keyID(args[1])
				if err != nil {
					return err
				}
				return secret.UseKey(args[0], id)
			},
		},
		process("reseal", "Seal all stored secrets with the key in use, and print how many changed", "commissaire key reseal", func(ctx context.Context, c *config.Config) error {
			changed, err := app.Reseal(ctx, c)
			fmt.Fprintln(cmd.OutOrStdout(), changed)
			return err
		}),
		&cobra.Command{
			Use: "drop FILE ID", Short: "Remove a key that no stored secrets need", Args: cobra.ExactArgs(2),
			Example: "  commissaire key drop /etc/commissaire/seal.key 1234567890",
			RunE: func(cmd *cobra.Command, args []string) error {
				id, err := keyID(args[1])
				if err != nil {
					return err
				}
				c, err := settings(cmd)
				if err != nil {
					return err
				}
				return app.DropKey(cmd.Context(), c, args[0], id)
			},
		},
	)
	return cmd
}

func keyID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, usageError{fmt.Errorf("%q is no key id; 'commissaire key list' shows them", text)}
	}
	return uint32(id), nil
}

func passhashCommand() *cobra.Command {
	return &cobra.Command{
		Use: "passhash", Short: "Read a password from standard input, print its bcrypt hash for users.json", Args: cobra.NoArgs,
		Example: "  commissaire passhash <password.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			password := strings.TrimRight(line, "\r\n")
			if password == "" {
				return usageError{errors.New("the password on standard input is empty")}
			}
			const cost = 12 // as the original's passhash
			hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), string(hash))
			return nil
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintf(cmd.OutOrStdout(), "commissaire %s (%s)\n", version.Version, version.Commit())
		return nil
	}}
}
