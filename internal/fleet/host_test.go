package fleet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestEqualAddressesAreOneKey: else one machine could be in the inventory twice.
func TestEqualAddressesAreOneKey(t *testing.T) {
	t.Parallel()
	for want, given := range map[string][]string{
		"10.0.0.1":          {"10.0.0.1", "10.0.0.1.", "::ffff:10.0.0.1", "::FFFF:a00:1", "0:0:0:0:0:ffff:10.0.0.1"},
		"2001:db8::1":       {"2001:db8::1", "2001:DB8::1", "2001:0db8:0:0:0:0:0:1"},
		"web-1.example.com": {"web-1.example.com", "Web-1.Example.COM", "web-1.example.com.", "WEB-1.EXAMPLE.COM."},
		"h":                 {"h", "H", "h."},
	} {
		for _, s := range given {
			have, err := fleet.ParseAddress(s)
			require.NoError(t, err, s)
			require.Equal(t, want, have, s)
			again, err := fleet.ParseAddress(have)
			require.NoError(t, err, s)
			require.Equal(t, have, again, "a key stands for itself")
		}
	}
	longest := strings.Repeat("a", fleet.MaxAddressLength)
	for _, s := range []string{longest, longest + "."} {
		have, err := fleet.ParseAddress(s)
		require.NoError(t, err)
		require.Equal(t, longest, have)
	}
}

func TestWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", ".", "..", "010.0.0.1", "1", "10.0.0", "h.1", "256.0.0.1", "h..", "a..b", ".h", "-h", "h i", "h/i", "h\x00", "10.0.0.1:22", "[::1]", "::1%eth0", "::ffff:10.0.0.1%eth0", ":", "ü",
		strings.Repeat("a", fleet.MaxAddressLength+1), strings.Repeat("1:", 300),
	} {
		_, err := fleet.ParseAddress(s)
		require.Equal(t, fleet.Invalid, fleet.KindOf(err), "%q", s)
	}
}
