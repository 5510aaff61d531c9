package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

const (
	hostRunsSQL = `SELECT operation_id, address, position, state, reason, boot_id, started, finished
		FROM host_run WHERE tenant = $1 AND operation_id = $2 ORDER BY position`

	hostRunSQL = `SELECT operation_id, address, position, state, reason, boot_id, started, finished
		FROM host_run WHERE tenant = $1 AND operation_id = $2 AND address = $3`

	otherRunOnHostSQL = `SELECT o.id, o.tenant, o.kind, coalesce(o.cluster, ''), coalesce(o.host, ''), o.state, o.reason, o.requested_by, o.request_id, o.created, o.started, o.finished
		FROM host_run r JOIN operation o ON o.id = r.operation_id
		WHERE r.tenant = $1 AND r.address = $2 AND r.state = 'running' AND r.operation_id <> $3`

	beginHostRunSQL = `UPDATE host_run SET state = 'running', started = now()
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND state = 'pending'`

	setBootIDSQL = `UPDATE host_run SET boot_id = CASE WHEN boot_id = '' THEN $4 ELSE boot_id END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 RETURNING boot_id`

	// When the workflow blames a step, that step's own reason says more: it has the
	// host's words, which do not travel through workflow history.
	endHostRunSQL = `UPDATE host_run SET state = $4, finished = now(), reason = CASE WHEN $4 = 'failed' THEN coalesce(
			(SELECT 'step ' || name || ': ' || reason FROM step WHERE operation_id = $2 AND address = $3 AND state <> 'succeeded' AND starts_with($5, 'step ' || name || ': ') ORDER BY id DESC LIMIT 1),
			$5) ELSE $5 END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND (state = 'running' OR state = 'pending' AND $4 IN ('skipped', 'failed'))
		RETURNING reason`

	closeStepsOfHostSQL = `UPDATE step SET finished = now(),
			state = CASE WHEN starts_with($3, 'step ' || name || ': ') THEN 'failed' ELSE 'indeterminate' END,
			reason = CASE
				WHEN starts_with($3, 'step ' || name || ': ') THEN substr($3, length('step ' || name || ': ') + 1)
				WHEN $3 <> '' THEN $3 ELSE 'the host run ended before the end of this step was known' END
		WHERE operation_id = $1 AND address = $2 AND finished IS NULL`
)

// HostRuns lists the hosts of an operation in rollout order.
func (s *Store) HostRuns(ctx context.Context, operationID string) (runs []fleet.HostRun, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, operationID); err != nil {
			return err
		}
		runs, err = collect(ctx, q, scanHostRun, hostRunsSQL, s.tenant, operationID)
		return err
	})
	return runs, err
}

func scanHostRun(row pgx.CollectableRow) (fleet.HostRun, error) {
	var r fleet.HostRun
	var started, finished pgtype.Timestamptz
	err := row.Scan(&r.OperationID, &r.Address, &r.Position, &r.State, &r.Reason, &r.BootID, &started, &finished)
	r.Started, r.Finished = utc(started), utc(finished)
	return r, err
}

func (s *Store) hostRun(ctx context.Context, q querier, id, address string) (fleet.HostRun, error) {
	if uuid.Validate(id) != nil {
		return fleet.HostRun{}, notFound("operation", id)
	}
	r, err := one(ctx, q, scanHostRun, hostRunSQL, s.tenant, id, address)
	return r, orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
}

// BeginHostRun marks a pending host run as running and gives it as it is now;
// one that runs or has ended is given unchanged. While another operation works
// on the host it is a Conflict with that Holder. A bootstrap sets its host back
// to investigating here, whatever an operation before it left behind. Repeating
// it is safe: only the first one changes anything.
func (s *Store) BeginHostRun(ctx context.Context, id, address string) (r fleet.HostRun, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		// Keeps EndOperation from closing the host runs beside us.
		op, err := s.operation(ctx, q, lockOperationSQL, id)
		if err != nil {
			return err
		}
		if r, err = s.hostRun(ctx, q, id, address); err != nil || r.State != fleet.HostRunPending {
			return err
		}
		holder, err := one(ctx, q, scanOperation, otherRunOnHostSQL, s.tenant, address, id)
		if err == nil {
			return held(holder)
		}
		if !isNoRows(err) {
			return err
		}
		_, err = q.Exec(ctx, beginHostRunSQL, s.tenant, id, address)
		if violates(err, "host_run_one_running") {
			return errAgain // another one began in between; the next look names it
		}
		if err == nil && op.Kind == fleet.KindBootstrap {
			_, err = s.applyEvent(ctx, q, stateChange{addresses: []string{address}, event: fleet.HostInvestigate, operation: id})
		}
		if err != nil {
			return err
		}
		r, err = s.hostRun(ctx, q, id, address)
		return err
	})
	return r, err
}

// SetHostRunBootID notes the boot id of the host before a reboot and gives the
// one on record. Repeating it is safe: the first writer wins, so that a retry
// after the reboot cannot take the new boot for the old one.
func (s *Store) SetHostRunBootID(ctx context.Context, id, address, bootID string) (stands string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if uuid.Validate(id) != nil {
			return notFound("operation", id)
		}
		err := q.QueryRow(ctx, setBootIDSQL, s.tenant, id, address, bootID).Scan(&stands)
		return orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
	})
	return stands, err
}

// EndHostRun ends a running host run (a pending one can only be skipped or fail), and
// in the same transaction tells the host what happened to it; event "" for
// nothing. An event that does not fit the host's state, and a host that is gone
// or was added again, leave the host alone: that the run ended is true all the
// same. Repeating it is safe: what has ended stays, and no event comes twice.
func (s *Store) EndHostRun(ctx context.Context, id, address string, state fleet.HostRunState, reason string, event fleet.HostEvent) error {
	if !state.Ended() {
		return fmt.Errorf("end of the host run of operation %s on %s: %q is no end", id, address, state)
	}
	reason = storable(reason)
	if state != fleet.HostRunSucceeded {
		reason = because(reason)
	}
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		r, err := s.hostRun(ctx, q, id, address)
		if err != nil || r.State.Ended() {
			return err
		}
		if _, err := q.Exec(ctx, closeStepsOfHostSQL, id, address, reason); err != nil {
			return err
		}
		err = q.QueryRow(ctx, endHostRunSQL, s.tenant, id, address, string(state), reason).Scan(&reason)
		if isNoRows(err) {
			if r, err = s.hostRun(ctx, q, id, address); err != nil || r.State.Ended() {
				return err // somebody else was faster
			}
			return fleet.Errorf(fleet.Conflict, "host %q has not begun in operation %s, so it cannot have %s", address, id, state)
		}
		if err != nil || event == "" {
			return err
		}
		_, err = s.applyEvent(ctx, q, stateChange{addresses: []string{address}, event: event, reason: reason, operation: id})
		return err
	})
}
