package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"commissaire/internal/nearest"
)

// maxFile bounds the configuration file, in bytes.
const maxFile = 4 << 20

// onePlugin is the member of the first server of 2016, which had one plug-in and
// no list.
const onePlugin = "authentication-plugin"

// fromFile reads a file. A missing one is an error when somebody asked for it.
// What is wrong with single members is no error yet.
func fromFile(path string, explicit bool, stdin io.Reader) (layer, error) {
	title := "file " + path
	if path == "-" {
		title = "standard input"
	}
	out := layer{values: map[string]any{}, origin: func(Setting) string { return title }}
	if path == "" {
		return out, nil
	}
	text, err := readFile(path, stdin)
	if !explicit && errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("configuration file: %w", err)
	}
	members, err := parseObject(path, text)
	if err != nil {
		return out, fmt.Errorf("configuration %s: %w", title, err)
	}
	for _, wrong := range out.take(members) {
		out.wrong = append(out.wrong, fmt.Errorf("configuration %s: %w", title, wrong))
	}
	return out, nil
}

func readFile(path string, stdin io.Reader) ([]byte, error) {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return text, err
}

// parseObject reads YAML when the name of the file says so, else JSON. On
// standard input, which has no name, a brace begins JSON.
func parseObject(path string, text []byte) (map[string]any, error) {
	isYAML := slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path))
	if path == "-" {
		isYAML = !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
	}
	var value any
	var err error
	if isYAML {
		err = withoutValue(yaml.Unmarshal(text, &value))
	} else {
		value, err = parseJSON(text)
	}
	if err != nil {
		return nil, err
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not an object of settings")
	}
	return members, nil
}

// withoutValue keeps an error of the YAML library from showing a value: a password
// that begins with a mark of YAML is quoted in it.
func withoutValue(err error) error {
	for _, quotes := range []string{"unknown anchor", "value contains itself", "cannot decode", "invalid map key"} {
		if err != nil && strings.Contains(err.Error(), quotes) {
			return errors.New("not YAML: text that begins with *, &, !, [ or { must be in quotes")
		}
	}
	return err
}

// parseJSON reads one JSON value; a whole number does not become a float.
func parseJSON(text []byte) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("not JSON: more text after the value")
	}
	return value, nil
}

// take takes the members of a file as settings, and gives what is wrong with
// them. A null leaves a setting alone, as it did in the original.
func (l *layer) take(members map[string]any) (errs []error) {
	known := settingsByName()
	given := map[string]string{} // name of the setting → name as written
	handlers := map[string]any{} // what they say of etcd
	for _, written := range sorted(members) {
		value := members[written]
		name := strings.ReplaceAll(written, "_", "-")
		if slices.Contains(retired, name) {
			l.retired = append(l.retired, written)
			if name == "storage-handlers" || name == "register-store-handler" {
				maps.Copy(handlers, fromStorageHandlers(value))
			}
			continue
		}
		if name == onePlugin {
			name = "authentication-plugins"
			if value != nil {
				value = []any{value}
			}
		}
		if _, ok := known[name]; !ok {
			errs = append(errs, fmt.Errorf("unknown member %q%s", written, nearest.Hint(name, names())))
			continue
		}
		if before, twice := given[name]; twice {
			errs = append(errs, fmt.Errorf("%q and %q are the same setting", before, written))
			continue
		}
		given[name] = written
		if value != nil {
			l.values[name] = value
		}
	}
	maps.Copy(handlers, l.values) // the settings themselves win
	l.values = handlers
	return errs
}
