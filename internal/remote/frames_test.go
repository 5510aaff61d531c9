package remote

import (
	"bufio"
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// kept is a sink that wants what stands next and counts it.
type kept struct{ bytes int }

func (k *kept) Output(offset int64, data []byte) (int64, error) {
	k.bytes += len(data)
	return offset + int64(len(data)), nil
}

func (*kept) Alive() {}

// FuzzFrames: whatever a host sends as the answer of our script, there is an
// outcome that can be stored or an error of ours, and no more bytes come out than
// were sent.
func FuzzFrames(f *testing.F) {
	for _, answer := range []string{
		"", "\n", "R d b b 1\nO 0 3\nabcA\nE exit 0 3\n", "R d b c 1\nT 9 2\nxyE lost 11 - its process is gone\n",
		"N boot\n", "P\n", "E boot b\n", "E cancelled\n", "E exit 256 1\n", "E exit 4294967296 0\n", "E exit -1 0\n", "E exit\n",
		"X conflict other command\n", "X space no room\n", "O 0 262145\n", "O -1 1\nx", "O 9223372036854775807 2\nab", "O 0 5\nab",
		"R d b b 9223372036854775807\nP\n", "R d b b x\n", "Z\n", "O 0 0\n", "T 9223372036854775807 1\nxE exit 0 1\n",
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		ended := make(chan struct{})
		close(ended)
		frames := &frames{call: &call{
			conn: &Conn{target: Target{Address: "h", Port: 22}}, ctx: t.Context(), stderr: &limited{max: maxOutput},
			stdout: bufio.NewReaderSize(bytes.NewReader(answer), 64<<10), ended: ended,
		}}
		sink := &kept{}
		o, next, err := frames.follow(sink)
		require.LessOrEqual(t, sink.bytes+len(o.Tail), len(answer))
		if err != nil {
			require.NotEmpty(t, KindOf(err), "%v", err)
			require.Zero(t, o)
			return
		}
		require.Equal(t, int64(-1), next, "the sink never wants to go elsewhere")
		require.Contains(t, []State{Absent, Running, Exited, Indeterminate, BootIDChanged, Cancelled}, o.State)
		require.True(t, o.ExitCode >= 0 && o.ExitCode <= 255, "exit code %d", o.ExitCode)
		require.GreaterOrEqual(t, o.OutputSize, int64(0))
		require.LessOrEqual(t, o.TailOffset, math.MaxInt64-int64(len(o.Tail)))
	})
}
