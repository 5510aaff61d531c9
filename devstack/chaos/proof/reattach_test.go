package proof

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLastPrinted(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 1795272255166067317)
	require.Equal(t, now, lastPrinted(fmt.Appendf(nil, "run key\n1 %d ...\n2 17952", now.UnixNano())))
	require.Zero(t, lastPrinted([]byte("run key\n")))
}

// A blow counts until output printed after it is stored, unless the command was
// hit again or did not notice.
func TestLags(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1000, 0)
	after := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	printed := func(at, last float64) chunk { return chunk{at: after(at), last: after(last)} }
	chunks := []chunk{printed(1, 0.9), printed(4, 3.9), printed(5, 4.9), printed(9, 8.9)}
	b := &battered{blows: []blow{
		{-1, after(0.5)},  // before the command
		{-1, after(1.5)},  // hit again before it came back
		{-1, after(1.75)}, // 250 ms after the dead worker was given up
		{-1, after(4.5)},  // another worker had it
		{-1, after(10)},   // it was over
	}}
	require.Equal(t, []time.Duration{250 * time.Millisecond}, b.lags("nobody", chunks))
}
