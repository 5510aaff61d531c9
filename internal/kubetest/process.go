package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	pollInterval = 20 * time.Millisecond
	stopTimeout  = 2 * time.Minute
)

// process is one running program of the control plane.
type process struct {
	name   string
	log    string
	pid    int
	exited chan struct{} // closed when it has ended
}

// spawn starts a program with its output in dir/NAME.log. It dies with us.
func spawn(dir, binDir, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binDir, name), args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // keeps the terminal's ctrl-C away from it
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		defer close(p.exited)
		// Pdeathsig comes when the thread that forked ends, so it must live as
		// long as the program.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// alive says what is wrong when the program has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended; the end of its log:\n%s", p.name, p.logTail())
	default:
		return nil
	}
}

// stop sends a signal and returns when the program is gone. One that does not
// end in time is killed, which is an error.
func (p *process) stop(sig syscall.Signal) error {
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s (pid %d): %w", p.name, p.pid, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone meanwhile is as good
	<-p.exited
	return fmt.Errorf("%s (pid %d) did not stop within %s and was killed", p.name, p.pid, stopTimeout)
}

func (p *process) logTail() string {
	const size = 3000
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-size):])
}

// until repeats check until it holds, ctx ends or fatal says why it never will;
// the error is then that of the last check. fatal may be nil.
func until(ctx context.Context, fatal func() error, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if fatal != nil {
			if err := fatal(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pollInterval):
		}
	}
}

// removeAfterUs starts a shell that waits for the end of this process, however it
// comes, and removes dir. The processes in it die by themselves; until they have,
// one may still write. The pipe that it watches is given back and must be kept.
func removeAfterUs(dir string) (*os.File, error) {
	const script = `read -r _; until rm -rf "$1" 2>/dev/null; do sleep 0.1; done`
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("sh", "-c", script, "sh", dir)
	cmd.Stdin = theirs // the other streams are /dev/null, so go test does not wait for it
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	go func() { _ = cmd.Wait() }() // it ends when the pipe does
	return ours, nil
}
