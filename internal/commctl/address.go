package commctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// resolve gives the address under which the server knows a host: old clients look
// up names and use the first IPv4 address. Addresses stay as they are.
func resolve(ctx context.Context, host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err == nil && len(found) == 0 {
		err = errors.New("it has no IPv4 address")
	}
	if err != nil {
		return "", fmt.Errorf("host %q cannot be resolved (%w); --no-resolve uses the name as it is", host, err)
	}
	return found[0].Unmap().String(), nil
}
