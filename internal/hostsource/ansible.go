package hostsource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"commissaire/internal/fleet"
)

// ansible reads an inventory of Ansible: a file, or what a program says ("Developing
// dynamic inventory" in its documentation).
type ansible struct {
	path    string
	timeout time.Duration
}

func newAnsible(r *reader) Source {
	if r.text("path") == "" {
		r.fail("path", "is needed")
	}
	return &ansible{path: r.file("path"), timeout: r.timeout}
}

// Fetch reads the file, or asks the program when it may be run.
func (s *ansible) Fetch(ctx context.Context) (map[string]fleet.SourceFacts, error) {
	info, err := os.Stat(s.path)
	switch {
	case err != nil:
		return nil, &Error{Reason: "its path cannot be read: " + errors.Unwrap(err).Error()}
	case !info.Mode().IsRegular():
		return nil, &Error{Reason: "its path is no file"}
	case info.Mode().Perm()&0o111 != 0:
		return (&program{path: s.path, timeout: s.timeout}).ask(ctx)
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, &Error{Reason: "its path cannot be read: " + errors.Unwrap(err).Error()}
	}
	defer f.Close()
	text, err := readAll(f)
	if err != nil {
		return nil, notAnswered(ctx, err)
	}
	said, err := parseInventory(text, !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")))
	if err != nil {
		return nil, err
	}
	if name, missing := said.lacking(); missing {
		return nil, &Error{Reason: fmt.Sprintf("host %q stands in a list, as a program prints it, and there is no _meta.hostvars with its variables", short(name))}
	}
	return said.facts(), nil
}

// inventory is what one says of its hosts.
type inventory struct {
	// vars are the variables by the name of the host, nil where there is a name only.
	vars map[string]map[string]any
	// listed are the names that stand in lists, the form of --list, which has no room for
	// variables there.
	listed map[string]bool
	// meta: all variables of hosts stand in _meta.hostvars. Who is not there has none.
	meta bool
}

// parseInventory reads an inventory: what --list gives, in JSON or YAML, or an inventory
// file in YAML or JSON.
func parseInventory(text []byte, isYAML bool) (*inventory, error) {
	var groups map[string]any
	if isYAML {
		if err := yaml.Unmarshal(text, &groups); err != nil { // the error may repeat a value
			return nil, &Error{Reason: "it is no inventory in JSON or YAML; one in the INI format is not read"}
		}
	} else if err := decode(text, &groups); err != nil {
		return nil, &Error{Reason: "it is no inventory in JSON: " + err.Error()}
	}
	if groups == nil {
		return nil, &Error{Reason: "it is no inventory: there is nothing in it"}
	}
	said := &inventory{vars: map[string]map[string]any{}, listed: map[string]bool{}}
	for name, group := range groups {
		if name == "_meta" {
			continue
		}
		if err := said.members(name, group); err != nil {
			return nil, err
		}
	}
	if err := said.hostvars(groups["_meta"]); err != nil {
		return nil, err
	}
	return said, nil
}

// hostvars takes the variables of _meta, if it is there and has such.
func (v *inventory) hostvars(meta any) error {
	more, ok := meta.(map[string]any)
	if !ok && meta != nil {
		return &Error{Reason: "it is no inventory: _meta is no object"}
	}
	if more["hostvars"] == nil {
		return nil
	}
	if _, v.meta = more["hostvars"].(map[string]any); !v.meta {
		return &Error{Reason: "it is no inventory: _meta.hostvars is no object"}
	}
	return v.hosts("_meta", more["hostvars"])
}

// unknown are the names of the hosts whose variables are not in it, sorted.
func (v *inventory) unknown() (names []string) {
	if v.meta {
		return nil
	}
	for name, vars := range v.vars {
		if vars == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lacking gives the first host of which a list has the name and nothing the variables. In
// an inventory file a host without variables stands otherwise.
func (v *inventory) lacking() (name string, missing bool) {
	for _, name := range v.unknown() {
		if v.listed[name] {
			return name, true
		}
	}
	return "", false
}

// facts gives what the variables say, by address.
func (v *inventory) facts() map[string]fleet.SourceFacts {
	said := map[string][]fleet.SourceFacts{}
	for name, vars := range v.vars {
		if host, ok := cmpOr(vars["ansible_host"], vars["ansible_ssh_host"]).(string); ok {
			name = host
		}
		address, err := fleet.ParseAddress(name)
		if err != nil {
			continue // an alias or a template, which is the address of no host of ours
		}
		said[address] = append(said[address], factsOf(vars))
	}
	found := map[string]fleet.SourceFacts{}
	for address, names := range said {
		found[address] = agreed(names)
	}
	return found
}

// agreed is what the names of one machine say without contradiction. An inventory is made
// for others, too, and has a name for each service of a machine.
func agreed(names []fleet.SourceFacts) (f fleet.SourceFacts) {
	f.OS = agree(names, func(f fleet.SourceFacts) *string { return f.OS })
	f.OSVersion = agree(names, func(f fleet.SourceFacts) *string { return f.OSVersion })
	f.CPUs = agree(names, func(f fleet.SourceFacts) *int { return f.CPUs })
	f.Memory = agree(names, func(f fleet.SourceFacts) *int { return f.Memory })
	f.Space = agree(names, func(f fleet.SourceFacts) *int64 { return f.Space })
	for _, one := range names {
		for label := range one.Labels {
			value := agree(names, func(f fleet.SourceFacts) *string {
				if value, ok := f.Labels[label]; ok {
					return &value
				}
				return nil
			})
			if value == nil {
				continue
			}
			if f.Labels == nil {
				f.Labels = map[string]string{}
			}
			f.Labels[label] = *value
		}
	}
	return f
}

// agree gives what all say who say something, nil when they differ.
func agree[T comparable](names []fleet.SourceFacts, of func(fleet.SourceFacts) *T) (value *T) {
	for _, f := range names {
		said := of(f)
		switch {
		case said == nil:
		case value == nil:
			value = said
		case *said != *value:
			return nil
		}
	}
	return value
}

// members takes the hosts of a group and of the groups that are written in it.
func (v *inventory) members(name string, group any) error {
	switch g := group.(type) {
	case nil:
		return nil
	case []any: // the oldest form: a list of hosts
		return v.hosts(name, g)
	case map[string]any:
		if err := v.hosts(name, g["hosts"]); err != nil {
			return err
		}
		children, _ := g["children"].(map[string]any) // a list of names says nothing new
		for child, inner := range children {
			if err := v.members(child, inner); err != nil {
				return err
			}
		}
		return nil
	}
	return &Error{Reason: fmt.Sprintf("it is no inventory: group %q is neither an object nor a list", short(name))}
}

// hosts takes hosts: names, or an object from names to variables.
func (v *inventory) hosts(group string, given any) error {
	switch list := given.(type) {
	case nil:
		return nil
	case []any:
		for _, name := range list {
			if text, ok := name.(string); ok {
				v.listed[text] = true
				v.add(text, nil)
			}
		}
		return nil
	case map[string]any:
		for name, more := range list {
			vars, ok := more.(map[string]any)
			if !ok && more != nil {
				return &Error{Reason: fmt.Sprintf("it is no inventory: the variables of host %q are no object", short(name))}
			}
			v.add(name, vars)
		}
		return nil
	}
	return &Error{Reason: fmt.Sprintf("it is no inventory: the hosts of %q are neither a list nor an object", short(group))}
}

// add adds variables of a host, nil for none that are known.
func (v *inventory) add(name string, vars map[string]any) {
	known := v.vars[name]
	if known == nil && vars != nil {
		known = map[string]any{}
	}
	maps.Copy(known, vars)
	v.vars[name] = known
}

// short keeps a name of others from filling a reason.
func short(name string) string {
	if runes := []rune(name); len(runes) > 64 {
		return string(runes[:64]) + "…"
	}
	return name
}

func cmpOr(a, b any) any {
	if a != nil {
		return a
	}
	return b
}

// distributions are the IDs of os-release(5) for what Ansible calls systems, where one is
// not the other in small letters.
var distributions = map[string]string{
	"RedHat": "rhel", "OracleLinux": "ol", "openSUSE Leap": "opensuse-leap", "openSUSE Tumbleweed": "opensuse-tumbleweed",
	"openSUSE MicroOS": "opensuse-microos", "Linux Mint": "linuxmint", "Amazon": "amzn", "Archlinux": "arch",
}

// factsOf takes facts from the variables of a host: ours by their plain names first, then
// those that Ansible gathers. An inventory is made for others, too, so what cannot be a
// fact is not taken for one.
func factsOf(vars map[string]any) (f fleet.SourceFacts) {
	system := func(v *string) fleet.SourceFacts { return fleet.SourceFacts{OS: v} }
	f.OS = pick(vars, distribution, system, "os", "ansible_distribution")
	f.OSVersion = pick(vars, text, func(v *string) fleet.SourceFacts { return fleet.SourceFacts{OSVersion: v} }, "os_version", "ansible_distribution_version")
	f.CPUs = pick(vars, number[int], func(v *int) fleet.SourceFacts { return fleet.SourceFacts{CPUs: v} }, "cpus", "ansible_processor_nproc", "ansible_processor_vcpus")
	f.Memory = pick(vars, number[int], func(v *int) fleet.SourceFacts { return fleet.SourceFacts{Memory: v} }, "memory", "ansible_memtotal_mb")
	f.Space = pick(vars, number[int64], func(v *int64) fleet.SourceFacts { return fleet.SourceFacts{Space: v} }, "space")
	if l := pick(vars, labels, func(v *map[string]string) fleet.SourceFacts { return fleet.SourceFacts{Labels: *v} }, "labels"); l != nil {
		f.Labels = *l
	}
	return f
}

// pick gives the first of some variables that can be the fact.
func pick[T any](vars map[string]any, read func(any) (T, bool), as func(*T) fleet.SourceFacts, names ...string) *T {
	for _, name := range names {
		if v, ok := read(vars[name]); ok && as(&v).Check() == nil {
			return &v
		}
	}
	return nil
}

func distribution(value any) (string, bool) {
	name, ok := value.(string)
	if id := distributions[name]; id != "" {
		return id, ok
	}
	return strings.ToLower(name), ok
}

func labels(value any) (map[string]string, bool) {
	given, ok := value.(map[string]any)
	out := map[string]string{}
	for name, inner := range given {
		if s, ok := text(inner); ok {
			out[name] = s
		}
	}
	return out, ok
}

// text gives a variable as text; numbers are often written without quotes.
func text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case int:
		return fmt.Sprint(v), true
	case float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// number gives a variable as a whole number; templates give text.
func number[T int | int64](value any) (T, bool) {
	s, ok := text(value)
	n, err := strconv.ParseInt(s, 10, 64)
	return T(n), ok && err == nil
}
