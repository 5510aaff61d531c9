package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"syscall"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// moment is where a command stands on its hosts and in the record when harm is done. One
// step does all hosts of a page, so what happens within it is held from outside: by hosts
// that do not answer, by commands that wait, and by locks in the record.
type moment struct {
	name  string
	harms []string
}

// Moments, and what is done at them.
const (
	takenUp   = "taken-up"  // the hosts are at work by the record, and none was reached
	running   = "running"   // on all hosts
	half      = "half"      // on all hosts but one, which has ended on record
	unwritten = "unwritten" // it has ended on all hosts, and nothing of that is written
	batch     = "batch"     // as before, and the statement that writes it is under way
	accepted  = "accepted"  // the operation is on record, and its workflow is about to start

	harmKill    = "kill"    // the worker
	harmZombie  = "zombie"  // the worker sleeps until another one has the page
	harmLate    = "late"    // it sleeps until the operation has ended
	harmCancel  = "cancel"  // the worker is killed, and somebody cancels
	harmForce   = "force"   // the same, with force
	harmAPI     = "api"     // is killed
	harmBastion = "bastion" // loses power for a moment
	harmRequest = "request" // the API is killed before Temporal is asked for the workflow
	harmAnswer  = "answer"  // the API is killed before it knows that Temporal has it
)

var moments = []moment{
	{takenUp, []string{harmKill, harmZombie, harmLate, harmCancel, harmForce, harmAPI}},
	{running, []string{harmKill, harmZombie, harmLate, harmCancel, harmForce, harmAPI, harmBastion}},
	{half, []string{harmKill, harmZombie, harmLate, harmCancel, harmForce, harmAPI, harmBastion}},
	{unwritten, []string{harmKill, harmZombie, harmLate, harmAPI}},
	{batch, []string{harmKill, harmZombie, harmLate, harmAPI}},
	{accepted, []string{harmRequest, harmAnswer}},
}

// held says that a point is such a moment.
func (p Point) held() bool {
	return p.kind.name == kindCommand && slices.ContainsFunc(moments, func(m moment) bool { return m.name == p.Activity })
}

// heldTrial is one command that is held at a moment.
type heldTrial struct {
	*lane
	order
	before ledgers
	ids    []string
	worker *exec.Cmd
	letGo  func() error // ends what holds it; may be called again
}

// tryHeld does harm at a moment and sees that the command comes to its right end.
func (l *lane) tryHeld(ctx context.Context, p Point) (*Trial, error) {
	begin := time.Now()
	o, err := l.offer(p.kind)
	if err != nil {
		return nil, err
	}
	before, err := l.ledgers()
	if err != nil {
		return nil, err
	}
	h := &heldTrial{lane: l, order: o, before: before, letGo: func() error { return nil }}
	defer func() { _ = h.letGo() }()
	if p.Activity == accepted {
		if h.ids, err = l.accept(ctx, o, p.Phase == harmAnswer); err != nil {
			return nil, err
		}
	}
	if h.worker, err = l.Start("worker"); err != nil {
		return nil, err
	}
	defer harness.Kill(h.worker)
	t := &Trial{Point: p, Reached: true}
	if p.Activity != accepted {
		if err := h.reach(ctx, p.Activity); err != nil {
			return nil, err
		}
		next, err := h.harm(ctx, p.Phase)
		defer harness.Kill(next)
		if err != nil {
			return nil, err
		}
	}
	if p.Phase != harmForce {
		if err := l.gates(l.hosts(o.kind), false); err != nil {
			return nil, err
		}
	}
	var slow error
	if p.Phase == harmZombie || p.Phase == harmLate {
		slow = h.outlive(ctx)
	}
	if t.Finding, err = l.finish(ctx, h.order, h.ids, before); err != nil {
		return nil, err
	}
	if slow != nil {
		t.add(&t.Stuck, "the worker that slept: %s", slow)
	}
	t.Took = time.Since(begin)
	return t, nil
}

// reach orders a command on all hosts at once and holds it at a moment.
func (h *heldTrial) reach(ctx context.Context, moment string) (err error) {
	hosts := h.hosts(h.kind)
	if err := h.gates(hosts, true); err != nil {
		return err
	}
	if moment == takenUp {
		if err := h.hang(hosts); err != nil {
			return err
		}
	}
	latest, err := h.latest(ctx)
	if err != nil {
		return err
	}
	if err := h.Call(ctx, http.MethodPost, "cluster/"+h.cluster+"/command", commandBody(0)); err != nil {
		return err
	}
	if h.ids, err = h.since(ctx, latest); err != nil {
		return err
	}
	if moment == takenUp {
		return h.until(ctx, "all hosts to be taken up", `SELECT count(*) = $2 FROM host_run WHERE operation_id::text = ANY($1) AND state = 'running'`, len(hosts))
	}
	if err := h.before.everywhere(ctx, commandBegan, hosts...); err != nil {
		return err
	}
	last := hosts[len(hosts)-1].Address()
	switch moment {
	case half:
		if err := h.gate(hosts[0], false); err != nil {
			return err
		}
		return h.until(ctx, "one host to end", `SELECT count(*) = 1 FROM host_run WHERE operation_id::text = ANY($1) AND address = $2 AND state = 'succeeded'`, hosts[0].Address())
	case unwritten:
		err = h.lock(ctx, `SELECT 1 FROM rollout WHERE operation_id::text = ANY($1) FOR UPDATE`)
	case batch:
		err = h.lock(ctx, `SELECT 1 FROM host_run WHERE operation_id::text = ANY($1) AND address = $2 FOR UPDATE`, last)
	default:
		return nil
	}
	if err == nil {
		err = h.gates(hosts, false)
	}
	if err == nil {
		err = h.before.everywhere(ctx, commandEnded, hosts...)
	}
	if err != nil {
		return err
	}
	return h.until(ctx, "the worker to wait for the record", `SELECT bool_or(wait_event_type = 'Lock') AND (SELECT state = 'running' FROM host_run WHERE operation_id::text = ANY($1) AND address = $2)
		FROM pg_stat_activity WHERE datname = current_database()`, last)
}

// hang keeps hosts from answering who connects.
func (h *heldTrial) hang(hosts []*remotetest.Host) error {
	h.letGo = func() error {
		for _, host := range hosts {
			if err := host.Unhang(); err != nil {
				return err
			}
		}
		return nil
	}
	for _, host := range hosts {
		if err := host.Hang(); err != nil {
			return err
		}
	}
	return nil
}

// lock locks rows of the record that belong to the operation, which is the first argument.
func (h *heldTrial) lock(ctx context.Context, sql string, args ...any) error {
	tx, err := h.DB.Begin(ctx)
	if err != nil {
		return err
	}
	h.letGo = func() error { _ = tx.Rollback(context.WithoutCancel(ctx)); return nil } // an error when it is done already
	_, err = tx.Exec(ctx, sql, append([]any{h.ids}, args...)...)
	return err
}

// until waits for what the record says of the operation.
func (h *heldTrial) until(ctx context.Context, what, sql string, args ...any) error {
	return harness.Until(ctx, endLimit, what, func() (is bool, err error) {
		err = h.DB.QueryRow(ctx, sql, append([]any{h.ids}, args...)...).Scan(&is)
		return is, err
	})
}

// harm does harm and lets go what was held. It gives the worker that takes the place of
// the first one, or nil.
func (h *heldTrial) harm(ctx context.Context, what string) (next *exec.Cmd, err error) {
	switch what {
	case harmAPI:
		harness.Kill(h.Server)
		if h.Server, err = h.Start("server"); err != nil {
			return nil, err
		}
		if err := h.Ready(ctx); err != nil {
			return nil, err
		}
		if err := h.goesOn(ctx); err != nil {
			return nil, err
		}
		return nil, h.letGo()
	case harmBastion:
		b := h.bastion()
		if err := b.Kill(); err != nil {
			return nil, err
		}
		h.wants[b] = want{effects: map[string]int{bootEffect: 1}}
		return nil, b.Start(ctx)
	case harmZombie, harmLate:
		if err := h.worker.Process.Signal(syscall.SIGSTOP); err != nil {
			return nil, err
		}
	default:
		harness.Kill(h.worker)
	}
	if what == harmCancel || what == harmForce {
		h.cancelled = true
		if err := h.cancel(ctx, h.order, h.ids[0], what == harmForce, h.before); err != nil {
			return nil, err
		}
	}
	if err := h.letGo(); err != nil {
		return nil, err
	}
	if next, err = h.Start("worker"); err != nil || what != harmZombie && what != harmLate {
		return next, err
	}
	if err := harness.Until(ctx, endLimit, "another worker to have the page", func() (bool, error) { return h.replaced(ctx) }); err != nil {
		return next, err
	}
	if what == harmZombie {
		err = h.worker.Process.Signal(syscall.SIGCONT)
	}
	return next, err
}

// goesOn wants the API to know that the command runs.
func (h *heldTrial) goesOn(ctx context.Context) error {
	response, err := h.Request(ctx, http.MethodGet, "operations/"+h.ids[0], nil)
	if err != nil {
		return err
	}
	var now struct{ State fleet.OperationState }
	if response.Code != http.StatusOK || json.Unmarshal(response.Body, &now) != nil || now.State != fleet.OperationRunning {
		return fmt.Errorf("GET of a command that runs: %d: %s", response.Code, response.Body)
	}
	return nil
}

// replaced says whether another worker has the page, or the command has ended.
func (h *heldTrial) replaced(ctx context.Context) (bool, error) {
	d, err := h.Temporal.DescribeWorkflowExecution(ctx, workflows.CommandWorkflowID(fleet.DefaultTenant, h.ids[0]), "")
	if _, busy := err.(*serviceerror.Unavailable); busy {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, a := range d.GetPendingActivities() {
		if a.GetAttempt() > 1 && a.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED {
			return true, nil
		}
	}
	return d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// outlive lets the worker that slept go on once the operation has ended, and wants it to
// hand over what it has and to stop when it is asked to.
func (h *heldTrial) outlive(ctx context.Context) error {
	if err := harness.Until(ctx, endLimit, "the operation to end", func() (bool, error) { return h.Ended(ctx, h.ids) }); err != nil {
		return err
	}
	for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := h.worker.Process.Signal(s); err != nil {
			return err
		}
	}
	gone := make(chan struct{})
	go func() { _ = h.worker.Wait(); close(gone) }() // it is killed at the latest when the trial is over
	select {
	case <-gone:
		return nil
	case <-time.After(endLimit):
		return fmt.Errorf("it did not stop within %s", endLimit)
	}
}
