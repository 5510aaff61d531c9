// Package leaktest has tests of a package fail that leave goroutines behind.
package leaktest

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main is a TestMain. What ends by itself may take a minute for it: goleak has half a
// second, in which nothing may get a turn on a busy machine.
func Main(m *testing.M, except ...goleak.Option) {
	goleak.VerifyTestMain(settled{m, except}, except...)
}

type settled struct {
	*testing.M
	except []goleak.Option
}

func (s settled) Run() int {
	code := s.M.Run()
	// Find itself waits between its looks.
	for end := time.Now().Add(time.Minute); code == 0 && time.Now().Before(end) && goleak.Find(s.except...) != nil; {
	}
	return code
}
