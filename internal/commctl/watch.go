package commctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// Times of showing progress.
const (
	drawEvery    = 100 * time.Millisecond // while things happen
	tickEvery    = time.Second            // while nothing does: times go on
	refreshEvery = 2 * time.Second        // for what no event tells: what it waits for, when it may end
	refreshTime  = 5 * time.Second        // for the server to answer that
)

// waitFlags let a verb that begins something stay until it has ended.
type waitFlags struct {
	wait, watch bool
	timeout     time.Duration
}

func waitOptions(cmd *cobra.Command) *waitFlags {
	var w waitFlags
	cmd.Flags().BoolVar(&w.wait, "wait", false, "stay until it has ended; 5 is the exit code when it failed or was cancelled")
	cmd.Flags().BoolVarP(&w.watch, "watch", "w", false, "as --wait, and show what happens")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to stay at most, such as 30m; then the exit code is 6 (default as long as it takes)")
	cmd.MarkFlagsMutuallyExclusive("wait", "watch")
	return &w
}

func (w *waitFlags) given() bool { return w.wait || w.watch }

// stay waits for the end of an operation as the flags say. With a format the
// operation as it ended is the answer, and progress goes to standard error. The
// operation goes on when we do not.
func (a *App) stay(ctx context.Context, w waitFlags, f format, id string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	show := io.Discard
	if w.watch {
		if show = a.Out; f != "" {
			show = a.Err
		}
	}
	op, err := getOperation(ctx, c, id)
	if err == nil {
		err = a.watchOperation(ctx, c, op, show)
	}
	if err == nil {
		op, err = getOperation(ctx, c, id)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return exitf(exitTimeout, "the operation has not ended within %s; it goes on. To see it again: commctl operations watch %s", w.timeout, id)
	case errors.Is(err, context.Canceled):
		fmt.Fprintf(a.Err, "The operation goes on. To see it again: commctl operations watch %s\n", id)
		return err
	case err != nil:
		return err
	}
	if f != "" || !w.watch {
		if err := renderOne(a, f, operationView, op); err != nil {
			return err
		}
	}
	return a.verdict(ctx, c, op)
}

// verdict is nil when an operation succeeded. Otherwise it tells which hosts failed
// and what to do next, and is exit code 5.
func (a *App) verdict(ctx context.Context, c *client.ClientWithResponses, op client.Operation) error {
	if fleet.OperationState(op.State) == fleet.OperationSucceeded {
		return nil
	}
	if err := a.printFailures(ctx, c, a.Err, op); errors.Is(err, context.Canceled) {
		return err
	} else if err != nil {
		a.printError(fmt.Errorf("which hosts failed could not be read: %w", err))
	}
	return exitf(exitFailed, "%s %s", title(op), because(string(op.State), op.Reason))
}

// watchOperation shows an operation until it has ended: on a terminal in place,
// elsewhere line by line.
func (a *App) watchOperation(ctx context.Context, c *client.ClientWithResponses, op client.Operation, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	// Whom nobody can hear over the drawing is not told about dead endpoints.
	quiet, err := a.clientTelling(io.Discard)
	if err != nil {
		cancel()
		return err
	}
	events, lost, done := make(chan event, 256), make(chan string, 1), make(chan error, 1)
	f := &follower{client: quiet, id: op.Id,
		event: func(e event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		notice: func(trouble string) {
			select {
			case lost <- trouble:
			case <-ctx.Done():
			}
		},
	}
	go func() { done <- f.run(ctx) }()
	v := a.newViewer(op, out)
	err = v.show(ctx, c, events, lost, done)
	cancel()
	if !v.over {
		<-done
	}
	return err
}

// viewer draws the progress of an operation.
type viewer struct {
	*progress
	out     io.Writer
	screen  *screen // nil where lines are printed
	colours bool
	above   []painted // to stay above what is drawn
	waiting string    // what was told last
	over    bool      // the follower has returned
}

func (a *App) newViewer(op client.Operation, out io.Writer) *viewer {
	v := &viewer{progress: newProgress(op), out: out}
	if f, ok := out.(*os.File); ok && isTerminal(f) && a.Env("TERM") != "dumb" {
		v.screen, v.colours = newScreen(f), a.colours(f)
	}
	return v
}

// show shows events until the follower is done.
func (v *viewer) show(ctx context.Context, c *client.ClientWithResponses, events <-chan event, lost <-chan string, done <-chan error) error {
	refresh, tick := time.NewTicker(refreshEvery), time.NewTicker(tickEvery)
	defer refresh.Stop()
	defer tick.Stop()
	v.refresh(ctx, c)
	var drawn time.Time
	for {
		draw := true
		select {
		case e := <-events:
			if err := v.tell(e); err != nil {
				return err
			}
			draw = time.Since(drawn) > drawEvery
		case trouble := <-lost:
			if err := v.trouble(trouble); err != nil {
				return err
			}
		case <-refresh.C:
			v.refresh(ctx, c)
			if err := v.tellWaiting(); err != nil {
				return err
			}
		case <-tick.C:
		case err := <-done:
			v.over = true
			for len(events) > 0 {
				if err := v.tell(<-events); err != nil {
					return err
				}
			}
			if err == nil {
				v.refresh(ctx, c)
			}
			return errors.Join(v.finish(), err)
		}
		if draw {
			drawn = time.Now()
			if err := v.draw(); err != nil {
				return err
			}
		}
	}
}

// refresh reads the operation. When it cannot be had, what is known stays.
func (v *viewer) refresh(ctx context.Context, c *client.ClientWithResponses) {
	ctx, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	op, header, err := fetchWith[client.Operation](ctx, func(ctx context.Context) (*http.Response, error) { return c.GetOperation(ctx, v.op.Id) })
	if err != nil {
		return
	}
	v.op = op
	if at, err := http.ParseTime(header.Get("Date")); err == nil {
		v.ahead = time.Until(at)
		if v.ahead.Abs() < 2*time.Second { // the header knows whole seconds
			v.ahead = 0
		}
	}
}

// tell takes an event in and tells it where there is no terminal; there, only the
// failures stay to be read.
func (v *viewer) tell(e event) error {
	line := v.apply(e)
	if v.screen == nil {
		return v.print(line)
	}
	if e.name == "host" && e.State == string(fleet.HostRunFailed) {
		v.above = append(v.above, painted{text: legible(line), sgr: "31"})
	}
	return nil
}

func (v *viewer) print(line string) error {
	if line == "" {
		return nil
	}
	_, err := fmt.Fprintln(v.out, cell(line))
	return err
}

func (v *viewer) trouble(trouble string) error {
	v.lost = trouble
	if v.screen != nil {
		return nil
	}
	if trouble == "" {
		trouble = "the server is back"
	}
	return v.print(trouble)
}

// tellWaiting tells once what the operation waits for, where there is no terminal.
func (v *viewer) tellWaiting() error {
	now := waitingText(v.op)
	if v.screen != nil || v.waiting == now {
		return nil
	}
	if v.waiting = now; now == "" {
		return nil
	}
	return v.print("waiting: " + v.waiting)
}

func (v *viewer) draw() error {
	if v.screen == nil {
		return nil
	}
	_, height := v.screen.size()
	lines := v.lines(time.Now(), height-3) // some rows for the summary
	if !v.colours {
		for _, some := range [][]painted{v.above, lines} {
			for i := range some {
				some[i].sgr = ""
			}
		}
	}
	above := v.above
	v.above = nil
	return v.screen.draw(above, lines)
}

// finish leaves what is known at the end.
func (v *viewer) finish() error {
	if v.screen != nil {
		return v.draw()
	}
	return v.print(v.summary(time.Now().Add(v.ahead)).text)
}
