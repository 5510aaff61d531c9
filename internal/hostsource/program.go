package hostsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"commissaire/internal/fleet"
)

const (
	// hostsAtOnce is how many processes ask for the variables of hosts at one time. What
	// is behind the program is somebody else's, so they are few.
	hostsAtOnce = 4
	// saidTail is how much of what a program prints to its standard error is kept.
	saidTail = 2 << 10
	// pipesDelay is for a child of the program that has left its group and holds its output.
	pipesDelay = 2 * time.Second
)

// passed is what of our environment a program gets: nothing that may hold a secret of ours.
var passed = []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

// program is a dynamic inventory that is being asked, once.
type program struct {
	path    string
	timeout time.Duration // of all answers together
	printed atomic.Int64  // bytes in all answers, at most MaxAnswer
}

// ask asks with --list. An answer without _meta.hostvars says of no host that it has no
// variables: these are asked for with --host, and no answer counts before all are there.
func (p *program) ask(ctx context.Context) (map[string]fleet.SourceFacts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, late(p.timeout))
	defer cancel()
	list, err := p.run(ctx, "--list")
	if err != nil {
		return nil, err
	}
	said, err := parseInventory(list, false)
	if err != nil {
		return nil, err
	}
	vars, err := p.askHosts(ctx, said.unknown(), list)
	if err != nil {
		return nil, err
	}
	for name, more := range vars {
		said.add(name, more)
	}
	return said.facts(), nil
}

// askHosts gives the variables of hosts, by name. The first answer that is of no use ends
// the others.
func (p *program) askHosts(ctx context.Context, names []string, list []byte) (map[string]map[string]any, error) {
	var lock sync.Mutex
	said := map[string]map[string]any{}
	asking, work := errgroup.WithContext(ctx)
	asking.SetLimit(hostsAtOnce)
	for _, name := range names {
		if work.Err() != nil {
			break
		}
		asking.Go(func() error {
			vars, err := p.askHost(work, name, list)
			if err != nil {
				return ofHost(name, err)
			}
			lock.Lock()
			defer lock.Unlock()
			said[name] = vars
			return nil
		})
	}
	failed := asking.Wait()
	if failed == nil {
		failed = context.Cause(ctx) // before all were asked
	}
	var e *Error
	if ctx.Err() != nil && errors.As(failed, &e) {
		e.Reason += fmt.Sprintf("; it is asked for each host, since it gives no _meta.hostvars, and had answered for %d of %d", len(said), len(names))
	}
	return said, failed
}

// ofHost says for which host an answer was of no use.
func ofHost(name string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return &Error{Reason: fmt.Sprintf("--host %q: %s", short(name), e.Reason), Passes: e.Passes, Said: e.Said}
}

// askHost gives the variables of one host.
func (p *program) askHost(ctx context.Context, name string, list []byte) (vars map[string]any, err error) {
	text, err := p.run(ctx, "--host", name)
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(text, list):
		return nil, &Error{Reason: "its answer is the one to --list; it must be the variables of the host"}
	}
	if err := decode(text, &vars); err != nil {
		return nil, &Error{Reason: "its answer is no object in JSON: " + err.Error()}
	}
	if vars == nil {
		return nil, &Error{Reason: "its answer is no object in JSON, but null"}
	}
	return vars, nil
}

// run runs the program and gives what it printed. It ends with ctx, and with it all
// processes of its group.
func (p *program) run(ctx context.Context, args ...string) ([]byte, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out, said := &bounded{total: &p.printed, full: func() { stop(tooLarge()) }}, &tail{}
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Dir = filepath.Dir(p.path)
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
	err := cmd.Start()
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, &Error{Reason: "it cannot be run: " + err.Error()}
	}
	err = cmd.Wait()
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

// bounded keeps what is printed while all answers have MaxAnswer bytes at most, and tells
// when there are more.
type bounded struct {
	text  []byte
	total *atomic.Int64
	full  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.total.Add(int64(len(p))) > MaxAnswer {
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
