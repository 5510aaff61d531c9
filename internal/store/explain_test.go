package store

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// manyRows fills the tables with 10,000 hosts and operations: 50 tenants, of
// which "default" has 400 hosts in 4 clusters and 4,000 operations.
const manyRows = `
	INSERT INTO tenant SELECT 't' || i FROM generate_series(1, 49) i;
	INSERT INTO cluster (tenant, name, network) SELECT t.name, 'c' || i, 'default' FROM tenant t, generate_series(1, 4) i;
	INSERT INTO host (tenant, address, cluster, join_order, state)
		SELECT CASE WHEN i <= 400 THEN 'default' ELSE 't' || i % 49 + 1 END, 'h' || i, 'c' || i % 4 + 1, i, 'active' FROM generate_series(1, 10000) i;
	INSERT INTO operation (id, tenant, kind, cluster, state, started, finished)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, CASE WHEN i % 10 < 4 THEN 'default' ELSE 't' || i % 49 + 1 END,
			'restart', 'c' || i % 40 + 1, 'succeeded', now(), now() FROM generate_series(1, 10000) i;
	INSERT INTO operation (id, tenant, kind, host)
		SELECT gen_random_uuid(), 'default', 'bootstrap', 'h' || i FROM generate_series(1, 20) i;
	INSERT INTO host_run (operation_id, tenant, address, position, state, started, finished)
		SELECT id, tenant, 'h' || p, p, 'succeeded', now(), now() FROM (SELECT id, tenant FROM operation WHERE finished IS NOT NULL ORDER BY id LIMIT 2000) o, generate_series(1, 5) p;
	INSERT INTO step (operation_id, tenant, address, name, attempt, state, finished)
		SELECT operation_id, tenant, address, 'reboot', 1, 'succeeded', now() FROM host_run;
	INSERT INTO output SELECT id, 0, 'x' FROM step;`

// fullSize fills the tables of one tenant: 10,000 hosts in 10 clusters, and 10,000
// operations with 200,000 host runs and 1,000,000 steps, and as much of the rest. No
// trigger runs, so that it takes seconds.
const fullSize = `
	SET session_replication_role = replica;
	INSERT INTO cluster (tenant, name, network) SELECT 'default', 'c' || i, 'default' FROM generate_series(1, 10) i;
	INSERT INTO host (tenant, address, cluster, join_order, state)
		SELECT 'default', 'h' || i, 'c' || i % 10 + 1, i, 'active' FROM generate_series(1, 10000) i ORDER BY random();
	INSERT INTO operation (id, tenant, kind, cluster, state, hosts, started, finished)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'default',
			'restart', 'c' || i % 10 + 1, 'succeeded', 20, now(), now() FROM generate_series(1, 10000) i;
	INSERT INTO operation (id, tenant, kind, host)
		SELECT gen_random_uuid(), 'default', 'bootstrap', 'h' || i FROM generate_series(1, 20) i;
	INSERT INTO rollout (operation_id, tenant, succeeded) SELECT id, tenant, 20 FROM operation WHERE kind <> 'bootstrap';
	INSERT INTO host_run (operation_id, tenant, address, position, state, started, finished)
		SELECT o.id, 'default', 'h' || (o.n * 20 + p) % 10000 + 1, p, 'succeeded', now(), now()
		FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM operation WHERE finished IS NOT NULL) o, generate_series(1, 20) p;
	INSERT INTO step (operation_id, tenant, address, name, attempt, state, finished)
		SELECT operation_id, tenant, address, name, 1, 'succeeded', now() FROM host_run, unnest('{check,upgrade,reboot,wait,verify}'::text[]) name;
	INSERT INTO output (step_id, position, data, operation_id) SELECT id, 0, 'x', operation_id FROM step WHERE id % 10 = 0;
	INSERT INTO event (tenant, operation_id, kind, address, state) SELECT tenant, operation_id, 'host', address, state FROM host_run;
	SET session_replication_role = DEFAULT;`

// fewRows fit in a page of each table. The plans that are kept from then on have to be
// good for many, too.
const fewRows = `
	INSERT INTO cluster (tenant, name, network) VALUES ('default', 'c1', 'default');
	INSERT INTO host (tenant, address, cluster, join_order, state) SELECT 'default', 'h' || i, 'c1', i, 'active' FROM generate_series(1, 5) i;
	INSERT INTO operation (id, tenant, kind, cluster, state, started, finished)
		SELECT gen_random_uuid(), 'default', 'restart', 'c1', 'succeeded', now(), now() FROM generate_series(1, 5);`

// accessRows fill the tables that hang on hosts, and those about who asks.
const accessRows = `
	INSERT INTO container_manager (tenant, name, type, sealed, key_id) SELECT t.name, m, CASE m WHEN 'k' THEN 'kubernetes' ELSE 'trivial' END, '', 1 FROM tenant t, unnest('{k,m}'::text[]) m;
	INSERT INTO host_creds (tenant, address, remote_user, sealed, key_id) SELECT tenant, address, 'root', 'x', join_order % 2 FROM host;
	INSERT INTO node (tenant, address, manager) SELECT tenant, address, CASE join_order % 10 WHEN 0 THEN 'k' ELSE 'm' END FROM host;
	INSERT INTO api_token (tenant, id, digest, name, owner, role, expires)
		SELECT 'default', 't' || i, sha256('x'), 'ci', 'u' || i % 1000, 'viewer', now() FROM generate_series(1, 10000) i;
	INSERT INTO join_token (tenant, id, digest, remote_user, public_key, used, used_by, used_host_key, expires)
		SELECT 'default', 'j' || i, sha256('x'), 'root', 'ssh-ed25519 x', now(), 'h' || i, 'ssh-ed25519 y', now() FROM generate_series(1, 10000) i;
	INSERT INTO audit (tenant, principal, method, role, address, operation, path, status)
		SELECT 'default', 'u' || i % 100, 'httpbasicauth', 'admin', '192.0.2.1', 'o' || i % 50, '/api/v0/x', 201 FROM generate_series(1, 100000) i;
	ANALYZE;`

func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]string{"many tenants": manyRows, "full size": fullSize, "small": fewRows} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testPlans(t, rows)
		})
	}
}

func testPlans(t *testing.T, rows string) {
	f := setup(t)
	small := rows == fewRows
	f.exec(t, rows+accessRows)
	id := uuid.MustParse("01900000-0000-7000-8000-0000000003e8").String()
	none, never, nobody := (*string)(nil), (*time.Time)(nil), (*int64)(nil)
	tenant := fleet.DefaultTenant

	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"Hosts":                     {hostsSQL, []any{tenant}},
		"Host":                      {hostSQL, []any{kept, tenant, "h7"}},
		"Clusters":                  {clustersSQL, []any{tenant}},
		"Cluster":                   {clusterViewSQL, []any{tenant, "c1", "active"}},
		"HasMember":                 {hasMemberSQL, []any{tenant, "c1", "h7"}},
		"Members":                   {membersSQL, []any{tenant, "c1"}},
		"delete a cluster":          {claimMembersSQL, []any{tenant, "c1"}},
		"keep the cluster":          {keepClusterOfSQL, []any{tenant, "h7"}},
		"bastion of a host":         {bastionOfSQL, []any{tenant, "h7"}},
		"bastions":                  {bastionsSQL, []any{tenant, []string{"h1", "h2"}}},
		"whose bastion a host is":   {servedSQL, []any{tenant, "h7"}},
		"lock hosts":                {lockHostsSQL, []any{tenant, []string{"h1", "h2"}}},
		"Operation":                 {operationSQL, []any{kept, tenant, id}},
		"lock an operation":         {lockOperationSQL, []any{kept, tenant, id}},
		"newest operations":         {newestOperationsSQL, []any{kept, tenant, id, 51}},
		"Operations":                {operationsSQL, []any{tenant, "", "", "", none, 51, "", never, never}},
		"Operations from a cursor":  {operationsSQL, []any{tenant, "", "", "", id, 51, "", never, never}},
		"Operations of a cluster":   {operationsSQL, []any{tenant, "c1", "", "", none, 51, "", never, never}},
		"Operations of a host":      {operationsOfHostSQL, []any{tenant, "", "", "", none, 51, "", never, never, "h3"}},
		"Operations of a kind":      {operationsSQL, []any{tenant, "", "bootstrap", "", none, 51, "", never, never}},
		"Operations in a state":     {operationsSQL, []any{tenant, "", "", "pending", none, 51, "", never, never}},
		"LatestOperation, cluster":  {latestOfClusterSQL, []any{tenant, "restart", "c1"}},
		"LatestOperation, host":     {latestOfHostSQL, []any{tenant, "bootstrap", "h3"}},
		"PendingOperations":         {pendingOperationsSQL, []any{kept, 0.0, 100}},
		"RunningOperations":         {runningOperationsSQL, []any{0.0, 100}},
		"hosts of an operation":     {hostsLeftSQL, []any{tenant, id, []string{"h1"}, true, []string{"investigating"}}},
		"unfinished, cluster":       {unfinishedSQL, []any{tenant, "c1", "", ""}},
		"unfinished, host":          {unfinishedSQL, []any{tenant, "", "h3", ""}},
		"unfinished, source":        {unfinishedSQL, []any{tenant, "", "", "cmdb"}},
		"hosts of a source":         {insertHostRunsOfSourceSQL, []any{id, tenant, "cmdb"}},
		"hosts of a scheduled sync": {hostsOfScheduledSQL, []any{tenant, id, "cmdb", "", syncPage}},
		"hosts that a sync changes": {takeUpHostsSQL, []any{id, tenant, []string{"h1"}}},
		"last good syncs":           {lastGoodSyncsSQL, []any{tenant, []string{"cmdb"}}},
		"latest syncs":              {latestSyncsSQL, []any{tenant, []string{"cmdb"}}},
		"hosts without a sync":      {unsyncedSQL, []any{tenant, id, syncPage}},
		"hosts to sync":             {hostsToSyncSQL, []any{tenant, id, []string{"h1"}}},
		"synced":                    {countSyncedSQL, []any{tenant, id}},
		"set the port":              {setPortSQL, []any{tenant, "h7", 2222}},
		"unfinished ids on a host":  {unfinishedIDsOfHostSQL, []any{tenant, "h3"}},
		"unfinished on a host":      {unfinishedOfHostSQL, []any{tenant, "h3"}},
		"HostRuns":                  {hostRunsSQL, []any{tenant, id}},
		"Operations of somebody":    {operationsSQL, []any{tenant, "", "", "", none, 51, "ann", never, never}},
		"UnseenOperations":          {unseenOperationsSQL, []any{kept, 0.0, 100}},
		"HostRunsPage":              {hostRunsPageSQL, []any{tenant, id, "", 3, 51}},
		"HostRunsPage in a state":   {hostRunsPageSQL, []any{tenant, id, "succeeded", 3, 51}},
		"StepsPage":                 {stepsPageSQL, []any{tenant, id, "", 0, 51}},
		"lock a rollout":            {lockRolloutSQL, []any{tenant, id}},
		"tally":                     {tallySQL, []any{id, tenant, "c1", countTo}},
		"unstaged hosts":            {unstagedSQL, []any{id, tenant, "c1", true, -1, time.Now(), 10}},
		"ready hosts":               {readySQL, []any{id, tenant, "c1", true, -1, time.Now(), 10}},
		"hosts that are away":       {awaySQL, []any{id, tenant, "c1", true, -1, time.Now(), 10}},
		"slots in use":              {slotsInUseSQL, []any{id, "running", true}},
		"claimed":                   {claimedSQL, []any{id, 1}},
		"host of a slot":            {hostOfSlotSQL, []any{id, "running", 1, 1, fleet.StepsThatSpare}},
		"assign":                    {assignSQL, []any{id, "running", 1, []string{"h1"}, []int{1}}},
		"end without touching":      {skipSQL, []any{id, "skipped", []string{"h1"}, []string{"x"}}},
		"note who holds":            {waitSQL, []any{id, time.Now(), []string{"h1"}, []string{"x"}}},
		"progress":                  {progressSQL, []any{id}},
		"retry of":                  {retryOfSQL, []any{tenant, id, id}},
		"write the policy":          {writePolicySQL, []any{id, fleet.Policy{}, never, "", id}},
		"hosts that take no deploy": {takeNoDeploySQL, []any{tenant, []string{"h1"}, 5}},
		"preview of hosts":          {previewHostsSQL, []any{tenant, []string{"h1"}}},
		"answered":                  {answeredSQL, []any{tenant, "k"}},
		"Events":                    {eventsSQL, []any{id, "0", -1, "", true, 51, maxEventBytes}},
		"Events of a host":          {eventsSQL, []any{id, "5", 7, "h3", true, 51, maxEventBytes}},
		"EventsAfter":               {moreEventsSQL, []any{id, "0", -1, "", true}},
		"EventsAfter of a host":     {moreEventsSQL, []any{id, "5", 7, "h3", true}},
		"HostRun":                   {hostRunSQL, []any{tenant, id, "h3"}},
		"insert host runs":          {insertHostRunsSQL, []any{id, tenant, []string{"h3"}, []bool{true}, true, true}},
		"other run on a host":       {otherRunOnHostSQL, []any{tenant, "h3", id}},
		"close host runs":           {closeHostRunsSQL, []any{id, "x", fleet.StepsThatSpare}},
		"close steps":               {closeStepsSQL, []any{id, "x"}},
		"Steps":                     {stepsSQL, []any{tenant, id, ""}},
		"Steps of a host":           {stepsSQL, []any{tenant, id, "h3"}},
		"Output":                    {outputSQL, []any{int64(77), int64(0), int64(0), 100}},
		"first chunk":               {firstChunkSQL, []any{int64(77), int64(5)}},
		"reads of host credentials": {credsSQL, []any{kept, tenant, "h7"}},
		"ContainerManager":          {containerManagerSQL, []any{tenant, "m"}},
		"HostNode":                  {nodeSQL, []any{tenant, "h7"}},
		"register":                  {registerSQL, []any{tenant, []string{"h7"}, "m"}},
		"lock nodes":                {claimNodesSQL, []any{tenant, []string{"h7"}}},
		"forget nodes":              {forgetNodesSQL, []any{tenant, []string{"h7"}}},
		"claim a node":              {claimNodeSQL, []any{tenant, "h7", "m"}},
		"a node is ready":           {setReadySQL, []any{tenant, []string{"h7"}, "m", false}},
		"held nodes":                {heldSQL, []any{tenant, "", []string{"h7"}}},
		"nodes among hosts":         {nodesAmongSQL, []any{tenant, []string{"h7"}, "m"}},
		"a node is leaving":         {leavingSQL, []any{tenant, []string{"h7"}, []string{"m"}}},
		"hosts that are at work":    {keepUnfinishedSQL, []any{tenant, []string{"h7"}}},
		"host runs of orders":       {insertHostRunsOfOrdersSQL, []any{tenant, []string{id}, []string{"h7"}}},
		"orders":                    {orderedSQL, []any{tenant, []string{id}}},
		"a node was left behind":    {leftBehindSQL, []any{tenant, "h7"}},
		"a node was removed":        {nodeRemovedSQL, []any{tenant, id}},
		"operations at a node":      {atNodeSQL, []any{tenant, []string{"h7"}, []string{}}},
		"operations of a manager":   {unfinishedOfManagerSQL, []any{tenant, "m"}},
		"status of a node":          {setNodeStatusSQL, []any{tenant, "h7", "m", none}},
		"an operation waits":        {setWaitingSQL, []any{tenant, id, "x"}},
		"LeftCordons":               {leftCordonsSQL, []any{kept, 2.0, 100}},
		"cordon":                    {cordonSQL, []any{tenant, id, "h3"}},
		"CordonStands":              {nodeStandsSQL, []any{tenant, id, "h3", true}},
		"keep a node's manager":     {keepNodeManagerSQL, []any{tenant, "h7"}},
		"BeginCordon":               {beginCordonSQL, []any{tenant, id, "h3", "m"}},
		"BeginRestore":              {beginRestoreSQL, []any{tenant, id, "h3"}},
		"CordonRestored":            {cordonRestoredSQL, []any{tenant, id, "h3"}},
		"a cordon is left":          {leaveCordonSQL, []any{tenant, id, "h3"}},
		"cordons of a manager":      {cordonsOutSQL, []any{tenant, "m", 5}},
		"rollouts that cordon":      {cordoningSQL, []any{tenant, "m"}},
		"leave cordons":             {leaveCordonsSQL, []any{tenant, "m", "x"}},
		"shared budget":             {sharedSQL, []any{id, tenant, "c1", "k"}},
		"nodes of a manager":        {nodesOfManagerSQL, []any{tenant, "k"}},
		"cluster of a rollout":      {clusterNowSQL, []any{tenant, "c1", time.Now()}},
		"Tokens":                    {tokensSQL, []any{tenant, ""}},
		"JoinTokens":                {joinTokensSQL, []any{tenant}},
		"forget expired keys":       {forgetExpiredSQL, []any{tenant}},
		"Tokens of somebody":        {tokensSQL, []any{tenant, "u7"}},
		"Token":                     {tokenSQL, []any{tenant, "t7"}},
		"VerifyToken":               {goodTokenSQL, []any{kept, tenant, "t7"}},
		"note the use of a token":   {useTokenSQL, []any{tenant, "t7"}},
		"JoinToken":                 {joinTokenSQL, []any{tenant, "j7"}},
		"VerifyJoinToken":           {goodJoinTokenSQL, []any{tenant, "j7"}},
		"lock a join token":         {lockJoinTokenSQL, []any{tenant, "j7"}},
		"Audit":                     {auditSQL, []any{tenant, "", "", nobody, 51}},
		"Audit from a cursor":       {auditSQL, []any{tenant, "", "", int64(777), 51}},
		"Audit of a principal":      {auditSQL, []any{tenant, "u7", "", nobody, 51}},
		"Audit of an operation":     {auditSQL, []any{tenant, "", "o7", nobody, 51}},
		"end an audit entry":        {endAuditSQL, []any{tenant, int64(7), 201, ""}},
		"WatchPages":                {watchPagesSQL, []any{tenant, "c1", 500}},
		"count to watch":            {countToWatchSQL, []any{tenant, "c1"}},
		"HostsToCheck":              {hostsToCheckSQL, []any{tenant, "c1", "h1", "h2", 3600.0}},
		"HostsToCheck, no cluster":  {hostsToCheckSQL, []any{tenant, "", "h1", "h2", 3600.0}},
		"RecordChecks":              {recordWatchSQL, []any{tenant, []checkedRow{{Address: "h7"}}, 3, []string{"active"}, []string{"lost"}, []string{"failed"}, fleet.StepReboot, time.Now(), fleet.RebootingMost.Seconds()}},
		"TakeUpCommand":             {takeUpCommandSQL, []any{tenant, id, 0, 3, "c1", time.Now(), ""}},
		"hosts of a page at work":   {runningOfPageSQL, []any{tenant, id, 0, 3}},
		"command was cancelled":     {cancelledCommandSQL, []any{tenant, id}},
		"RecordCommands":            {recordCommandsSQL, []any{tenant, []int64{77}, []int64{0}, [][]byte{{}}, []int64{0}, [][]byte{{}}, []int64{0}, []string{"running"}, []string{""}, []*int32{nil}, []string{"running"}}},
		"OutputEnd":                 {outputEndsSQL, []any{tenant, []int64{77, 78}, fleet.OutputEnd}},
		"AppendOutput":              {appendOutputSQL, []any{tenant, int64(77), int64(0), int64(0), []byte("x")}},
	} {
		isKept := c.args[0] == kept
		if small && !isKept {
			continue
		}
		t.Run(name, func(t *testing.T) {
			conn, err := f.db.pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			var plans []string
			if !small {
				// The index has to be the better way, also where a scan is not to be avoided at all costs.
				_, err := conn.Exec(t.Context(), "SET enable_seqscan = on")
				require.NoError(t, err)
				defer func() { _, _ = conn.Exec(context.WithoutCancel(t.Context()), "SET enable_seqscan = off") }()
				plans = append(plans, explain(t, conn, c.sql, c.args...))
			}
			if isKept {
				plans = append(plans, keptPlan(t, conn, c.sql, len(c.args)-1))
			}
			for _, plan := range plans {
				// The 200 clusters of the test fit in two pages, so that table may be scanned.
				scans := regexp.MustCompile(`Seq Scan on (host|host_creds|node|operation|rollout|host_run|step|output|event|api_token|join_token|audit)\b`)
				require.False(t, scans.MatchString(plan), "%s", plan)
				page := strings.HasPrefix(name, "Audit") || c.sql == newestOperationsSQL ||
					c.sql == operationsSQL && c.args[1] == "" && c.args[2] == "" && c.args[3] == ""
				if page {
					require.NotContains(t, plan, "Sort", "a page reads no more than its rows\n%s", plan)
				}
			}
		})
	}
}

// keptPlan gives the plan of a statement that Postgres keeps for any arguments.
func keptPlan(t *testing.T, conn *pgxpool.Conn, sql string, args int) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	exec := func(sql string) {
		_, err := conn.Exec(ctx, sql)
		require.NoError(t, err)
	}
	exec("SET plan_cache_mode = force_generic_plan")
	defer exec("SET plan_cache_mode = auto")
	_, err := conn.Conn().Prepare(ctx, "kept", sql)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Conn().Deallocate(ctx, "kept")) }()
	return explain(t, conn, "EXECUTE kept ("+strings.Repeat("NULL, ", args-1)+"NULL)")
}

func explain(t *testing.T, conn *pgxpool.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "EXPLAIN "+sql, args...)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}

// TestPlansAreKept asks often enough for Postgres to make a plan for any arguments,
// and looks which it made.
func TestPlansAreKept(t *testing.T) {
	t.Parallel()
	f := setup(t)
	conn, err := f.db.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for range 10 {
		_, err := f.Store.host(t.Context(), conn, "h")
		require.Equal(t, fleet.NotFound, fleet.KindOf(err))
		_, err = collect(t.Context(), conn, scanOperation, operationsSQL, fleet.DefaultTenant, "", "", "", nil, 51, "", nil, nil)
		require.NoError(t, err)
	}
	names, err := collect(t.Context(), conn, pgx.RowTo[string], "SELECT statement FROM pg_prepared_statements WHERE name <> '' AND generic_plans > 0")
	require.NoError(t, err)
	require.Equal(t, []string{hostSQL}, names)
}
