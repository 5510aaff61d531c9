package hostsource

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/nearest"
)

// Spec is one entry of host-sources: its name and its options, whose names have '_'.
type Spec struct {
	Name    string
	Options map[string]any
}

// Configured is a source as the settings have it.
type Configured struct {
	fleet.Source
	Ask Source
}

// Option describes an option, for documentation.
type Option struct{ Name, Default, Usage string }

// Options lists the options of all sources.
func Options() []Option {
	return []Option{
		{"name", "", "by which hosts name it: small letters, digits, `-` and `_`"},
		{"type", "", "`http-json` or `ansible`"},
		{"url", "", "of `http-json`: where the list of hosts is, `https://` or `http://`; redirects are not followed"},
		{"headers_file", "", "of `http-json`: file with the headers to send, such as `Authorization: Bearer …`, one on each line; read anew each time"},
		{"ca_file", "", "of `http-json`: PEM file of the authorities to trust instead of the system's"},
		{"path", "", "of `ansible`: an inventory in JSON or YAML, or a program that prints one with `--list`; absolute"},
		{"timeout", defaultTimeout.String(), "for an answer, from " + timeoutBounds[0].String() + " to " + timeoutBounds[1].String()},
		{"refresh", "0s", "how often it is asked without anybody's order, from " + refreshBounds[0].String() + " to " + refreshBounds[1].String() + "; 0s for never"},
	}
}

const defaultTimeout = 30 * time.Second

var (
	timeoutBounds = [2]time.Duration{100 * time.Millisecond, 5 * time.Minute}
	refreshBounds = [2]time.Duration{15 * time.Minute, 7 * 24 * time.Hour}
)

// kinds says which options a type takes, besides those of all.
var kinds = map[string]struct {
	options []string
	build   func(*reader) Source
}{
	"http-json": {[]string{"url", "headers_file", "ca_file"}, newHTTP},
	"ansible":   {[]string{"path"}, newAnsible},
}

// Build makes the sources of the settings, sorted by name. The error joins all that is
// wrong and names the source and the option. Nobody is asked anything yet.
func Build(specs []Spec) (all []Configured, err error) {
	var wrong []string
	seen := map[string]bool{}
	for i, s := range specs {
		r := &reader{values: s.Options}
		if _, err := fleet.ParseSource(s.Name); err != nil {
			r.fail("name", "must be small letters, digits and, between them, '-' and '_', at most %d", fleet.MaxSourceName)
		}
		if s.Name != "" && seen[s.Name] {
			r.fail("name", "is that of another source, too")
		}
		seen[s.Name] = true
		c := build(s.Name, r)
		which := fmt.Sprintf("source %d", i+1)
		if s.Name != "" {
			which += ", " + s.Name
		}
		for _, text := range r.wrong {
			wrong = append(wrong, which+": "+text)
		}
		all = append(all, c)
	}
	if wrong != nil {
		return nil, fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	slices.SortFunc(all, func(a, b Configured) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func build(name string, r *reader) Configured {
	kind := r.text("type")
	known, ok := kinds[kind]
	if !ok {
		r.fail("type", "must be one of %s%s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "), nearest.Hint(kind, slices.Sorted(maps.Keys(kinds))))
		return Configured{}
	}
	names := append([]string{"type", "timeout", "refresh"}, known.options...)
	for _, given := range slices.Sorted(maps.Keys(r.values)) {
		if !slices.Contains(names, given) {
			r.fail(given, "is nothing that %s takes%s", kind, nearest.Hint(given, names))
		}
	}
	c := Configured{Source: fleet.Source{Name: name, Type: kind}}
	r.timeout = r.duration("timeout", defaultTimeout, timeoutBounds)
	c.Refresh = r.duration("refresh", 0, refreshBounds)
	c.Ask = known.build(r)
	return c
}

// reader reads the options of one source and gathers what is wrong. No value is ever
// repeated.
type reader struct {
	values  map[string]any
	timeout time.Duration
	wrong   []string
}

func (r *reader) fail(option, format string, args ...any) {
	r.wrong = append(r.wrong, "option "+option+" "+fmt.Sprintf(format, args...))
}

// text reads an option that is text, "" when it is not given.
func (r *reader) text(name string) string {
	s, ok := r.values[name].(string)
	if r.values[name] != nil && !ok {
		r.fail(name, "must be text")
	}
	return s
}

// duration reads an option; 0 is always good where it is the default.
func (r *reader) duration(name string, otherwise time.Duration, bounds [2]time.Duration) time.Duration {
	s := r.text(name)
	if s == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil || (d < bounds[0] || d > bounds[1]) && (d != 0 || otherwise != 0) {
		r.fail(name, "must be a time like 30s, from %s to %s", bounds[0], bounds[1])
	}
	return d
}

// file reads the path of a file, "" when it is not given.
func (r *reader) file(name string) string {
	path := r.text(name)
	if path != "" && !filepath.IsAbs(path) {
		r.fail(name, "must be an absolute path")
	}
	return path
}

func (r *reader) url(name string) *url.URL {
	u, err := url.Parse(r.text(name))
	switch {
	case err != nil:
		r.fail(name, "is no URL")
	case u.User != nil:
		r.fail(name, "must hold no user and no password; put them into headers_file")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.Fragment != "":
		r.fail(name, "must be a URL like https://host:port/path")
	default:
		return u
	}
	return &url.URL{}
}
