package fleet

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One machine has one key: the form of an address is its own form.
func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{"web1", "WEB1.Example.org.", "192.0.2.1", "010.0.0.1", "::ffff:192.0.2.1", "2001:DB8::0:1", "fe80::1%eth0", "[::1]:22", "web1:22", "-o", "..", ".", "a..b", "1", "0x7f.1", "ü"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		address, err := ParseAddress(text)
		if err != nil {
			require.Equal(t, Invalid, KindOf(err))
			require.Less(t, len(err.Error()), 300)
			return
		}
		require.LessOrEqual(t, len(address), MaxAddressLength)
		require.Empty(t, strings.Trim(address, "abcdefghijklmnopqrstuvwxyz0123456789_.:-"), "%q", address)
		require.NotContains(t, "-.", address[:1], "ssh would take it for an option")
		again, err := ParseAddress(address)
		require.NoError(t, err, "%q of %q", address, text)
		require.Equal(t, address, again, "%q", text)
	})
}

// What goes into paths, commands and login names holds nothing that means more
// there.
func FuzzNames(f *testing.F) {
	for _, text := range []string{"", "web", "-r", "--reboot", "a b", "$(id)", "a\n", "../x", "_apt", "Root", "host$", "43.20261101.0", "quay.io/x@sha256:0123", "example.org/rack-1", "ü", strings.Repeat("a", 300)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plain := func(name, allowed string, err error) {
			t.Helper()
			if err != nil {
				require.Less(t, len(err.Error()), 300, name)
				return
			}
			require.LessOrEqual(t, len(text), 256, name)
			for _, r := range strings.ToLower(text) {
				require.True(t, r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(allowed, r), "%s %q", name, text)
			}
		}
		name, err := ParseName("name", text)
		plain("name", "-_", err)
		require.True(t, err != nil || name == text)

		user, err := ParseRemoteUser(text)
		plain("user", "_.-$", err)
		require.True(t, err != nil || user == text || text == "" && user == DefaultRemoteUser)
		require.False(t, strings.HasPrefix(user, "-"))

		version, err := ParseVersion(text)
		plain("version", "._+~:/@-", err)
		require.True(t, err != nil || version == text)
		require.False(t, strings.HasPrefix(version, "-"))

		plain("label", "-_./", ParseLabelValue(text))
	})
}

// Amounts and times are written in a form that is read as the same.
func FuzzAmountAndDuration(f *testing.F) {
	for _, text := range []string{"", "5", "10%", "101%", "-1", "+1", "1e3", "%", "2147483648", "90s", "1h30m", "-1s", "1.5h", "9999999h", "0x10", "1us", "31536000"} {
		f.Add(text, 10)
	}
	f.Fuzz(func(t *testing.T, text string, total int) {
		if a, err := ParseAmount(text); err == nil {
			written, err := json.Marshal(a)
			require.NoError(t, err)
			var again Amount
			require.NoError(t, json.Unmarshal(written, &again), "%s", written)
			require.Equal(t, a, again)
			total = int(uint32(total) >> 1) // so many hosts nobody has
			require.LessOrEqual(t, a.Floor(total), a.Ceil(total))
			require.GreaterOrEqual(t, a.Floor(total), 0)
			require.True(t, !a.Percent || a.Ceil(total) <= total, "%s of %d", a, total)
		}
		if d, err := ParseDuration(text); err == nil {
			require.True(t, d >= 0 && time.Duration(d) <= MaxDuration, "%s", d)
			written, err := json.Marshal(d)
			require.NoError(t, err)
			var again Duration
			require.NoError(t, json.Unmarshal(written, &again), "%s", written)
			require.Equal(t, d, again)
		}
	})
}

// A window that is taken changes again, later than now.
func FuzzWindow(f *testing.F) {
	f.Add("sat", "22:00", "04:00", "Europe/Berlin", int64(1_800_000_000))
	f.Add("", "00:00", "00:00", "", int64(0))
	f.Add("mon", "02:30", "03:30", "Pacific/Apia", int64(1_325_200_000))
	f.Add("monday", "4:00", "24:00", "../etc/passwd", int64(-1))
	f.Fuzz(func(t *testing.T, day, start, end, zone string, now int64) {
		w := Window{Start: start, End: end, TimeZone: zone}
		if day != "" {
			w.Days = []string{day}
		}
		if err := w.Check(); err != nil {
			require.Less(t, len(err.Error()), 200)
			return
		}
		at := time.Unix(now%(1<<32), 0)
		_, change := w.Next(at)
		require.True(t, change.After(at), "%+v: at %s it changes at %s", w, at, change)
	})
}
