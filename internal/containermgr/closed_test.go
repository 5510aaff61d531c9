package containermgr_test

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestClosedInHandshake: a port that takes the connection and closes it in the TLS
// handshake, as a balancer without a backend does, is told of before anybody who waits
// has left: client-go alone would try eleven times, a second apart.
func TestClosedInHandshake(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	var connections atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_, _ = conn.Read(make([]byte, 64<<10)) // the ClientHello, so that it is an EOF and no reset
			_ = conn.Close()
		}
	}()
	k := newManager(t, map[string]any{"server_url": "https://" + listener.Addr().String(), "token": secretWord})
	_, err = k.Status(t.Context(), "x")
	require.Equal(t, fleet.Unavailable, fleet.KindOf(err), err)
	require.ErrorContains(t, err, "takes the connection and closes it without an answer")
	require.EqualValues(t, 2, connections.Load(), "once more, and no more")
}
