package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, s)
	require.NoError(t, err)
	return out
}

func TestWindows(t *testing.T) {
	t.Parallel()
	night := Window{Start: "22:00", End: "04:00", TimeZone: "Europe/Berlin"}
	weekend := Window{Days: []string{"sat"}, Start: "20:00", End: "06:00", TimeZone: "America/New_York"}
	gap := Window{Start: "02:30", End: "03:30", TimeZone: "Europe/Berlin"}
	always := Window{Start: "00:00", End: "00:00"}
	for _, c := range []struct {
		name   string
		w      Window
		now    string
		open   bool
		change string
	}{
		{"before it", night, "2026-11-21T12:00:00Z", false, "2026-11-21T21:00:00Z"},
		{"in it", night, "2026-11-21T21:00:00Z", true, "2026-11-22T03:00:00Z"},
		{"past midnight", night, "2026-11-22T01:00:00Z", true, "2026-11-22T03:00:00Z"},
		{"at its end", night, "2026-11-22T03:00:00Z", false, "2026-11-22T21:00:00Z"},
		{"summer time ends in it", night, "2026-10-24T23:30:00Z", true, "2026-10-25T03:00:00Z"},
		{"summer time begins in it", night, "2026-03-28T23:30:00Z", true, "2026-03-29T02:00:00Z"},
		{"the day is that of its start", weekend, "2026-11-22T10:00:00Z", true, "2026-11-22T11:00:00Z"},
		{"another weekday", weekend, "2026-11-22T12:00:00Z", false, "2026-11-29T01:00:00Z"},
		{"a start that the clock skips is no opening", gap, "2026-03-28T12:00:00Z", false, "2026-03-30T00:30:00Z"},
		{"the clock skips the only one of the week", Window{Days: []string{"sun"}, Start: "02:30", End: "03:15", TimeZone: "Europe/Berlin"}, "2026-03-26T00:00:00Z", false, "2026-04-05T00:30:00Z"},
		{"leap day", Window{Days: []string{"tue"}, Start: "10:00", End: "11:00"}, "2028-02-28T12:00:00Z", false, "2028-02-29T10:00:00Z"},
		{"new year", night, "2026-12-31T23:00:00Z", true, "2027-01-01T03:00:00Z"},
		{"around the clock", always, "2026-11-21T12:00:00Z", true, "2026-11-29T00:00:00Z"},
	} {
		require.NoError(t, c.w.Check(), c.name)
		open, change := c.w.Next(at(t, c.now))
		require.Equal(t, c.open, open, c.name)
		require.Equal(t, c.change, change.UTC().Format(time.RFC3339), c.name)
	}
}

// At any moment, in any zone, over any change of the clock: the change lies ahead,
// nothing changes before it, and who waits for openings gets into the window soon.
func TestAWindowIsWhatItSays(t *testing.T) {
	t.Parallel()
	zones := []string{"", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca"}
	minute := func(t *rapid.T, what string) string {
		return time.Date(2000, 1, 1, 0, rapid.IntRange(0, 24*60-1).Draw(t, what), 0, 0, time.UTC).Format("15:04")
	}
	rapid.Check(t, func(t *rapid.T) {
		w := Window{Start: minute(t, "start"), End: minute(t, "end"), TimeZone: rapid.SampledFrom(zones).Draw(t, "zone")}
		for _, day := range dayNames {
			if rapid.Bool().Draw(t, day) {
				w.Days = append(w.Days, day)
			}
		}
		if err := w.Check(); err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1_500_000_000, 2_200_000_000).Draw(t, "now"), 0)
		for range 3 {
			open, change := w.Next(now)
			if !change.After(now) {
				t.Fatalf("at %s it changes at %s", now, change)
			}
			// Next looks so far ahead: a change of the clock may swallow the opening of a week.
			if change.Sub(now) > 11*24*time.Hour {
				t.Fatalf("at %s nothing changes before %s", now, change)
			}
			for _, before := range []time.Duration{time.Second, change.Sub(now) / 2} {
				if is, _ := w.Next(change.Add(-before)); is != open && change.Sub(now) > before {
					t.Fatalf("open is %t at %s and %t %s before %s", open, now, is, before, change)
				}
			}
			zone, _ := time.LoadLocation(w.TimeZone)
			local := now.In(zone)
			if open && len(w.Days) > 0 && !slices.Contains(w.Days, dayNames[local.Weekday()]) && !slices.Contains(w.Days, dayNames[local.AddDate(0, 0, -1).Weekday()]) {
				t.Fatalf("open on a %s (%s)", local.Weekday(), now)
			}
			now = change
		}
	})
}

func TestBadWindows(t *testing.T) {
	t.Parallel()
	for _, w := range []Window{
		{}, {Start: "22:00"}, {Start: "22:00", End: "4:00"}, {Start: "24:00", End: "04:00"}, {Start: "22:60", End: "04:00"},
		{Start: "22:00", End: "04:00", TimeZone: "Mars/Olympus"}, {Start: "22:00", End: "04:00", TimeZone: "Local"},
		{Start: "22:00", End: "04:00", TimeZone: "../etc/passwd"}, {Start: "22:00", End: "04:00", Days: []string{"monday"}},
	} {
		require.Error(t, w.Check(), "%+v", w)
	}
}
