package store

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
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
	INSERT INTO output SELECT id, 0, 'x' FROM step;
	ANALYZE;`

func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec(t, manyRows)
	id := uuid.MustParse("01900000-0000-7000-8000-0000000003e8").String()
	none, never := (*string)(nil), (*time.Time)(nil)
	tenant := fleet.DefaultTenant

	for name, c := range map[string]struct {
		sql  string
		args []any
	}{
		"Hosts":                     {hostsSQL, []any{tenant}},
		"Host":                      {hostSQL, []any{tenant, "h7"}},
		"Clusters":                  {clustersSQL, []any{tenant}},
		"Cluster":                   {clusterViewSQL, []any{tenant, "c1", "active"}},
		"HasMember":                 {hasMemberSQL, []any{tenant, "c1", "h7"}},
		"Members":                   {membersSQL, []any{tenant, "c1"}},
		"delete a cluster":          {claimMembersSQL, []any{tenant, "c1"}},
		"keep the cluster":          {keepClusterOfSQL, []any{tenant, "h7"}},
		"lock hosts":                {lockHostsSQL, []any{tenant, []string{"h1", "h2"}}},
		"Operation":                 {operationSQL, []any{tenant, id}},
		"Operations":                {operationsSQL, []any{tenant, "", "", "", none, 51, "", never, never}},
		"Operations from a cursor":  {operationsSQL, []any{tenant, "", "", "", id, 51, "", never, never}},
		"Operations of a cluster":   {operationsSQL, []any{tenant, "c1", "", "", none, 51, "", never, never}},
		"Operations of a host":      {operationsOfHostSQL, []any{tenant, "", "", "", none, 51, "", never, never, "h3"}},
		"Operations of a kind":      {operationsSQL, []any{tenant, "", "bootstrap", "", none, 51, "", never, never}},
		"Operations in a state":     {operationsSQL, []any{tenant, "", "", "pending", none, 51, "", never, never}},
		"LatestOperation, cluster":  {latestOfClusterSQL, []any{tenant, "restart", "c1"}},
		"LatestOperation, host":     {latestOfHostSQL, []any{tenant, "bootstrap", "h3"}},
		"PendingOperations":         {pendingOperationsSQL, []any{0.0, 100}},
		"RunningOperations":         {runningOperationsSQL, []any{0.0, 100}},
		"hosts of an operation":     {hostsLeftSQL, []any{tenant, id, []string{"h1"}, true, []string{"investigating"}}},
		"unfinished, cluster":       {unfinishedSQL, []any{tenant, "c1", ""}},
		"unfinished, host":          {unfinishedSQL, []any{tenant, "", "h3"}},
		"set the port":              {setPortSQL, []any{tenant, "h7", 2222}},
		"unfinished ids on a host":  {unfinishedIDsOfHostSQL, []any{tenant, "h3"}},
		"unfinished on a host":      {unfinishedOfHostSQL, []any{tenant, "h3"}},
		"HostRuns":                  {hostRunsSQL, []any{tenant, id}},
		"Operations of somebody":    {operationsSQL, []any{tenant, "", "", "", none, 51, "ann", never, never}},
		"UnseenOperations":          {unseenOperationsSQL, []any{0.0, 100}},
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
		"host of a slot":            {hostOfSlotSQL, []any{id, "running", 1, 1}},
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
		"insert host runs":          {insertHostRunsSQL, []any{id, tenant, []string{"h3"}, []bool{true}, true}},
		"other run on a host":       {otherRunOnHostSQL, []any{tenant, "h3", id}},
		"close host runs":           {closeHostRunsSQL, []any{id, "x"}},
		"close steps":               {closeStepsSQL, []any{id, "x"}},
		"Steps":                     {stepsSQL, []any{tenant, id, ""}},
		"Steps of a host":           {stepsSQL, []any{tenant, id, "h3"}},
		"Output":                    {outputSQL, []any{int64(77), int64(0), int64(0), 100}},
		"first chunk":               {firstChunkSQL, []any{int64(77), int64(5)}},
		"AppendOutput":              {appendOutputSQL, []any{tenant, int64(77), int64(0), int64(0), []byte("x")}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := f.db.pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			rows, err := conn.Query(t.Context(), "EXPLAIN "+c.sql, c.args...)
			require.NoError(t, err)
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			text := strings.Join(plan, "\n")
			// The 200 clusters of the test fit in two pages, so that table may be scanned.
			scans := regexp.MustCompile(`Seq Scan on (host|operation|rollout|host_run|step|output|event)\b`)
			require.False(t, scans.MatchString(text), "%s", text)
			if strings.HasPrefix(name, "Operations") && c.args[1] == "" && c.args[2] == "" && c.args[3] == "" && c.sql == operationsSQL {
				require.NotContains(t, text, "Sort", fmt.Sprintf("a page reads no more than its rows\n%s", text))
			}
		})
	}
}
