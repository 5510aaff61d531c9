package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"commissaire/internal/fleet"
	"commissaire/internal/leaktest"
	"commissaire/internal/privatepg/pgtest"
	"commissaire/internal/secret"
)

// The test server's goroutine waits for the server, which lives as long as we.
var theServer = goleak.IgnoreAnyFunction("commissaire/internal/privatepg.(*cluster).spawn.func1")

func TestMain(m *testing.M) { leaktest.Main(m, theServer) }

// patience makes a wait on a busy machine, where tests stand still for seconds, no outage.
const patience = 20

// fixture is a store on a database of its own.
type fixture struct {
	caller
	db  *DB
	sql *pgxpool.Pool // for what the store does not offer
	dsn string
}

func setup(t testing.TB) *fixture {
	t.Helper()
	return open(t, pgtest.New(t))
}

func open(t testing.TB, dsn string) *fixture {
	t.Helper()
	db, err := openDB(t.Context(), dsn, newSealer(t), patience)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	sql, err := pgxpool.New(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(sql.Close)
	return &fixture{caller: caller{db.For(fleet.DefaultTenant)}, db: db, sql: sql, dsn: dsn}
}

func newSealer(t testing.TB) *secret.Sealer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, secret.CreateKeyFile(path))
	sealer, err := secret.OpenKeyFile(path)
	require.NoError(t, err)
	return sealer
}

func (f *fixture) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := f.sql.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func (f *fixture) scan(t testing.TB, sql string, args ...any) (out string) {
	t.Helper()
	require.NoError(t, f.sql.QueryRow(t.Context(), sql, args...).Scan(&out))
	return out
}

func text(s string) *string { return &s }

// caller is a store for those who do not look at the operations that a change ordered.
type caller struct{ *Store }

var tester = Requester{Name: "tester", RequestID: "r1"}

func (c caller) AddMember(ctx context.Context, cluster, address string) error {
	_, err := c.Store.AddMember(ctx, cluster, address, tester)
	return err
}

func (c caller) RemoveMember(ctx context.Context, cluster, address string) error {
	_, err := c.Store.RemoveMember(ctx, cluster, address, tester)
	return err
}

func (c caller) ReplaceMembers(ctx context.Context, cluster string, old, new []string) (ClusterView, error) {
	v, _, err := c.Store.ReplaceMembers(ctx, cluster, old, new, tester)
	return v, err
}

func (c caller) DeleteCluster(ctx context.Context, name string) error {
	_, err := c.Store.DeleteCluster(ctx, name, tester)
	return err
}

func (c caller) DeleteHost(ctx context.Context, address, by string) ([]fleet.Operation, error) {
	cancelled, _, err := c.Store.DeleteHost(ctx, address, Requester{Name: by})
	return cancelled, err
}

func (c caller) DeleteContainerManager(ctx context.Context, name string) error {
	_, err := c.Store.DeleteContainerManager(ctx, name, false)
	return err
}

// PutContainerManager puts one that answers.
func (c caller) PutContainerManager(ctx context.Context, want fleet.ContainerManager) (fleet.ContainerManager, error) {
	m, check, err := c.Store.PutContainerManager(ctx, want)
	if err == nil && check != "" {
		err = c.ContainerManagerChecked(ctx, want.Name, check)
	}
	return m, err
}

// cluster creates one without a container manager.
func (f *fixture) cluster(t testing.TB, name string) {
	t.Helper()
	_, err := f.PutCluster(t.Context(), ClusterPut{Name: name})
	require.NoError(t, err)
}

// managed creates a cluster with a container manager of its own.
func (f *fixture) managed(t testing.TB, name, manager string, kind fleet.ContainerManagerType) {
	t.Helper()
	_, err := f.PutContainerManager(t.Context(), fleet.ContainerManager{Name: manager, Type: kind})
	require.NoError(t, err)
	_, err = f.PutCluster(t.Context(), ClusterPut{Name: name, ContainerManager: &manager})
	require.NoError(t, err)
}

func creds(key string) secret.HostCreds {
	return secret.HostCreds{RemoteUser: "root", PrivateKey: secret.NewText([]byte(key))}
}

// newHost registers a host and gives its bootstrap operation.
func (f *fixture) newHost(t testing.TB, address, cluster string) fleet.Operation {
	t.Helper()
	_, op, err := f.PutHost(t.Context(), HostPut{Address: address, Cluster: cluster, Creds: creds("key"), RequestedBy: "tester"})
	require.NoError(t, err)
	require.NotNil(t, op)
	return *op
}

// host registers a host and bootstraps it, so that it is disassociated.
func (f *fixture) host(t testing.TB, address, cluster string) {
	t.Helper()
	f.bootstrap(t, f.newHost(t, address, cluster), fleet.HostRunSucceeded, fleet.HostPrepared)
}

func (f *fixture) bootstrap(t testing.TB, op fleet.Operation, end fleet.HostRunState, event fleet.HostEvent) {
	t.Helper()
	_, err := f.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	_, err = f.BeginHostRun(t.Context(), op.ID, op.Host)
	require.NoError(t, err)
	require.NoError(t, f.RecordFacts(t.Context(), op.ID, op.Host, fleet.Facts{OS: "fedora", BootID: "b1"}))
	reason, state := "", fleet.OperationSucceeded
	if end == fleet.HostRunFailed {
		reason, state = "prepare failed", fleet.OperationFailed
	}
	require.NoError(t, f.endRun(t.Context(), op.ID, op.Host, end, reason, event))
	require.NoError(t, f.EndOperation(t.Context(), op.ID, state, reason))
}

// endRun ends a host run that hands nothing on.
func (s *Store) endRun(ctx context.Context, id, address string, state fleet.HostRunState, reason string, event fleet.HostEvent) error {
	_, err := s.EndHostRun(ctx, HostRunEnd{OperationID: id, Address: address, State: state, Reason: reason, Event: event})
	return err
}

// hosts registers n bootstrapped hosts h1…hn in a cluster.
func (f *fixture) hosts(t testing.TB, cluster string, n int) []string {
	t.Helper()
	var out []string
	for i := range n {
		address := fmt.Sprintf("h%d", i+1)
		f.host(t, address, cluster)
		out = append(out, address)
	}
	return out
}

func (f *fixture) start(t testing.TB, kind fleet.OperationKind, cluster, host string) fleet.Operation {
	t.Helper()
	op, created, err := f.StartOperation(t.Context(), NewOperation{Kind: kind, Cluster: cluster, Host: host, RequestedBy: "tester"})
	require.NoError(t, err)
	require.True(t, created)
	return op
}

func (f *fixture) members(t testing.TB, cluster string) []string {
	t.Helper()
	out, err := f.Members(t.Context(), cluster)
	require.NoError(t, err)
	return out
}

func (f *fixture) state(t testing.TB, address string) fleet.HostState {
	t.Helper()
	h, err := f.Host(t.Context(), address)
	require.NoError(t, err)
	return h.State
}

func requireKind(t testing.TB, kind fleet.Kind, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, kind, fleet.KindOf(err), "%v", err)
}

// holder gives the operation that a Conflict names.
func holder(t testing.TB, err error) fleet.Operation {
	t.Helper()
	var e *fleet.Error
	require.ErrorAs(t, err, &e)
	require.NotNil(t, e.Holder)
	return *e.Holder
}

// together runs f n times at once and gives all results.
func together[T any](n int, f func(i int) T) []T {
	out := make([]T, n)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			out[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return out
}
