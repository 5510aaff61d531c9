package store

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// noAutovacuum keeps Postgres from analysing tables at its own time. What it looks at
// while we vacuum stays, and a claim would read ten times the pages.
const noAutovacuum = `DO $$ DECLARE name text; BEGIN
	FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
		EXECUTE format('ALTER TABLE %I SET (autovacuum_enabled = off)', name);
	END LOOP; END $$`

// TestAClaimCostsTheSameAtAnySize counts the pages that each statement of a claim
// reads, in the middle of a rollout over few and over many hosts.
func TestAClaimCostsTheSameAtAnySize(t *testing.T) {
	t.Parallel()
	pages := map[string]map[int]int{}
	for _, hosts := range []int{100, 10_000} {
		f := setup(t)
		f.exec(t, noAutovacuum)
		f.manyHosts(t, "c", hosts)
		f.exec(t, "UPDATE host SET state = CASE join_order / $1 % 2 WHEN 0 THEN 'failed' ELSE 'investigating' END, reason = 'x', state_since = now() + interval '1 hour' WHERE join_order % $1 = 5", hosts/10)
		op := f.rollout(t, NewOperation{Kind: fleet.KindUpgrade, Policy: fleet.Policy{MaxUnavailable: fleet.Count(20), Canary: &fleet.Canary{Hosts: fleet.Count(5)}}})
		f.exec(t, "UPDATE operation SET state = 'running', started = now()")
		f.exec(t, "UPDATE host_run SET state = 'succeeded', started = now(), rolling = now(), finished = now() WHERE position < $1", hosts/2)
		f.exec(t, "UPDATE host_run SET state = 'staged', started = now() WHERE stages AND position >= $1 AND position < $2", hosts/2, hosts*3/4)
		f.exec(t, "UPDATE host_run SET state = 'running', started = now(), rolling = now(), slot = 1 WHERE position = $1", hosts/2)
		f.exec(t, "INSERT INTO container_manager (tenant, name, type, sealed, key_id) VALUES ('default', 'k', 'kubernetes', '', 1)")
		f.exec(t, "INSERT INTO node (tenant, address, manager) SELECT tenant, address, 'k' FROM host")
		f.exec(t, "VACUUM ANALYZE")

		group := []any{op.ID, fleet.DefaultTenant, "c", false, -1, op.Created, 10}
		for name, c := range map[string]struct {
			sql  string
			args []any
		}{
			"tally":    {tallySQL, []any{op.ID, fleet.DefaultTenant, "c", countTo}},
			"unstaged": {unstagedSQL, group},
			"ready":    {readySQL, group},
			"away":     {awaySQL, group},
			"slots":    {slotsInUseSQL, []any{op.ID, "running", true}},
			"claimed":  {claimedSQL, []any{op.ID, 1}},
			"of slot":  {hostOfSlotSQL, []any{op.ID, "running", 1, 0, fleet.StepsThatSpare}},
			"progress": {progressSQL, []any{op.ID}},
			"shared":   {sharedSQL, []any{op.ID, fleet.DefaultTenant, "c", "k"}},
		} {
			if pages[name] == nil {
				pages[name] = map[int]int{}
			}
			pages[name][hosts] = f.pages(t, c.sql, c.args...)
		}
	}
	t.Log(pages)
	for name, by := range pages {
		require.LessOrEqual(t, by[10_000], 2*by[100]+40, "%s", name)
	}
}

// pages runs a statement and counts the pages it touches.
func (f *fixture) pages(t *testing.T, sql string, args ...any) int {
	t.Helper()
	conn, err := f.db.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	var text []byte
	require.NoError(t, conn.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text))
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	require.NoError(t, json.Unmarshal(text, &plans), fmt.Sprint(sql))
	return plans[0].Plan.Hit + plans[0].Plan.Read
}
