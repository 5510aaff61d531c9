package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"commissaire/devstack/harness"
)

// doomed is a worker that harms itself at a point.
type doomed struct {
	point Point
	cmd   *exec.Cmd
	hit   string // the file that it writes at the point
	dead  chan struct{}
}

func (l *lane) doom(p Point) (*doomed, error) {
	d := &doomed{point: p, hit: filepath.Join(l.Dir, "hit"), dead: make(chan struct{})}
	for _, path := range []string{d.hit, d.over()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var err error
	if d.cmd, err = l.Start("worker", "CHAOS_FAILPOINT="+p.Failpoint(), "CHAOS_FAILPOINT_HIT="+d.hit); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.dead)
		_ = d.cmd.Wait()
	}()
	return d, nil
}

// over is the file that a stopped worker writes when the step in which it was
// stopped has ended.
func (d *doomed) over() string { return d.hit + ".over" }

func (d *doomed) kill() {
	_ = d.cmd.Process.Kill()
	<-d.dead
}

// down says whether the process is dead or stopped.
func (d *doomed) down() bool {
	select {
	case <-d.dead:
		return true
	default:
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return false
	}
	// The name, in parentheses, may hold anything; the state comes after it.
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return bytes.HasPrefix(state, []byte("T"))
}

// dies says that the worker kills itself at its point.
func (d *doomed) dies() bool {
	p := d.point
	return !p.Replaced() && !p.API() && !p.Lives()
}

// struck says whether the worker has come to its point, or is gone.
func (d *doomed) struck() bool {
	if !d.point.Lives() {
		return d.down()
	}
	_, err := os.Stat(d.hit)
	return err == nil
}

// reached gives what the worker wrote at its point, line by line, or nil when
// it did not come there.
func (d *doomed) reached() ([]string, error) {
	text, err := os.ReadFile(d.hit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] != d.point.Failpoint() {
		return nil, nil
	}
	return lines, nil
}

// resume lets a stopped worker go on once another one has its step, and waits
// until it has ended that step, too.
func (l *lane) resume(ctx context.Context, d *doomed, note []string) error {
	if len(note) != 3 {
		return fmt.Errorf("a stopped worker wrote %q", note)
	}
	err := harness.Until(ctx, endLimit, "another worker to have the step", func() (bool, error) {
		return l.overtaken(ctx, d.point, note[1], note[2])
	})
	if err != nil {
		return err
	}
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	return harness.Until(ctx, endLimit, "the stopped worker to end its step", func() (bool, error) {
		_, err := os.Stat(d.over())
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}

// overtaken says whether another attempt of an activity has begun, or ended. The
// first one cannot have ended it, since its worker is stopped. Of an activity within a
// workflow task Temporal knows nothing: there it is the end of the workflow.
func (l *lane) overtaken(ctx context.Context, p Point, workflowID, activityID string) (bool, error) {
	d, err := l.Temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	var busy *serviceerror.Unavailable
	if errors.As(err, &busy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return true, nil // nobody will have what was pending when it was terminated
	}
	if p.local() {
		return false, nil
	}
	for _, a := range d.GetPendingActivities() {
		if a.GetActivityId() == activityID {
			return a.GetAttempt() > 1 && a.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED, nil
		}
	}
	return true, nil
}
