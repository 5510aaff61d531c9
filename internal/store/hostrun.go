package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// hostRunColumns are what scanHostRun reads.
const hostRunColumns = `r.operation_id, r.address, r.position, r.state, r.reason, r.canary, r.slot, r.boot_id, r.target, r.waiting, r.started, r.finished`

const (
	hostRunsSQL = `SELECT ` + hostRunColumns + ` FROM host_run r WHERE r.tenant = $1 AND r.operation_id = $2 ORDER BY r.position`

	hostRunSQL = `SELECT ` + hostRunColumns + ` FROM host_run r WHERE r.tenant = $1 AND r.operation_id = $2 AND r.address = $3`

	// A cursor may be any number ($4), also one that no position has.
	hostRunsPageSQL = `SELECT ` + hostRunColumns + ` FROM host_run r
		WHERE r.tenant = $1 AND r.operation_id = $2 AND ($3 = '' OR r.state = $3) AND r.position > $4::bigint ORDER BY r.position LIMIT $5`

	otherRunOnHostSQL = `SELECT ` + operationColumns + `
		FROM host_run r JOIN operation o ON o.id = r.operation_id LEFT JOIN rollout p ON p.operation_id = o.id
		WHERE r.tenant = $1 AND r.address = $2 AND r.state IN ('staging', 'running') AND r.holds AND r.operation_id <> $3`

	beginHostRunSQL = `UPDATE host_run SET state = 'running', started = now(), rolling = now(), slot = 1
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 AND state = 'pending'`

	setBootIDSQL = `UPDATE host_run SET boot_id = CASE WHEN boot_id = '' THEN $4 ELSE boot_id END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 RETURNING boot_id`

	setTargetSQL = `UPDATE host_run SET target = CASE WHEN target = '' THEN $4 ELSE target END
		WHERE tenant = $1 AND operation_id = $2 AND address = $3 RETURNING target`
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
	err := row.Scan(&r.OperationID, &r.Address, &r.Position, &r.State, &r.Reason, &r.Canary, &r.Slot, &r.BootID, &r.Target, &r.Waiting, &started, &finished)
	r.Started, r.Finished = utc(started), utc(finished)
	return r, err
}

// HostRunFilter chooses host runs of an operation.
type HostRunFilter struct {
	State  fleet.HostRunState // "" means any
	Cursor string             // next of the page before, "" for the first
	Limit  int                // 0 means DefaultPage; at most MaxPage
}

// HostRunsPage lists hosts of an operation in rollout order. next is the cursor of
// the next page, "" on the last one.
func (s *Store) HostRunsPage(ctx context.Context, id string, f HostRunFilter) (runs []fleet.HostRun, next string, err error) {
	after, err := number(f.Cursor, -1)
	if err != nil {
		return nil, "", err
	}
	limit := pageSize(f.Limit)
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		if _, err := s.operation(ctx, q, operationSQL, id); err != nil {
			return err
		}
		runs, err = collect(ctx, q, scanHostRun, hostRunsPageSQL, s.tenant, id, string(f.State), after, limit+1)
		return err
	})
	if len(runs) > limit {
		runs = runs[:limit]
		next = fmt.Sprint(runs[limit-1].Position)
	}
	return runs, next, err
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
// on the host it is a Conflict with that Holder, and the operation waits for it. A
// bootstrap sets its host back to investigating here, whatever an operation before it
// left behind. Repeating it is safe: only the first one changes anything.
func (s *Store) BeginHostRun(ctx context.Context, id, address string) (r fleet.HostRun, err error) {
	waiting := ""
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		waiting = ""
		// Keeps EndOperation from closing the host runs beside us.
		op, _, err := s.lockRollout(ctx, q, id)
		if err != nil {
			return err
		}
		if r, err = s.hostRun(ctx, q, id, address); err != nil || r.State != fleet.HostRunPending {
			return err
		}
		holder, err := one(ctx, q, scanOperation, otherRunOnHostSQL, s.tenant, address, id)
		if err == nil {
			waiting = holdsHost(holder)
			return held(holder, "")
		}
		if !isNoRows(err) {
			return err
		}
		if _, err := q.Exec(ctx, setWaitingSQL, s.tenant, id, ""); err != nil {
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
	if waiting != "" {
		if err := s.SetWaiting(ctx, id, waiting); err != nil {
			return r, err
		}
	}
	return r, err
}

// holdsHost says that an operation works on the host that another one waits for.
func holdsHost(holder fleet.Operation) string {
	on := "host " + holder.Host
	if holder.Cluster != "" {
		on = "cluster " + holder.Cluster
	}
	return fmt.Sprintf("operation %s (%s of %s) holds the host", holder.ID, holder.Kind, on)
}

// SetHostRunBootID notes the boot id of the host before a reboot and gives the
// one on record. Repeating it is safe: the first writer wins, so that a retry
// after the reboot cannot take the new boot for the old one.
func (s *Store) SetHostRunBootID(ctx context.Context, id, address, bootID string) (stands string, err error) {
	return s.setOnce(ctx, setBootIDSQL, id, address, bootID)
}

// SetHostRunTarget notes the deployment that the host must boot and gives the one
// on record. Repeating it is safe: the first writer wins.
func (s *Store) SetHostRunTarget(ctx context.Context, id, address, target string) (stands string, err error) {
	return s.setOnce(ctx, setTargetSQL, id, address, target)
}

func (s *Store) setOnce(ctx context.Context, sql, id, address, value string) (stands string, err error) {
	if uuid.Validate(id) != nil {
		return "", notFound("operation", id)
	}
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, sql, s.tenant, id, address, value).Scan(&stands)
		return orNotFound(err, fmt.Sprintf("host run of operation %s on host", id), address)
	})
	return stands, err
}
