package authn

import (
	"context"
	"net"
	"net/http"
	"net/netip"
)

type addressKey struct{}

// WithAddress notes the address of the caller, as found out by those who know
// which proxies to trust. Without it the other end of the connection counts.
func WithAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// addressOf gives what stands for the caller's address: an IPv6 caller has a
// network of 64 bits to choose addresses from, so that network counts as one.
func addressOf(ctx context.Context, r *http.Request) string {
	address, _ := ctx.Value(addressKey{}).(string)
	if address == "" {
		address = r.RemoteAddr
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = host
		}
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		return netip.PrefixFrom(ip, 64).Masked().String()
	}
	return ip.String()
}
