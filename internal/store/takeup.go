package store

import (
	"context"
	"errors"
	"fmt"

	"commissaire/internal/fleet"
)

// ErrGivenBack says that a host is not to be worked on by whoever asks: it waits
// for its turn again, or has another holder.
var ErrGivenBack = errors.New("the host was given back")

const (
	takenUpSQL = `SELECT state IN ('staging', 'running') AND turn = $4, begun FROM host_run WHERE tenant = $1 AND operation_id = $2 AND address = $3`

	takeUpSQL = `UPDATE host_run SET begun = true WHERE operation_id = $1 AND address = $2`

	// A host that was staged stays so.
	giveBackSQL = `UPDATE host_run SET state = CASE WHEN state = 'running' AND stages THEN 'staged' ELSE 'pending' END,
			started = CASE WHEN state = 'running' AND stages THEN started END, slot = 0, rolling = NULL
		WHERE operation_id = $1 AND address = $2`
)

// TakeUp is the moment at which work on a host begins that was handed out in a
// turn. Time may have passed since then: a worker was busy, or died. So what holds
// hosts back is asked once more, under the lock under which people pause: when the
// rollout is paused or cancelled, its window is closed or too many hosts failed,
// the host is given back, as if it had not been handed out, and the answer is
// ErrGivenBack. It is also that for a holder who was replaced. Repeating it is safe:
// a host that was taken up stays so.
func (s *Store) TakeUp(ctx context.Context, id, address string, turn int) error {
	var back bool
	err := s.db.tx(ctx, func(ctx context.Context, q querier) (err error) {
		back, err = s.takeUp(ctx, q, id, address, turn)
		return err
	})
	if err == nil && back {
		return ErrGivenBack
	}
	return err
}

// takeUp says whether the host is back, which must be on disk before anybody is told.
func (s *Store) takeUp(ctx context.Context, q querier, id, address string, turn int) (back bool, err error) {
	ours, begun, err := s.takenUp(ctx, q, id, address, turn)
	if err != nil || begun && ours {
		return false, err
	}
	op, _, err := s.lockRollout(ctx, q, id)
	if err != nil {
		return false, err
	}
	ours, begun, err = s.takenUp(ctx, q, id, address, turn) // as it is now that nobody else writes
	switch {
	case err != nil || begun && ours:
		return false, err
	case op.State.Ended():
		return false, fleet.Errorf(fleet.Conflict, "%s; nothing more is done for it", ended(op))
	case !ours:
		return true, nil
	}
	t, _, now, err := s.tally(ctx, q, op)
	if err != nil {
		return false, err
	}
	steering := fleet.Steering{Paused: !op.Paused.IsZero(), PausedBy: op.PausedBy, Cancelled: !op.Cancelled.IsZero()}
	if op.Policy.Hold(t, steering, now) == "" {
		_, err = q.Exec(ctx, takeUpSQL, id, address)
		return false, err
	}
	_, err = q.Exec(ctx, giveBackSQL, id, address)
	return true, err
}

func (s *Store) takenUp(ctx context.Context, q querier, id, address string, turn int) (ours, begun bool, err error) {
	err = q.QueryRow(ctx, takenUpSQL, s.tenant, id, address, turn).Scan(&ours, &begun)
	return ours, begun, orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
}
