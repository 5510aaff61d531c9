package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"commissaire/api/docs"
	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

// Version is what runs here.
type Version struct {
	Version string
	Commit  string
	Built   string // RFC 3339
	Go      string
}

// Check asks whether one part that the server needs answers.
type Check struct {
	Name string // "postgres", "temporal"
	Run  func(ctx context.Context) error
}

// checkTimeout bounds one readiness check.
const checkTimeout = 2 * time.Second

func (h *handlers) Healthz(context.Context, gen.HealthzRequestObject) (gen.HealthzResponseObject, error) {
	return gen.Healthz200JSONResponse{AliveJSONResponse: gen.AliveJSONResponse{Status: "ok"}}, nil
}

func (h *handlers) Livez(context.Context, gen.LivezRequestObject) (gen.LivezResponseObject, error) {
	return gen.Livez200JSONResponse{AliveJSONResponse: gen.AliveJSONResponse{Status: "ok"}}, nil
}

func (h *handlers) Version(context.Context, gen.VersionRequestObject) (gen.VersionResponseObject, error) {
	v := h.Deps.Version
	return gen.Version200JSONResponse{Version: v.Version, Commit: v.Commit, Built: v.Built, Go: v.Go}, nil
}

// Readyz runs all checks at once. Nobody needs credentials to ask, so causes go
// to the log only.
func (h *handlers) Readyz(ctx context.Context, _ gen.ReadyzRequestObject) (gen.ReadyzResponseObject, error) {
	ready := gen.Readiness{Status: "ready", Checks: make([]gen.ReadinessCheck, len(h.Readiness))}
	var all sync.WaitGroup
	for i, c := range h.Readiness {
		all.Go(func() { ready.Checks[i] = h.check(ctx, c) })
	}
	all.Wait()
	for _, c := range ready.Checks {
		if !c.Ok {
			ready.Status = "not_ready"
			return gen.Readyz503JSONResponse(ready), nil
		}
	}
	return gen.Readyz200JSONResponse(ready), nil
}

func (h *handlers) check(ctx context.Context, c Check) gen.ReadinessCheck {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	begin := time.Now()
	err := c.Run(ctx)
	result := gen.ReadinessCheck{Name: c.Name, Ok: err == nil, Seconds: time.Since(begin).Seconds()}
	if err != nil {
		h.Logger.WarnContext(ctx, "not ready", "check", c.Name, "error", err)
		result.Detail = "does not answer; the server's log tells more"
		var known *fleet.Error
		if errors.As(err, &known) {
			result.Detail = known.Detail
		}
	}
	return result
}

// problemPage explains the type URL of a problem document.
func problemPage(c echo.Context) error {
	text, ok := docs.ProblemText(c.Param("type"))
	if !ok {
		return errNoRoute()
	}
	return c.String(http.StatusOK, text)
}
