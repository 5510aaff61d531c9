package hostsource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"commissaire/internal/fleet"
)

// ansible reads an inventory of Ansible: a file, or what a program prints with --list
// ("Developing dynamic inventory" in its documentation).
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

// Fetch reads the file, or runs the program when it may be run.
func (s *ansible) Fetch(ctx context.Context) (map[string]fleet.SourceFacts, error) {
	info, err := os.Stat(s.path)
	switch {
	case err != nil:
		return nil, &Error{Reason: "its path cannot be read: " + errors.Unwrap(err).Error()}
	case !info.Mode().IsRegular():
		return nil, &Error{Reason: "its path is no file"}
	case info.Mode().Perm()&0o111 != 0:
		text, err := s.run(ctx)
		if err != nil {
			return nil, err
		}
		return parseInventory(text, false)
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
	return parseInventory(text, !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")))
}

const (
	// saidTail is how much of what a program prints to its standard error is kept.
	saidTail = 2 << 10
	// pipesDelay is for a child of the program that has left its group and holds its output.
	pipesDelay = 2 * time.Second
)

// passed is what of our environment a program gets: nothing that may hold a secret of ours.
var passed = []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

// run runs the program and gives what it printed. It ends with its time, and with it all
// processes of its group.
func (s *ansible) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, late(s.timeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out, said := &bounded{full: func() { stop(tooLarge()) }}, &tail{}
	cmd := exec.CommandContext(ctx, s.path, "--list")
	cmd.Dir = filepath.Dir(s.path)
	cmd.Env = []string{}
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, said, pipesDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	group := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = group
	if err := cmd.Start(); err != nil {
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, &Error{Reason: "it cannot be run: " + err.Error()}
	}
	err := cmd.Wait()
	_ = group() // what it has left behind
	var known *Error
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out.text, nil
	case errors.As(context.Cause(ctx), &known):
		return nil, &Error{Reason: known.Reason, Passes: known.Passes, Said: said.String()}
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &exit):
		return nil, &Error{Reason: "it ended with " + exit.String() + "; the log of the worker has what it said", Passes: true, Said: said.String()}
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, &Error{Reason: "it ended, and a process that it has left behind keeps its output open", Said: said.String()}
	}
	return nil, &Error{Reason: "it cannot be run: " + err.Error(), Passes: true, Said: said.String()}
}

// bounded keeps MaxAnswer bytes, and tells when there are more.
type bounded struct {
	text []byte
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > MaxAnswer {
		b.full()
		return 0, errors.New("too large")
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// tail keeps the last bytes.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-saidTail):]
	return len(p), nil
}

func (t *tail) String() string { return strings.ToValidUTF8(string(t.text), "\uFFFD") }

// parseInventory reads an inventory: what --list gives, in JSON or YAML, or an inventory
// file in YAML.
func parseInventory(text []byte, isYAML bool) (map[string]fleet.SourceFacts, error) {
	var groups map[string]any
	if isYAML {
		if err := yaml.Unmarshal(text, &groups); err != nil { // the error may repeat a value
			return nil, &Error{Reason: "it is no inventory in JSON or YAML; one in the INI format is not read"}
		}
	} else {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&groups); err != nil {
			return nil, &Error{Reason: "it is no inventory in JSON: " + jsonFault(err)}
		}
		if d.More() {
			return nil, &Error{Reason: "it is no inventory in JSON: more text after its end"}
		}
	}
	if groups == nil {
		return nil, &Error{Reason: "it is no inventory: there is nothing in it"}
	}
	vars := map[string]map[string]any{}
	for name, group := range groups {
		if name == "_meta" {
			continue
		}
		if err := members(vars, name, group); err != nil {
			return nil, err
		}
	}
	if meta, ok := groups["_meta"].(map[string]any); ok {
		if err := hosts(vars, "_meta", meta["hostvars"]); err != nil {
			return nil, err
		}
	}
	said := map[string][]fleet.SourceFacts{}
	for name, v := range vars {
		if host, ok := cmpOr(v["ansible_host"], v["ansible_ssh_host"]).(string); ok {
			name = host
		}
		address, err := fleet.ParseAddress(name)
		if err != nil {
			continue // an alias or a template, which is the address of no host of ours
		}
		said[address] = append(said[address], factsOf(v))
	}
	found := map[string]fleet.SourceFacts{}
	for address, names := range said {
		found[address] = agreed(names)
	}
	return found, nil
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
func members(vars map[string]map[string]any, name string, group any) error {
	switch g := group.(type) {
	case nil:
		return nil
	case []any: // the oldest form: a list of hosts
		return hosts(vars, name, g)
	case map[string]any:
		if err := hosts(vars, name, g["hosts"]); err != nil {
			return err
		}
		children, _ := g["children"].(map[string]any) // a list of names says nothing new
		for child, inner := range children {
			if err := members(vars, child, inner); err != nil {
				return err
			}
		}
		return nil
	}
	return &Error{Reason: fmt.Sprintf("it is no inventory: group %q is neither an object nor a list", short(name))}
}

// hosts takes hosts: names, or an object from names to variables.
func hosts(vars map[string]map[string]any, group string, given any) error {
	merge := func(name string, more map[string]any) {
		if vars[name] == nil {
			vars[name] = map[string]any{}
		}
		for key, value := range more {
			vars[name][key] = value
		}
	}
	switch list := given.(type) {
	case nil:
		return nil
	case []any:
		for _, name := range list {
			if text, ok := name.(string); ok {
				merge(text, nil)
			}
		}
		return nil
	case map[string]any:
		for name, more := range list {
			variables, _ := more.(map[string]any)
			merge(name, variables)
		}
		return nil
	}
	return &Error{Reason: fmt.Sprintf("it is no inventory: the hosts of %q are neither a list nor an object", short(group))}
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
