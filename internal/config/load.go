package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// hostVariables belong to our scripts on managed hosts (package remote). They
// are no settings, but are in the environment of whatever such a script runs,
// which may be this program.
var hostVariables = []string{"COMMISSAIRE_RUN", "COMMISSAIRE_STATE_DIR", "COMMISSAIRE_BOOT_ID_FILE", "COMMISSAIRE_OS_ROOT"}

// etcdVariable told the original to read its configuration from etcd.
const etcdVariable = "ETCD_MACHINES"

// Loaded is the settings as they were found.
type Loaded struct {
	*Config
	Warnings []string // what is ignored, for the log

	origins map[string]string // by the name of the setting
}

// layer is what one source says.
type layer struct {
	values  map[string]any
	origin  func(Setting) string
	retired []string // what it says that means nothing any more
	wrong   []error  // what it says that cannot be used
}

// Load reads the settings from flags, environment, file and defaults, checks
// them, and refuses names it does not know. stdin is read when the file is "-".
// The error joins all that is wrong. With it come the settings as far as they can
// be used, for who wants to look for more that is wrong, unless the file cannot
// be read at all.
func Load(fs *pflag.FlagSet, environ []string, stdin io.Reader) (*Loaded, error) {
	env, envFile := fromEnv(environ)
	flags := fromFlags(fs)
	errs := append(env.wrong, flags.wrong...)
	path, explicit, err := filePath(fs, envFile)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	file, err := fromFile(path, explicit, stdin)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	errs = append(errs, file.wrong...)

	l := &Loaded{Config: Defaults(), origins: map[string]string{}}
	target := reflect.ValueOf(l.Config).Elem()
	for i, s := range Settings() {
		l.origins[s.Name] = "default"
		for _, layer := range []layer{flags, env, file} {
			raw, ok := layer.values[s.Name]
			if !ok {
				continue
			}
			value := reflect.New(s.Type).Elem()
			if err := decode(value, raw); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", layer.origin(s), s.Name, err))
				break
			}
			l.origins[s.Name] = layer.origin(s)
			target.Field(i).Set(value)
			break
		}
	}
	errs = append(errs, l.faults()...)
	if ignored := append(file.retired, flags.retired...); len(ignored) > 0 {
		l.Warnings = append(l.Warnings, "these settings of the original mean nothing any more and are ignored: "+strings.Join(ignored, ", "))
	}
	if slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, etcdVariable+"=") }) {
		l.Warnings = append(l.Warnings, etcdVariable+" is set, but no configuration is read from etcd: put it into the configuration file")
	}
	return l, errors.Join(errs...)
}

// Defaults gives the settings nobody changed.
func Defaults() *Config {
	c := new(Config)
	v := reflect.ValueOf(c).Elem()
	for i, s := range Settings() {
		if s.Repeatable() {
			continue // none
		}
		if err := decode(v.Field(i), s.Default); err != nil {
			panic("config: bad default of " + s.Name)
		}
	}
	return c
}

// filePath says which file to read, "" for none, and whether somebody asked for
// it.
func filePath(fs *pflag.FlagSet, fromEnv string) (path string, explicit bool, err error) {
	named := ""
	if f := fs.Lookup(configFile); f != nil && f.Changed {
		named = f.Value.String()
		if named == "" {
			return "", false, errors.New("--config-file must not be empty; --no-config-file reads none")
		}
	}
	none, _ := fs.GetBool(noConfigFile)
	switch {
	case none && named != "":
		return "", false, errors.New("give --config-file or --no-config-file, not both")
	case none:
		return "", false, nil
	case named != "":
		return named, true, nil
	case fromEnv != "":
		return fromEnv, true, nil
	}
	return DefaultFile, false, nil
}

func fromFlags(fs *pflag.FlagSet) layer {
	out := layer{values: map[string]any{}, origin: func(s Setting) string { return "flag --" + s.Flag }}
	for _, s := range Settings() {
		f := fs.Lookup(s.Flag)
		if f == nil || !f.Changed {
			continue
		}
		if !s.Repeatable() {
			out.values[s.Name] = f.Value.String()
			continue
		}
		list, err := listOfTexts(s, f.Value.(pflag.SliceValue).GetSlice()) // as Flags made it
		if err != nil {
			out.wrong = append(out.wrong, fmt.Errorf("flag --%s: %w", s.Flag, err))
			continue
		}
		out.values[s.Name] = list
	}
	for _, name := range retiredFlags {
		if f := fs.Lookup(name); f != nil && f.Changed {
			out.retired = append(out.retired, "--"+name)
		}
	}
	if dsn, ok := out.values["database-url"].(string); ok && holdsPassword(dsn) {
		out.wrong = append(out.wrong, errors.New("--database-url holds a password, which every user of this machine could read in the process list; use --database-url-file, PGPASSFILE or "+envName("database-url")))
	}
	return out
}

// listOfTexts makes the value of a list from what was given one by one.
func listOfTexts(s Setting, given []string) (list []any, err error) {
	list = []any{}
	for _, text := range given {
		var entry any = text
		if s.Type == reflect.TypeFor[[]Plugin]() {
			if entry, err = parsePlugin(text); err != nil {
				return nil, err
			}
		}
		list = append(list, entry)
	}
	return list, nil
}

func fromEnv(environ []string) (out layer, file string) {
	out = layer{values: map[string]any{}, origin: func(s Setting) string { return "environment " + s.Env }}
	known := settingsByName()
	for _, e := range environ {
		key, value, _ := strings.Cut(e, "=")
		rest, ours := strings.CutPrefix(key, EnvPrefix)
		if !ours || slices.Contains(hostVariables, key) {
			continue
		}
		name := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		s, ok := known[name]
		switch {
		case name == configFile:
			file = value
		case !ok:
			out.wrong = append(out.wrong, fmt.Errorf("environment: unknown %s%s", key, hint(name, names(), envName)))
		case s.Repeatable():
			list, err := listFromEnv(s, value)
			if err != nil {
				out.wrong = append(out.wrong, fmt.Errorf("environment %s: %w", key, err))
				continue
			}
			out.values[name] = list
		default:
			out.values[name] = value
		}
	}
	return out, file
}

// listFromEnv reads a JSON list, or else texts between commas. Options of a
// plug-in are between commas already, so without JSON there is one plug-in,
// written as on the command line.
func listFromEnv(s Setting, text string) (any, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "[") {
		return parseJSON([]byte(text))
	}
	if s.Type == reflect.TypeFor[[]Plugin]() {
		if text == "" {
			return []any{}, nil
		}
		return listOfTexts(s, []string{text})
	}
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return listOfTexts(s, parts)
}

// names gives the names of all settings, in the order of the struct.
func names() []string {
	var out []string
	for _, s := range Settings() {
		out = append(out, s.Name)
	}
	return out
}
