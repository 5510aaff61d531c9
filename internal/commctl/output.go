package commctl

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// format is how an answer is printed; "" is the form of an old verb.
type format string

// The formats.
const (
	formatTable format = "table"
	formatWide  format = "wide" // a table with all columns
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name" // one name a line, for scripts
)

var formats = []format{formatTable, formatWide, formatJSON, formatYAML, formatName}

// outputFlag gives a verb -o. Old verbs have preset "".
func outputFlag(cmd *cobra.Command, preset format) *format {
	f := preset
	names := make([]string, len(formats))
	for i, known := range formats {
		names[i] = string(known)
	}
	choiceFlag(cmd, (*string)(&f), "output", "o", names, "`FORMAT`: table, wide, json, yaml or name")
	return &f
}

// choiceFlag is a flag that takes one of some words; *value is the default.
func choiceFlag(cmd *cobra.Command, value *string, name, short string, words []string, usage string) {
	cmd.Flags().VarP(&choice{value, words}, name, short, usage)
	// The only error is that the flag is not there.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

type choice struct {
	value *string
	words []string
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return "string" }
func (c *choice) Set(text string) error {
	if !slices.Contains(c.words, text) {
		return fmt.Errorf("must be %s", strings.Join(c.words, ", "))
	}
	*c.value = text
	return nil
}

// column is one column of a table.
type column[T any] struct {
	head string
	wide bool // only with -o wide
	long bool // the last one, cut on a terminal that has no room for it, but with -o wide
	cell func(T) string
}

// view says how things of a kind look as a table and as a name.
type view[T any] struct {
	name    func(T) string
	columns []column[T]
}

// renderList prints things; as JSON and YAML a list, also of none.
func renderList[T any](a *App, f format, v view[T], items []T) error {
	if items == nil {
		items = []T{}
	}
	return render(a, f, v, items, items)
}

// renderOne prints one thing.
func renderOne[T any](a *App, f format, v view[T], item T) error {
	return render(a, f, v, []T{item}, item)
}

// render prints items as a table or as names, and whole as JSON or YAML.
func render[T any](a *App, f format, v view[T], items []T, whole any) error {
	switch f {
	case formatJSON:
		e := json.NewEncoder(a.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(whole)
	case formatYAML:
		text, err := json.Marshal(whole)
		if err != nil {
			return err
		}
		value, err := decode(text)
		if err != nil {
			return err
		}
		return a.printYAML(value)
	case formatName:
		for _, item := range items {
			if _, err := fmt.Fprintln(a.Out, legible(v.name(item))); err != nil {
				return err
			}
		}
		return nil
	}
	return renderTable(a, f == formatWide, v, items)
}

func renderTable[T any](a *App, wide bool, v view[T], items []T) error {
	t := table.NewWriter()
	t.SetStyle(table.Style{Box: table.BoxStyle{PaddingRight: "   "}, Format: table.FormatOptions{}, Options: table.OptionsNoBordersAndSeparators})
	t.SuppressTrailingSpaces()
	shown := slices.DeleteFunc(slices.Clone(v.columns), func(c column[T]) bool { return c.wide && !wide })
	head := make(table.Row, len(shown))
	for i, c := range shown {
		head[i] = c.head
	}
	t.AppendHeader(head)
	for _, item := range items {
		row := make(table.Row, len(shown))
		for i, c := range shown {
			row[i] = cell(c.cell(item))
		}
		t.AppendRow(row)
	}
	text := t.Render()
	if f, ok := a.Out.(*os.File); ok && isTerminal(f) && !wide && shown[len(shown)-1].long {
		width, _ := terminalSize(f)
		text = cutTable(text, shown[len(shown)-1].head, width)
	}
	_, err := fmt.Fprintln(a.Out, text)
	return err
}

// leastLong is what is left of a long column however narrow the terminal is, in
// characters.
const leastLong = 12

// cutTable cuts the last column of a table so that its lines fit into a width.
func cutTable(text, last string, width int) string {
	lines := strings.Split(text, "\n")
	width = max(width, strings.LastIndex(lines[0], last)+leastLong) // heads are ASCII
	for i := range lines {
		lines[i] = cut(lines[i], width)
	}
	return strings.Join(lines, "\n")
}

// cell keeps a value on one line, and shows that there is none.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(legible(text))
}
