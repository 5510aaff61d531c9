package commctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// writeYAML writes a JSON value in block style with sorted keys, as PyYAML's
// safe_dump does, which scripts of 2017 read: lists are not indented, strings are
// quoted with ' when they need it, and a plain scalar is followed by a line "...".
// Unlike there, long lines are not folded and letters beyond ASCII stay.
func writeYAML(b *bytes.Buffer, value any) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) > 0 {
			writeMap(b, v, "", "")
			return
		}
	case []any:
		if len(v) > 0 {
			writeList(b, v, "", "")
			return
		}
	}
	text := yamlScalar(value)
	b.WriteString(text + "\n")
	if !strings.ContainsAny(text[:1], "'\"[{") { // what has an end needs no mark of it
		b.WriteString("...\n")
	}
}

// writeMap and writeList write their first line after what stands already in
// first and the others after indent.
func writeMap(b *bytes.Buffer, m map[string]any, first, indent string) {
	lead := first
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(lead + yamlString(key) + ":")
		lead = indent
		switch v := m[key].(type) {
		case map[string]any:
			if len(v) > 0 {
				b.WriteByte('\n')
				writeMap(b, v, indent+"  ", indent+"  ")
				continue
			}
		case []any:
			if len(v) > 0 {
				b.WriteByte('\n')
				writeList(b, v, indent, indent)
				continue
			}
		}
		b.WriteString(" " + yamlScalar(m[key]) + "\n")
	}
}

func writeList(b *bytes.Buffer, l []any, first, indent string) {
	lead := first
	for _, item := range l {
		switch v := item.(type) {
		case map[string]any:
			if len(v) > 0 {
				writeMap(b, v, lead+"- ", indent+"  ")
				lead = indent
				continue
			}
		case []any:
			if len(v) > 0 {
				writeList(b, v, lead+"- ", indent+"  ")
				lead = indent
				continue
			}
		}
		b.WriteString(lead + "- " + yamlScalar(item) + "\n")
		lead = indent
	}
}

func yamlScalar(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case string:
		return yamlString(v)
	case []any:
		return "[]"
	case map[string]any:
		return "{}"
	}
	panic(fmt.Sprintf("yaml: %T is not what JSON decodes to", value))
}

// yamlString quotes a string only when a reader would take it for something else.
func yamlString(s string) string {
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.ContainsRune(s, unicode.ReplacementChar):
		return strconv.Quote(s) // Go's escapes are YAML's but for \x7f and above, which are the same code points
	case s == "" || ambiguous.MatchString(s) || notPlain.MatchString(s):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return s
}

var (
	// ambiguous is what YAML 1.1 reads as something that is no string: booleans,
	// null, numbers (also octal, sexagesimal and with underscores), times, merge and
	// value keys.
	ambiguous = regexp.MustCompile(`^(?:` + strings.Join([]string{
		`yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF`,
		`~|null|Null|NULL|<<|=`,
		`[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+`,
		`[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`,
		`[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?`,
	}, `|`) + `)$`)
	// notPlain is what means something in YAML where it stands: an indicator at the
	// beginning, a colon or a number sign next to a space, spaces at the ends.
	notPlain = regexp.MustCompile("^[#,\\[\\]{}&*!|>'\"%@`]|^[?:-](?: |$)|^---|^\\.\\.\\.|: |:$| #|^ | $")
)

// decode reads a JSON value so that numbers stay as they are written.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	err := d.Decode(&value)
	return value, err
}
