package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// manyHosts puts n bootstrapped hosts h1…hn into a cluster; every third one has
// OSTree.
func (f *fixture) manyHosts(t testing.TB, cluster string, n int) {
	t.Helper()
	f.cluster(t, cluster)
	f.exec(t, `INSERT INTO host (tenant, address, cluster, join_order, state, os, ostree, bootstrapped)
		SELECT 'default', 'h' || i, $1, i, 'disassociated', 'fedora', i % 3 = 0, now() FROM generate_series(1, $2::integer) i`, cluster, n)
}

// TestRolloutsKeepTheirPromises runs rollouts by random policies, with hosts that
// fail, workers that die, come back and repeat themselves, and people who steer.
// It then reads the events, which are in the order in which things happened.
func TestRolloutsKeepTheirPromises(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			f := setup(t)
			hosts := 5 + r.IntN(30)
			f.manyHosts(t, "c", hosts)
			failed := r.IntN(3)
			f.exec(t, "UPDATE host SET state = 'failed', reason = 'x' WHERE substr(address, 2)::integer <= $1", failed)
			n := NewOperation{Kind: fleet.KindRestart, Policy: randomPolicy(r)}
			if r.IntN(2) == 0 {
				n.Kind = fleet.KindUpgrade
			}
			op := f.rollout(t, n)
			w := &crew{f: f, op: op, seed: seed + uint64(i)}
			w.run(t)
			w.check(t, failed)
			f.db.Close()
			require.Equal(t, "0", f.scan(t, "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"))
		})
	}
}

func randomPolicy(r *rand.Rand) (p fleet.Policy) {
	if r.IntN(4) > 0 {
		p.MaxUnavailable = fleet.Count(3 + r.IntN(6))
	}
	if r.IntN(4) > 0 {
		p.MaxFailures = fleet.Percent(40)
	}
	if r.IntN(2) == 0 {
		p.Canary = &fleet.Canary{Hosts: fleet.Count(1 + r.IntN(3)), Then: []fleet.CanaryThen{"", fleet.ThenPause, fleet.ThenApprove}[r.IntN(3)]}
	}
	return p
}

// crew is who works on one rollout.
type crew struct {
	f    *fixture
	op   fleet.Operation
	seed uint64

	mu    sync.Mutex
	turn  int          // the last one claimed
	back  []Assignment // slots that were given back
	ended []HostRunEnd // all ends that were told
}

// run works until the operation has ended, as the workflow does.
func (w *crew) run(t *testing.T) {
	var slots, others sync.WaitGroup
	defer others.Wait()
	for turn := 1; ; turn++ {
		c, err := w.f.Claim(t.Context(), w.op.ID, turn, hold)
		if !assertNoError(t, err) {
			return
		}
		w.mu.Lock()
		w.turn = turn
		w.mu.Unlock()
		if c.End != "" {
			slots.Wait()
			_ = assertNoError(t, w.f.EndOperation(t.Context(), w.op.ID, c.End, c.Reason))
			return
		}
		for _, a := range c.Assignments {
			r := rand.New(rand.NewPCG(w.seed, uint64(1000*turn+a.Slot)))
			slots.Go(func() { w.slot(t, r, a, &others) })
		}
		if len(c.Assignments) == 0 {
			r := rand.New(rand.NewPCG(w.seed, uint64(1000*turn)))
			others.Go(func() { w.bother(t, r) })
			slots.Wait()
		}
	}
}

// slot takes hosts through their parts until nothing is handed on.
func (w *crew) slot(t *testing.T, r *rand.Rand, a Assignment, others *sync.WaitGroup) {
	first := a
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.back = append(w.back, first)
	}()
	for {
		bother := rand.New(rand.NewPCG(r.Uint64(), 0))
		others.Go(func() { w.bother(t, bother) })
		e := HostRunEnd{OperationID: w.op.ID, Address: a.Address, State: fleet.HostRunSucceeded, Event: fleet.HostRecovered, Next: r.IntN(2) == 0}
		if a.Stage {
			e.State, e.Event = fleet.HostRunStaged, ""
		}
		switch r.IntN(30) {
		case 0:
			e.State, e.Reason, e.Event, e.Down = fleet.HostRunFailed, "it failed", fleet.HostBroke, !a.Stage
		case 1:
			e.State, e.Reason, e.Event = fleet.HostRunFailed, "it failed at home", ""
		case 2: // the worker is lost
			_ = assertNoError(t, w.f.EndSlot(t.Context(), w.op.ID, first, "lost"))
			return
		}
		next, err := w.f.EndHostRun(t.Context(), e)
		if !assertNoError(t, err) {
			return
		}
		w.mu.Lock()
		w.ended = append(w.ended, e)
		w.mu.Unlock()
		again, err := w.f.EndHostRun(t.Context(), e)
		if !assertNoError(t, err) {
			return
		}
		if next == nil || again == nil || *next != *again {
			if next != nil || again != nil {
				t.Errorf("the end of %s handed on %v, and then %v", a.Address, next, again)
			}
			return
		}
		a = *next
	}
}

// bother steers, or does what workers do that everybody thought dead. Refusals are
// fine.
func (w *crew) bother(t *testing.T, r *rand.Rand) {
	w.mu.Lock()
	turn, back, ended := w.turn, slices.Clone(w.back), slices.Clone(w.ended)
	w.mu.Unlock()
	ctx, id := t.Context(), w.op.ID
	action := []string{"pause", "resume", "resume", "approve"}[r.IntN(4)]
	if r.IntN(60) == 0 {
		action = "cancel"
	}
	_, err := w.f.Steer(ctx, id, SteerAction{Action: action, By: "ann"})
	errs := []error{err}
	if r.IntN(10) == 0 {
		_, err := w.f.SetOperationPolicy(ctx, id, fleet.Policy{MinReady: fleet.Lasting(time.Duration(r.IntN(9)))}, "ann", "")
		errs = append(errs, err)
	}
	if len(ended) > 0 {
		_, claim := w.f.Claim(ctx, id, 1+r.IntN(turn), hold)
		_, end := w.f.EndHostRun(ctx, ended[r.IntN(len(ended))])
		errs = append(errs, claim, end)
	}
	if len(back) > 0 {
		errs = append(errs, w.f.EndSlot(ctx, id, back[r.IntN(len(back))], "late"))
	}
	for _, err := range errs {
		if err != nil && fleet.KindOf(err) != fleet.Conflict {
			t.Errorf("%v", err)
		}
	}
}

func assertNoError(t *testing.T, err error) bool {
	if err != nil {
		t.Errorf("%v", err)
	}
	return err == nil
}

// check goes through the events in order. The first failed hosts were failed in the
// inventory from the start.
func (w *crew) check(t *testing.T, failed int) {
	op, err := w.f.Operation(t.Context(), w.op.ID)
	require.NoError(t, err)
	require.True(t, op.State.Ended(), "it always ends")
	counts := op.Policy.MaxUnavailable != nil
	downs := w.f.scan(t, "SELECT coalesce(string_agg(address, ' '), '') FROM host_run WHERE operation_id = $1 AND down", op.ID)
	isDown := map[string]bool{}
	for _, address := range strings.Fields(downs) {
		isDown[address] = counts
	}
	away := map[string]bool{}
	for i := range failed {
		away[fmt.Sprint("h", i+1)] = counts
	}

	at, times, paused := map[string]string{}, map[string]int{}, false
	for _, e := range w.f.allEvents(t, op.ID) {
		switch {
		case e.Kind == "steer":
			paused = e.State == "pause" || paused && e.State != "resume"
		case e.Kind == "host":
			at[e.Address] = e.State
			times[e.Address+" "+e.State]++
			busy, staging := 0, 0
			for address, state := range at {
				switch {
				case state == "running", state == "failed" && isDown[address], away[address] && (state == "pending" || state == "staged"):
					busy++
				case state == "staging":
					staging++
				}
			}
			require.LessOrEqual(t, staging, fleet.MaxStaging)
			if e.State == "running" || e.State == "staging" {
				require.False(t, paused, "%s began while it was paused", e.Address)
				if e.State == "running" && !away[e.Address] {
					require.LessOrEqual(t, busy, op.Policy.Slots(op.Hosts), "max_unavailable, with %s", e.Address)
				}
			}
		}
	}
	for key, n := range times {
		require.Equal(t, 1, n, "%s once", key)
	}
	runs, err := w.f.HostRuns(t.Context(), op.ID)
	require.NoError(t, err)
	want := fleet.Progress{Total: len(runs)}
	for _, r := range runs {
		require.True(t, r.State.Ended(), "no slot is left: %+v", r)
		switch r.State {
		case fleet.HostRunSucceeded:
			want.Succeeded++
		case fleet.HostRunFailed:
			want.Failed++
		case fleet.HostRunSkipped:
			want.Skipped++
		}
	}
	p, err := w.f.Progress(t.Context(), op.ID)
	require.NoError(t, err)
	require.Equal(t, want, p)
	t.Logf("%s of %d hosts %s: %d succeeded, %d failed, %d skipped; %s", op.Kind, op.Hosts, op.State, p.Succeeded, p.Failed, p.Skipped, op.Reason)
}

// allEvents reads page after page, when no other transaction of the server is open
// that could come before one of them.
func (f *fixture) allEvents(t testing.TB, id string) []Event {
	t.Helper()
	const open = "SELECT (SELECT count(*) FROM event WHERE operation_id = $1 AND NOT " + settledSQL + ") + (SELECT count(*) FROM output WHERE operation_id = $1 AND NOT " + settledSQL + ") || ''"
	for deadline := time.Now().Add(5 * time.Minute); f.scan(t, open, id) != "0"; time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "some other test's transaction is open for minutes")
	}
	return f.settledEvents(t, id)
}

func (f *fixture) settledEvents(t testing.TB, id string) (all []Event) {
	t.Helper()
	for after := ""; ; {
		page, err := f.Events(t.Context(), id, EventFilter{After: after, Limit: 7, Output: true})
		require.NoError(t, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].ID
	}
}
