package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

// auditTimeout bounds the note of how an act ended, which also is made when the
// client has gone.
const auditTimeout = 5 * time.Second

// audited says whether an operation is in the audit log: those that change
// something, and the one that gives a secret away.
func (e endpoint) audited() bool { return e.method != http.MethodGet || e.id == "getHostCreds" }

// audit notes in the audit log what begins, and how it ended. What cannot be
// noted is not begun. A request that does not fit the document does not come here.
func (d Deps) audit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		e := callOf(r.Context()).endpoint
		if e == nil || !e.audited() {
			return next(c)
		}
		id, err := d.Store.BeginAudit(r.Context(), auditEntry(r))
		if err != nil {
			d.metrics.lacks(unauditedBegin, err)
			return &fleet.Error{Kind: fleet.Unavailable, Detail: "the audit log cannot be written, so nothing was done; try again later", Err: err}
		}
		status := http.StatusInternalServerError // of a panic
		defer func() { d.endAudit(r.Context(), id, status) }()
		if err = next(c); err != nil {
			status = problemOf(err).Status
		} else {
			status = c.Response().Status
		}
		return err
	}
}

// auditRefusal notes that somebody known was not allowed to do what they asked for.
func (d Deps) auditRefusal(r *http.Request) {
	id, err := d.Store.BeginAudit(r.Context(), auditEntry(r))
	if err != nil {
		d.metrics.lacks(unauditedBegin, err)
		d.Logger.ErrorContext(r.Context(), "a refusal is not in the audit log", "request_id", callOf(r.Context()).id, "error", err)
		return
	}
	d.endAudit(r.Context(), id, http.StatusForbidden)
}

func (d Deps) endAudit(ctx context.Context, id int64, status int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if err := d.Store.EndAudit(ctx, id, status, callOf(ctx).subject); err != nil {
		d.metrics.lacks(unauditedEnd, err)
		d.Logger.ErrorContext(ctx, "how an act ended is not in the audit log", "request_id", callOf(ctx).id, "status", status, "error", err)
	}
}

func auditEntry(r *http.Request) fleet.AuditEntry {
	c := callOf(r.Context())
	const longest = 1024 // bytes; a path that leads somewhere is shorter
	path := withoutTokens(r.URL.Path)
	if len(path) > longest {
		path = strings.ToValidUTF8(path[:longest], "")
	}
	for _, name := range []string{"dry_run", "force", "replace"} { // which say what the act is; no other query is kept
		if slices.Equal(r.URL.Query()[name], []string{"true"}) {
			path += "?" + name + "=true"
			break
		}
	}
	return fleet.AuditEntry{
		Principal: c.principal.Name, Method: c.principal.Method, Role: c.principal.Role, Address: c.address,
		Operation: c.operation, Path: path, RequestID: c.id, Token: c.principal.TokenID,
	}
}

func (h *handlers) ListAudit(ctx context.Context, r gen.ListAuditRequestObject) (gen.ListAuditResponseObject, error) {
	p := r.Params
	entries, next, err := h.Store.Audit(ctx, store.AuditFilter{
		Principal: or(p.Principal, ""), Operation: or(p.Operation, ""), Cursor: or(p.Cursor, ""), Limit: or(p.Limit, auditPage),
	})
	if err != nil {
		return nil, err
	}
	page := gen.ListAudit200JSONResponse{Entries: make([]gen.AuditEntry, len(entries)), Next: next}
	for i, e := range entries {
		page.Entries[i] = gen.AuditEntry{
			At: fleet.FormatTime(e.At), Principal: e.Principal, Method: e.Method, Role: string(e.Role), Address: e.Address,
			Operation: e.Operation, Path: e.Path, Status: e.Status, RequestId: e.RequestID, Token: e.Token, Subject: e.Subject,
		}
	}
	return page, nil
}

// auditPage is how many entries an answer has when the request does not say.
const auditPage = 100
