package scale

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProcessorTimes(t *testing.T) {
	t.Parallel()
	begun, before, err := processorTimes([]int{os.Getpid()})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // this spins
		for range 1_000_000 {
		}
		_, now, err := processorTimes([]int{os.Getpid()})
		return err == nil && now[0] > before[0]
	}, time.Minute, time.Millisecond)
	require.WithinDuration(t, time.Now(), begun, time.Minute)
	_, _, err = processorTimes([]int{1 << 30})
	require.Error(t, err)
}

func TestWhatAWatchMayTake(t *testing.T) {
	t.Parallel()
	good := WatchResult{Hosts: 10000, Interval: time.Minute, WorkerCPU: 0.5, TemporalCPU: 0.25, ServerCPU: 2, WorkerMB: 600, TemporalMB: 400}
	require.True(t, good.OK())
	require.Equal(t, "watch: hosts=10000 interval_s=60 cpu=0.75 worker_cpu=0.50 temporal_cpu=0.25 server_cpu=2.00 worker_mb=600 temporal_mb=400 late=0 unhealthy=0", good.String())
	for _, change := range []func(*WatchResult){
		func(r *WatchResult) { r.WorkerCPU = 0.75 }, func(r *WatchResult) { r.TemporalMB = 424 }, func(r *WatchResult) { r.Late = 1 }, func(r *WatchResult) { r.Unhealthy = 1 },
	} {
		bad := good
		change(&bad)
		require.False(t, bad.OK())
	}
}
