package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"

	"commissaire/internal/nearest"
)

// DefaultFile is read when it exists and no other file is named.
const DefaultFile = "/etc/commissaire/commissaire.conf"

// EnvPrefix starts the environment variable of every setting.
const EnvPrefix = "COMMISSAIRE_"

// The settings that say where settings are.
const (
	configFile   = "config-file"
	noConfigFile = "no-config-file"
)

// retired are the members and flags of the original that mean nothing here: there
// is no message bus, no storage service and no logging file of Python's. They are
// accepted, so that an old file can be read as it is.
var retired = []string{"bus-uri", "bus-exchange", "exchange-name", "logging", "register-store-handler", "storage-handlers", "custodia-socket-path"}

// retiredFlags are those of them that the original took on the command line.
var retiredFlags = []string{"bus-uri", "bus-exchange"}

// shorthands are the one-letter flags of the original.
var shorthands = map[string]string{configFile: "c", "listen-interface": "i", "listen-port": "p"}

// Setting describes one setting, for help texts and documentation.
type Setting struct {
	Name, Flag, Env, Default, Usage string
	Type                            reflect.Type
}

// Repeatable says whether the setting is a list, whose flag may be given many
// times.
func (s Setting) Repeatable() bool { return s.Type.Kind() == reflect.Slice }

// Settings lists every setting in the order of the struct.
func Settings() []Setting {
	var out []Setting
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("name")
		flag := f.Tag.Get("flag")
		if flag == "" {
			flag = name
		}
		out = append(out, Setting{Name: name, Flag: flag, Env: envName(name), Default: f.Tag.Get("default"), Usage: f.Tag.Get("usage"), Type: f.Type})
	}
	return out
}

// settingsByName gives the settings under their names.
func settingsByName() map[string]Setting {
	out := map[string]Setting{}
	for _, s := range Settings() {
		out[s.Name] = s
	}
	return out
}

func envName(name string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Flags adds a flag for every setting, those that say where the file is, and
// those of the original that mean nothing any more.
func Flags(fs *pflag.FlagSet) {
	fs.StringP(configFile, shorthands[configFile], "", "configuration file, JSON or YAML, or - for standard input (default "+DefaultFile+" when it exists; environment "+envName(configFile)+")")
	fs.Bool(noConfigFile, false, "read no configuration file, also not "+DefaultFile)
	for _, s := range Settings() {
		switch {
		case s.Repeatable():
			fs.StringArrayP(s.Flag, shorthands[s.Name], nil, s.Usage+" (repeatable)")
		case s.Type.Kind() == reflect.Bool:
			fs.BoolP(s.Flag, shorthands[s.Name], s.Default == "true", s.Usage)
		default:
			fs.StringP(s.Flag, shorthands[s.Name], s.Default, s.Usage)
		}
	}
	for _, name := range retiredFlags {
		fs.String(name, "", "ignored")
		_ = fs.MarkHidden(name) // fails for an unknown flag only
	}
}

// FlagError adds the nearest known flag to the error of an unknown one.
func FlagError(fs *pflag.FlagSet, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return fmt.Errorf("%w%s", err, hint(unknown.GetSpecifiedName(), names, func(s string) string { return "--" + s }))
}

// hint gives ", did you mean X?" when a known name is near enough.
func hint(name string, known []string, show func(string) string) string {
	if best := nearest.Name(name, known); best != "" {
		return ", did you mean " + show(best) + "?"
	}
	return ""
}
