package fleet

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Amount is a number of hosts, or a percentage of the hosts of an operation.
// In JSON it is a number or a text: 5, "5" or "10%".
type Amount struct {
	Value   int
	Percent bool
}

// Count is so many hosts.
func Count(n int) *Amount { return &Amount{Value: n} }

// Percent is so many hosts out of a hundred.
func Percent(n int) *Amount { return &Amount{Value: n, Percent: true} }

// ParseAmount reads "5" or "10%". Numbers below zero and percentages above 100
// are refused.
func ParseAmount(s string) (Amount, error) {
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || (percent && n > 100) {
		return Amount{}, fmt.Errorf("must be a number of hosts, or a percentage such as \"10%%\"")
	}
	return Amount{Value: int(n), Percent: percent}, nil
}

func (a Amount) String() string {
	if a.Percent {
		return strconv.Itoa(a.Value) + "%"
	}
	return strconv.Itoa(a.Value)
}

// Floor is the amount out of total hosts; a part of a host is no host.
func (a Amount) Floor(total int) int {
	if !a.Percent {
		return a.Value
	}
	return a.Value * total / 100
}

// Ceil is the amount out of total hosts; a part of a host is a whole one.
func (a Amount) Ceil(total int) int {
	if !a.Percent {
		return a.Value
	}
	return (a.Value*total + 99) / 100
}

// MarshalJSON writes a number, or a text with the percent sign.
func (a Amount) MarshalJSON() ([]byte, error) {
	if a.Percent {
		return json.Marshal(a.String())
	}
	return json.Marshal(a.Value)
}

// UnmarshalJSON reads a number or a text.
func (a *Amount) UnmarshalJSON(b []byte) error {
	text := strings.TrimSpace(string(b))
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	parsed, err := ParseAmount(text)
	if err == nil {
		*a = parsed
	}
	return err
}

// Duration is a time.Duration that reads and writes itself as people do. In
// JSON it is a text such as "90s" or "1h30m", or a number of seconds.
type Duration time.Duration

// Lasting is the duration d, for a policy.
func Lasting(d time.Duration) *Duration {
	out := Duration(d)
	return &out
}

// MaxDuration bounds every time in a policy.
const MaxDuration = 365 * 24 * time.Hour

// ParseDuration reads "90s", "1h30m" or a number of whole seconds. Times below
// zero or above a year are refused.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, wrong := strconv.ParseInt(s, 10, 32); wrong == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 || d > MaxDuration {
		return 0, fmt.Errorf("must be a time such as \"90s\" or \"1h30m\", or a number of seconds, a year at most")
	}
	return Duration(d), nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes a text such as "1h30m0s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a text or a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	text := strings.TrimSpace(string(b))
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	parsed, err := ParseDuration(text)
	if err == nil {
		*d = parsed
	}
	return err
}
