package commctl

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

// at is a time of the API, so many seconds into a test's operation.
func at(seconds int) string {
	return time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second).Format("2006-01-02T15:04:05.000000")
}

func texts(lines []painted) (all []string) {
	for _, l := range lines {
		all = append(all, l.text)
	}
	return all
}

// What stands in the way of a step is told as long as it does.
func TestProgressTellsOfTrouble(t *testing.T) {
	t.Parallel()
	p := newProgress(client.Operation{Kind: "restart", Cluster: "web", State: "running"})
	step := func(second int, reason string) string {
		return p.apply(event{name: "step", Event: client.Event{At: at(second), Address: "192.0.2.10", Step: "check", Attempt: 1, State: "running", Reason: reason}})
	}
	p.apply(event{name: "host", Event: client.Event{At: at(0), Address: "192.0.2.10", State: "running"}})
	require.Equal(t, "2026-11-20T14:00:01Z 192.0.2.10: check", step(1, ""))
	require.Equal(t, "2026-11-20T14:00:05Z 192.0.2.10: check: connection refused", step(5, "connection refused"))
	require.Equal(t, "  192.0.2.10      1m  check: connection refused", texts(p.lines(parseTime(at(61)), 20))[0])
	require.Equal(t, "2026-11-20T14:01:02Z 192.0.2.10: check goes on", step(62, ""))
	require.Equal(t, "  192.0.2.10    1m1s  check", texts(p.lines(parseTime(at(62)), 20))[0])
}

func TestProgress(t *testing.T) {
	t.Parallel()
	p := newProgress(client.Operation{Kind: "upgrade", Cluster: "web", State: "running", Progress: &client.Progress{Total: 4}})
	var told []string
	for _, e := range []event{
		{name: "operation", Event: client.Event{At: at(0), State: "pending"}},
		{name: "host", Event: client.Event{At: at(0), Address: "192.0.2.10", State: "pending"}},
		{name: "host", Event: client.Event{At: at(0), Address: "192.0.2.9", State: "pending"}},
		{name: "operation", Event: client.Event{At: at(1), State: "running"}},
		{name: "host", Event: client.Event{At: at(1), Address: "192.0.2.10", State: "running"}},
		{name: "host", Event: client.Event{At: at(1), Address: "192.0.2.9", State: "staging"}},
		{name: "step", Event: client.Event{At: at(2), Address: "192.0.2.10", Step: "upgrade", Attempt: 2, State: "running"}},
		{name: "step", Event: client.Event{At: at(3), Address: "192.0.2.9", Step: "stage", Attempt: 1, State: "failed", Reason: "rpm-ostree ended with exit code 1; it said: \x1b[2Jno", ExitCode: pointer(1)}},
		{name: "host", Event: client.Event{At: at(3), Address: "192.0.2.9", State: "failed", Reason: "step stage: rpm-ostree ended with exit code 1"}},
		{name: "steer", Event: client.Event{At: at(4), Action: "policy", By: "alice", Detail: `{"window":{"start":"22:00","end":"04:00"},"max_unavailable":"10%"}`}},
		{name: "output", Event: client.Event{At: at(4), Text: "hello"}},
	} {
		if line := p.apply(e); line != "" {
			told = append(told, line)
		}
	}
	require.Equal(t, []string{
		"2026-11-20T14:00:00Z upgrade of web: pending",
		"2026-11-20T14:00:01Z upgrade of web: running",
		"2026-11-20T14:00:01Z 192.0.2.10: running",
		"2026-11-20T14:00:01Z 192.0.2.9: staging",
		"2026-11-20T14:00:02Z 192.0.2.10: upgrade, attempt 2",
		"2026-11-20T14:00:03Z 192.0.2.9: stage failed: rpm-ostree ended with exit code 1",
		"2026-11-20T14:00:03Z 192.0.2.9: failed: step stage: rpm-ostree ended with exit code 1",
		`2026-11-20T14:00:04Z upgrade of web: policy changed by alice: max_unavailable=10% window={"start":"22:00","end":"04:00"}`,
	}, told)

	now := parseTime(at(62))
	p.op.Waiting, p.op.ExpectedEnd = "paused by alice", at(362)
	require.Equal(t, []string{
		"  192.0.2.10      1m  upgrade (attempt 2)",
		"upgrade of web: running, 0/4 done, 1 failed, waiting: paused by alice, expected end 14:06 UTC (in 5m)",
	}, texts(p.lines(now, 20)))
	p.ahead = time.Hour
	require.Contains(t, texts(p.lines(now.Add(-time.Hour), 20))[0], "  1m  ", "times are the server's")
	p.ahead = 0

	for i := range 30 {
		p.apply(event{name: "host", Event: client.Event{At: at(61), Address: fmt.Sprintf("198.51.100.%d", i), State: "running"}})
	}
	lines := texts(p.lines(now, 4))
	require.Equal(t, []string{"  192.0.2.10         1m  upgrade (attempt 2)", "  198.51.100.0       1s  running", "  198.51.100.1       1s  running", "  and 28 more at work"}, lines[:4])
	require.Len(t, lines, 5)

	p.apply(event{name: "operation", Event: client.Event{At: at(70), State: "failed", Reason: "a host failed"}})
	require.Equal(t, painted{text: "upgrade of web: failed, 0/4 done, 1 failed", sgr: "31", wrap: true}, p.summary(now), "nothing is waited for any more")
}

func TestLasting(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"0s": -time.Second, "1.2s": 1234 * time.Millisecond, "12s": 12300 * time.Millisecond, "5m": 5 * time.Minute, "1h": time.Hour, "1h0m5s": time.Hour + 5*time.Second, "720h": 720 * time.Hour,
	} {
		require.Equal(t, want, lasting(d))
	}
}
