package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// forwardedFor is the header in which each proxy notes whom it serves, behind
// those before it.
const forwardedFor = "X-Forwarded-For"

// peerOf is the address of the TCP peer, invalid when there is none.
func peerOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return plainAddr(ap.Addr())
}

// callerOf is where a request comes from: the TCP peer, or what proxies say of it
// when the peer is one of ours. Anybody can send the header, and PUT /host makes
// a host of this address, so it is read from the end, where our proxies write,
// up to the first hop that is none of ours. When all are, it is the first of them.
// At a hop that is no address the one behind it, which wrote it down, counts.
func callerOf(r *http.Request, proxies []netip.Prefix) netip.Addr {
	caller := peerOf(r)
	if !trusted(caller, proxies) {
		return caller
	}
	hops := strings.Split(strings.Join(r.Header.Values(forwardedFor), ","), ",")
	for _, hop := range slices.Backward(hops) {
		before, ok := parseHop(strings.TrimSpace(hop))
		if !ok {
			return caller
		}
		caller = before
		if !trusted(caller, proxies) {
			return caller
		}
	}
	return caller
}

func trusted(a netip.Addr, proxies []netip.Prefix) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseHop reads one entry of the header; some proxies add the port.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return plainAddr(a), true
	}
	ap, err := netip.ParseAddrPort(s)
	return plainAddr(ap.Addr()), err == nil
}

// plainAddr gives the form in which equal addresses are equal.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// addrText writes an address, "" when there is none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
