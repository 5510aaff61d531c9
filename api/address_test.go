package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCallerAddress(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:f::1/128")}
	for name, test := range map[string]struct {
		peer    string
		headers []string
		want    string
	}{
		"no proxy":                     {"192.0.2.7:40000", nil, "192.0.2.7"},
		"a header of a stranger":       {"192.0.2.7:40000", []string{"198.51.100.1"}, "192.0.2.7"},
		"one proxy":                    {"10.0.0.1:40000", []string{"192.0.2.7"}, "192.0.2.7"},
		"a client that lies":           {"10.0.0.1:40000", []string{"198.51.100.1, 192.0.2.7"}, "192.0.2.7"},
		"lies in headers before":       {"10.0.0.1:40000", []string{"198.51.100.1", "192.0.2.7"}, "192.0.2.7"},
		"two proxies":                  {"10.0.0.1:40000", []string{"192.0.2.7, 10.0.0.2"}, "192.0.2.7"},
		"no header":                    {"10.0.0.1:40000", nil, "10.0.0.1"},
		"an empty header":              {"10.0.0.1:40000", []string{""}, "10.0.0.1"},
		"all of them ours":             {"10.0.0.1:40000", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		"no address":                   {"10.0.0.1:40000", []string{"unknown"}, "10.0.0.1"},
		"no address behind a proxy":    {"10.0.0.1:40000", []string{"192.0.2.7, garbage, 10.0.0.2"}, "10.0.0.2"},
		"with a port":                  {"10.0.0.1:40000", []string{"192.0.2.7:51234"}, "192.0.2.7"},
		"IPv6":                         {"[2001:db8:f::1]:40000", []string{"2001:DB8::7"}, "2001:db8::7"},
		"IPv6 in brackets, with port":  {"[2001:db8:f::1]:40000", []string{"[2001:db8::7]:51234"}, "2001:db8::7"},
		"IPv6 in brackets":             {"[2001:db8:f::1]:40000", []string{"[2001:db8::7]"}, "2001:db8::7"},
		"IPv4 written as IPv6":         {"[::ffff:10.0.0.1]:40000", []string{"::ffff:192.0.2.7"}, "192.0.2.7"},
		"a zone":                       {"[fe80::1%eth0]:40000", nil, "fe80::1"},
		"no TCP at all":                {"@", []string{"192.0.2.7"}, ""},
		"another IPv6 of that network": {"[2001:db8:f::2]:40000", []string{"192.0.2.7"}, "2001:db8:f::2"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = test.peer
		for _, h := range test.headers {
			r.Header.Add("X-Forwarded-For", h)
		}
		r.Header.Set("X-Real-IP", "203.0.113.9")
		require.Equal(t, test.want, addrText(callerOf(r, proxies)), name)
	}
}

// FuzzCallerOf: whatever the header says, the caller is an address in its plain
// form, and a peer that is no proxy of ours is never taken for another.
func FuzzCallerOf(f *testing.F) {
	for _, header := range []string{"192.0.2.7", "192.0.2.7, 10.0.0.2", "unknown", "[2001:db8::7]:51234", "::ffff:192.0.2.7", ",,", "fe80::1%eth0", "10.0.0.2, 10.0.0.3"} {
		f.Add(header)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, header string) {
		for peer, isProxy := range map[string]bool{"10.0.0.1": true, "192.0.2.1": false} {
			r := &http.Request{RemoteAddr: peer + ":1", Header: http.Header{forwardedFor: {header}}}
			caller := callerOf(r, proxies)
			if !caller.IsValid() || caller.Is4In6() || caller.Zone() != "" {
				t.Fatalf("%q gives %q", header, caller)
			}
			if !isProxy && caller.String() != peer {
				t.Fatalf("%q of a stranger is believed", header)
			}
		}
	})
}
