package store

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// HostRunEnd is how one host's part in an operation ended, or that it is staged.
type HostRunEnd struct {
	OperationID string
	Address     string
	State       fleet.HostRunState // succeeded, failed, skipped or staged
	Reason      string
	Event       fleet.HostEvent // what happened to the host, "" for nothing
	Down        bool            // it failed while it was away
	Turn        int             // in which the host was handed out; the end of one who was replaced changes nothing
	Next        bool            // hand its slot on to the next host
}

const (
	// When the workflow blames a step, that step's own reason says more: it has the
	// host's words, which do not travel through workflow history.
	endHostRunSQL = `UPDATE host_run SET state = $4, waiting = '', down = $6 AND $4 = 'failed',
			finished = CASE WHEN $4 = 'staged' THEN NULL ELSE now() END,
			reason = CASE WHEN $4 = 'failed' THEN coalesce(
				(SELECT 'step ' || name || ': ' || reason FROM step WHERE operation_id = $2 AND address = $3 AND state <> 'succeeded' AND starts_with($5, 'step ' || name || ': ') ORDER BY id DESC LIMIT 1),
				$5) ELSE $5 END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND (state = 'staging' AND $4 <> 'succeeded'
			OR state = 'running' AND $4 <> 'staged' OR state = 'pending' AND $4 IN ('skipped', 'failed'))
		RETURNING reason, slot, turn`

	closeStepsOfHostSQL = `UPDATE step SET finished = now(),
			state = CASE WHEN starts_with($3, 'step ' || name || ': ') THEN 'failed' ELSE 'indeterminate' END,
			reason = CASE
				WHEN starts_with($3, 'step ' || name || ': ') THEN substr($3, length('step ' || name || ': ') + 1)
				WHEN $3 <> '' THEN $3 ELSE 'the host run ended before the end of this step was known' END
		WHERE operation_id = $1 AND address = $2 AND finished IS NULL`

	// A host that never rolled had its slot for staging.
	slotOfSQL = `SELECT slot, rolling IS NULL, next_address FROM host_run WHERE operation_id = $1 AND address = $2`

	stillAtWorkSQL = `SELECT r.address, r.state = 'staging', r.slot, r.turn, ` + isNode + ` FROM host_run r
		WHERE r.operation_id = $1 AND r.address = $2 AND r.state = $3 AND r.slot = $4 AND r.state IN ('staging', 'running')`

	setNextSQL = `UPDATE host_run SET next_address = $3 WHERE operation_id = $1 AND address = $2`

	// $5 are the steps that leave a host as it was.
	hostOfSlotSQL = `SELECT address, cordon, ` + touchedSQL + `$5)) FROM host_run r WHERE operation_id = $1 AND state = $2 AND slot = $3 AND turn = $4 AND state IN ('staging', 'running')`

	// A step is on record before it does anything. What follows are those that spare the host.
	touchedSQL = `EXISTS (SELECT FROM step t WHERE t.operation_id = r.operation_id AND t.address = r.address AND t.name <> ALL (`
)

// EndHostRun ends a host run that is at work (a pending one can only be skipped or
// fail), or notes that it is staged, and in the same transaction tells the host
// what happened to it. An event that does not fit the host's state, and a host that
// is gone or was added again, leave the host alone: that the run ended is true all
// the same. A host that is prepared is registered with the container manager of its
// cluster. With Next the slot goes to the next host, if a claim would give one to
// that group now; next is nil when it would not.
//
// Repeating it is safe: what has ended stays, no event comes twice, and next is the
// host that the first call handed on, while that is at work, and never another one.
func (s *Store) EndHostRun(ctx context.Context, e HostRunEnd) (next *Assignment, err error) {
	if !e.State.Ended() && e.State != fleet.HostRunStaged {
		return nil, fmt.Errorf("end of the host run of operation %s on %s: %q is no end", e.OperationID, e.Address, e.State)
	}
	e.Reason = storable(e.Reason)
	if e.State == fleet.HostRunFailed || e.State == fleet.HostRunSkipped {
		e.Reason = because(e.Reason)
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		op, _, err := s.lockRollout(ctx, q, e.OperationID)
		if err != nil {
			return err
		}
		next, err = s.endHostRun(ctx, q, op, e)
		return err
	})
	return next, err
}

func (s *Store) endHostRun(ctx context.Context, q querier, op fleet.Operation, e HostRunEnd) (*Assignment, error) {
	r, err := s.hostRun(ctx, q, op.ID, e.Address)
	if err != nil {
		return nil, err
	}
	if r.State.Ended() || e.State == fleet.HostRunStaged && r.State != fleet.HostRunStaging {
		return s.handedOn(ctx, q, e)
	}
	if e.Turn > 0 { // of a rollout
		ours, _, err := s.takenUp(ctx, q, op.ID, e.Address, e.Turn)
		if err != nil || !ours {
			return nil, err
		}
	}
	if _, err := q.Exec(ctx, closeStepsOfHostSQL, op.ID, e.Address, e.Reason); err != nil {
		return nil, err
	}
	slot := Assignment{Address: e.Address, Stage: r.State == fleet.HostRunStaging}
	err = q.QueryRow(ctx, endHostRunSQL, s.tenant, op.ID, e.Address, string(e.State), e.Reason, e.Down).Scan(&e.Reason, &slot.Slot, &slot.Turn)
	if isNoRows(err) {
		return nil, fleet.Errorf(fleet.Conflict, "host %q is %s in operation %s, so it cannot have %s", e.Address, r.State, op.ID, e.State)
	}
	if err != nil {
		return nil, err
	}
	// First what became of the host, which counts against a shared budget.
	if err := s.tellHost(ctx, q, op, e); err != nil || !e.Next || !op.Kind.Rollout() {
		return nil, err
	}
	return s.handOn(ctx, q, op, slot)
}

// tellHost tells a host what happened to it.
func (s *Store) tellHost(ctx context.Context, q querier, op fleet.Operation, e HostRunEnd) error {
	c := stateChange{addresses: []string{e.Address}, event: e.Event, reason: e.Reason, operation: op.ID}
	switch e.Event {
	case "":
		return nil
	case fleet.HostPrepared, fleet.HostRegistered, fleet.HostRecovered:
		return s.worked(ctx, q, op.Kind, c)
	}
	_, err := s.applyEvent(ctx, q, c)
	return err
}

// handOn gives the slot of a host that has ended to the next one.
func (s *Store) handOn(ctx context.Context, q querier, op fleet.Operation, from Assignment) (*Assignment, error) {
	// The holder of the slot stays the one of the turn in which it was handed out. A
	// host that another operation holds is passed over; to fail it is for a claim.
	h := handout{s: s, q: q, op: op, slot: from.Slot, turn: from.Turn, hold: math.MaxInt64}
	if _, err := h.more(ctx); err != nil {
		return nil, err
	}
	if from.Stage && h.decision.Stage == 0 || !from.Stage && h.decision.Start == 0 {
		return nil, nil
	}
	if _, err := h.some(ctx, 1); err != nil || len(h.given) == 0 {
		return nil, err
	}
	next := h.given[0]
	_, err := q.Exec(ctx, setNextSQL, op.ID, from.Address, next.Address)
	return &next, err
}

// handedOn gives the host that the slot of one that has ended was handed to, if it
// is still at work on that.
func (s *Store) handedOn(ctx context.Context, q querier, e HostRunEnd) (*Assignment, error) {
	var slot int
	var stage bool
	var address string
	if err := q.QueryRow(ctx, slotOfSQL, e.OperationID, e.Address).Scan(&slot, &stage, &address); err != nil || address == "" {
		return nil, err
	}
	state := fleet.HostRunRunning
	if stage {
		state = fleet.HostRunStaging
	}
	next, err := one(ctx, q, pgx.RowToStructByPos[Assignment], stillAtWorkSQL, e.OperationID, address, string(state), slot)
	if isNoRows(err) || e.State == fleet.HostRunStaged && !stage {
		return nil, nil
	}
	return &next, err
}

// EndSlot ends the host run of a slot whose holder was lost: it has failed, perhaps
// while the host was away, and then the host is failed, too. One to which nothing was
// done works as before; while its node may bear our cordon, it is down all the same. Slot,
// Stage and Turn of what the holder was given say which; it may have gone on to other
// hosts since.
// Repeating it changes nothing, also when the slot was handed out again.
func (s *Store) EndSlot(ctx context.Context, id string, lost Assignment, reason string) error {
	state := fleet.HostRunRunning
	if lost.Stage {
		state = fleet.HostRunStaging
	}
	reason = because(storable(reason))
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		op, _, err := s.lockRollout(ctx, q, id)
		if err != nil {
			return err
		}
		var address string
		var cordon fleet.Cordon
		var touched bool
		err = q.QueryRow(ctx, hostOfSlotSQL, id, string(state), lost.Slot, lost.Turn, fleet.StepsThatSpare).Scan(&address, &cordon, &touched)
		if isNoRows(err) {
			return nil // it gave the slot back
		}
		if err != nil {
			return err
		}
		end := HostRunEnd{OperationID: id, Address: address, State: fleet.HostRunFailed, Reason: reason, Turn: lost.Turn}
		if touched {
			end.Event = fleet.HostBroke
		}
		end.Down = touched || cordon.Stands() // no pod can come to it
		_, err = s.endHostRun(ctx, q, op, end)
		return err
	})
}
