package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// The methods here are called by activities, which may run again after a crash
// or beside a twin that everybody thought dead. Each says why that is safe.

const (
	lockOperationSQL = selectOperations + `WHERE o.tenant = $1 AND o.id = $2 FOR SHARE OF o`

	beginOperationSQL = `UPDATE operation SET state = 'running', started = now() WHERE tenant = $1 AND id = $2 AND state = 'pending'`

	// When the workflow blames a host, that host's own reason says more: it has the
	// host's words ($5 stands before them), which do not travel through history.
	endOperationSQL = `UPDATE operation SET state = $3, finished = now(), waiting = '',
			reason = CASE WHEN $3 = 'failed' THEN coalesce(
				(SELECT 'host ' || address || ': ' || reason FROM host_run WHERE operation_id = $2 AND state = 'failed' AND starts_with($4, 'host ' || address || ': ')),
				(SELECT replace($4, 'host ' || address || ': ' || split_part(reason, $5, 1), 'host ' || address || ': ' || reason)
					FROM host_run WHERE operation_id = $2 AND state = 'failed' ORDER BY finished, position LIMIT 1),
				$4) ELSE $4 END,
			started = CASE WHEN $3 = 'succeeded' THEN coalesce(started, now()) ELSE started END
		WHERE tenant = $1 AND id = $2 AND finished IS NULL`

	// A staged host was not taken away, so it is left as it is. So is one of a rollout that
	// had no other steps than $3, which spare it; for other kinds those are NULL.
	closeHostRunsSQL = `WITH closed AS (
			UPDATE host_run SET state = CASE WHEN state IN ('pending', 'staged') THEN 'skipped' ELSE 'failed' END,
				reason = $2 || CASE state WHEN 'staged' THEN '; what was staged stays on the host, and its next reboot boots it' ELSE '' END, finished = now(), waiting = ''
			WHERE operation_id = $1 AND finished IS NULL RETURNING operation_id, address, state
		)
		SELECT address FROM closed r WHERE state = 'failed' AND ($3::text[] IS NULL OR ` + touchedSQL + `$3)))`

	endRolloutSQL = `UPDATE rollout SET seen_generation = generation, waiting = '' WHERE operation_id = $1`

	// $3 are the hosts that the operation was at work on. Those of a bootstrap
	// ($4) wait for it from its order on ($5), also while it has not begun.
	hostsLeftSQL = `SELECT h.address FROM host_run r JOIN host h ON h.tenant = r.tenant AND h.address = r.address
		WHERE h.tenant = $1 AND r.operation_id = $2 AND (h.address = ANY ($3) OR $4 AND h.state = ANY ($5)) ORDER BY h.address FOR NO KEY UPDATE OF h`

	closeStepsSQL = `UPDATE step SET state = 'indeterminate', reason = $2, finished = now() WHERE operation_id = $1 AND finished IS NULL`
)

// BeginOperation marks a pending operation as running, and gives it as it is
// now. Repeating it is safe: only the first one changes anything.
func (s *Store) BeginOperation(ctx context.Context, id string) (op fleet.Operation, err error) {
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if op, err = s.operation(ctx, q, operationSQL, id); err != nil || op.State != fleet.OperationPending {
			return err
		}
		if _, err := q.Exec(ctx, beginOperationSQL, s.tenant, id); err != nil {
			return err
		}
		op, err = s.operation(ctx, q, operationSQL, id)
		return err
	})
	return op, err
}

// EndOperation ends an operation, and with it all that is still open in it:
// pending and staged host runs are skipped, those at work failed and their steps
// indeterminate, and hosts that it has done something to are failed, as the host of a
// bootstrap that did not get to its end is, all with the reason. Repeating it is
// safe: what has ended stays.
func (s *Store) EndOperation(ctx context.Context, id string, state fleet.OperationState, reason string) error {
	if !state.Ended() {
		return fmt.Errorf("end of operation %s: %q is no end", id, state)
	}
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		_, err := s.endOperation(ctx, q, id, state, reason)
		return err
	})
}

func (s *Store) endOperation(ctx context.Context, q querier, id string, state fleet.OperationState, reason string) (fleet.Operation, error) {
	if _, _, err := s.lockTurn(ctx, q, id); err != nil {
		return fleet.Operation{}, err
	}
	if op, err := s.operation(ctx, q, operationSQL, id); err != nil || op.State.Ended() {
		return op, err
	}
	reason = storable(reason)
	tag, err := q.Exec(ctx, endOperationSQL, s.tenant, id, string(state), reason, fleet.HostSaid)
	if err != nil {
		return fleet.Operation{}, err
	}
	op, err := s.operation(ctx, q, operationSQL, id)
	if err != nil || tag.RowsAffected() == 0 {
		return op, err // somebody else was faster
	}
	why := reason
	if why == "" {
		why = fmt.Sprintf("the operation %s before this host's part came to its end", op.State)
	}
	if _, err := q.Exec(ctx, endRolloutSQL, id); err != nil {
		return op, err
	}
	op.Waiting = ""
	var spare []string // of a rollout: the steps that leave a host as it was
	if op.Kind.Rollout() {
		spare = fleet.StepsThatSpare
	}
	cut, err := collect(ctx, q, pgx.RowTo[string], closeHostRunsSQL, id, why, spare)
	if err != nil {
		return op, err
	}
	if _, err := q.Exec(ctx, closeStepsSQL, id, why); err != nil || !op.Kind.Holds() {
		return op, err // what became of a command says nothing about the host
	}
	limbo := []string{string(fleet.HostInvestigating), string(fleet.HostBootstrapping)}
	left, err := collect(ctx, q, pgx.RowTo[string], hostsLeftSQL, s.tenant, id, cut, op.Kind == fleet.KindBootstrap, limbo)
	if err != nil {
		return op, err
	}
	change := stateChange{addresses: left, event: fleet.HostBroke, reason: why, operation: id}
	switch {
	case len(left) == 0 || op.Kind == fleet.KindUnregister:
	case op.Kind == fleet.KindRegister: // which does nothing to the host
		change.event = fleet.HostPrepared
		err = s.worked(ctx, q, op.Kind, change)
	default:
		_, err = s.applyEvent(ctx, q, change)
	}
	if err == nil && op.Host != "" && op.Kind != fleet.KindUnregister {
		err = s.removeLeft(ctx, q, op)
	}
	return op, err
}

// lockUnfinished keeps an operation from ending until the transaction does, so
// that a worker that was thought dead begins nothing for an ended one.
func (s *Store) lockUnfinished(ctx context.Context, q querier, id string) (fleet.Operation, error) {
	op, err := s.operation(ctx, q, lockOperationSQL, id)
	if err == nil && op.State.Ended() {
		return op, fleet.Errorf(fleet.Conflict, "%s; nothing more is done for it", ended(op))
	}
	return op, err
}

func ended(op fleet.Operation) string {
	text := fmt.Sprintf("operation %s has %s", op.ID, op.State)
	if op.State == fleet.OperationCancelled {
		text = fmt.Sprintf("operation %s was cancelled", op.ID)
	}
	if op.Reason != "" {
		text += ": " + op.Reason
	}
	return text
}
