package containermgr

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestAway: why there is no connection is told apart, since each is mended elsewhere.
func TestAway(t *testing.T) {
	t.Parallel()
	k := &Kubernetes{kind: fleet.ContainerManagerKubernetes, server: "https://kube.example:6443"}
	said := map[string]bool{}
	for says, cause := range map[string]error{
		"no address is known for its name":  &net.DNSError{Err: "no such host", Name: "kube.example", IsNotFound: true},
		"its name could not be looked up":   &net.DNSError{Err: "server misbehaving", Name: "kube.example", IsTemporary: true},
		"it refuses connections":            os.NewSyscallError("connect", syscall.ECONNREFUSED),
		"nothing there answered within 5s":  os.ErrDeadlineExceeded,
		"check its address and the network": os.NewSyscallError("connect", syscall.EHOSTUNREACH),
	} {
		dial := &url.Error{Op: "Get", URL: "https://kube.example:6443/version", Err: &net.OpError{Op: "dial", Net: "tcp", Err: cause}}
		err := k.explain(t.Context(), "ask for the version", &call{}, dial)
		require.Equal(t, fleet.Unavailable, fleet.KindOf(err))
		detail := err.(*fleet.Error).Detail
		require.Contains(t, detail, "could not ask for the version: kubernetes at https://kube.example:6443 cannot be reached: "+says)
		said[detail] = true
	}
	require.Len(t, said, 5, fmt.Sprint(said))
}
