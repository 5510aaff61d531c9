package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/json"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// DefaultFile is read when it exists and no other file is named.
const DefaultFile = "/etc/commissaire/commissaire.conf"

// EnvPrefix starts the environment variable of every setting.
const EnvPrefix = "COMMISSAIRE_"

// hostVariables belong to our scripts on managed hosts (package remote). They
// are no settings, but are in the environment of whatever such a script runs,
// which may be this program.
var hostVariables = []string{"COMMISSAIRE_RUN", "COMMISSAIRE_STATE_DIR", "COMMISSAIRE_BOOT_ID_FILE", "COMMISSAIRE_OS_ROOT"}

// Setting describes one setting, for help texts and documentation.
type Setting struct {
	Name, Env, Default, Usage string
	Type                      reflect.Type
}

// Settings lists every setting in the order of the struct.
func Settings() []Setting {
	var out []Setting
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("koanf")
		out = append(out, Setting{Name: name, Env: envName(name), Default: f.Tag.Get("default"), Usage: f.Tag.Get("usage"), Type: f.Type})
	}
	return out
}

func envName(name string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Flags adds a flag for every setting, and --config-file.
func Flags(fs *pflag.FlagSet) {
	fs.StringP("config-file", "c", "", "configuration file, JSON or YAML (default "+DefaultFile+" when it exists; environment "+envName("config-file")+")")
	for _, s := range Settings() {
		fs.String(s.Name, s.Default, s.Usage)
	}
}

// Load reads the settings from flags, environment, file and defaults, checks
// them, and refuses names it does not know.
func Load(fs *pflag.FlagSet, environ []string) (*Config, error) {
	k := koanf.New("\x00") // no nesting: names hold no delimiter
	known := map[string]bool{}
	defaults := map[string]any{}
	for _, s := range Settings() {
		known[s.Name] = true
		defaults[s.Name] = s.Default
	}
	load := func(values map[string]any) error { return k.Load(confmap.Provider(values, ""), nil) }
	if err := load(defaults); err != nil {
		return nil, err
	}

	env, err := fromEnv(environ, known)
	if err != nil {
		return nil, err
	}
	path, explicit := DefaultFile, false
	if v, ok := env["config-file"]; ok {
		path, explicit = v.(string), true
		delete(env, "config-file")
	}
	if f := fs.Lookup("config-file"); f != nil && f.Changed {
		path, explicit = f.Value.String(), true
	}
	fromFile, err := readFile(path, explicit, known)
	if err != nil {
		return nil, err
	}
	flags := map[string]any{}
	fs.Visit(func(f *pflag.Flag) {
		if known[f.Name] {
			flags[f.Name] = f.Value.String()
		}
	})
	if dsn, ok := flags["database-url"].(string); ok && holdsPassword(dsn) {
		return nil, errors.New("--database-url holds a password, which every user of this machine could read in the process list; use --database-url-file, PGPASSFILE or " + envName("database-url"))
	}
	for _, values := range []map[string]any{fromFile, env, flags} {
		if err := load(values); err != nil {
			return nil, err
		}
	}

	c := new(Config)
	err = k.UnmarshalWithConf("", c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", Result: c, WeaklyTypedInput: true, DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// Defaults gives the settings nobody changed.
func Defaults() *Config {
	c := new(Config)
	v := reflect.ValueOf(c).Elem()
	for i, s := range Settings() {
		f := v.Field(i)
		switch f.Interface().(type) {
		case time.Duration:
			d, err := time.ParseDuration(s.Default)
			if err != nil {
				panic("config: bad default of " + s.Name)
			}
			f.SetInt(int64(d))
		case int:
			if _, err := fmt.Sscan(s.Default, f.Addr().Interface()); err != nil {
				panic("config: bad default of " + s.Name)
			}
		default:
			f.SetString(s.Default)
		}
	}
	return c
}

func fromEnv(environ []string, known map[string]bool) (map[string]any, error) {
	out := map[string]any{}
	var errs []error
	for _, e := range environ {
		key, value, _ := strings.Cut(e, "=")
		rest, ours := strings.CutPrefix(key, EnvPrefix)
		if !ours {
			continue
		}
		if slices.Contains(hostVariables, key) {
			continue
		}
		name := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if !known[name] && name != "config-file" {
			errs = append(errs, fmt.Errorf("environment: unknown %s%s", key, nearest(name, known, envName)))
			continue
		}
		out[name] = value
	}
	return out, errors.Join(errs...)
}

func readFile(path string, explicit bool, known map[string]bool) (map[string]any, error) {
	if _, err := os.Stat(path); err != nil {
		if !explicit && errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	k := koanf.New("\x00")
	var parser koanf.Parser = json.Parser()
	if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
		parser = yaml.Parser()
	}
	if err := k.Load(file.Provider(path), parser); err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	out := map[string]any{}
	var errs []error
	for name, v := range k.Raw() {
		dashed := strings.ReplaceAll(name, "_", "-")
		if !known[dashed] {
			errs = append(errs, fmt.Errorf("configuration file %s: unknown member %q%s", path, name, nearest(dashed, known, func(s string) string { return s })))
			continue
		}
		out[dashed] = v
	}
	return out, errors.Join(errs...)
}

// nearest gives ", did you mean X?" when a known name is near enough.
func nearest(name string, known map[string]bool, show func(string) string) string {
	best, distance := "", len(name)/2+1
	for _, s := range Settings() {
		if d := editDistance(name, s.Name); known[s.Name] && d < distance {
			best, distance = s.Name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", show(best))
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
