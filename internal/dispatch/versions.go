package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"commissaire/workflows"
)

// KnowsVersions says whether Temporal can tell workers of different revisions
// apart: servers before 1.28 cannot, and it can be switched off in a namespace.
// why is the server's answer when it cannot.
func KnowsVersions(ctx context.Context, c client.Client) (knows bool, why, err error) {
	_, err = deployment(c).Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	var none *serviceerror.NotFound
	var unknown *serviceerror.Unimplemented
	var off *serviceerror.PermissionDenied
	switch {
	case err == nil, errors.As(err, &none):
		return true, nil, nil
	case errors.As(err, &unknown), errors.As(err, &off):
		return false, err, nil
	default:
		return false, nil, err
	}
}

const (
	currentFirst = 100 * time.Millisecond // until Temporal has seen the worker poll
	currentMost  = 5 * time.Second
	currentAgain = 30 * time.Second // once it is settled which revision is current
	currentQuiet = 5 * time.Second  // an error that is over by then is normal for a worker that has just begun
)

// KeepCurrent sees to it that Temporal gives operations to the workers of this
// revision, as long as it gives them to none or to an older one. It never takes
// them from a newer one: a history that newer code has written may not replay
// here. It runs beside a worker that polls, until ctx ends, since a Temporal
// without a current revision gives nothing to anybody.
func KeepCurrent(ctx context.Context, c client.Client, revision int, log *slog.Logger) {
	log = log.With("revision", revision)
	var failing time.Time // since when, zero while it works
	said, wait := "", currentFirst
	for {
		now, err := makeCurrent(ctx, c, revision)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if failing.IsZero() {
				failing, wait = time.Now(), currentFirst
			}
			if text := err.Error(); text != said && time.Since(failing) > currentQuiet {
				said = text
				log.WarnContext(ctx, "cannot see to it that Temporal gives operations to this revision; trying again", "error", err)
			}
			wait = min(2*wait, currentMost)
		default:
			if text := strconv.Itoa(now); text != said {
				said = text
				if now == revision {
					log.InfoContext(ctx, "Temporal gives operations to workers of this revision")
				} else {
					log.WarnContext(ctx, "Temporal gives operations to newer workers; this one ends the steps it has and gets no others", "current", now)
				}
			}
			failing, wait = time.Time{}, currentAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// makeCurrent makes a revision current unless a newer one is, and gives the one
// that is. Two workers that do so at once do not undo each other: who comes
// second has an old token and looks again.
func makeCurrent(ctx context.Context, c client.Client, revision int) (now int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := deployment(c)
	found, err := d.Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	if err != nil {
		return 0, err
	}
	if v := found.Info.RoutingConfig.CurrentVersion; v != nil {
		if now, err = strconv.Atoi(v.BuildID); err != nil {
			return 0, fmt.Errorf("the current version of Temporal's worker deployment %s is %q, which is none of ours", workflows.Deployment, v.BuildID)
		}
		if now >= revision {
			return now, nil
		}
	}
	_, err = d.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: strconv.Itoa(revision), ConflictToken: found.ConflictToken})
	return revision, err
}

func deployment(c client.Client) client.WorkerDeploymentHandle {
	return c.WorkerDeploymentClient().GetHandle(workflows.Deployment)
}
