package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// StepEnd is how a step ended.
type StepEnd struct {
	StepID     int64
	State      fleet.StepState
	ExitCode   *int
	Reason     string
	OutputSize int64 // bytes it printed in all, stored or not
}

// stepColumns are what scanStep reads.
const stepColumns = `id, operation_id, address, name, attempt, state, reason, exit_code, output_size, stored_to, stored_bytes, started, finished`

const (
	stepsSQL = `SELECT ` + stepColumns + `
		FROM step WHERE tenant = $1 AND operation_id = $2 AND ($3 = '' OR address = $3) ORDER BY id`

	stepsPageSQL = `SELECT ` + stepColumns + `
		FROM step WHERE tenant = $1 AND operation_id = $2 AND ($3 = '' OR address = $3) AND id > $4 ORDER BY id LIMIT $5`

	stepOnceSQL = `SELECT ` + stepColumns + `
		FROM step WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND name = $4 AND attempt = $5`

	stepSQL = `SELECT ` + stepColumns + `
		FROM step WHERE tenant = $1 AND id = $2`

	insertStepSQL = `INSERT INTO step (tenant, operation_id, address, name, attempt) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT ON CONSTRAINT step_once DO NOTHING`

	sameHostSQL = `SELECT h.created <= o.created FROM host h, operation o
		WHERE h.tenant = $1 AND h.address = $2 AND o.tenant = $1 AND o.id = $3`

	stepStateSQL = `SELECT state FROM step WHERE tenant = $1 AND id = $2`

	// A host run that ends closes a step that takes back its cordon, which goes on.
	endStepSQL = `UPDATE step SET state = $3, exit_code = $4, reason = $5, output_size = greatest(output_size, $6), finished = now()
		WHERE tenant = $1 AND id = $2 AND (state = 'running' OR state = 'indeterminate' AND name = '` + fleet.StepUncordon + `')`
)

// What stands in the way of a step is its reason while it runs, the host's waiting,
// and an event, so that those who list, look and follow all see it.
const (
	noteStepSQL = `WITH noted AS (
			UPDATE step SET reason = $3 WHERE tenant = $1 AND id = $2 AND state = 'running' AND reason <> $3
			RETURNING tenant, operation_id, address, name, attempt, state),
		host AS (
			UPDATE host_run r SET waiting = $3 FROM noted n
			WHERE r.operation_id = n.operation_id AND r.address = n.address AND r.state IN ('staging', 'running'))
		INSERT INTO event (tenant, operation_id, kind, address, step, attempt, state, reason)
		SELECT tenant, operation_id, 'step', address, name, attempt, state, $3 FROM noted`
)

// NoteStep says what stands in the way of a step that runs, one sentence; "" when
// nothing does any more. Repeating it is safe: the same note changes nothing, and a
// step that has ended keeps its reason.
func (s *Store) NoteStep(ctx context.Context, step int64, note string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		_, err := q.Exec(ctx, noteStepSQL, s.tenant, step, storable(note))
		return err
	})
}

// Steps lists the steps of one host in an operation, or of all when address is
// "", in the order they began.
func (s *Store) Steps(ctx context.Context, operationID, address string) (steps []fleet.Step, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, operationID); err != nil {
			return err
		}
		steps, err = collect(ctx, q, scanStep, stepsSQL, s.tenant, operationID, address)
		return err
	})
	return steps, err
}

// StepFilter chooses steps of an operation.
type StepFilter struct {
	Host   string // "" means any
	Cursor string // next of the page before, "" for the first
	Limit  int    // 0 means DefaultPage; at most MaxPage
}

// StepsPage lists steps of an operation in the order they began. next is the
// cursor of the next page, "" on the last one.
func (s *Store) StepsPage(ctx context.Context, id string, f StepFilter) (steps []fleet.Step, next string, err error) {
	after, err := number(f.Cursor, 0)
	if err != nil {
		return nil, "", err
	}
	limit := pageSize(f.Limit)
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, id); err != nil {
			return err
		}
		steps, err = collect(ctx, q, scanStep, stepsPageSQL, s.tenant, id, f.Host, after, limit+1)
		return err
	})
	if len(steps) > limit {
		steps = steps[:limit]
		next = fmt.Sprint(steps[limit-1].ID)
	}
	return steps, next, err
}

func scanStep(row pgx.CollectableRow) (fleet.Step, error) {
	var t fleet.Step
	var started, finished pgtype.Timestamptz
	err := row.Scan(&t.ID, &t.OperationID, &t.Address, &t.Name, &t.Attempt, &t.State, &t.Reason, &t.ExitCode, &t.OutputSize, &t.OutputTo, &t.Stored, &started, &finished)
	t.Started, t.Finished = utc(started), utc(finished)
	return t, err
}

// BeginStep puts a step on record and gives it, or the one that is there
// already. It is NotFound when the host was removed since (not for an unregister,
// which outlives it), and a Conflict when
// the operation has ended or the host run is not running, so that a worker that
// was thought dead cannot start anything. Only taking back a cordon that is out may
// begin whatever has ended or is gone. Repeating it is safe: name and attempt
// make the step one row.
func (s *Store) BeginStep(ctx context.Context, id, address, name string, attempt int) (t fleet.Step, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if err := s.mayBegin(ctx, q, id, address, name); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, insertStepSQL, s.tenant, id, address, name, attempt); err != nil {
			return err
		}
		t, err = one(ctx, q, scanStep, stepOnceSQL, s.tenant, id, address, name, attempt)
		return err
	})
	return t, err
}

// mayBegin refuses a step that is not to begin (any more).
func (s *Store) mayBegin(ctx context.Context, q querier, id, address, name string) error {
	if name == fleet.StepUncordon {
		if c, err := s.cordon(ctx, q, id, address); err != nil || c.State.Stands() {
			return err
		}
	}
	op, err := s.lockUnfinished(ctx, q, id)
	if err != nil {
		return err
	}
	r, err := s.hostRun(ctx, q, id, address)
	if err != nil {
		return err
	}
	if r.State != fleet.HostRunRunning && r.State != fleet.HostRunStaging {
		return fleet.Errorf(fleet.Conflict, "host %q is %s in operation %s; step %s does not begin", address, r.State, id, name)
	}
	if op.Kind == fleet.KindUnregister { // which is not on the host itself
		return nil
	}
	return s.sameHost(ctx, q, id, address)
}

// sameHost refuses a host that is not the one an operation began with: removed,
// or removed and added again, perhaps as another machine.
func (s *Store) sameHost(ctx context.Context, q querier, id, address string) error {
	var same bool
	err := q.QueryRow(ctx, sameHostSQL, s.tenant, address, id).Scan(&same)
	switch {
	case isNoRows(err):
		return fleet.Errorf(fleet.NotFound, "the host was removed from the inventory, so nothing more is done on it")
	case err == nil && !same:
		return fleet.Errorf(fleet.NotFound, "the host was removed and added again, so nothing more is done on it here")
	}
	return err
}

// EndStep ends a running step and gives the row that stands: another one than
// asked for when the step had ended already, for example in another attempt of
// the same activity. Repeating it is safe: the first ending stays. Only the step that
// takes back a cordon may be closed first, with its host run, and then end.
func (s *Store) EndStep(ctx context.Context, e StepEnd) (t fleet.Step, err error) {
	if !e.State.Ended() {
		return t, fmt.Errorf("end of step %d: %q is no end", e.StepID, e.State)
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := q.Exec(ctx, endStepSQL, s.tenant, e.StepID, string(e.State), e.ExitCode, storable(e.Reason), e.OutputSize); err != nil {
			return err
		}
		t, err = one(ctx, q, scanStep, stepSQL, s.tenant, e.StepID)
		return orNotFound(err, "step", fmt.Sprint(e.StepID))
	})
	return t, err
}
