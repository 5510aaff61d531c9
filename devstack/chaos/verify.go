package chaos

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// Finding is what a trial found. Anything but zero is a broken promise.
type Finding struct {
	Lost       int // an effect or output that should be there and is not
	Duplicated int // an effect or output that is there twice
	Stuck      int // an operation, host run or step that did not end
	Notes      []string
}

func (f *Finding) add(count *int, format string, args ...any) {
	*count++
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}

// OK says whether every promise was held.
func (f *Finding) OK() bool { return f.Lost+f.Duplicated+f.Stuck == 0 }

// effects counts what happened to the hosts of a lane, by their own ledgers.
type effects map[string]map[string]int

func (l *lane) effects() (effects, error) {
	out := effects{}
	for _, h := range l.Fleet.Hosts() {
		entries, err := h.Ledger()
		if err != nil {
			return nil, err
		}
		counts := map[string]int{}
		for _, e := range entries {
			counts[strings.TrimSpace(e.What+" "+e.Args)]++
		}
		out[h.Address()] = counts
	}
	return out, nil
}

// wanted is what one operation of a kind must have done to each host: the
// ledger's lines and how often.
var wanted = map[string]map[string]int{
	"bootstrap": {"uname -a": 1, "systemctl reboot": 0, "boot": 0},
	"restart":   {"uname -a": 0, "systemctl reboot": 1, "boot": 1},
}

// stepsOf are the steps that a host must have, each once.
var stepsOf = map[string][]string{
	"bootstrap": {"investigate", "prepare"},
	"restart":   {"check", "reboot", "verify", "wait"},
}

// verify compares the record of the operations with what the hosts say.
func (l *lane) verify(ctx context.Context, kind string, ids []string, before effects) (*Finding, error) {
	f := new(Finding)
	after, err := l.effects()
	if err != nil {
		return nil, err
	}
	for address, counts := range after {
		for what, want := range wanted[kind] {
			switch got := counts[what] - before[address][what]; {
			case got < want:
				f.add(&f.Lost, "%s: %q happened %d times, not %d", address, what, got, want)
			case got > want:
				f.add(&f.Duplicated, "%s: %q happened %d times, not %d", address, what, got, want)
			}
		}
	}
	for _, check := range []func(context.Context, string, []string, *Finding) error{l.verifyEndings, l.verifyWorkflows, l.verifySteps, l.verifyOutput, l.verifyHosts} {
		if err := check(ctx, kind, ids, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// verifyEndings wants every operation and host run ended well.
func (l *lane) verifyEndings(ctx context.Context, kind string, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT 'operation ' || id::text, state, reason FROM operation WHERE id::text = ANY($1)
		UNION ALL SELECT 'host run ' || address, state, reason FROM host_run WHERE operation_id::text = ANY($1)`, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var what, state, reason string
		if err := rows.Scan(&what, &state, &reason); err != nil {
			return err
		}
		n++
		switch state {
		case "succeeded":
		case "pending", "running":
			f.add(&f.Stuck, "%s is %s", what, state)
		default:
			f.add(&f.Lost, "%s is %s: %s", what, state, reason)
		}
	}
	if want := len(ids) + hostCount; n != want {
		f.add(&f.Lost, "%d operations and host runs in the record, not %d", n, want)
	}
	return rows.Err()
}

// verifyWorkflows wants every workflow ended as the record says, that is well.
func (l *lane) verifyWorkflows(ctx context.Context, kind string, _ []string, f *Finding) error {
	for _, id := range l.workflows(kind) {
		limited, cancel := context.WithTimeout(ctx, endLimit)
		var result *workflows.HostResult // only the hosts of a restart have one
		err := l.Temporal.GetWorkflow(limited, id, "").Get(limited, &result)
		late := limited.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case late:
			f.add(&f.Stuck, "workflow %s has not ended", id)
		case err != nil:
			f.add(&f.Lost, "workflow %s: %s", id, err)
		case result != nil && result.State != fleet.HostRunSucceeded:
			f.add(&f.Lost, "workflow %s: its host is %s: %s", id, result.State, result.Reason)
		}
	}
	return nil
}

// verifySteps wants every step there once, and ended well.
func (l *lane) verifySteps(ctx context.Context, kind string, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT address, name, count(*), count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE finished IS NULL)
		FROM step WHERE operation_id::text = ANY($1) GROUP BY address, name`, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	got := map[string]int{}
	for rows.Next() {
		var address, name string
		var count, succeeded, open int
		if err := rows.Scan(&address, &name, &count, &succeeded, &open); err != nil {
			return err
		}
		got[address+" "+name] = succeeded
		if count > 1 {
			f.add(&f.Duplicated, "%s: step %s is in the record %d times", address, name, count)
		}
		if open > 0 {
			f.add(&f.Stuck, "%s: step %s has not ended", address, name)
		}
	}
	for _, h := range l.Fleet.Hosts() {
		for _, name := range stepsOf[kind] {
			if got[h.Address()+" "+name] == 0 {
				f.add(&f.Lost, "%s: step %s did not succeed", h.Address(), name)
			}
		}
	}
	return rows.Err()
}

// verifyOutput wants the stored output of every step to be whole: chunks that
// touch and never overlap, as many bytes as the step printed, and for the
// command of prepare exactly what the command prints.
func (l *lane) verifyOutput(ctx context.Context, kind string, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT s.address, s.name, s.output_size, o.position, o.data
		FROM step s JOIN output o ON o.step_id = s.id WHERE s.operation_id::text = ANY($1) ORDER BY s.id, o.position`, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	type outputs struct {
		size int64
		data []byte
	}
	all := map[string]*outputs{}
	for rows.Next() {
		var address, name string
		var size, offset int64
		var data []byte
		if err := rows.Scan(&address, &name, &size, &offset, &data); err != nil {
			return err
		}
		o := all[address+" "+name]
		if o == nil {
			o = &outputs{size: size}
			all[address+" "+name] = o
		}
		switch have := int64(len(o.data)); {
		case offset > have:
			f.add(&f.Lost, "%s: output of %s has a hole at byte %d", address, name, have)
		case offset < have:
			f.add(&f.Duplicated, "%s: output of %s overlaps at byte %d", address, name, offset)
		}
		o.data = append(o.data, data...)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for what, o := range all {
		if int64(len(o.data)) < o.size {
			f.add(&f.Lost, "%s: %d of %d bytes are stored", what, len(o.data), o.size)
		} else if int64(len(o.data)) > o.size {
			f.add(&f.Duplicated, "%s: %d bytes are stored, %d were printed", what, len(o.data), o.size)
		}
	}
	if kind == "bootstrap" {
		uname, err := exec.Command("uname", "-a").Output()
		if err != nil {
			return err
		}
		want := string(uname) // the hosts share this machine's kernel
		for _, h := range l.Fleet.Hosts() {
			o := all[h.Address()+" prepare"]
			switch {
			case o == nil || !strings.Contains(string(o.data), want):
				f.add(&f.Lost, "%s: prepare's output is not there", h.Address())
			case string(o.data) != want:
				f.add(&f.Duplicated, "%s: prepare's output is %q, not %q", h.Address(), o.data, want)
			}
		}
	}
	return nil
}

// verifyHosts wants no host in limbo.
func (l *lane) verifyHosts(ctx context.Context, _ string, _ []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT address, state, reason FROM host`)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var address, state, reason string
		if err := rows.Scan(&address, &state, &reason); err != nil {
			return err
		}
		n++
		if state != "disassociated" || reason != "" {
			f.add(&f.Stuck, "host %s is %s (%s)", address, state, reason)
		}
	}
	if n != hostCount {
		f.add(&f.Lost, "%d hosts in the inventory, not %d", n, hostCount)
	}
	return rows.Err()
}
