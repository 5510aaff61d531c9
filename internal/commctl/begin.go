package commctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"commissaire/api/client"
)

// An order whose answer was lost is sent again every againEvery, for againTime.
const (
	againTime  = 20 * time.Second
	againEvery = time.Second
)

// beginning is an order that begins an operation. Its Idempotency-Key makes it the
// same act however often it is sent.
type beginning struct {
	what string // such as "command of web"
	look string // the command line that shows whether it was begun
	send func(ctx context.Context, c *client.ClientWithResponses) (*http.Response, error)
}

// listOf is the command line that lists the operations on a cluster, newest first.
func listOf(cluster string) string { return "commctl operations list -c " + cluster }

// begin sends an order and decodes the answer. When the order may have arrived and no
// answer came, it is sent again until one does, which is about the operation that the
// first began. So it is while the server says that it cannot take it now. Error:
// exitUnknown when it may have been begun and nobody says so.
func begin[T any](ctx context.Context, a *App, b beginning) (value T, err error) {
	err = a.sendUntilAnswered(ctx, b, func(ctx context.Context, c *client.ClientWithResponses) error {
		value, err = fetch[T](ctx, func(ctx context.Context) (*http.Response, error) { return b.send(ctx, c) })
		return err
	})
	return value, err
}

func (a *App) sendUntilAnswered(ctx context.Context, b beginning, try func(context.Context, *client.ClientWithResponses) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var lost error // why the first order that may have arrived had no answer
	var said error // what came of the last one that was not cut off here
	within := ctx
	for {
		one := ctx
		if lost != nil { // else an order that is cut off would be the first to be lost
			one = within
		}
		watched, connected := noteConnection(one)
		failed := try(watched, c)
		if failed == nil {
			return nil
		}
		if lost == nil && mayHaveArrived(failed, connected()) {
			lost = failed
		}
		if one.Err() == nil {
			said = failed
		}
		var answer *answerError
		errors.As(failed, &answer)
		switch {
		case answer.refused(), ctx.Err() == nil && lost == nil && !answer.away():
			return failed
		case within.Err() != nil, answer.unheard():
			return a.notAnswered(ctx, b, lost, said)
		}
		if within == ctx {
			fmt.Fprintf(a.Err, "commctl: %s; sending the same request again for up to %s\n", legible(inWords(failed)), a.againTime)
			if c, err = a.clientTelling(io.Discard); err != nil {
				return err
			}
			var stop context.CancelFunc
			within, stop = context.WithTimeout(ctx, a.againTime)
			defer stop()
		}
		if sleep(within, a.againEvery) != nil {
			return a.notAnswered(ctx, b, lost, said)
		}
	}
}

// notAnswered is the error of an order that is not sent any more.
func (a *App) notAnswered(ctx context.Context, b beginning, lost, said error) error {
	switch {
	case ctx.Err() != nil && lost != nil:
		fmt.Fprintf(a.Err, "The %s may have been begun. To look: %s\n", b.what, b.look)
		return ctx.Err()
	case ctx.Err() != nil:
		return ctx.Err()
	case lost == nil:
		return said
	}
	why := inWords(lost)
	if now := inWords(said); now != why {
		why += "; then " + now
	}
	return b.unknown(why)
}

// unknown is the error when nobody says whether it was begun. It does not wrap the
// cause, which would decide the exit code.
func (b beginning) unknown(why string) error {
	return exitf(exitUnknown, "the %s may have been begun, but no answer says so: %s. Do not repeat it before you have looked: %s", b.what, why, b.look)
}

// mayHaveArrived says whether a server may have read an order and acted on it, after
// an error that does not tell. connected: there was a connection.
func mayHaveArrived(err error, connected bool) bool {
	var answer *answerError
	var dead *unreachableError
	var known *exitError
	switch {
	case errors.As(err, &answer):
		return answer.status >= 500 && !answer.ours
	case errors.As(err, &dead):
		return dead.arrived()
	case errors.As(err, &known) && known.code == exitUsage: // an answer, of another server
		return false
	}
	return connected
}

// inWords is an error on one line.
func inWords(err error) string {
	var dead *unreachableError
	if errors.As(err, &dead) {
		return dead.reasons()
	}
	return err.Error()
}
