package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"commissaire/internal/fleet"
)

// line is what is shown of one host.
type line struct {
	name, address string
	state         fleet.HostRunState
	steps         string // so far, in order
	reason        string
	took          time.Duration
}

// screen shows the hosts: on a terminal one line each, drawn anew in place; into
// a file or a pipe a line whenever something about a host changes.
type screen struct {
	out    io.Writer
	fd     int // of the terminal, -1 without one
	colour bool
	drawn  int
	last   map[string]string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, fd: -1, last: map[string]string{}}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.fd = int(f.Fd())
		s.colour = os.Getenv("NO_COLOR") == "" // no-color.org
	}
	return s
}

func (s *screen) show(lines []line) {
	if s.fd < 0 {
		s.print(lines)
		return
	}
	width, _, err := term.GetSize(s.fd)
	if err != nil || width == 0 { // some pseudo-terminals have no size
		width = 80
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn) // up
	}
	for _, l := range lines {
		text := l.text(fmt.Sprintf("%.1fs", l.took.Seconds()))
		if r := []rune(text); len(r) >= width { // a wrapped line would be counted as one
			text = string(r[:width-1])
		}
		b.WriteString("\x1b[2K" + s.paint(l.state, text) + "\n")
	}
	s.drawn = len(lines)
	_, _ = io.WriteString(s.out, b.String())
}

func (s *screen) print(lines []line) {
	for _, l := range lines {
		took := "" // that changes all the time
		if l.state.Ended() {
			took = fmt.Sprintf("%.1fs", l.took.Seconds())
		}
		text := l.text(took)
		if l.state == fleet.HostRunPending || s.last[l.address] == text {
			continue
		}
		s.last[l.address] = text
		_, _ = fmt.Fprintln(s.out, text)
	}
}

func (l line) text(took string) string {
	if l.state == fleet.HostRunPending {
		took = ""
	}
	text := fmt.Sprintf("  %-5s %-16s %-10s %7s %s", l.name, l.address, l.state, took, l.steps)
	if l.reason != "" {
		text += ": " + l.reason
	}
	return strings.TrimRight(text, " ")
}

// paint colours the line by the state of its host (ECMA-48, SGR).
func (s *screen) paint(state fleet.HostRunState, text string) string {
	code := map[fleet.HostRunState]string{
		fleet.HostRunRunning: "33", fleet.HostRunSucceeded: "32", fleet.HostRunFailed: "31", fleet.HostRunPending: "2", fleet.HostRunSkipped: "2",
	}[state]
	if !s.colour || code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
