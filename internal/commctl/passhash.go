package commctl

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
)

func (a *App) passhashCommand() *cobra.Command {
	var password, file string
	var rounds int
	cmd := &cobra.Command{
		Use: "passhash", Short: "Print the bcrypt hash of a password, for users.json", Args: cobra.NoArgs,
		Long: `Print the bcrypt hash of a password, for users.json of the server. The password is
asked for unless a flag gives it. Of a file every byte counts, also a line end.`,
		Example: "  commctl passhash\n  printf %s \"$PASSWORD\" | commctl passhash -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := []byte(password)
			switch {
			case file != "":
				var err error
				if text, err = a.readFile(cmd.Context(), file); err != nil {
					return err
				}
				if bytes.HasSuffix(text, []byte("\n")) || bytes.HasSuffix(text, []byte("\r")) {
					fmt.Fprintln(a.Err, "commctl: the file ends in a line end, which is now a part of the password")
				}
			case !cmd.Flags().Changed("password"):
				typed, err := a.Ask("Password: ", true)
				if err != nil {
					return fmt.Errorf("password: %w; give --file", err)
				}
				text = []byte(typed)
			}
			hash, err := hashPassword(text, rounds)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, hash)
			return err
		},
	}
	cmd.Flags().StringVarP(&password, "password", "p", "", "the `PASSWORD`; others on this machine can see it, so better leave it out")
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` that holds the password; - is standard input")
	cmd.Flags().IntVarP(&rounds, "rounds", "r", 12, "cost: the work doubles with every `ROUND`, 4 to 31")
	cmd.MarkFlagsMutuallyExclusive("password", "file")
	return cmd
}

func hashPassword(text []byte, rounds int) (string, error) {
	switch {
	case len(text) == 0:
		return "", errors.New("the password is empty")
	case rounds < bcrypt.MinCost || rounds > bcrypt.MaxCost: // the library would take another cost without a word
		return "", fmt.Errorf("--rounds must be %d to %d", bcrypt.MinCost, bcrypt.MaxCost)
	}
	hash, err := bcrypt.GenerateFromPassword(text, rounds)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", errors.New("the password is longer than the 72 bytes that bcrypt takes")
	}
	return string(hash), err
}
