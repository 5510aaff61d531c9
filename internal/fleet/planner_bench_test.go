package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// The mix of hosts in BenchmarkSlots. A host takes from fastLeast to fastMost, a
// slow one slow, and each up to noise more.
const (
	mixHosts  = 100
	mixSlots  = 20
	mixSlow   = 10
	fastLeast = 1 * time.Minute
	fastMost  = 5 * time.Minute
	slow      = 30 * time.Minute
	noise     = 1 * time.Minute
	mixTrials = 400
)

// BenchmarkSlots compares two ways to roll over the same hosts by a simulated
// clock: slots that are handed on as soon as a host is done, as the planner hands
// them out, and batches of which each waits for its slowest host. It prints the
// means of all trials.
func BenchmarkSlots(b *testing.B) {
	var lockstep, sliding time.Duration
	for range b.N {
		random := rand.New(rand.NewPCG(1, 2))
		lockstep, sliding = 0, 0
		for range mixTrials {
			took := mix(random)
			lockstep += inBatches(took, mixSlots) / mixTrials
			sliding += inSlots(b, took, mixSlots) / mixTrials
		}
	}
	ratio := float64(lockstep) / float64(sliding)
	fmt.Printf("slots: lockstep_min=%.0f sliding_min=%.0f ratio=%.1f\n", lockstep.Minutes(), sliding.Minutes(), ratio)
	require.Greater(b, ratio, 1.0)
}

// mix gives how long each host takes, in the order of the rollout.
func mix(random *rand.Rand) []time.Duration {
	took := make([]time.Duration, mixHosts)
	for i := range took {
		took[i] = fastLeast + time.Duration(random.Int64N(int64(fastMost-fastLeast)))
		if i < mixSlow {
			took[i] = slow
		}
		took[i] += time.Duration(random.Int64N(int64(noise)))
	}
	random.Shuffle(len(took), func(i, j int) { took[i], took[j] = took[j], took[i] })
	return took
}

// inBatches is how long a rollout takes that starts a batch when the last host
// of the one before is done.
func inBatches(took []time.Duration, size int) (sum time.Duration) {
	for batch := range slices.Chunk(took, size) {
		sum += slices.Max(batch)
	}
	return sum
}

// inSlots is how long a rollout takes that asks the planner each time a host is
// done.
func inSlots(b *testing.B, took []time.Duration, slots int) time.Duration {
	begin := time.Date(2024, 5, 1, 8, 0, 0, 0, time.UTC)
	policy := fleet.Policy{MaxUnavailable: fleet.Count(slots)}
	var running []time.Time // when each host at work will be done
	now, started := begin, 0
	for {
		d := policy.Next(fleet.Tally{
			Hosts: len(took),
			Rest:  fleet.Group{Ready: len(took) - started, Running: len(running)},
		}, fleet.Steering{}, now)
		if d.End != "" {
			require.Equal(b, fleet.OperationSucceeded, d.End, d.Reason)
			return now.Sub(begin)
		}
		for _, t := range took[started : started+d.Start] {
			running = append(running, now.Add(t))
		}
		started += d.Start
		require.NotEmpty(b, running, "nothing runs and nothing is started: %s", d.Waiting)
		require.LessOrEqual(b, len(running), slots)
		now = slices.MinFunc(running, time.Time.Compare)
		running = slices.DeleteFunc(running, func(t time.Time) bool { return t.Equal(now) })
	}
}
