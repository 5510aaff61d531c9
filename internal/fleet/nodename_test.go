package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckNodeName(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"192.0.2.1", "node-1.example", "a", "1a"} {
		require.NoError(t, CheckNodeName(address), address)
	}
	for _, address := range []string{"2001:db8::1", "node_1", "node-", "node.-a", "a-.b"} {
		err := CheckNodeName(address)
		require.Equal(t, Invalid, KindOf(err), address)
		require.ErrorContains(t, err, address)
	}
}
