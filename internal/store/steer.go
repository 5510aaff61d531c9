package store

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"commissaire/internal/fleet"
)

// SteerAction is what somebody wants of a rollout that goes on.
type SteerAction struct {
	Action         string // pause, resume, cancel or approve
	By             string
	Force          bool   // of cancel: the caller also ends what runs; here it only tells requests apart
	IdempotencyKey string // "" for none
}

const (
	// What the rollout waits for is written by the next claim; until then nobody
	// shall be told what has just been lifted.
	pauseSQL  = `UPDATE rollout SET paused = now(), paused_by = $2, waiting = 'paused by ' || $2, ` + steered
	resumeSQL = `UPDATE rollout SET paused = NULL, paused_by = '', waiting = '', ` + steered + ` AND $2::text IS NOT NULL`
	cancelSQL = `UPDATE rollout SET cancelled = now(), cancelled_by = $2, ` + steered
	// Nobody waits for a command to be looked at: its workers do so all the time.
	cancelCommandSQL = `UPDATE rollout SET cancelled = now(), cancelled_by = $2 WHERE operation_id = $1`
	approveSQL       = `UPDATE rollout SET approved = now(), approved_by = $2, waiting = CASE WHEN paused IS NULL THEN '' ELSE waiting END, ` + steered

	// A claim notes which generation it has seen; see UnseenOperations.
	steered = `generation = generation + 1, steered = now() WHERE operation_id = $1`

	setPolicySQL = `UPDATE rollout SET policy = $2, ` + steered

	noteSteeringSQL = `INSERT INTO event (tenant, operation_id, kind, state, by_whom, detail) VALUES ($1, $2, 'steer', $3, $4, $5)`
)

// Steer pauses, resumes, cancels or approves a rollout, and gives it as it is then.
// What it writes holds for every host that is handed out after its commit. A command can
// be cancelled only. When it is so already, nothing changes. An operation that has ended,
// or does not roll, is a Conflict, as an approval is that nobody waits for. One that has
// not begun is ended by cancel at once.
func (s *Store) Steer(ctx context.Context, id string, a SteerAction) (op fleet.Operation, err error) {
	r := request{key: a.IdempotencyKey, digest: digestOf("steer", id, a.Action, a.By, a.Force)}
	err = s.steering(ctx, id, a.Action, r, &op, func(ctx context.Context, q querier) error {
		return s.steer(ctx, q, op, a)
	})
	return op, err
}

// SetOperationPolicy replaces the members of a rollout's policy that are given.
// Those that chose and ordered its hosts cannot change any more (Invalid). The
// policy must have passed Check. It is Steer otherwise.
func (s *Store) SetOperationPolicy(ctx context.Context, id string, p fleet.Policy, by, idempotencyKey string) (op fleet.Operation, err error) {
	r := request{key: idempotencyKey, digest: digestOf("policy", id, p, by)}
	err = s.steering(ctx, id, "policy", r, &op, func(ctx context.Context, q querier) error {
		policy, err := replace(op.Policy, p)
		if err != nil || reflect.DeepEqual(policy, op.Policy) {
			return err
		}
		detail, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := q.Exec(ctx, setPolicySQL, id, policy); err != nil {
			return err
		}
		return s.noteSteering(ctx, q, id, "policy", by, string(detail))
	})
	return op, err
}

// steering runs f while nobody hands out hosts of the rollout, once for each
// request. op is the operation as it is before f and, at the end, after it.
func (s *Store) steering(ctx context.Context, id, action string, r request, op *fleet.Operation, f func(ctx context.Context, q querier) error) error {
	return s.db.tx(ctx, func(ctx context.Context, q querier) (err error) {
		var known bool
		if *op, _, known, err = s.answered(ctx, q, r); err != nil || known {
			return err
		}
		*op, _, err = s.lockRollout(ctx, q, id)
		switch {
		case err != nil:
			return err
		case op.Kind == fleet.KindCommand && action != "cancel":
			return fleet.Errorf(fleet.Conflict, "operation %s is a command, which knows no pause, no approval and no policy; it can only be cancelled", id)
		case !op.Kind.Counted():
			return noRollout(*op)
		case op.State.Ended():
			return fleet.Errorf(fleet.Conflict, "%s", ended(*op))
		}
		if err := f(ctx, q); err != nil {
			return err
		}
		if *op, err = s.operation(ctx, q, operationSQL, id); err != nil {
			return err
		}
		return s.answer(ctx, q, r, id)
	})
}

func (s *Store) steer(ctx context.Context, q querier, op fleet.Operation, a SteerAction) error {
	var sql string
	var already bool
	switch a.Action {
	case "pause":
		sql, already = pauseSQL, !op.Paused.IsZero()
	case "resume":
		sql, already = resumeSQL, op.Paused.IsZero()
	case "cancel":
		sql, already = cancelSQL, !op.Cancelled.IsZero()
		if op.Kind == fleet.KindCommand {
			sql = cancelCommandSQL
		}
	case "approve":
		sql, already = approveSQL, !op.Approved.IsZero()
		if err := s.mayApprove(ctx, q, op); err != nil && !already {
			return err
		}
	default:
		return fleet.InvalidField("action", "must be pause, resume, cancel or approve")
	}
	if already {
		return nil
	}
	if _, err := q.Exec(ctx, sql, op.ID, a.By); err != nil {
		return err
	}
	if err := s.noteSteering(ctx, q, op.ID, a.Action, a.By, ""); err != nil {
		return err
	}
	if a.Action == "cancel" && op.State == fleet.OperationPending {
		_, err := s.endOperation(ctx, q, op.ID, fleet.OperationCancelled, cancelledBy(a.By))
		return err
	}
	return nil
}

// mayApprove refuses an approval before there is something to approve.
func (s *Store) mayApprove(ctx context.Context, q querier, op fleet.Operation) error {
	if c := op.Policy.Canary; c == nil || c.Then != fleet.ThenApprove {
		return fleet.Errorf(fleet.Conflict, "operation %s waits for no approval: its policy has no gate", op.ID)
	}
	t, _, _, err := s.tally(ctx, q, op)
	if err != nil {
		return err
	}
	if c := t.Canary; c.Unstaged+c.Staging+c.Ready+c.Running > 0 {
		return fleet.Errorf(fleet.Conflict, "the canaries are not done; approve operation %s when they are", op.ID)
	}
	return nil
}

func (s *Store) noteSteering(ctx context.Context, q querier, id, action, by, detail string) error {
	_, err := q.Exec(ctx, noteSteeringSQL, s.tenant, id, action, by, detail)
	if err != nil {
		return fmt.Errorf("note %s: %w", action, err)
	}
	return nil
}
