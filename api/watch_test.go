package api

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
)

func TestWhatChecksFoundIsShown(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 14, 3, 0, 0, time.UTC)
	shown := func(w fleet.Watch) string {
		text, err := json.Marshal(host(fleet.Host{Address: "h", Watch: w}).Watch)
		require.NoError(t, err)
		return string(text)
	}
	require.Equal(t, "null", shown(fleet.Watch{}))
	require.JSONEq(t, `{"state": "healthy", "since": "2026-11-20T14:03:00.000000", "failures": 0, "checked_at": "2026-11-20T14:04:00.000000"}`,
		shown(fleet.Watch{State: fleet.WatchHealthy, Since: at, Checked: at.Add(time.Minute)}))
	require.JSONEq(t, `{"state": "key-changed", "reason": "another key", "since": "2026-11-20T14:03:00.000000", "failures": 2, "checked_at": "2026-11-20T14:03:00.000000", "rebooted_at": "2026-11-20T14:03:00.000000"}`,
		shown(fleet.Watch{State: fleet.WatchKeyChanged, Reason: "another key", Since: at, Failures: 2, Checked: at, Rebooted: at}))
	// As text: the type of the document has no list of its own.
	require.ElementsMatch(t, fleet.WatchStates, []fleet.WatchState{
		fleet.WatchState(gen.Healthy), fleet.WatchState(gen.Slow), fleet.WatchState(gen.Unreachable), fleet.WatchState(gen.AuthRefused), fleet.WatchState(gen.KeyChanged), fleet.WatchState(gen.Rebooting),
	}, "the document names every state")
}
