package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Plugin is one entry of authentication-plugins or host-sources. Names of options have
// '_' for '-'. A value is a string, bool, int, float64, or a []any or map[string]any of
// such; packages authn and hostsource know which option takes which.
type Plugin struct {
	Name    string
	Options map[string]any
}

// parsePlugin reads NAME or NAME:option=value,option=value. A value may hold
// colons and equal signs; one with a comma belongs into a file.
func parsePlugin(text string) (map[string]any, error) {
	name, rest, _ := strings.Cut(text, ":")
	entry := map[string]any{"name": name}
	if rest == "" {
		return entry, nil
	}
	for part := range strings.SplitSeq(rest, ",") {
		option, value, ok := strings.Cut(part, "=")
		if !ok || option == "" {
			return nil, fmt.Errorf("plug-in %q: options are written option=value,option=value; values with commas, and lists, can be given in a file", name)
		}
		if _, twice := entry[option]; twice {
			return nil, fmt.Errorf("plug-in %q: option %s is given twice", name, option)
		}
		if option == "users" || secretOption.MatchString(option) {
			return nil, fmt.Errorf("plug-in %q: option %s is secret, which every user of this machine could read in the process list; put it into a file", name, option)
		}
		entry[option] = value
	}
	return entry, nil
}

func toPlugins(raw any) ([]Plugin, error) {
	list, ok := raw.([]any)
	if !ok {
		return nil, errors.New(`must be a list of objects like {"name": "…", …}`)
	}
	var out []Plugin
	for i, entry := range list {
		p, err := toPlugin(entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func toPlugin(raw any) (Plugin, error) {
	members, ok := raw.(map[string]any)
	if !ok {
		return Plugin{}, errors.New(`must be an object like {"name": "…", …}`)
	}
	name, _ := members["name"].(string) // without one it is told with all else that is wrong
	p := Plugin{Name: name, Options: map[string]any{}}
	for _, written := range sorted(members) {
		option := strings.ReplaceAll(written, "-", "_")
		if option == "name" {
			continue
		}
		if _, twice := p.Options[option]; twice {
			return Plugin{}, fmt.Errorf("plug-in %q: option %s is given twice", name, written)
		}
		value, err := plain(members[written])
		if err != nil {
			return Plugin{}, fmt.Errorf("plug-in %q: option %s: %w", name, written, err)
		}
		p.Options[option] = value
	}
	return p, nil
}

// plain makes the values of JSON and of YAML the same.
func plain(raw any) (any, error) {
	switch v := raw.(type) {
	case nil, string, bool, int, float64:
		return v, nil
	case json.Number:
		if n, err := v.Int64(); err == nil && int64(int(n)) == n {
			return int(n), nil
		}
		return v.Float64()
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = plain(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			var err error
			if out[name], err = plain(inner); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, errors.New("must be text, a number, true or false, a list, or an object whose names are text")
}
