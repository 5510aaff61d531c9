package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"commissaire/internal/fleet"
)

// AuditFilter chooses entries of the audit log; "" means any.
type AuditFilter struct {
	Principal string
	Operation string // operationId
	Cursor    string // next of the page before, "" for the first
	Limit     int    // 0 means DefaultPage; at most MaxPage
}

const (
	beginAuditSQL = `INSERT INTO audit (tenant, principal, method, role, address, operation, path, request_id, token)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`

	endAuditSQL = `UPDATE audit SET status = $3, subject = $4 WHERE tenant = $1 AND id = $2 AND status = 0`

	auditSQL = `SELECT id, at, principal, method, role, address, operation, path, status, request_id, token, subject FROM audit
		WHERE tenant = $1 AND ($2 = '' OR principal = $2) AND ($3 = '' OR operation = $3) AND ($4::bigint IS NULL OR id < $4)
		ORDER BY id DESC LIMIT $5`
)

// BeginAudit notes that an act begins, and gives the id of the entry. At, Status
// and Subject of e are not used: the time is the database's, the others come with
// EndAudit.
func (s *Store) BeginAudit(ctx context.Context, e fleet.AuditEntry) (id int64, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		return q.QueryRow(ctx, beginAuditSQL, s.tenant, storable(e.Principal), storable(e.Method), string(e.Role), storable(e.Address),
			storable(e.Operation), storable(e.Path), storable(e.RequestID), storable(e.Token)).Scan(&id)
	})
	return id, err
}

// EndAudit notes the HTTP status that an act ended with, and what it acted on where
// the path does not say. What is noted stays.
func (s *Store) EndAudit(ctx context.Context, id int64, status int, subject string) error {
	return s.db.read(ctx, func(ctx context.Context, q querier) error {
		tag, err := q.Exec(ctx, endAuditSQL, s.tenant, id, status, storable(subject))
		if err == nil && tag.RowsAffected() == 0 {
			return notFound("open audit entry", fmt.Sprint(id))
		}
		return err
	})
}

// Audit lists entries, newest first. next is the cursor of the next page, "" on the
// last one.
func (s *Store) Audit(ctx context.Context, f AuditFilter) (entries []fleet.AuditEntry, next string, err error) {
	var before *int64
	if f.Cursor != "" {
		id, err := number(f.Cursor, 0)
		if err != nil {
			return nil, "", err
		}
		before = &id
	}
	limit := pageSize(f.Limit)
	type row struct {
		id    int64
		entry fleet.AuditEntry
	}
	var rows []row
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		rows, err = collect(ctx, q, func(r pgx.CollectableRow) (out row, err error) {
			var at pgtype.Timestamptz
			e := &out.entry
			err = r.Scan(&out.id, &at, &e.Principal, &e.Method, &e.Role, &e.Address, &e.Operation, &e.Path, &e.Status, &e.RequestID, &e.Token, &e.Subject)
			e.At = utc(at)
			return out, err
		}, auditSQL, s.tenant, f.Principal, f.Operation, before, limit+1)
		return err
	})
	if len(rows) > limit {
		rows = rows[:limit]
		next = fmt.Sprint(rows[limit-1].id)
	}
	entries = make([]fleet.AuditEntry, 0, len(rows))
	for _, r := range rows {
		entries = append(entries, r.entry)
	}
	return entries, next, err
}
