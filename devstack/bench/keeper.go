package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// task is what a keeper is asked for: to run a command, or, without one, to end all
// that earlier ones left behind.
type task struct {
	Argv, Env []string
	Out       string // file that gets what it prints
	Limit     time.Duration
}

// outcome is how a task went.
type outcome struct {
	Wall  time.Duration
	Error string
}

// Keep runs commands, one at a time, until in ends. What they leave behind when they
// end (ssh's shared connections, say) becomes children of this process, so that what
// they use of processors can be read from the tree below it.
func Keep(in io.Reader, out io.Writer) error {
	const setChildSubreaper = 36 // prctl(2)
	if _, _, no := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); no != 0 {
		return fmt.Errorf("become a subreaper: %w", no)
	}
	runtime.LockOSThread() // children die with the thread that started them (Pdeathsig)
	tasks := make(chan task)
	go func() {
		defer close(tasks)
		for d := json.NewDecoder(in); ; {
			var t task
			if d.Decode(&t) != nil { // whoever asked is gone
				_ = signalChildren(syscall.SIGTERM)
				return
			}
			tasks <- t
		}
	}()
	for t := range tasks {
		var o outcome
		var err error
		if len(t.Argv) > 0 {
			o.Wall, err = carryOut(t)
		} else {
			err = endChildren()
		}
		if err != nil {
			o.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(o); err != nil {
			return errors.Join(err, endChildren())
		}
	}
	return endChildren()
}

// carryOut runs a command and waits for all children that end meanwhile.
func carryOut(t task) (wall time.Duration, err error) {
	out, err := os.Create(t.Out)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	path, err := exec.LookPath(t.Argv[0])
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	// Not by os/exec, which would wait for this one child only.
	child, err := syscall.ForkExec(path, t.Argv, &syscall.ProcAttr{
		Env: t.Env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, err
	}
	late := time.AfterFunc(t.Limit, func() { _ = signalChildren(syscall.SIGKILL) })
	defer late.Stop()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case pid == child && !late.Stop():
			return 0, fmt.Errorf("not done within %s", t.Limit)
		case pid == child && status.Signaled():
			return 0, fmt.Errorf("ended by %s", status.Signal())
		case pid == child && status.ExitStatus() != 0:
			return 0, fmt.Errorf("exit status %d", status.ExitStatus())
		case pid == child:
			return time.Since(begin), nil
		}
	}
}

// endChildren ends all that is below this process: what loses its parent becomes a
// child of this one.
func endChildren() error {
	const patience, every = 10 * time.Second, 10 * time.Millisecond
	for begin := time.Now(); ; time.Sleep(every) {
		signal := syscall.SIGTERM
		if time.Since(begin) > patience {
			signal = syscall.SIGKILL
		}
		if err := signalChildren(signal); err != nil {
			return err
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.ECHILD) {
				return nil
			}
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return err
			}
			if pid == 0 {
				break
			}
		}
		if time.Since(begin) > 2*patience {
			return errors.New("processes remain that cannot be ended")
		}
	}
}

func signalChildren(signal syscall.Signal) error {
	all, err := processes()
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.parent == os.Getpid() && p.state != 'Z' {
			_ = syscall.Kill(p.pid, signal) // it may be gone
		}
	}
	return nil
}

// keeper is a process that runs [Keep].
type keeper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startKeeper() (*keeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k := &keeper{cmd: exec.Command(self, RoleKeeper)}
	k.cmd.Stderr = os.Stderr
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	k.out = json.NewDecoder(bufio.NewReader(out))
	return k, k.cmd.Start()
}

func (k *keeper) pid() int { return k.cmd.Process.Pid }

// do runs a command and gives how long it took, without what it takes to ask.
func (k *keeper) do(ctx context.Context, t task) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	stopped := context.AfterFunc(ctx, func() { _ = k.in.Close() })
	defer stopped()
	var o outcome
	if err := json.NewEncoder(k.in).Encode(t); err != nil {
		return 0, err
	}
	if err := k.out.Decode(&o); err != nil {
		return 0, fmt.Errorf("the keeper of the commands: %w", err)
	}
	if o.Error != "" {
		return 0, errors.New(o.Error)
	}
	return o.Wall, nil
}

// clear ends what commands left behind.
func (k *keeper) clear(ctx context.Context) error {
	_, err := k.do(ctx, task{})
	return err
}

// close ends the keeper and all that is below it.
func (k *keeper) close() error {
	_ = k.in.Close() // it may be closed already
	return k.cmd.Wait()
}
