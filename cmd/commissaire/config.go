package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"commissaire/internal/app"
	"commissaire/internal/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The settings, and where they come from"}
	cmd.AddCommand(configViewCommand(), configCheckCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the settings and the files they name, without connecting to anything", Args: cobra.NoArgs,
		Example: "  commissaire config check -c commissaire.conf",
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(cmd.Flags(), os.Environ(), cmd.InOrStdin())
			if loaded == nil {
				return err
			}
			err = errors.Join(err, app.CheckConfig(cmd.Context(), loaded.Config, warn(cmd, loaded)))
			noteDatabase(cmd.OutOrStdout(), loaded.Config)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "ok")
			}
			return err
		},
	}
}

// noteDatabase says which database is used when the settings do not say: it works
// for some, and others have forgotten it.
func noteDatabase(out io.Writer, c *config.Config) {
	if dsn, err := c.DSN(); err != nil || dsn != "" {
		return
	}
	if database, err := config.DefaultDatabase(); err == nil { // else the check has failed
		fmt.Fprintf(out, "note: database-url is not set; by the PG* environment and its defaults Postgres is sought at %s. This check does not connect to it.\n", database)
	}
}

func configViewCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "view", Short: "Show every setting, its value without secrets, and where it comes from", Args: cobra.NoArgs,
		Example: "  commissaire config view\n  commissaire config view -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			show, ok := map[string]func(io.Writer, []config.Shown) error{"table": showTable, "json": showJSON, "yaml": showYAML}[format]
			if !ok {
				return usageError{fmt.Errorf("--output must be table, json or yaml, not %q", format)}
			}
			loaded, err := load(cmd)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), loaded.View())
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json or yaml")
	return cmd
}

func showJSON(out io.Writer, settings []config.Shown) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(settings)
}

func showYAML(out io.Writer, settings []config.Shown) error {
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(settings); err != nil {
		return err
	}
	return e.Close()
}

// showTable writes text as it is, and everything else as JSON.
func showTable(out io.Writer, settings []config.Shown) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SETTING\tVALUE\tORIGIN")
	for _, s := range settings {
		text, ok := s.Value.(string)
		if !ok {
			b, err := json.Marshal(s.Value)
			if err != nil {
				return err
			}
			text = string(b)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Setting, text, s.Origin)
	}
	return w.Flush()
}
