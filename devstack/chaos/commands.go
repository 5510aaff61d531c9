package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// Kinds of commands: one that comes to its end, one that somebody cancels while it runs,
// and one that is cancelled with force.
const (
	kindCommand   = "command"
	kindCancelled = "command-cancelled"
	kindForced    = "command-forced"
)

func (k kind) command() bool { return k.cluster == commandsCluster && k.name != "bootstrap" }

// commandPage is on how many hosts a command runs at a time, so that it has two pages.
const commandPage = hostCount - 1

// What a command does on each host: it prints, writes into the host's own ledger that it
// has begun, waits for the gate of its host, prints the rest and writes that it has ended.
const (
	commandScript = `
note() { printf '%s %s command %s\n' "$(date +%s.%N)" "$(cat "$FLEET_HOST/boot_id")" "$1" >>"$FLEET_HOST/ledger"; }
echo $$ >"$FLEET_HOST/command.pid"
seq 1 5000
note began
until [ -e "$FLEET_HOST/open" ]; do sleep 0.05; done
seq 5001 10000
note ended`
	commandBegan = "command began"
	commandEnded = "command ended"
	commandHalf  = 5000 // lines, which it prints before the gate, and again behind it
)

// saidUpTo is what a command has printed up to a line.
func saidUpTo(lines int) string {
	var b strings.Builder
	for i := range lines {
		b.WriteString(strconv.Itoa(i+1) + "\n")
	}
	return b.String()
}

// commandBody orders the command, on so many hosts at a time, 0 for all.
func commandBody(atOnce int) map[string]any {
	return map[string]any{"argv": []string{"sh", "-c", commandScript}, "timeout": "2m", "at_once": atOnce}
}

// gate opens or shuts the gate behind which the command of a host comes to its end.
func (l *lane) gate(h *remotetest.Host, shut bool) error {
	path := filepath.Join(h.Dir(), "open")
	if !shut {
		return os.WriteFile(path, nil, 0o644)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l *lane) gates(hosts []*remotetest.Host, shut bool) error {
	var errs []error
	for _, h := range hosts {
		errs = append(errs, l.gate(h, shut))
	}
	return errors.Join(errs...)
}

// ending is how the command of a host ends.
type ending string

const (
	ran     ending = "ran"     // to its end
	stopped ending = "stopped" // after it had begun
	never   ending = "never"   // begun
)

// runs says that the command of a host ends so.
func (w *want) runs(e ending) {
	w.ends, w.effects = e, map[string]int{}
	if e != never {
		w.effects[commandBegan] = 1
	}
	if e == ran {
		w.effects[commandEnded] = 1
	}
}

// happened counts what a host says happened to it since.
func (before ledgers) happened(h *remotetest.Host) (map[string]int, error) {
	entries, err := h.Ledger()
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, e := range entries[len(before[h]):] {
		counts[effect(e)]++
	}
	return counts, nil
}

// everywhere waits until something has happened on all of these hosts.
func (before ledgers) everywhere(ctx context.Context, what string, hosts ...*remotetest.Host) error {
	return harness.Until(ctx, endLimit, fmt.Sprintf("%q on %d hosts", what, len(hosts)), func() (bool, error) {
		for _, h := range hosts {
			if got, err := before.happened(h); err != nil || got[what] == 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// operate does what belongs to an order while it is carried out: it cancels a command
// that runs. An answer that does not come, since the API died, is asked for again.
func (l *lane) operate(ctx context.Context, o order, ids []string, before ledgers) <-chan error {
	done := make(chan error, 1)
	if o.name != kindCancelled && o.name != kindForced {
		close(done)
		return done
	}
	go func() {
		done <- func() error {
			if err := before.everywhere(ctx, commandBegan, l.hosts(o.kind)[:commandPage]...); err != nil {
				return err
			}
			return l.cancel(ctx, o, ids[0], o.name == kindForced, before)
		}()
	}()
	return done
}

// cancel cancels a command, and says by the ledgers of the hosts what becomes of it there.
// Without force the gates are open from then on.
func (l *lane) cancel(ctx context.Context, o order, id string, force bool, before ledgers) error {
	err := harness.Until(ctx, steerLimit, "the cancel to be taken", func() (bool, error) {
		response, err := l.Request(ctx, http.MethodPost, "operations/"+id+"/cancel", map[string]any{"force": force})
		if err != nil || response.Code == http.StatusServiceUnavailable {
			return false, ctx.Err()
		}
		if response.Code != http.StatusOK {
			return false, fmt.Errorf("cancel: %d: %s", response.Code, response.Body)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for h := range o.wants {
		got, err := before.happened(h)
		if err != nil {
			return err
		}
		w := o.wants[h]
		switch {
		case got[commandEnded] > 0, got[commandBegan] > 0 && !force:
			w.runs(ran)
		case got[commandBegan] > 0:
			w.runs(stopped)
		default:
			w.runs(never)
		}
		o.wants[h] = w
	}
	if force {
		return nil
	}
	return l.gates(l.hosts(o.kind), false)
}

// verifyCommand wants the operation there once and ended as it was asked to.
func (l *lane) verifyCommand(ctx context.Context, o order, ids []string, f *Finding) error {
	want := fleet.OperationSucceeded
	if o.cancelled {
		want = fleet.OperationCancelled
	}
	f.times(len(ids), 1, "the operation is in the record")
	for _, id := range ids {
		var state, reason string
		var open int
		err := l.DB.QueryRow(ctx, `SELECT o.state, o.reason, r.pending + r.staging + r.staged + r.running
			FROM operation o JOIN rollout r ON r.operation_id = o.id WHERE o.id = $1::uuid`, id).Scan(&state, &reason, &open)
		if err != nil {
			return err
		}
		switch {
		case !fleet.OperationState(state).Ended():
			f.add(&f.Stuck, "the operation is %s", state)
		case state != string(want):
			f.add(&f.Lost, "the operation is %s: %s", state, reason)
		}
		if open > 0 {
			f.add(&f.Leaked, "%d hosts have not ended by the operation's own count", open)
		}
	}
	return nil
}

// verifyCommandHosts wants the record to say of each host what its ledger says, in one
// step and in events that are there once, and no process left of a command that was stopped.
func (l *lane) verifyCommandHosts(ctx context.Context, o order, ids []string, f *Finding) error {
	rows, err := l.DB.Query(ctx, `SELECT r.address, r.state, coalesce(s.state, ''), coalesce(s.reason, ''), r.finished IS NULL OR s.finished IS NULL AND s.id IS NOT NULL,
			(SELECT count(*) - count(DISTINCT (e.kind, e.state)) FROM event e WHERE e.operation_id = r.operation_id AND e.address = r.address AND e.kind IN ('host', 'step'))
		FROM host_run r LEFT JOIN step s ON s.operation_id = r.operation_id AND s.address = r.address WHERE r.operation_id::text = ANY($1)`, ids)
	if err != nil {
		return err
	}
	var address, state, step, reason string
	var open bool
	var again int
	got := map[string]string{}
	_, err = pgx.ForEachRow(rows, []any{&address, &state, &step, &reason, &open, &again}, func() error {
		if _, there := got[address]; there {
			f.add(&f.Duplicated, "%s: it is in the record twice", address)
		}
		got[address] = state + " " + step + " " + reason
		if open {
			f.add(&f.Stuck, "%s: %s in the record", address, state)
		}
		if again > 0 {
			f.add(&f.Duplicated, "%s: %d events are there again", address, again)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for h, w := range o.wants {
		said, good := got[h.Address()], false
		switch w.ends {
		case ran:
			good = said == "succeeded succeeded "
		case stopped:
			good = strings.HasPrefix(said, "failed failed cancelled") && strings.Contains(said, "ended by signal")
		case never:
			good = strings.HasPrefix(said, "skipped ") && (said == "skipped  " || strings.Contains(said, "had not begun"))
		default:
			continue // the bastion
		}
		if !good {
			f.add(&f.Lost, "%s: its command %s, and the record says %q", h.Name(), w.ends, said)
		}
		if w.ends != stopped {
			continue
		}
		pid, err := os.ReadFile(filepath.Join(h.Dir(), "command.pid"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
		if err != nil {
			return err
		}
		if syscall.Kill(n, 0) == nil {
			f.add(&f.Stuck, "%s: its command was stopped by the record, and still runs", h.Name())
		}
	}
	return nil
}

// verifyCommandOutput wants what each command has printed to be on record, to the byte.
func (l *lane) verifyCommandOutput(ctx context.Context, o order, ids []string, f *Finding) error {
	all, err := l.outputs(ctx, ids, f)
	if err != nil {
		return err
	}
	whole := map[ending]string{ran: saidUpTo(2 * commandHalf), stopped: saidUpTo(commandHalf)}
	for h, w := range o.wants {
		got := ""
		if out := all[h.Address()+" "+fleet.StepCommand]; out != nil {
			got = string(out.data)
		}
		if w.ends == stopped { // as some shells say of a command that is ended
			got = strings.TrimSuffix(got, "Terminated\n")
		}
		if want := whole[w.ends]; got != want {
			f.add(&f.Lost, "%s: its command %s, and %d bytes of output are on record of %d, or others", h.Name(), w.ends, len(got), len(want))
		}
	}
	return nil
}

// localSteps of a command are activities within its workflow tasks, so they are in no
// history by a name.
var localSteps = []string{workflows.BeginOperation.Name, workflows.EndCommand.Name}

// local says that a point is in such a step. What comes around its report is that of the
// workflow task.
func (p Point) local() bool {
	return p.kind.command() && (p.Activity == localSteps[0] || p.Activity == localSteps[1])
}

// points of a kind that do not come from its history.
func (k kind) points() (points []Point) {
	if !k.command() {
		return nil
	}
	for _, name := range localSteps {
		for _, phase := range []string{"before", "during", "twice", "denied", "late", "zombie", "api-before"} {
			points = append(points, Point{k, name, phase, 1})
		}
	}
	if k.name != kindCommand {
		return points
	}
	for _, at := range moments {
		for _, harm := range at.harms {
			points = append(points, Point{k, at.name, harm, 1})
		}
	}
	return points
}
