package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones also where the system has none
)

// Window is when hosts may be started. One that began in time is brought to its
// end.
type Window struct {
	// Days on which the window opens: mon, tue, wed, thu, fri, sat, sun. None means
	// every day.
	Days []string `json:"days,omitempty"`
	// Start and End are times of day, "22:00". A window whose end is not after its
	// start reaches into the next day.
	Start string `json:"start"`
	End   string `json:"end"`
	// TimeZone is a name of the IANA database, "Europe/Berlin"; "" means UTC.
	TimeZone string `json:"time_zone,omitempty"`
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // by time.Weekday

// Check refuses a window that never opens or cannot be read.
func (w Window) Check() error {
	for _, day := range w.Days {
		if !slices.Contains(dayNames, day) {
			return fmt.Errorf("days must be of %s", strings.Join(dayNames, ", "))
		}
	}
	if _, _, err := clock(w.Start); err != nil {
		return fmt.Errorf("start %w", err)
	}
	if _, _, err := clock(w.End); err != nil {
		return fmt.Errorf("end %w", err)
	}
	if w.TimeZone == "Local" {
		return errors.New("time_zone must be a name such as Europe/Berlin")
	}
	if _, err := time.LoadLocation(w.TimeZone); err != nil {
		return errors.New("time_zone must be a name such as Europe/Berlin")
	}
	return nil
}

func clock(s string) (hour, minute int, err error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, 0, errors.New("must be a time of day such as 22:00")
	}
	return t.Hour(), t.Minute(), nil
}

// Next says whether the window is open at now, and when that changes: the moment
// it closes while it is open, else the next moment it opens. The window must have
// passed Check.
func (w Window) Next(now time.Time) (open bool, change time.Time) {
	zone, err := time.LoadLocation(w.TimeZone)
	if err != nil {
		zone = time.UTC
	}
	local := now.In(zone)
	// A window that opened yesterday may still be open. Ten days ahead hold every
	// weekday, also when a change of the clock swallows one opening.
	for day := -1; day <= 10; day++ {
		from, to := w.on(local.Year(), local.Month(), local.Day()+day, zone)
		switch {
		case !from.Before(to):
			continue // not on this day
		case now.Before(from):
			return false, from
		case now.Before(to):
			return true, w.closing(to, zone)
		}
	}
	return false, now.Add(24 * time.Hour)
}

// closing skips openings that follow each other without a gap.
func (w Window) closing(to time.Time, zone *time.Location) time.Time {
	for range 7 {
		local := to.In(zone)
		from, next := w.on(local.Year(), local.Month(), local.Day(), zone)
		if !from.Before(next) || from.After(to) || !next.After(to) {
			break
		}
		to = next
	}
	return to
}

// on gives the opening that begins on a day; from is not before to when there is
// none. Days beyond the month's are the next month's, as time.Date has it.
func (w Window) on(year int, month time.Month, day int, zone *time.Location) (from, to time.Time) {
	noon := time.Date(year, month, day, 12, 0, 0, 0, zone)
	if len(w.Days) > 0 && !slices.Contains(w.Days, dayNames[noon.Weekday()]) {
		return from, to
	}
	sh, sm, _ := clock(w.Start)
	eh, em, _ := clock(w.End)
	if eh*60+em <= sh*60+sm {
		day++
	}
	return time.Date(noon.Year(), noon.Month(), noon.Day(), sh, sm, 0, 0, zone), time.Date(year, month, day, eh, em, 0, 0, zone)
}
