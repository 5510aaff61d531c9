package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// handout hands out hosts of one rollout, in a transaction that has locked it.
type handout struct {
	s    *Store
	q    querier
	op   fleet.Operation
	turn int
	hold time.Duration
	slot int // the only number to hand out, 0 for any

	decision fleet.Decision
	now      time.Time
	looked   int
	given    []Assignment
	held     []candidate // passed over, since other operations hold them
}

// candidate is a host that comes next in its group.
type candidate struct {
	address  string
	position int
	gone     string // why it is not there any more, "" while it is
	holder   string // the operation that works on it, "" for none
	since    time.Time
	waiting  string // as it stands in the record
	reason   string // why it ends without being touched
}

const (
	candidatesSQL = `SELECT r.address, r.position,
			CASE WHEN h.address IS NULL THEN 'the host was removed before its turn'
				WHEN $3 <> '' AND h.cluster IS DISTINCT FROM $3 THEN 'the host left the cluster before its turn'
				WHEN h.created > $6 THEN 'the host was removed and added again before its turn'
				ELSE '' END,
			coalesce((SELECT format('operation %s (%s of %s) holds it', x.id, x.kind, coalesce('host ' || x.host, 'cluster ' || x.cluster))
				FROM host_run w JOIN operation x ON x.id = w.operation_id
				WHERE w.tenant = r.tenant AND w.address = r.address AND w.operation_id <> r.operation_id AND w.state IN ('staging', 'running') AND w.holds), ''),
			r.held_since, r.waiting
		FROM `
	candidatesWhere = ` LEFT JOIN host h ON h.tenant = r.tenant AND h.address = r.address
		WHERE r.operation_id = $1 AND r.tenant = $2 AND r.canary = $4 AND r.position > $5 AND `

	unstagedSQL = candidatesSQL + `host_run r` + candidatesWhere + `r.state = 'pending' AND r.stages ORDER BY r.position LIMIT $7`
	readySQL    = candidatesSQL + `host_run r` + candidatesWhere + `(r.state = 'staged' OR r.state = 'pending' AND NOT r.stages) ORDER BY r.position LIMIT $7`
	awaySQL     = candidatesSQL + awayJoin + candidatesWhere + `r.state IN ('pending', 'staged') ORDER BY r.position LIMIT $7`

	slotsInUseSQL = `SELECT slot FROM host_run WHERE operation_id = $1 AND state = $2 AND state IN ('staging', 'running')
		UNION ALL SELECT slot FROM host_run WHERE operation_id = $1 AND state = 'failed' AND down AND $3`

	assignSQL = `UPDATE host_run r SET state = $2, turn = $3, slot = m.slot, next_address = '', begun = false, waiting = '', held_since = NULL,
			started = coalesce(r.started, now()), rolling = CASE WHEN $2 = 'running' THEN now() END
		FROM unnest($4::text[], $5::integer[]) AS m (address, slot)
		WHERE r.operation_id = $1 AND r.address = m.address AND r.state IN ('pending', 'staged')
		RETURNING r.address, ` + isNode

	skipSQL = `UPDATE host_run r SET state = $2, reason = m.reason, finished = now(), waiting = ''
		FROM unnest($3::text[], $4::text[]) AS m (address, reason)
		WHERE r.operation_id = $1 AND r.address = m.address AND r.state IN ('pending', 'staged')`

	waitSQL = `UPDATE host_run r SET waiting = m.waiting, held_since = coalesce(r.held_since, $2)
		FROM unnest($3::text[], $4::text[]) AS m (address, waiting)
		WHERE r.operation_id = $1 AND r.address = m.address AND (r.waiting <> m.waiting OR r.held_since IS NULL)`
)

// all hands out what the planner allows. more says that it allows more than one
// claim hands out.
func (h *handout) all(ctx context.Context) (more bool, err error) {
	for {
		wanted, err := h.more(ctx)
		if err != nil {
			return false, err
		}
		if !wanted {
			h.held = nil // somebody else got the last slot
			return false, nil
		}
		if len(h.given) >= maxAssignments || h.looked >= maxLooked {
			return true, nil
		}
		moved, err := h.some(ctx, maxAssignments-len(h.given))
		if err != nil || !moved {
			return false, err // the hosts that could be next are held
		}
	}
}

// more asks the planner whether hosts could be handed out.
func (h *handout) more(ctx context.Context) (wanted bool, err error) {
	h.decision, h.now, err = h.s.decide(ctx, h.q, h.op)
	return h.decision.Stage+h.decision.Start > 0, err
}

// some hands out some of the hosts that the decision allows, at most limit. moved
// says that something changed, so that the planner is to be asked again.
func (h *handout) some(ctx context.Context, limit int) (moved bool, err error) {
	d := h.decision
	sql, want := readySQL, d.Start-d.StartAway
	switch {
	case d.Stage > 0:
		sql, want = unstagedSQL, d.Stage
	case want == 0:
		sql, want = awaySQL, d.StartAway
	}
	next, err := h.look(ctx, sql, min(want, limit))
	if err != nil {
		return false, err
	}
	if err := h.end(ctx, fleet.HostRunSkipped, next.gone); err != nil {
		return false, err
	}
	h.held = next.held
	if err := h.wait(ctx); err != nil {
		return false, err
	}
	if len(next.late) > 0 { // a failure may stop the rollout, so the planner comes first
		return true, h.end(ctx, fleet.HostRunFailed, next.late)
	}
	return len(next.free)+len(next.gone) > 0, h.assign(ctx, next.free, d.Stage > 0)
}

// candidates are the first hosts of a group, by what is to be done with them.
type candidates struct {
	free []candidate
	held []candidate
	gone []candidate // not there any more
	late []candidate // held for too long
}

// look goes through a group until there are so many free hosts.
func (h *handout) look(ctx context.Context, sql string, want int) (found candidates, err error) {
	after := -1
	for page := want; len(found.free) < want && h.looked < maxLooked; page = min(2*page, maxAssignments) {
		rows, err := collect(ctx, h.q, scanCandidate, sql, h.op.ID, h.s.tenant, h.op.Cluster, h.decision.Canary, after, h.op.Created, page)
		if err != nil {
			return found, err
		}
		h.looked += len(rows)
		for _, c := range rows {
			after = c.position
			switch {
			case c.gone != "":
				c.reason = c.gone
				found.gone = append(found.gone, c)
			case c.holder == "" && len(found.free) < want:
				found.free = append(found.free, c)
			case c.holder == "":
			case !c.since.IsZero() && h.now.Sub(c.since) > h.hold:
				c.reason = fmt.Sprintf("%s, for longer than %s", c.holder, h.hold)
				found.late = append(found.late, c)
			default:
				found.held = append(found.held, c)
			}
		}
		if len(rows) < page {
			break
		}
	}
	return found, nil
}

func scanCandidate(row pgx.CollectableRow) (c candidate, err error) {
	var since pgtype.Timestamptz
	err = row.Scan(&c.address, &c.position, &c.gone, &c.holder, &since, &c.waiting)
	c.since = utc(since)
	return c, err
}

// end ends hosts that were not touched.
func (h *handout) end(ctx context.Context, state fleet.HostRunState, hosts []candidate) error {
	if len(hosts) == 0 {
		return nil
	}
	var addresses, reasons []string
	for _, c := range hosts {
		addresses, reasons = append(addresses, c.address), append(reasons, c.reason)
	}
	_, err := h.q.Exec(ctx, skipSQL, h.op.ID, string(state), addresses, reasons)
	return err
}

// wait notes who holds the hosts that were passed over, and since when.
func (h *handout) wait(ctx context.Context) error {
	var addresses, holders []string
	for i, c := range h.held {
		if c.since.IsZero() {
			h.held[i].since = h.now
		}
		if c.since.IsZero() || c.waiting != c.holder {
			addresses, holders = append(addresses, c.address), append(holders, c.holder)
		}
	}
	if len(addresses) == 0 {
		return nil
	}
	_, err := h.q.Exec(ctx, waitSQL, h.op.ID, h.now, addresses, holders)
	return err
}

// assign gives hosts to slots.
func (h *handout) assign(ctx context.Context, hosts []candidate, stage bool) error {
	if len(hosts) == 0 {
		return nil
	}
	state := fleet.HostRunRunning
	if stage {
		state = fleet.HostRunStaging
	}
	slots, err := h.free(ctx, state, len(hosts))
	if err != nil || len(slots) == 0 {
		return err
	}
	var addresses []string
	for _, c := range hosts {
		addresses = append(addresses, c.address)
	}
	assigned, err := collect(ctx, h.q, pgx.RowToStructByPos[assigned], assignSQL, h.op.ID, string(state), h.turn, addresses, slots)
	switch {
	case violates(err, "host_run_one_running"):
		return errAgain // another operation took one in between; the next look names it
	case err != nil:
		return err
	case len(assigned) != len(hosts):
		return errAgain // somebody without our lock (a worker of the version before) took one
	}
	node := map[string]bool{}
	for _, a := range assigned {
		node[a.Address] = a.Node
	}
	for i, address := range addresses {
		h.given = append(h.given, Assignment{Address: address, Stage: stage, Slot: slots[i], Turn: h.turn, Node: node[address]})
	}
	return nil
}

// assigned is a host that has just got a slot.
type assigned struct {
	Address string
	Node    bool
}

// free gives the n smallest slot numbers that no host has. Hosts that failed while
// away keep theirs while they count against max_unavailable.
func (h *handout) free(ctx context.Context, state fleet.HostRunState, n int) (slots []int, err error) {
	down := state == fleet.HostRunRunning && h.op.Policy.MaxUnavailable != nil
	used, err := collect(ctx, h.q, pgx.RowTo[int], slotsInUseSQL, h.op.ID, string(state), down)
	if err != nil {
		return nil, err
	}
	if h.slot > 0 {
		if slices.Contains(used, h.slot) {
			return nil, nil
		}
		return []int{h.slot}, nil
	}
	taken := map[int]bool{}
	for _, slot := range used {
		taken[slot] = true
	}
	for slot := 1; len(slots) < n; slot++ {
		if !taken[slot] {
			slots = append(slots, slot)
		}
	}
	return slots, nil
}

// heldUntil says who is in the way, and when to look again: soon at first, less
// often the longer a host is held, and when its time is up.
func (h *handout) heldUntil() (waiting string, again time.Time) {
	first := h.held[0]
	for _, c := range h.held {
		wait := min(max(h.now.Sub(c.since), heldFirst), heldMost, max(c.since.Add(h.hold).Sub(h.now), 0)+time.Millisecond)
		if at := h.now.Add(wait); again.IsZero() || at.Before(again) {
			again = at
		}
	}
	return fmt.Sprintf("host %s: %s", first.address, first.holder), again
}
