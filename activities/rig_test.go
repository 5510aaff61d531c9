package activities_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.uber.org/goleak"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/leaktest"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/profile"
	"commissaire/internal/remote"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

func TestMain(m *testing.M) {
	// The test server's goroutine waits for the server, which lives as long as we.
	leaktest.Main(m, goleak.IgnoreAnyFunction("commissaire/internal/privatepg.(*cluster).spawn.func1"))
}

// patience bounds every wait of a test.
const patience = 2 * time.Minute

const cluster = "web"

// rig is a database, a host, and an operation on it that is under way.
type rig struct {
	*store.Store
	sql    *pgxpool.Pool // for what the store does not offer
	dsn    string
	sealer *secret.Sealer
	fleet  *remotetest.Fleet
	host   *remotetest.Host
	track  track
	op     fleet.Operation
	boot   string // the boot that a reboot leaves

	settings profile.Settings // those by which content is made
}

// track is what happens to the host after its bootstrap.
type track struct {
	name  string
	os    remotetest.OS
	kind  fleet.OperationKind
	steps []string // in their order
}

var (
	restart = track{"restart", remotetest.OS{ID: "debian", VersionID: "12"}, fleet.KindRestart, restartSteps}
	upgrade = track{"upgrade", remotetest.OS{ID: "debian", VersionID: "12"}, fleet.KindUpgrade, []string{
		workflows.StepCheck, workflows.StepUpgrade, workflows.StepVerifyPackages, workflows.StepRebootNeeded,
		workflows.StepReboot, workflows.StepWait, workflows.StepVerify, workflows.StepSettle,
	}}
	deploy = track{"deploy", remotetest.OS{ID: "fedora", VersionID: "43", OSTree: true}, fleet.KindDeploy, []string{
		workflows.StepStage, workflows.StepCheck, workflows.StepRebootNeeded,
		workflows.StepReboot, workflows.StepWait, workflows.StepVerify,
	}}
)

// wantedVersion is what a deploy of the rig asks for.
const wantedVersion = "43.1"

func setup(t *testing.T) *rig {
	t.Helper()
	return open(t, pgtest.New(t), restart)
}

func open(t *testing.T, dsn string, on track) *rig {
	t.Helper()
	r := &rig{dsn: dsn, track: on, fleet: remotetest.NewHosts(t, remotetest.HostConfig{Name: "h1", OS: on.os})}
	r.host = r.fleet.Hosts()[0]
	keys := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(keys))
	var err error
	r.sealer, err = secret.OpenKeyFile(keys)
	require.NoError(t, err)
	r.sql, err = pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(r.sql.Close)
	r.Store = r.openStore(t).For(fleet.DefaultTenant)
	_, err = r.PutCluster(t.Context(), store.ClusterPut{Name: cluster})
	require.NoError(t, err)
	return r
}

func (r *rig) openStore(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), r.dsn, r.sealer)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

// crew is the part of one worker that does steps. Two crews share nothing but
// the database and the host.
type crew struct {
	record *activities.Record
	hosts  *activities.Hosts
}

func (r *rig) crew(t *testing.T) *crew {
	t.Helper()
	db := r.openStore(t)
	dialer := remote.NewDialer(remote.Options{DialTimeout: 2 * time.Second})
	t.Cleanup(dialer.Close)
	pool := remote.NewPool(dialer, time.Minute)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return &crew{
		record: &activities.Record{Store: func(tenant string) activities.RecordStore { return db.For(tenant) }},
		hosts:  &activities.Hosts{Store: func(tenant string) activities.HostStore { return db.For(tenant) }, SSH: pool},
	}
}

// add registers the host and begins its bootstrap. It may stand behind another
// port than its own.
func (r *rig) add(t *testing.T, port int) {
	t.Helper()
	_, op, err := r.PutHost(t.Context(), store.HostPut{
		Address: r.host.Address(), Port: port, Cluster: cluster,
		Creds: r.creds(),
	})
	require.NoError(t, err)
	require.NotNil(t, op)
	r.begin(t, *op)
}

func (r *rig) creds() secret.HostCreds {
	return secret.HostCreds{RemoteUser: r.host.User(), PrivateKey: secret.NewText([]byte(r.fleet.ClientKey()))}
}

func (r *rig) begin(t *testing.T, op fleet.Operation) {
	t.Helper()
	r.op = op
	_, err := r.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = r.BeginHostRun(t.Context(), op.ID, r.host.Address())
	require.NoError(t, err)
}

func (r *rig) end(t *testing.T, event fleet.HostEvent) {
	t.Helper()
	r.endHost(t, fleet.HostRunSucceeded, event)
	require.NoError(t, r.EndOperation(t.Context(), r.op.ID, fleet.OperationSucceeded, ""))
}

func (r *rig) endHost(t *testing.T, state fleet.HostRunState, event fleet.HostEvent) {
	t.Helper()
	_, err := r.EndHostRun(t.Context(), store.HostRunEnd{OperationID: r.op.ID, Address: r.host.Address(), State: state, Event: event})
	require.NoError(t, err)
}

// roll puts the track's operation on record, with something to do for it, and
// hands the host out.
func (r *rig) roll(t *testing.T) {
	t.Helper()
	n := store.NewOperation{Kind: r.track.kind, Cluster: cluster}
	switch r.track.kind {
	case fleet.KindUpgrade:
		require.NoError(t, r.host.Publish("linux-image-amd64", "2.0"))
		require.NoError(t, r.host.Publish("bash", "2.0"))
	case fleet.KindDeploy:
		n.Version = wantedVersion
		require.NoError(t, r.host.PublishOSTree(wantedVersion))
	}
	op, created, err := r.StartOperation(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created)
	r.op = op
	r.claim(t, 1, r.track.kind == fleet.KindDeploy)
}

// claim hands out the host, to stage or to roll.
func (r *rig) claim(t *testing.T, turn int, stage bool) {
	t.Helper()
	c, err := r.Claim(t.Context(), r.op.ID, turn, time.Hour)
	require.NoError(t, err)
	require.Equal(t, []store.Assignment{{Address: r.host.Address(), Stage: stage, Slot: 1, Turn: turn}}, c.Assignments)
}

// The steps of a bootstrap and of a restart, in their order.
var bootstrapSteps = []string{workflows.StepInvestigate, workflows.StepPrepare}
var restartSteps = []string{workflows.StepCheck, workflows.StepReboot, workflows.StepWait, workflows.StepVerify}

// upTo brings the host to where step comes next.
func (r *rig) upTo(t *testing.T, step string) {
	t.Helper()
	c := r.crew(t)
	r.add(t, r.host.Port())
	for _, s := range bootstrapSteps {
		if s == step {
			return
		}
		_, err := r.do(c, s, how{})
		require.NoError(t, err, s)
	}
	r.end(t, fleet.HostPrepared)
	r.roll(t)
	r.boot = r.host.BootID()
	for _, s := range r.track.steps {
		if s == step {
			return
		}
		_, err := r.do(c, s, how{})
		require.NoError(t, err, s)
		switch s {
		case workflows.StepStage:
			r.endHost(t, fleet.HostRunStaged, "")
			r.claim(t, 2, false)
		case workflows.StepReboot:
			eventually(t, func() bool { return r.host.BootID() != r.boot }, "the host reboots")
		}
	}
}

// how is the way in which Temporal runs an activity. The zero value is the first
// attempt of one that nobody disturbs.
type how struct {
	ctx         context.Context
	stop        chan struct{} // closed when the worker stops
	attempt     int32
	scheduled   time.Time // by the workflow
	deadline    time.Time
	heartbeat   time.Duration // silence after which Temporal gives the step to another
	unreachable time.Duration
	spent       time.Duration // by attempts before this one
	surprises   int           // of attempts before this one
	beats       func(n int)   // is told of each heartbeat how many surprises it counts
}

// do carries out a step on the host by one crew and gives its answer.
func (r *rig) do(c *crew, step string, h how) (any, error) {
	if h.unreachable == 0 {
		h.unreachable = patience
	}
	in := workflows.HostStep{HostRef: r.handed(step), Step: step, Attempt: 1, Unreachable: h.unreachable}
	change := workflows.ChangeStep{HostStep: in, Kind: r.track.kind, Reboot: fleet.RebootIfNeeded}
	if r.track.kind == fleet.KindDeploy {
		change.Version = wantedVersion
	}
	reboot := workflows.RebootStep{HostStep: in, BootID: r.boot, Rebooted: true}
	switch step {
	case workflows.StepInvestigate:
		return execute(h, workflows.Investigate, c.hosts.Investigate, in)
	case workflows.StepPrepare:
		return execute(h, workflows.Prepare, c.hosts.Prepare, in)
	case workflows.StepCheck:
		return execute(h, workflows.Check, c.hosts.Check, change)
	case workflows.StepStage:
		return execute(h, workflows.Stage, c.hosts.Stage, change)
	case workflows.StepUpgrade:
		return execute(h, workflows.Upgrade, c.hosts.Upgrade, change)
	case workflows.StepVerifyPackages:
		return execute(h, workflows.VerifyPackages, c.hosts.VerifyPackages, change)
	case workflows.StepRebootNeeded:
		return execute(h, workflows.RebootNeeded, c.hosts.RebootNeeded, change)
	case workflows.StepReboot:
		return execute(h, workflows.Reboot, c.hosts.Reboot, reboot)
	case workflows.StepWait:
		return execute(h, workflows.AwaitBoot, c.hosts.AwaitBoot, reboot)
	case workflows.StepVerify:
		return execute(h, workflows.Verify, c.hosts.Verify, reboot)
	case workflows.StepSettle:
		return execute(h, workflows.Settle, c.hosts.Settle, reboot)
	}
	panic("no step " + step)
}

func (r *rig) ref() workflows.HostRef {
	return workflows.HostRef{
		OperationRef: workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: r.op.ID}, Address: r.host.Address(),
	}
}

// handed is the host as a rollout was given it, for the steps that take it up.
func (r *rig) handed(step string) workflows.HostRef {
	ref := r.ref()
	if step == workflows.StepCheck || step == workflows.StepStage {
		_ = r.sql.QueryRow(context.Background(), `SELECT turn FROM host_run WHERE operation_id = $1`, r.op.ID).Scan(&ref.Turn)
	}
	return ref
}

// execute runs one activity as a worker would.
func execute[In, Out any](h how, step workflows.Step[In, Out], fn func(context.Context, In) (Out, error), in In) (out Out, err error) {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: h.ctx, Interceptors: []interceptor.WorkerInterceptor{&informer{h: h}}})
	if h.stop != nil {
		env.SetWorkerStopChannel(h.stop)
	}
	if h.spent > 0 {
		env.SetHeartbeatDetails(h.spent)
	}
	if h.beats != nil {
		env.SetHeartbeatDetails(h.surprises)
		env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
			n := -1
			_ = details.Get(&n)
			h.beats(n)
		})
	}
	step.Bind(env, fn)
	value, err := env.ExecuteActivity(step.Name, in)
	if err != nil {
		return out, err
	}
	return out, value.Get(&out)
}

// informer tells an activity another attempt and deadline than the test
// environment's own, which are fixed.
type informer struct {
	interceptor.WorkerInterceptorBase
	h how
}

func (i *informer) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &informed{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, h: i.h}
}

type informed struct {
	interceptor.ActivityInboundInterceptorBase
	h how
}

func (i *informed) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&info{ActivityOutboundInterceptorBase: interceptor.ActivityOutboundInterceptorBase{Next: next}, h: i.h})
}

type info struct {
	interceptor.ActivityOutboundInterceptorBase
	h how
}

func (i *info) GetInfo(ctx context.Context) activity.Info {
	out := i.Next.GetInfo(ctx)
	if i.h.attempt > 0 {
		out.Attempt = i.h.attempt
	}
	if !i.h.scheduled.IsZero() {
		out.ScheduledTime = i.h.scheduled
	}
	if !i.h.deadline.IsZero() {
		out.Deadline = i.h.deadline
	}
	out.HeartbeatTimeout = i.h.heartbeat
	return out
}

// beside runs a step beside the test; the channel gives its error.
func (r *rig) beside(c *crew, step string, h how) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.do(c, step, h)
		done <- err
	}()
	return done
}

func await(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("the step did not end")
		return nil
	}
}

func eventually(t *testing.T, is func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, is, patience, 10*time.Millisecond, append([]any{what}, args...)...)
}

// row is a step as it is on record; its id is 0 while it has not begun.
func (r *rig) row(t *testing.T, step string) fleet.Step {
	t.Helper()
	steps, err := r.Steps(t.Context(), r.op.ID, r.host.Address())
	require.NoError(t, err)
	for _, s := range steps {
		if s.Name == step {
			return s
		}
	}
	return fleet.Step{}
}

// output is what is stored of a step; it must be whole.
func (r *rig) output(t *testing.T, step string) string {
	t.Helper()
	row := r.row(t, step)
	chunks, err := r.Output(t.Context(), row.ID, 0, 0)
	require.NoError(t, err)
	var out strings.Builder
	for _, c := range chunks {
		require.EqualValues(t, out.Len(), c.Offset, "chunks of %s touch", step)
		out.Write(c.Data)
	}
	require.EqualValues(t, row.OutputSize, out.Len(), "all that %s printed is stored", step)
	return out.String()
}

// effects counts what happened to the host, by its own ledger.
func (r *rig) effects(t *testing.T) map[string]int {
	t.Helper()
	entries, err := r.host.Ledger()
	require.NoError(t, err)
	counts := map[string]int{}
	for _, e := range entries {
		counts[strings.TrimSpace(e.What+" "+e.Args)]++
	}
	return counts
}

// since is what happened to the host since before.
func (r *rig) since(t *testing.T, before map[string]int) map[string]int {
	t.Helper()
	out := map[string]int{}
	for what, n := range r.effects(t) {
		if n != before[what] {
			out[what] = n - before[what]
		}
	}
	return out
}

// requireRefused wants an error that Temporal does not repeat, of this type,
// and gives what it says.
func requireRefused(t *testing.T, kind string, err error) string {
	t.Helper()
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.True(t, app.NonRetryable(), "%v", err)
	require.Equal(t, kind, app.Type(), "%v", err)
	return app.Message()
}

// requireRetried wants an error that Temporal repeats.
func requireRetried(t *testing.T, err error) {
	t.Helper()
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.False(t, app.NonRetryable(), "%v", err)
}
