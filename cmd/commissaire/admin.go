package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/secret"
	"commissaire/internal/version"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Keys that seal credentials at rest"}
	cmd.AddCommand(&cobra.Command{
		Use: "create FILE", Short: "Make a new sealing key in FILE (mode 0600); never overwrites", Args: cobra.ExactArgs(1),
		Example: "  commissaire key create /etc/commissaire/seal.key",
		RunE:    func(_ *cobra.Command, args []string) error { return secret.CreateKeyFile(args[0]) },
	})
	return cmd
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
