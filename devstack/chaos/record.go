package chaos

import (
	"context"
	"os/exec"
	"strings"

	"github.com/jackc/pgx/v5"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
)

// verifyWorkflows wants every workflow ended as the record says, that is well, and
// none to have met a history that it could not replay.
func (l *lane) verifyWorkflows(ctx context.Context, o order, ids []string, f *Finding) error {
	for _, id := range l.roots(o.kind, ids) {
		limited, cancel := context.WithTimeout(ctx, endLimit)
		err := l.Temporal.GetWorkflow(limited, id, "").Get(limited, nil)
		late := limited.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case late:
			f.add(&f.Stuck, "workflow %s has not ended", id)
		case o.cancelled && err == nil:
			f.add(&f.Lost, "workflow %s has succeeded, though its operation was cancelled", id)
		case err != nil && !o.cancelled:
			f.add(&f.Lost, "workflow %s: %s", id, err)
		}
		children := 0
		err = l.walk(ctx, id, "", func(id string, e *historypb.HistoryEvent) {
			switch e.GetEventType() {
			case enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
				children++
			case enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
				children--
			case enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED:
				a := e.GetWorkflowTaskFailedEventAttributes()
				if a.GetCause() == enumspb.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR {
					f.add(&f.Stuck, "workflow %s could not be replayed: %s", id, a.GetFailure().GetMessage())
				}
			}
		})
		if err != nil {
			return err
		}
		if children != 0 {
			f.add(&f.Stuck, "%d workflows that %s started have not ended well", children, id)
		}
	}
	return nil
}

// verifyEndings wants every operation and host run ended well.
func (l *lane) verifyEndings(ctx context.Context, o order, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT 'operation ' || id::text, state, reason FROM operation WHERE id::text = ANY($1)
		UNION ALL SELECT 'host run ' || address, state, reason FROM host_run WHERE operation_id::text = ANY($1)`, ids)
	if err != nil {
		return err
	}
	var what, state, reason string
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&what, &state, &reason}, func() error {
		n++
		switch state {
		case "succeeded":
		case "failed", "skipped", "cancelled":
			f.add(&f.Lost, "%s is %s: %s", what, state, reason)
		default:
			f.add(&f.Stuck, "%s is %s", what, state)
		}
		return nil
	})
	f.times(n, len(l.roots(o.kind, ids))+len(l.hosts(o.kind)), "operations and host runs are in the record")
	return err
}

// verifySteps wants every step there once, and ended well.
func (l *lane) verifySteps(ctx context.Context, o order, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT address, name, count(*), count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE finished IS NULL)
		FROM step WHERE operation_id::text = ANY($1) GROUP BY address, name`, ids)
	if err != nil {
		return err
	}
	var address, name string
	var count, succeeded, open int
	got := map[string]int{}
	_, err = pgx.ForEachRow(rows, []any{&address, &name, &count, &succeeded, &open}, func() error {
		got[address+" "+name] = succeeded
		if count > 1 {
			f.add(&f.Duplicated, "%s: step %s is in the record %d times", address, name, count)
		}
		if open > 0 {
			f.add(&f.Stuck, "%s: step %s has not ended", address, name)
		}
		return nil
	})
	for h, w := range o.wants {
		for _, name := range w.steps {
			f.times(got[h.Address()+" "+name], 1, "%s: step %s succeeded", h.Name(), name)
			delete(got, h.Address()+" "+name)
		}
	}
	for what := range got {
		f.add(&f.Duplicated, "step %s is in the record, though nobody wanted it", what)
	}
	return err
}

// output is what a step printed, as the record has it.
type output struct {
	size int64 // how much it should be
	data []byte
}

// verifyOutput wants the stored output of every step to be whole: chunks that
// touch and never overlap, as many bytes as the step printed, and of the commands
// that change a host exactly what they say once.
func (l *lane) verifyOutput(ctx context.Context, o order, ids []string, f *Finding) error {
	all, err := l.outputs(ctx, ids, f)
	if err != nil {
		return err
	}
	said := func(address, step, text string) {
		if out := all[address+" "+step]; out != nil {
			f.times(strings.Count(string(out.data), text), 1, "%s: step %s printed %q", address, step, text)
		} else {
			f.add(&f.Lost, "%s: step %s has no output", address, step)
		}
	}
	uname, err := exec.Command("uname", "-a").Output() // the hosts share this machine's kernel
	if err != nil {
		return err
	}
	for h, w := range o.wants {
		switch {
		case o.name == "bootstrap":
			said(h.Address(), "prepare", string(uname))
		case w.booted != "":
			said(h.Address(), "stage", "Staging deployment... done\n")
		}
		for name, version := range w.packages {
			said(h.Address(), "upgrade", "Installed "+name+" "+version)
		}
	}
	return nil
}

// outputs reads what steps printed, by host and step, and wants it to be whole.
func (l *lane) outputs(ctx context.Context, ids []string, f *Finding) (map[string]*output, error) {
	rows, err := l.DB.Query(ctx, `SELECT s.address, s.name, s.output_size, o.position, o.data
		FROM step s JOIN output o ON o.step_id = s.id WHERE s.operation_id::text = ANY($1) ORDER BY s.id, o.position`, ids)
	if err != nil {
		return nil, err
	}
	var address, name string
	var size, offset int64
	var data []byte
	all := map[string]*output{}
	_, err = pgx.ForEachRow(rows, []any{&address, &name, &size, &offset, &data}, func() error {
		out := all[address+" "+name]
		if out == nil {
			out = &output{size: size}
			all[address+" "+name] = out
		}
		switch have := int64(len(out.data)); {
		case offset > have:
			f.add(&f.Lost, "%s: output of %s has a hole at byte %d", address, name, have)
		case offset < have:
			f.add(&f.Duplicated, "%s: output of %s overlaps at byte %d", address, name, offset)
		}
		out.data = append(out.data, data...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for what, out := range all {
		switch have := int64(len(out.data)); {
		case have < out.size:
			f.add(&f.Lost, "%s: %d of %d bytes are stored", what, have, out.size)
		case have > out.size:
			f.add(&f.Duplicated, "%s: %d bytes are stored, %d were printed", what, have, out.size)
		}
	}
	return all, nil
}

// verifyInventory wants no host in limbo.
func (l *lane) verifyInventory(ctx context.Context, _ order, _ []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT address, state, reason FROM host`)
	if err != nil {
		return err
	}
	var address, state, reason string
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&address, &state, &reason}, func() error {
		n++
		if state != "disassociated" || reason != "" {
			f.add(&f.Stuck, "host %s is %s (%s)", address, state, reason)
		}
		return nil
	})
	f.times(n, l.joined, "hosts are in the inventory")
	return err
}

// verifySlots wants no slot held after the end, and never more hosts at work than
// the policy allows, by the record's events.
func (l *lane) verifySlots(ctx context.Context, o order, ids []string, f *Finding) error {
	if !o.rollout() {
		return nil
	}
	var held, counted int
	err := l.DB.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM host_run WHERE operation_id::text = ANY($1) AND finished IS NULL),
		(SELECT sum(pending + staging + staged + running) FROM rollout WHERE operation_id::text = ANY($1))`, ids).Scan(&held, &counted)
	if err != nil {
		return err
	}
	if held+counted > 0 {
		f.add(&f.Leaked, "%d host runs have not ended, %d by the rollout's own count", held, counted)
	}
	// Slots are handed out under one lock, in which events get their numbers.
	rows, err := l.DB.Query(ctx, `SELECT address, state FROM event WHERE operation_id::text = ANY($1) AND kind = 'host' ORDER BY seq`, ids)
	if err != nil {
		return err
	}
	var address, state string
	at := map[string]bool{}
	_, err = pgx.ForEachRow(rows, []any{&address, &state}, func() error {
		if delete(at, address); state == "running" {
			at[address] = true
		}
		if len(at) > budget {
			f.add(&f.Leaked, "%d hosts were at work when %s began, by the record", len(at), address)
		}
		return nil
	})
	return err
}
