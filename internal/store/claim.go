package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// Assignment is a host that is to be worked on.
type Assignment struct {
	Address string
	Stage   bool // stage it; otherwise it may be taken away
	Slot    int  // from 1; staging hosts have numbers of their own
	Turn    int  // in which the slot was handed out; with the slot it names the slot's holder
	Node    bool // its cluster has a container manager with nodes, which is to have it
}

// Claimed is what a rollout does next.
type Claimed struct {
	Operation   fleet.Operation
	Assignments []Assignment
	More        bool      // hosts could be handed out that this call did not; claim the next turn
	Waiting     string    // what it waits for besides the hosts at work, one sentence
	Again       time.Time // when to claim again at the latest; zero: when something happens
	// End is how the operation has ended or is to be ended now, "" while it goes on.
	End      fleet.OperationState
	Reason   string
	Progress fleet.Progress
}

const (
	maxAssignments = 200  // of one claim
	maxLooked      = 2000 // hosts that one claim looks at
	// countTo is where counts of waiting hosts stop: above it they change nothing.
	countTo = fleet.MaxSlots + 1

	heldFirst = 2 * time.Second // the first look again at a host that is held
	heldMost  = time.Minute
)

const (
	// The row is the lock. The queue before it is for the order of events: Postgres
	// numbers a transaction when it comes to a locked row, but not while it waits here,
	// so those that lock one rollout have their numbers in the order of their locks.
	queueSQL = `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`

	lockRolloutSQL = `SELECT turn FROM rollout WHERE tenant = $1 AND operation_id = $2 FOR NO KEY UPDATE`

	// A host that is neither active nor disassociated does no work: it failed, or
	// somebody tries to mend it by a bootstrap. From these hosts, which are few, to
	// their host runs, one by one: OFFSET 0 keeps Postgres from going the other way
	// while it does not know yet how many rows a new operation has.
	awayJoin = `(SELECT address, state, state_since FROM host WHERE tenant = $2 AND cluster = $3 AND state NOT IN ('active', 'disassociated')) f,
		LATERAL (SELECT * FROM host_run WHERE operation_id = $1 AND address = f.address OFFSET 0) r`

	// The host worked at its turn, and does no work since: most often checks have lost it.
	lostSince = `r.state = 'succeeded' AND f.state_since > r.finished`

	// One row for the canaries and one for all others. Hosts that are not staged yet
	// may be away, too. Those that are away are looked up once for all that is counted of
	// them: in an outage they are many.
	tallySQL = `WITH away AS MATERIALIZED (
			SELECT r.canary, r.state IN ('pending', 'staged') AS before, ` + lostSince + ` AS since, f.state <> 'failed' AS mending FROM ` + awayJoin + `)
		SELECT g.canary,
			(SELECT count(*) FROM (SELECT FROM host_run WHERE operation_id = $1 AND canary = g.canary AND state = 'pending' AND stages LIMIT $4) x),
			(SELECT count(*) FROM host_run WHERE operation_id = $1 AND canary = g.canary AND state = 'staging'),
			(SELECT count(*) FROM (SELECT FROM host_run WHERE operation_id = $1 AND canary = g.canary AND (state = 'staged' OR state = 'pending' AND NOT stages) LIMIT $4) x),
			(SELECT count(*) FROM away a WHERE a.canary = g.canary AND before),
			(SELECT count(*) FROM away a WHERE a.canary = g.canary AND mending AND (before OR since)),
			(SELECT count(*) FROM away a WHERE a.canary = g.canary AND since),
			(SELECT count(*) FROM away a WHERE a.canary AND g.canary AND since AND NOT mending),
			(SELECT count(*) FROM host_run WHERE operation_id = $1 AND canary = g.canary AND state = 'running'),
			(SELECT count(*) FROM host_run WHERE operation_id = $1 AND canary = g.canary AND state = 'failed'),
			(SELECT count(*) FROM host_run WHERE operation_id = $1 AND canary = g.canary AND state = 'failed' AND down),
			greatest((SELECT max(finished) FROM host_run WHERE operation_id = $1 AND canary AND finished IS NOT NULL),
				(SELECT canaries_done FROM rollout WHERE operation_id = $1)),
			clock_timestamp()
		FROM (VALUES (true), (false)) g (canary)`

	firstFailedSQL = `SELECT address, reason FROM host_run WHERE operation_id = $1 AND state = 'failed' ORDER BY finished, position LIMIT 1`

	// The host's cluster has a container manager with nodes, or names one that is not there,
	// so nobody can say. Whether that has the host is for its diagnosis: one that was lost on
	// the way must not go away with its pods.
	isNode = `EXISTS (SELECT FROM host h JOIN cluster c ON c.tenant = h.tenant AND c.name = h.cluster
			LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL
		WHERE h.tenant = r.tenant AND h.address = r.address AND c.container_manager <> '' AND coalesce(m.type, '') <> 'trivial')`

	claimedSQL = `SELECT r.address, r.state = 'staging', r.slot, r.turn, ` + isNode + ` FROM host_run r
		WHERE r.operation_id = $1 AND r.turn = $2 AND r.state IN ('staging', 'running') ORDER BY r.position`

	writeClaimSQL = `UPDATE rollout SET turn = $2, seen_generation = generation, waiting = $3 WHERE operation_id = $1`

	clusterNowSQL = `SELECT c.created <= $3, coalesce(m.name, ''), m.options->'max_unavailable'
		FROM cluster c LEFT JOIN container_manager m ON m.tenant = c.tenant AND m.name = c.container_manager AND m.checking IS NULL AND m.type <> 'trivial'
		WHERE c.tenant = $1 AND c.name = $2`

	pauseByPolicySQL = `UPDATE rollout SET paused = now(), paused_by = $2, approved = now(), approved_by = $2 WHERE operation_id = $1`
)

// byPolicy is who pauses when the policy says so.
const byPolicy = "the policy"

// Claim hands out the hosts that are to be worked on next, 200 at most, and says
// what else there is to do. It begins a pending operation. hold is how long a host
// may be held by another operation before it fails here.
//
// Turns count from 1. Claiming the last turn again gives the hosts that have the
// slots it handed out, and hands out nothing new; an earlier turn is a Conflict,
// since a worker that was thought dead asks. What is decided here holds: pauses,
// budgets and slots are read and written under one lock.
func (s *Store) Claim(ctx context.Context, id string, turn int, hold time.Duration) (c Claimed, err error) {
	if turn < 1 {
		return c, fmt.Errorf("claim of operation %s: %d is no turn", id, turn)
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		c, err = s.claim(ctx, q, id, turn, hold)
		return err
	})
	return c, err
}

func (s *Store) claim(ctx context.Context, q querier, id string, turn int, hold time.Duration) (c Claimed, err error) {
	op, last, err := s.lockRollout(ctx, q, id)
	switch {
	case err != nil:
		return c, err
	case !op.Kind.Rollout():
		return c, noRollout(op)
	case op.State.Ended():
		c = Claimed{Operation: op, End: op.State, Reason: op.Reason}
		c.Progress, err = s.progress(ctx, q, op, time.Now())
		return c, err
	case turn < last:
		return c, fleet.Errorf(fleet.Conflict, "turn %d of operation %s is over; it is at turn %d", turn, id, last)
	}
	if op.State == fleet.OperationPending {
		if _, err := q.Exec(ctx, beginOperationSQL, s.tenant, id); err != nil {
			return c, err
		}
	}
	h := handout{s: s, q: q, op: op, turn: turn, hold: hold}
	if turn == last {
		if c.Assignments, err = collect(ctx, q, pgx.RowToStructByPos[Assignment], claimedSQL, id, turn); err != nil {
			return c, err
		}
		c.More, err = h.more(ctx)
	} else {
		c.More, err = h.all(ctx)
		c.Assignments = h.given
	}
	if err != nil {
		return c, err
	}
	d := h.decision
	c.Waiting, c.Again, c.End, c.Reason = d.Waiting, d.Again, d.End, d.Reason
	if len(h.held) > 0 && c.Waiting == "" && !c.More {
		c.Waiting, c.Again = h.heldUntil()
	}
	if d.Pause {
		if err := s.pauseByPolicy(ctx, q, id); err != nil {
			return c, err
		}
	}
	if _, err := q.Exec(ctx, writeClaimSQL, id, turn, c.Waiting); err != nil {
		return c, err
	}
	if c.Operation, err = s.operation(ctx, q, operationSQL, id); err != nil {
		return c, err
	}
	c.Progress, err = s.progress(ctx, q, c.Operation, h.now)
	return c, err
}

// lockRollout keeps a rollout as it is until the transaction ends, and gives its
// operation and its last turn. An operation that does not roll is only kept from
// ending. It comes before all other row locks.
func (s *Store) lockRollout(ctx context.Context, q querier, id string) (op fleet.Operation, turn int, err error) {
	turn, rolls, err := s.lockTurn(ctx, q, id)
	if err != nil {
		return op, 0, err
	}
	sql := operationSQL
	if !rolls {
		sql = lockOperationSQL
	}
	op, err = s.operation(ctx, q, sql, id)
	return op, turn, err
}

// lockTurn locks a rollout and gives its last turn; an operation that does not roll
// has nothing to lock here.
func (s *Store) lockTurn(ctx context.Context, q querier, id string) (turn int, rolls bool, err error) {
	if uuid.Validate(id) != nil {
		return 0, false, notFound("operation", id)
	}
	b := &pgx.Batch{}
	b.Queue(queueSQL, id)
	b.Queue(lockRolloutSQL, s.tenant, id).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&turn)
		if rolls = err == nil; isNoRows(err) {
			return nil
		}
		return err
	})
	return turn, rolls, q.SendBatch(ctx, b).Close()
}

func noRollout(op fleet.Operation) *fleet.Error {
	return fleet.Errorf(fleet.Conflict, "operation %s is a %s, which does not roll over hosts", op.ID, op.Kind)
}

// tally counts what has happened so far, and gives the time by Postgres' clock.
func (s *Store) tally(ctx context.Context, q querier, op fleet.Operation) (t fleet.Tally, canariesDone, now time.Time, err error) {
	rows, err := q.Query(ctx, tallySQL, op.ID, s.tenant, op.Cluster, countTo)
	if err != nil {
		return t, canariesDone, now, err
	}
	t.Hosts = op.Hosts
	var canary bool
	var g fleet.Group
	var down, lost, canariesLost int
	var done, clock pgtype.Timestamptz
	_, err = pgx.ForEachRow(rows, []any{&canary, &g.Unstaged, &g.Staging, &g.Ready, &g.Away, &g.Mending, &lost, &canariesLost, &g.Running, &g.Failed, &down, &done, &clock}, func() error {
		if canary {
			t.Canary = g
		} else {
			t.Rest = g
		}
		t.Failed += g.Failed
		t.Down += down
		t.Lost += lost
		t.CanariesLost += canariesLost
		return nil
	})
	return t, utc(done), utc(clock), err
}

// decide asks the planner.
func (s *Store) decide(ctx context.Context, q querier, op fleet.Operation) (d fleet.Decision, now time.Time, err error) {
	t, canariesDone, now, err := s.tally(ctx, q, op)
	if err != nil {
		return d, now, err
	}
	gone, manager, budget, err := s.clusterNow(ctx, q, op)
	if err != nil {
		return d, now, err
	}
	if gone != "" {
		if t.Canary.Staging+t.Canary.Running+t.Rest.Staging+t.Rest.Running > 0 {
			return fleet.Decision{Waiting: "ends when the hosts at work have ended: " + gone}, now, nil
		}
		return fleet.Decision{End: fleet.OperationCancelled, Reason: gone}, now, nil
	}
	if budget != nil {
		if t.Shared, err = s.shared(ctx, q, op, manager, *budget); err != nil {
			return d, now, err
		}
	}
	d = op.Policy.Next(t, fleet.Steering{
		Paused: !op.Paused.IsZero(), PausedBy: op.PausedBy, Approved: !op.Approved.IsZero(),
		Cancelled: !op.Cancelled.IsZero(), CanariesDone: canariesDone,
	}, now)
	switch {
	case d.End == fleet.OperationCancelled:
		d.Reason = cancelledBy(op.CancelledBy)
	case d.End == fleet.OperationFailed && t.Failed > 0:
		d.Reason, err = s.blame(ctx, q, op, d.Reason)
	}
	return d, now, err
}

// blame adds the host that failed first to the reason for which a rollout fails.
func (s *Store) blame(ctx context.Context, q querier, op fleet.Operation, reason string) (string, error) {
	var address, why string
	if err := q.QueryRow(ctx, firstFailedSQL, op.ID).Scan(&address, &why); err != nil {
		return reason, err
	}
	host := "host " + address + ": " + fleet.OurWords(why)
	if reason == fleet.ReasonHostFailed {
		return host, nil
	}
	return reason + "; first " + host, nil
}

func cancelledBy(who string) string {
	if who == "" {
		return "cancelled"
	}
	return "cancelled by " + who
}

// clusterNow says that the cluster of an operation was deleted, even if there is
// one of that name again; gone is "" when it is there. Then it gives its container
// manager that has nodes, and the budget of that, nil for none.
func (s *Store) clusterNow(ctx context.Context, q querier, op fleet.Operation) (gone, manager string, budget *fleet.Amount, err error) {
	if op.Cluster == "" {
		return "", "", nil, nil
	}
	var same bool
	err = q.QueryRow(ctx, clusterNowSQL, s.tenant, op.Cluster, op.Created).Scan(&same, &manager, &budget)
	switch {
	case isNoRows(err):
		return fmt.Sprintf("cluster %q was deleted", op.Cluster), "", nil, nil
	case err == nil && !same:
		return fmt.Sprintf("cluster %q was deleted, and another one made under its name", op.Cluster), "", nil, nil
	}
	return "", manager, budget, err
}

func (s *Store) pauseByPolicy(ctx context.Context, q querier, id string) error {
	if _, err := q.Exec(ctx, pauseByPolicySQL, id, byPolicy); err != nil {
		return err
	}
	return s.noteSteering(ctx, q, id, "pause", byPolicy, "")
}
