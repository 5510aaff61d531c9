package commctl

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"commissaire/internal/fleet"
)

// nameArgs checks arguments of which those at from, up to the one before to, are
// names of clusters, networks or container managers. No name of another form can be
// there, and the server answers as to one that just is not: so it is said here.
func nameArgs(check cobra.PositionalArgs, from, to int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return err
		}
		for _, name := range args[min(from, len(args)):min(to, len(args))] {
			if _, err := fleet.ParseName("name", name); err != nil {
				return fmt.Errorf("name %s: %w", quoted(name), blame(err))
			}
		}
		return nil
	}
}

// allArgs is behind the last argument, however many there are.
const allArgs = math.MaxInt

// checkAddress refuses what is neither an IP literal nor a host name.
func checkAddress(host string) error {
	_, err := fleet.ParseAddress(host)
	switch {
	case err != nil && strings.Contains(host, ":"):
		return fmt.Errorf("host %s: holds a colon but is no IPv6 literal; the port of sshd stands in the host's record ('host create --port')", quoted(host))
	case err != nil:
		return fmt.Errorf("host %s: %w", quoted(host), blame(err))
	}
	return nil
}

// quoted shows what somebody typed, the beginning of it when it is long.
func quoted(text string) string { return fmt.Sprintf("%q", cut(text, 40)) }

// blame takes the sentence out of an error of the domain, whose text says it for the
// whole and then for each member. An error about one member is without its name.
func blame(err error) error {
	var wrong *fleet.Error
	switch {
	case !errors.As(err, &wrong):
		return err
	case len(wrong.Fields) == 1:
		return errors.New(wrong.Fields[0].Detail)
	}
	return errors.New(wrong.Detail)
}
