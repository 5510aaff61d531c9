package commctl

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
	"commissaire/internal/fleet"
)

// TestSyncTells: a sync that is waited for says what came of it, a dry run also what
// would change of each host; so does the operation when it is read later.
func TestSyncTells(t *testing.T) {
	t.Parallel()
	for dry, c := range map[bool]struct{ line, found, rest string }{
		true: {
			"source sync --dry-run --wait cmdb", "1 would change, 9 same, 2 missing, 1 not here",
			"192.0.2.10 sync | + label rack=a1\n1 would change, 9 same, 2 missing, 1 not here; nothing was changed, this was a dry run\n",
		},
		false: {"source sync --wait cmdb", "1 changed, 9 same, 2 missing, 1 not here", "1 changed, 9 same, 2 missing, 1 not here\n"},
	} {
		s := newOperationServer(t, stream(ev("1-1", "operation", client.Event{At: at(1), State: "succeeded"}), endOfStream))
		s.op = client.Operation{
			Id: testID, Kind: "sync", Source: "cmdb", State: "succeeded", RequestedBy: "alice", CreatedAt: at(0), DryRun: dry,
			Sync: &fleet.SyncCounts{Changed: 1, Same: 9, Missing: 2, Strangers: []string{"192.0.2.99"}},
		}
		s.steps = []client.Step{{Address: "192.0.2.10", Name: "sync", State: "succeeded", OutputSize: 16}}
		s.output["192.0.2.10/sync"] = "+ label rack=a1\n"

		a, code := s.run(t, c.line)
		require.Equal(t, exitOK, code, a.errs)
		_, rest, _ := strings.Cut(a.out.String(), "\n"+testID)
		_, rest, _ = strings.Cut(rest, "\n")
		require.Equal(t, c.rest, rest)

		a, code = s.run(t, c.line+" -o name")
		require.Equal(t, exitOK, code, a.errs)
		require.Equal(t, testID+"\n", a.out.String(), "for scripts nothing but what they asked for")

		a, code = s.run(t, "operations get "+testID)
		require.Equal(t, exitOK, code, a.errs)
		require.Contains(t, a.out.String(), "Source:        cmdb\n")
		require.Contains(t, a.out.String(), "Found:         "+c.found+"\n")
		require.Equal(t, dry, strings.Contains(a.out.String(), "Dry run:       yes\n"))
	}
}
