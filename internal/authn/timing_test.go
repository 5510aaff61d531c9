package authn

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
)

// How long a refusal takes does not tell whether there is such a user, whatever the
// cost of the user's hash. Time is that of the processor, which a machine under load
// stretches far less than that of the clock; the tries alternate, so that it
// stretches all alike; and medians leave out what hits single ones. The race detector
// makes bcrypt a dozen times slower, so there are fewer tries with it.
func TestTimeDoesNotTellWhichUsersExist(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	users := map[string]User{}
	for name, cost := range map[string]int{"cheap": 4, "costly": 6} { // a millisecond, and four
		hash, err := bcrypt.GenerateFromPassword([]byte("pw"), cost)
		require.NoError(t, err)
		users[name] = User{Hash: string(hash)}
	}
	b := setup(t, BasicOptions{Users: users})
	callers := []string{"cheap", "costly", "nobody"}
	const tries, attempts = timedTries, 3
	for attempt := 1; ; attempt++ {
		took := map[string][]time.Duration{}
		for range tries {
			for _, name := range callers {
				begin := processorTime(t)
				_, err := b.try(t, basicHeader(name+":wrong"))
				took[name] = append(took[name], processorTime(t)-begin)
				require.ErrorIs(t, err, ErrDenied)
			}
		}
		var medians []time.Duration
		for _, name := range callers {
			slices.Sort(took[name])
			medians = append(medians, took[name][tries/2])
		}
		gap := slices.Max(medians) - slices.Min(medians)
		t.Logf("medians of %v: %v, gap %v", callers, medians, gap)
		if gap < slices.Max(medians)/4 { // without padding it is three quarters
			require.Less(t, gap, 5*time.Millisecond*slowdown)
			return
		}
		require.Less(t, attempt, attempts, "the gap is %v", gap)
	}
}

// processorTime is what this thread has used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts))
	return time.Duration(ts.Nano())
}
