package api

import (
	"context"

	"commissaire/api/gen"
)

func (h *handlers) ListAudit(context.Context, gen.ListAuditRequestObject) (gen.ListAuditResponseObject, error) {
	return nil, errNoRoute()
}
