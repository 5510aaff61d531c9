package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// NewCommand asks for a command on hosts of a cluster.
type NewCommand struct {
	fleet.Command
	Hosts []string // members of the cluster; none for all
}

// command is what stays on record; nil for other operations.
func (n *NewCommand) command() *fleet.Command {
	if n == nil {
		return nil
	}
	return &n.Command
}

// planCommand chooses the hosts of a new command.
func (s *Store) planCommand(ctx context.Context, q querier, n NewOperation, p *plan) error {
	if _, err := one(ctx, q, scanNothing, keepClusterSQL, s.tenant, n.Cluster); err != nil {
		return orNotFound(err, "cluster", n.Cluster)
	}
	members, err := collect(ctx, q, pgx.RowToStructByPos[fleet.Member], membersToArrangeSQL, s.tenant, n.Cluster)
	if err != nil {
		return err
	}
	p.hosts, err = fleet.ChooseHosts(members, n.Command.Selector, n.Command.Hosts)
	return err
}

// CommandHost is a host on which a command is to be run, or runs.
type CommandHost struct {
	Address   string
	Port      int
	HostKey   string // pinned, in authorized_keys form
	Creds     secret.HostCreds
	Bastion   *Bastion // nil for none
	StepID    int64
	OutputTo  int64  // position up to which its output is on record
	OutputEnd []byte // the last fleet.OutputEnd bytes of that
	Again     bool   // it was taken up before, so the command may have been started
	Noted     bool   // the record says what stands in its way
	Failed    string // why nothing can be done on it, "" when something can
}

// CommandPage is a page of the hosts of a command.
type CommandPage struct {
	Command fleet.Command
	Hosts   []CommandHost
	Stopped string // why hosts that waited were skipped, "" when they were not
}

const (
	// Hosts that are not to be begun any more are skipped: $7 says why all are, "" that they
	// are not. Those at work are given again, with the step that they have. The step comes
	// after the host, which is what followers see. Nothing is looked up by the operation alone:
	// of a new one Postgres does not know yet how many hosts and steps it has. It would also join
	// the parts of a page by going over one part for each row of the other, so one is a map.
	takeUpCommandSQL = `WITH page AS MATERIALIZED (
			SELECT r.address, r.position, r.state = 'running' AS again, r.waiting <> '' AS noted, h.port, h.host_key, c.remote_user, c.sealed, ` + bastionOf + ` AS bastion,
				CASE WHEN h.address IS NULL THEN 'the host was removed'
					WHEN h.created > $6 THEN 'the host was removed and added again'
					WHEN r.state = 'running' THEN ''
					WHEN $7 <> '' THEN $7
					WHEN h.cluster IS DISTINCT FROM $5 THEN 'the host left the cluster before its turn'
					ELSE '' END AS gone
			FROM host_run r LEFT JOIN host h ON h.tenant = r.tenant AND h.address = r.address
				LEFT JOIN host_creds c ON c.tenant = r.tenant AND c.address = r.address
			WHERE r.tenant = $1 AND r.operation_id = $2 AND r.position >= $3 AND r.position < $4 AND r.state IN ('pending', 'running')
		), away AS MATERIALIZED (
			SELECT coalesce(jsonb_object_agg(address, gone) FILTER (WHERE gone <> ''), '{}') AS why FROM page
		), taken AS (
			UPDATE host_run r SET state = CASE WHEN g.why ? r.address THEN 'skipped' ELSE 'running' END, reason = coalesce(g.why ->> r.address, ''),
				started = CASE WHEN NOT g.why ? r.address THEN now() END, rolling = CASE WHEN NOT g.why ? r.address THEN now() END,
				finished = CASE WHEN g.why ? r.address THEN now() END
			FROM away g
			WHERE r.operation_id = $2 AND r.position >= $3 AND r.position < $4 AND r.state = 'pending'
			RETURNING r.address
		), begun AS (
			INSERT INTO step (tenant, operation_id, address, name, attempt)
			SELECT $1, $2, address, '` + fleet.StepCommand + `', 1 FROM page WHERE (gone = '' OR again) AND (SELECT count(*) FROM taken) >= 0 ORDER BY position
			ON CONFLICT ON CONSTRAINT step_once DO UPDATE SET attempt = step.attempt RETURNING id, address, stored_to
		), steps AS MATERIALIZED (
			SELECT coalesce(jsonb_object_agg(address, jsonb_build_array(id, stored_to)), '{}') AS by_address FROM begun
		)
		SELECT p.address, p.again, coalesce(p.port, 0), coalesce(p.host_key, ''), coalesce(p.remote_user, ''), p.sealed, p.gone,
			(s.by_address #>> ARRAY[p.address, '0'])::bigint, (s.by_address #>> ARRAY[p.address, '1'])::bigint, p.noted, p.bastion
		FROM page p, steps s WHERE s.by_address ? p.address ORDER BY p.position`

	runningOfPageSQL = `SELECT address FROM host_run WHERE tenant = $1 AND operation_id = $2 AND position >= $3 AND position < $4 AND state = 'running'`

	endingCommandsSQL = `UPDATE rollout SET waiting = 'ends the commands on the hosts at work' WHERE operation_id = $1`

	cancelledCommandSQL = `SELECT cancelled IS NOT NULL, cancelled_by FROM rollout WHERE tenant = $1 AND operation_id = $2`

	// A row of a step that has ended, or of whose output another attempt has stored more,
	// changes nothing. What was left out in the middle of an output is between data and tail;
	// a tail that begins elsewhere is dropped, as one row that does not fit would spoil all.
	// Steps are looked up by their ids alone: of a new operation Postgres does not know yet
	// how many it has. So are hosts by their addresses: by their state
	// Postgres would go over all hosts at work for each one.
	recordCommandsSQL = `WITH w AS MATERIALIZED (
			SELECT step_id, start, data, tail_start, CASE WHEN tail_start >= start + octet_length(data) THEN tail ELSE '' END AS tail, size,
				state, reason, exit_code, host_state
			FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bigint[], $8::text[], $9::text[], $10::integer[], $11::text[])
				AS w (step_id, start, data, tail_start, tail, size, state, reason, exit_code, host_state)
		), moved AS (
			UPDATE step s SET
				stored_to = CASE WHEN w.tail <> '' THEN w.tail_start + octet_length(w.tail) ELSE s.stored_to + octet_length(w.data) END,
				stored_bytes = s.stored_bytes + octet_length(w.data) + octet_length(w.tail),
				output_size = greatest(s.output_size, w.size, s.stored_to + octet_length(w.data), CASE WHEN w.tail <> '' THEN w.tail_start + octet_length(w.tail) END),
				state = w.state, reason = w.reason, exit_code = w.exit_code, finished = CASE WHEN w.state <> 'running' THEN now() END
			FROM w WHERE s.id = w.step_id AND s.tenant = $1 AND s.state = 'running' AND s.stored_to = w.start
			RETURNING s.id, s.operation_id, s.address, w.start, w.data, w.tail_start, w.tail, w.state, w.reason, w.host_state
		), chunks AS (
			INSERT INTO output (operation_id, step_id, position, data)
			SELECT operation_id, id, start, data FROM moved WHERE data <> ''
			UNION ALL SELECT operation_id, id, tail_start, tail FROM moved WHERE tail <> ''
		), hosts AS (
			UPDATE host_run r SET state = m.host_state, reason = m.reason, waiting = '', finished = now()
			FROM moved m WHERE m.state <> 'running' AND r.operation_id = m.operation_id AND r.address = m.address AND r.finished IS NULL
		)
		SELECT id FROM moved`

	// As noteStepSQL, of many steps. A host whose step runs is at work.
	noteCommandsSQL = `WITH noted AS (
			UPDATE host_run r SET waiting = w.note
			FROM unnest($2::bigint[], $3::text[]) AS w (step_id, note) JOIN step s ON s.id = w.step_id AND s.tenant = $1 AND s.state = 'running'
			WHERE r.operation_id = s.operation_id AND r.address = s.address AND r.waiting <> w.note
			RETURNING s.operation_id, s.address, s.name, s.attempt, s.state, w.note
		)
		INSERT INTO event (tenant, operation_id, kind, address, step, attempt, state, reason)
		SELECT $1, operation_id, 'step', address, name, attempt, state, note FROM noted`
)

// TakeUpCommand begins a page of a command: the hosts of the operation from one position
// up to before another that have not ended. Those that wait are at work from then on, and
// their steps are on record; those that were at work already are given again. Hosts that
// are gone, and all that wait once the operation is cancelled or with stop (which says
// why, and whose caller ends the command on the others), are skipped. It is a Conflict
// when the operation has ended, so that a worker that was thought dead starts nothing.
// Repeating it is safe.
func (s *Store) TakeUpCommand(ctx context.Context, id string, from, to int, stop string) (page CommandPage, err error) {
	ending := stop != ""
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		op, _, err := s.lockRollout(ctx, q, id)
		switch {
		case err != nil:
			return err
		case op.Command == nil:
			return fleet.Errorf(fleet.Conflict, "operation %s is a %s and no command", id, op.Kind)
		case op.State.Ended():
			return fleet.Errorf(fleet.Conflict, "%s; nothing more is done for it", ended(op))
		case !op.Cancelled.IsZero():
			stop = cancelledBy(op.CancelledBy)
		}
		page = CommandPage{Command: *op.Command, Stopped: stop}
		page.Hosts, err = s.takeUpCommand(ctx, q, op, from, to, stop)
		if err == nil && ending {
			_, err = q.Exec(ctx, endingCommandsSQL, id)
		}
		return err
	})
	return page, err
}

func (s *Store) takeUpCommand(ctx context.Context, q querier, op fleet.Operation, from, to int, stop string) (hosts []CommandHost, err error) {
	rows, err := q.Query(ctx, takeUpCommandSQL, s.tenant, op.ID, from, to, op.Cluster, op.Created, stop)
	if err != nil {
		return nil, err
	}
	var h CommandHost
	var sealed []byte
	var bastion string
	through := map[string][]int{} // places in hosts, by the address of their bastion
	into := []any{&h.Address, &h.Again, &h.Port, &h.HostKey, &h.Creds.RemoteUser, &sealed, &h.Failed, &h.StepID, &h.OutputTo, &h.Noted, &bastion}
	_, err = pgx.ForEachRow(rows, into, func() error {
		h.Creds.PrivateKey = secret.Text{}
		switch {
		case h.Failed != "": // nobody knows any more how to reach it
			h.Failed += " while the command ran on it"
		case h.HostKey == "":
			h.Again = false // keys are never unpinned, so nobody can have started it
			h.Failed = "the host's key is not pinned; bootstrap it first"
		default:
			var err error
			if h.Creds.PrivateKey, err = s.db.sealer.Open(sealed, credsRow(s.tenant, h.Address)); err != nil {
				h.Failed = "its credentials cannot be opened with the keys of the worker"
			}
		}
		if bastion != "" {
			through[bastion] = append(through[bastion], len(hosts))
		}
		hosts = append(hosts, h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.outputEnds(ctx, q, hosts); err != nil {
		return nil, err
	}
	bastions, err := s.bastions(ctx, q, slices.Collect(maps.Keys(through)))
	if err != nil {
		return nil, err
	}
	for bastion, places := range through {
		for _, i := range places {
			hosts[i].Bastion = bastions[bastion]
			if hosts[i].Bastion == nil && hosts[i].Failed == "" {
				hosts[i].Failed = "the credentials of its bastion " + bastion + " cannot be opened with the keys of the worker"
			}
		}
	}
	return hosts, nil
}

// outputEnds fills in the end of the output of those that another attempt began.
func (s *Store) outputEnds(ctx context.Context, q querier, hosts []CommandHost) error {
	var steps []int64
	at := map[int64]int{}
	for i, h := range hosts {
		if h.OutputTo > 0 {
			steps, at[h.StepID] = append(steps, h.StepID), i
		}
	}
	if len(steps) == 0 {
		return nil
	}
	rows, err := q.Query(ctx, outputEndsSQL, s.tenant, steps, fleet.OutputEnd)
	if err != nil {
		return err
	}
	var step int64
	var end []byte
	_, err = pgx.ForEachRow(rows, []any{&step, &end}, func() error {
		hosts[at[step]].OutputEnd = lastOf(end)
		return nil
	})
	return err
}

// CommandState says which hosts of a page are still at work by the record, and why no
// more of them may begin, "" while they may.
func (s *Store) CommandState(ctx context.Context, id string, from, to int) (running map[string]bool, stop string, err error) {
	if uuid.Validate(id) != nil {
		return nil, "", notFound("operation", id)
	}
	running = map[string]bool{}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		b := &pgx.Batch{}
		b.Queue(cancelledCommandSQL, s.tenant, id).QueryRow(func(row pgx.Row) error {
			var cancelled bool
			var by string
			err := row.Scan(&cancelled, &by)
			if cancelled {
				stop = cancelledBy(by)
			}
			return err
		})
		b.Queue(runningOfPageSQL, s.tenant, id, from, to).Query(func(rows pgx.Rows) error {
			var address string
			_, err := pgx.ForEachRow(rows, []any{&address}, func() error { running[address] = true; return nil })
			return err
		})
		return q.SendBatch(ctx, b).Close()
	})
	return running, stop, err
}

// CommandWrite is what is new of a host of a command: output, and perhaps how it ended.
type CommandWrite struct {
	StepID int64
	Start  int64 // where Data stands, which is where the stored output ends
	Data   []byte
	// Tail is the end of an output of which nothing is kept between Data and TailStart.
	TailStart int64
	Tail      []byte
	Size      int64 // bytes printed in all, as far as known

	// Note is what stands in the way of a host that goes on, "" for nothing. Noted says that
	// it is new, for those who look on.
	Note  string
	Noted bool

	End      fleet.HostRunState // how the host ended, "" while it goes on
	State    fleet.StepState    // how the step ended
	Reason   string
	ExitCode *int
}

// ErrOvertaken says that another attempt writes the same record.
var ErrOvertaken = errors.New("another attempt has written more of this command")

// RecordCommands writes down what is new of hosts of a command, all or nothing. Repeating
// it is safe: what is on record already is not written again, but is ErrOvertaken.
func (s *Store) RecordCommands(ctx context.Context, id string, writes []CommandWrite) error {
	n := len(writes)
	steps, starts, tails, sizes := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	data, tail, codes := make([][]byte, n), make([][]byte, n), make([]pgtype.Int4, n)
	states, reasons, ends := make([]string, n), make([]string, n), make([]string, n)
	var noted []int64
	var notes []string
	for i, w := range writes {
		steps[i], starts[i], tails[i], sizes[i] = w.StepID, w.Start, w.TailStart, w.Size
		data[i], tail[i] = append([]byte{}, w.Data...), append([]byte{}, w.Tail...)
		states[i], reasons[i], ends[i] = string(fleet.StepRunning), storable(w.Note), string(fleet.HostRunRunning)
		if w.Noted {
			noted, notes = append(noted, w.StepID), append(notes, reasons[i])
		}
		if w.End != "" {
			states[i], ends[i], reasons[i] = string(w.State), string(w.End), storable(w.Reason)
			if w.End != fleet.HostRunSucceeded {
				reasons[i] = because(reasons[i])
			}
		}
		if w.ExitCode != nil {
			codes[i] = pgtype.Int4{Int32: int32(*w.ExitCode), Valid: true}
		}
	}
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if _, _, err := s.lockTurn(ctx, q, id); err != nil { // before the rows that its end locks, too
			return err
		}
		moved, err := collect(ctx, q, pgx.RowTo[int64], recordCommandsSQL, s.tenant, steps, starts, data, tails, tail, sizes, states, reasons, codes, ends)
		if err == nil && len(moved) < n {
			return fmt.Errorf("%d of %d hosts: %w", n-len(moved), n, ErrOvertaken)
		}
		if err == nil && len(noted) > 0 {
			_, err = q.Exec(ctx, noteCommandsSQL, s.tenant, noted, notes)
		}
		return err
	})
}

// EndCommand ends a command by what became of its hosts: it failed when one of them did, or
// was skipped. why says that it did not come to its end, "" that it did; one that somebody
// cancelled is cancelled. Repeating it is safe: the first ending stands, and is given.
func (s *Store) EndCommand(ctx context.Context, id string, why string, cancelled bool) (op fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if op, _, err = s.lockRollout(ctx, q, id); err != nil || op.State.Ended() {
			return err
		}
		p, err := s.progress(ctx, q, op, op.Created)
		if err != nil {
			return err
		}
		state := fleet.OperationFailed
		switch {
		case cancelled || !op.Cancelled.IsZero():
			state, why = fleet.OperationCancelled, cancelledBy(op.CancelledBy)
		case why != "":
		case p.Failed > 0:
			why = fmt.Sprintf("%d of %d hosts failed", p.Failed, op.Hosts)
		case p.Skipped > 0:
			why = fmt.Sprintf("%d of %d hosts were skipped", p.Skipped, op.Hosts)
		case p.Pending+p.Running > 0:
			why = fmt.Sprintf("%d of %d hosts did not come to their end", p.Pending+p.Running, op.Hosts)
		default:
			state = fleet.OperationSucceeded
		}
		op, err = s.endOperation(ctx, q, id, state, why)
		return err
	})
	return op, err
}
