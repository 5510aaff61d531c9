package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	apiclient "commissaire/api/client"
	"commissaire/internal/fleet"
)

// restart orders the restart and shows it until it has ended. A restart that an
// earlier run left unfinished is the one that is shown; while another operation
// is under way there is none, and that goes on.
func (d *Demo) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	r, err := insist(ctx, func(ctx context.Context) (*apiclient.RestartClusterResponse, error) {
		return d.api.RestartClusterWithResponse(ctx, cluster, &apiclient.RestartClusterParams{}, apiclient.RolloutPut{})
	})
	if err := check("restart cluster "+cluster, r, err, http.StatusCreated, http.StatusOK, http.StatusConflict); err != nil {
		return err
	}
	switch r.StatusCode() {
	case http.StatusConflict:
		fmt.Fprintf(d.out, "  No restart: %s\n", r.ApplicationproblemJSONDefault.Detail)
		return nil
	case http.StatusOK:
		fmt.Fprintln(d.out, "  An earlier run left a restart unfinished; this is it.")
	}
	op, err := d.latest(ctx)
	if err != nil {
		return err
	}
	waiting := ""
	screen := newScreen(d.out)
	for {
		lines, err := d.lines(ctx, op.Id)
		if err != nil {
			return err
		}
		screen.show(lines)
		if fleet.OperationState(op.State).Ended() {
			return d.ended(op, lines)
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("restart of cluster %s (operation %s): %w", cluster, op.Id, err)
		}
		again, err := d.api.GetOperationWithResponse(ctx, op.Id)
		if err := check("get operation "+op.Id, again, err, http.StatusOK); err != nil {
			return err
		}
		op = *again.JSON200
		if op.Waiting != waiting {
			if waiting = op.Waiting; waiting != "" {
				fmt.Fprintf(d.out, "  It waits: %s (operation %s)\n", waiting, op.Id)
			}
		}
	}
}

// latest gives the newest restart of the cluster.
func (d *Demo) latest(ctx context.Context) (apiclient.Operation, error) {
	name, kind, limit := cluster, apiclient.OperationKind(fleet.KindRestart), 1
	r, err := d.api.ListOperationsWithResponse(ctx, &apiclient.ListOperationsParams{Cluster: &name, Kind: &kind, Limit: &limit})
	if err := check("list operations", r, err, http.StatusOK); err != nil {
		return apiclient.Operation{}, err
	}
	if len(r.JSON200.Operations) == 0 {
		return apiclient.Operation{}, fmt.Errorf("cluster %s has no restart, though one was just accepted", cluster)
	}
	return r.JSON200.Operations[0], nil
}

// lines gives a line for every host of an operation.
func (d *Demo) lines(ctx context.Context, id string) ([]line, error) {
	runs, err := d.api.ListOperationHostsWithResponse(ctx, id, &apiclient.ListOperationHostsParams{})
	if err := check("list hosts of operation "+id, runs, err, http.StatusOK); err != nil {
		return nil, err
	}
	steps, err := d.api.ListOperationStepsWithResponse(ctx, id, &apiclient.ListOperationStepsParams{})
	if err := check("list steps of operation "+id, steps, err, http.StatusOK); err != nil {
		return nil, err
	}
	done := map[string][]string{}
	for _, s := range steps.JSON200.Steps {
		done[s.Address] = append(done[s.Address], s.Name)
	}
	var out []line
	for _, run := range runs.JSON200.Hosts {
		out = append(out, line{
			name:    d.nameOf(run.Address),
			address: run.Address,
			state:   fleet.HostRunState(run.State),
			steps:   strings.Join(done[run.Address], ", "),
			reason:  run.Reason,
			took:    between(run.StartedAt, run.FinishedAt),
		})
	}
	return out, nil
}

func (d *Demo) nameOf(address string) string {
	for _, h := range d.fleet.Hosts() {
		if h.Address() == address {
			return h.Name()
		}
	}
	return ""
}

// ended says how the restart went, and what the hosts themselves say.
func (d *Demo) ended(op apiclient.Operation, lines []line) error {
	if fleet.OperationState(op.State) != fleet.OperationSucceeded {
		var failed []string
		for _, l := range lines {
			if l.reason != "" {
				failed = append(failed, fmt.Sprintf("\n  %s %s: %s: %s", l.name, l.address, l.state, l.reason))
			}
		}
		return fmt.Errorf("restart of cluster %s %s (operation %s): %s%s", cluster, op.State, op.Id, op.Reason, strings.Join(failed, ""))
	}
	fmt.Fprintf(d.out, "\nAll %d hosts were restarted in %s.\n", len(lines), between(op.StartedAt, op.FinishedAt).Round(100*time.Millisecond))
	return nil
}

// between is the time from one moment of the API to another, or till now.
func between(from, to string) time.Duration {
	begin, err := time.Parse(fleet.TimeFormat, from)
	if err != nil {
		return 0 // not begun
	}
	end, err := time.Parse(fleet.TimeFormat, to)
	if err != nil {
		end = time.Now()
	}
	return end.Sub(begin)
}
