package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// nodeTrial is one run: a rollout or two, something that happens to the product or to
// Kubernetes, and something that an operator does.
type nodeTrial struct {
	lane   *nodeLane
	both   bool // rollouts over both clusters at once
	policy map[string]any
	prior  int // which host's node somebody has cordoned before, -1 for none

	strike string
	point  Point          // of strikePoint
	after  bool           // who is stopped there goes on only after the end
	signal syscall.Signal // that ends the apiserver
	at     time.Duration  // after the order
	away   time.Duration  // how long what dies is away
	act    string
	actAt  time.Duration
	victim int // which host is deleted

	ids      []string        // of the operations
	closed   map[string]bool // nodes that somebody has cordoned before
	begun    time.Time       // when they were ordered
	lived    time.Time       // since when all lives that must
	harmed   bool            // the strike came to its point
	states   []string        // of the operations, at their ends
	reasons  []string
	leaked   int // nodes that are not as they were
	restored time.Duration
	took     time.Duration
	notes    []string // what else is wrong
}

// What happens to the product or to Kubernetes.
const (
	strikeNone   = "-"
	strikePoint  = "point" // of a worker, by its build with the tag chaos
	strikeWorker = "kill-worker"
	strikeFreeze = "freeze-worker"
	strikeAPI    = "kill-api"
	strikeKube   = "kill-apiserver"
)

// What an operator does.
const (
	actNone      = "-"
	actCancel    = "cancel"
	actTerminate = "terminate"     // the workflow of the rollout
	actAll       = "terminate-all" // and those that work on its hosts
	actCluster   = "delete-cluster"
	actHost      = "delete-host"
	actPause     = "pause"
)

// usual is how long a rollout takes that nobody disturbs; what happens, happens then.
const usual = 6 * time.Second

func (t *nodeTrial) String() string {
	strike := t.strike
	if strike == strikePoint {
		strike = t.point.Failpoint()
		if t.after && t.point.Replaced() {
			strike += " until the end"
		}
	} else if strike != strikeNone {
		strike += fmt.Sprintf(" at %.1fs", t.at.Seconds())
	}
	act := t.act
	if act != actNone {
		act += fmt.Sprintf(" at %.1fs", t.actAt.Seconds())
	}
	clusters := "web"
	if t.both {
		clusters = "web+db"
	}
	return fmt.Sprintf("%s: %s, %s", clusters, strike, act)
}

// draw makes a run of its number, always the same for a seed and the same activities.
func draw(seed uint64, n int, counts occurrences) *nodeTrial {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	within := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	one := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	t := &nodeTrial{closed: map[string]bool{}, prior: -1}
	t.both = r.IntN(3) == 0
	t.policy = map[string]any{"max_unavailable": 1 + r.IntN(sharedBudget), "max_failures": r.IntN(3), "drain": map[string]any{"timeout": "30s"}}
	if r.IntN(3) == 0 {
		t.policy["min_ready"] = "1s"
	}
	t.strike = one(strikeNone, strikeNone, strikePoint, strikePoint, strikePoint, strikePoint, strikeWorker, strikeFreeze, strikeAPI, strikeKube)
	t.act = one(actNone, actNone, actNone, actNone, actNone, actNone, actCancel, actTerminate, actAll, actCluster, actHost, actPause)
	if t.strike == strikeNone && t.act == actNone {
		t.strike = strikePoint
	}
	t.at, t.actAt, t.away = within(usual), within(usual), within(3*time.Second)
	t.after, t.victim = r.IntN(2) == 0, r.IntN(webHosts)
	t.signal = []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[r.IntN(2)]
	names := slices.Sorted(maps.Keys(counts))
	if r.IntN(3) > 0 {
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "node.") })
	}
	name := names[r.IntN(len(names))]
	phases := slices.Concat(everywhere, somewhere)
	if name == workflowTask {
		phases = []string{"effect", "report"}
	}
	t.point = Point{kind{"restart", webCluster}, name, phases[r.IntN(len(phases))], 1 + r.IntN(counts[name])}
	if r.IntN(3) == 0 {
		t.prior = r.IntN(webHosts + dbHosts)
	}
	return t
}

// run carries out one run. An error means that the lane cannot go on.
func (l *nodeLane) run(ctx context.Context, seed uint64, n int) (*nodeTrial, error) {
	t := draw(seed, n, l.counts)
	t.lane = l
	begun := time.Now()
	defer func() { t.took = time.Since(begun) }()
	if err := l.mend(ctx); err != nil {
		return t, err
	}
	if t.prior >= 0 {
		name := l.Fleet.Hosts()[t.prior].Address()
		t.closed[name] = true
		if err := l.patch(ctx, name, `{"spec":{"unschedulable":true}}`); err != nil {
			return t, err
		}
	}
	var d *doomed
	if t.strike == strikePoint {
		harness.Kill(l.worker)
		var err error
		if d, err = l.doom(t.point); err != nil {
			return t, err
		}
		defer d.kill()
	}
	if err := t.order(ctx); err != nil {
		return t, err
	}
	var acted sync.WaitGroup
	var actErr error
	acted.Go(func() { actErr = t.operate(ctx) })
	err := t.hit(ctx, d)
	acted.Wait()
	if err == nil {
		err = actErr
	}
	if err != nil {
		return t, err
	}
	t.lived = time.Now()
	if err := t.finish(ctx); err != nil {
		return t, err
	}
	if t.after && d != nil && t.harmed && t.point.Replaced() {
		if err := t.wake(ctx, d); err != nil {
			return t, err
		}
	}
	return t, l.clean(ctx)
}

// order begins the rollouts.
func (t *nodeTrial) order(ctx context.Context) error {
	l := t.lane
	clusters := []string{webCluster}
	if t.both {
		clusters = append(clusters, dbCluster)
	}
	t.begun, t.lived = time.Now(), time.Now()
	for _, cluster := range clusters {
		if err := l.Call(ctx, http.MethodPut, "cluster/"+cluster+"/restart", map[string]any{"policy": t.policy}); err != nil {
			return err
		}
		var id string
		err := l.DB.QueryRow(ctx, `SELECT id::text FROM operation WHERE cluster = $1 AND kind = 'restart' ORDER BY id DESC LIMIT 1`, cluster).Scan(&id)
		if err != nil {
			return err
		}
		t.ids = append(t.ids, id)
		l.mu.Lock()
		l.rules.Operations[id] = t.policy["max_unavailable"].(int)
		l.mu.Unlock()
	}
	return nil
}

// until sleeps until so long after the order.
func (t *nodeTrial) until(ctx context.Context, at time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(t.begun.Add(at))):
	}
}

// hit does to the product or to Kubernetes what the run has drawn. When it returns, a
// worker, the API and the apiserver live.
func (t *nodeTrial) hit(ctx context.Context, d *doomed) (err error) {
	l := t.lane
	if t.strike == strikePoint {
		return t.hitPoint(ctx, d)
	}
	t.harmed = true
	t.until(ctx, t.at)
	switch t.strike {
	case strikeWorker:
		harness.Kill(l.worker)
		t.until(ctx, t.at+t.away)
		l.worker, err = l.Start("worker")
	case strikeFreeze:
		frozen := l.worker
		if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		defer harness.Kill(frozen)
		if l.worker, err = l.Start("worker"); err != nil {
			return err
		}
		if err := t.ended(ctx); err != nil {
			return err
		}
		if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
			return err
		}
		// What it was about to do, it does now.
		t.until(ctx, time.Since(t.begun)+frozenLives)
	case strikeAPI:
		harness.Kill(l.Server)
		t.until(ctx, t.at+t.away)
		if l.Server, err = l.Start("server"); err == nil {
			err = l.Ready(ctx)
		}
	case strikeKube:
		err = t.hitKube(ctx)
	}
	return err
}

// frozenLives is how long a worker lives that was stopped until the end.
const frozenLives = 3 * time.Second

// hitKube restarts the apiserver that all lanes share.
func (t *nodeTrial) hitKube(ctx context.Context) error {
	p := t.lane.plane
	p.outage.Lock()
	defer p.outage.Unlock()
	if err := p.kube.StopAPIServer(t.signal); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(t.away):
	}
	err := p.kube.StartAPIServer(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = time.Now()
	return err
}

// hitPoint waits until the worker comes to its point, and has another one go on.
func (t *nodeTrial) hitPoint(ctx context.Context, d *doomed) error {
	l, p := t.lane, t.point
	note, err := l.harm(ctx, d, t.ids)
	if err != nil {
		return err
	}
	t.harmed = note != nil
	if t.harmed && p.API() {
		harness.Kill(l.Server)
		if l.Server, err = l.Start("server"); err != nil {
			return err
		}
		if err := l.Ready(ctx); err != nil {
			return err
		}
		if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			return err
		}
	}
	if l.worker, err = l.Start("worker"); err != nil {
		return err
	}
	if t.harmed && p.Replaced() && !t.after {
		return l.resume(ctx, d, note)
	}
	return nil
}

// wake lets a worker go on that was stopped in a step until everything was over, and
// wants that it does no harm.
func (t *nodeTrial) wake(ctx context.Context, d *doomed) error {
	note, err := d.reached()
	if err != nil {
		return err
	}
	if err := t.lane.resume(ctx, d, note); err != nil {
		return err
	}
	t.left(time.Now(), "after a stopped worker went on")
	return nil
}

// operate does what the operator does in this run.
func (t *nodeTrial) operate(ctx context.Context) error {
	l := t.lane
	if t.act == actNone {
		return nil
	}
	t.until(ctx, t.actAt)
	switch t.act {
	case actCancel:
		return t.asks(ctx, http.MethodPost, "operations/"+t.ids[0]+"/cancel")
	case actPause:
		if err := t.asks(ctx, http.MethodPost, "operations/"+t.ids[0]+"/pause"); err != nil {
			return err
		}
		t.until(ctx, t.actAt+t.away)
		return t.asks(ctx, http.MethodPost, "operations/"+t.ids[0]+"/resume")
	case actCluster:
		return t.asks(ctx, http.MethodDelete, "cluster/"+webCluster)
	case actHost:
		return t.asks(ctx, http.MethodDelete, hostPath(l.Fleet.Hosts()[t.victim]))
	}
	return t.terminate(ctx)
}

// terminate ends the workflow of the first rollout in Temporal. That ends the operation,
// once it is noticed. One younger than a minute is left alone; the run does not wait for
// that.
func (t *nodeTrial) terminate(ctx context.Context) error {
	l, id := t.lane, workflows.ClusterWorkflowID(fleet.DefaultTenant, webCluster)
	ids := []string{id}
	if t.act == actAll {
		now, err := l.Temporal.DescribeWorkflowExecution(ctx, id, "")
		if err != nil {
			return err
		}
		for _, child := range now.GetPendingChildren() {
			ids = append(ids, child.GetWorkflowId())
		}
	}
	for _, id := range ids {
		_ = l.Temporal.TerminateWorkflow(ctx, id, "", "chaos") // it may have ended by itself
	}
	_, err := l.DB.Exec(ctx, `UPDATE operation SET started = started - interval '2 minutes' WHERE id::text = $1 AND finished IS NULL`, t.ids[0])
	return err
}

// asks makes a request until it is answered: the API may be away, or wait for a worker
// that was stopped within a transaction. What is over by then is a Conflict.
func (t *nodeTrial) asks(ctx context.Context, method, path string) error {
	return harness.Until(ctx, steerLimit, method+" "+path, func() (bool, error) {
		r, err := t.lane.Request(ctx, method, path, nil)
		return err == nil && r.Code < http.StatusInternalServerError, nil
	})
}

// ended waits for the end of the operations.
func (t *nodeTrial) ended(ctx context.Context) error {
	return harness.Until(ctx, endLimit, "the operations to end", func() (bool, error) { return t.lane.Ended(ctx, t.ids) })
}

// finish waits for the end of the operations, and looks how long their nodes are not as
// they were.
func (t *nodeTrial) finish(ctx context.Context) error {
	if err := t.ended(ctx); err != nil {
		return err
	}
	rows, err := t.lane.DB.Query(ctx, `SELECT state, reason, finished FROM operation WHERE id::text = ANY ($1) ORDER BY id`, t.ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	var over time.Time
	for rows.Next() {
		var state, reason string
		var finished time.Time
		if err := rows.Scan(&state, &reason, &finished); err != nil {
			return err
		}
		t.states = append(t.states, state)
		t.reasons = append(t.reasons, reason)
		if finished.After(over) {
			over = finished
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for first := true; ; first = false {
		t.lane.mu.Lock()
		from := latest(over, t.lived, t.lane.back)
		t.lane.mu.Unlock()
		late := time.Since(from) > t.lane.restore
		left := t.changed()
		if !first {
			t.restored = time.Since(over)
		}
		switch {
		case len(left) == 0:
			return nil
		case late:
			t.left(over, "after its end")
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// changed are the nodes that are not as they were before.
func (t *nodeTrial) changed() (names []string) {
	for _, h := range t.lane.Fleet.Hosts() {
		n, there := t.lane.watch.Node(h.Address())
		// A node that was removed and registered anew is open.
		if there && (n.Mark != "" || n.Closed && !t.closed[n.Name]) {
			names = append(names, n.Name)
		}
	}
	return names
}

// left notes the nodes that are not as they were.
func (t *nodeTrial) left(since time.Time, when string) {
	for _, name := range t.changed() {
		n, _ := t.lane.watch.Node(name)
		t.leaked++
		t.notes = append(t.notes, fmt.Sprintf("node %s is still cordoned %.1f s %s: closed %t, mark %q", name, time.Since(since).Seconds(), when, n.Closed, n.Mark))
	}
}

func latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
