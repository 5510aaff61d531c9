package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"time"

	"commissaire/devstack/harness"
)

// killAPI kills the API while the worker is held at its point. Another API takes
// its place, which must know what goes on and take orders. Then the worker goes on.
func (l *lane) killAPI(ctx context.Context, d *doomed, o order, ids []string) error {
	harness.Kill(l.Server)
	var err error
	if l.Server, err = l.Start("server"); err != nil {
		return err
	}
	if err := l.Ready(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		if err := l.steer(ctx, o.kind, id); err != nil {
			return err
		}
	}
	return d.cmd.Process.Signal(syscall.SIGCONT)
}

// steer pauses an operation and lets it go on, unless it has ended.
func (l *lane) steer(ctx context.Context, k kind, id string) error {
	path := "operations/" + id
	response, err := l.Request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	var now struct {
		State  string
		Paused bool
	}
	if response.Code != http.StatusOK || json.Unmarshal(response.Body, &now) != nil {
		return fmt.Errorf("GET %s: %d: %s", path, response.Code, response.Body)
	}
	if !k.rollout() || now.State != "pending" && now.State != "running" {
		return nil
	}
	// The worker may have been stopped within a transaction that others wait for,
	// until Postgres ends it. An operation that has ended meanwhile takes no orders.
	for _, action := range []string{"pause", "resume"} {
		err := harness.Until(ctx, steerLimit, action, func() (bool, error) {
			response, err := l.Request(ctx, http.MethodPost, path+"/"+action, nil)
			if err == nil && response.Code != http.StatusServiceUnavailable && response.Code != http.StatusOK && response.Code != http.StatusConflict {
				err = fmt.Errorf("POST %s/%s: %d: %s", path, action, response.Code, response.Body)
			}
			return err == nil && response.Code != http.StatusServiceUnavailable, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// steerLimit is how long it may take until an order to an operation is taken.
const steerLimit = 2 * time.Minute
