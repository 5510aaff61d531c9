package loopback

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A port that was given out is not given to anybody else, though nothing listens on it.
func TestAPortIsGivenOnce(t *testing.T) {
	t.Parallel()
	var port int
	require.NoError(t, Choose(Wanted{Port: &port, What: "a server"}))
	_, err := book(port)
	require.Error(t, err)
	for range 2 { // its owner may start and stop there
		l, err := Listen(port)
		require.NoError(t, err)
		require.Equal(t, port, l.Addr().(*net.TCPAddr).Port)
		require.NoError(t, l.Close())
	}
}
