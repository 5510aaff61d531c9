package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
)

// A command that prints 100 MB, with escape codes in it, fills neither Postgres
// nor memory, and the record says what was left out.
func TestAHundredMegabytesOfOutput(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, "COMMISSAIRE_STEP_TIMEOUT=10m") // on a busy machine it takes minutes
	w := s.worker()
	h := s.Fleet.Hosts()[0]
	s.bootstrap(harness.Cluster, h)
	const size = 100 << 20
	require.NoError(t, h.Publish("bash", "2.0"))
	require.NoError(t, h.OnCommand("apt-get", fmt.Sprintf(`case " $* " in *" -s "*|*update*) ;; *upgrade*)
  printf '\033]0;owned\007first\n'; head -c %d /dev/zero | tr '\0' x; printf '\nlast\n' ;; esac`, size)))
	op := s.end(s.order("upgrade", nil))
	require.Equal(t, "succeeded", op.State, op.Reason)
	require.Equal(t, "2.0", h.Package("bash"))

	var printed int64
	for _, step := range s.steps(op.ID) {
		if step.Name == "upgrade" {
			printed = step.OutputSize
		}
	}
	require.Greater(t, printed, int64(size), "the record knows how much it printed")
	stored := s.count("SELECT coalesce(sum(octet_length(data)), 0) FROM output")
	require.LessOrEqual(t, stored, fleet.OutputHead+fleet.OutputTail+64<<10)

	path := "operations/" + op.ID + "/hosts/" + h.Address() + "/steps/upgrade/output"
	begin := s.ask(http.StatusOK, http.MethodGet, path+"?limit=1000", nil)
	require.Contains(t, string(begin.Body), "\x1b]0;owned\afirst\nxxx", "byte for byte")
	require.Equal(t, "application/octet-stream", begin.Header.Get("Content-Type"))
	gap := s.ask(http.StatusOK, http.MethodGet, fmt.Sprintf("%s?offset=%d&limit=1048576", path, fleet.OutputHead), nil)
	from, err := strconv.ParseInt(gap.Header.Get("Output-Offset"), 10, 64)
	require.NoError(t, err)
	require.Greater(t, from, int64(fleet.OutputHead), "the gap shows as a jump")
	require.Contains(t, string(gap.Body), "\nlast\n", "and the end is there")

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Process.Pid))
	require.NoError(t, err)
	var peak int
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			peak, err = strconv.Atoi(strings.Fields(value)[0])
			require.NoError(t, err)
		}
	}
	require.Less(t, peak, 200<<10, "peak memory of the worker in KiB")
}
