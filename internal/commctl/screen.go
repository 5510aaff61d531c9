package commctl

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// screen is a few lines at the bottom of a terminal that are drawn anew in place,
// with lines above them that stay (ECMA-48).
type screen struct {
	out   io.Writer
	size  func() (width, height int)
	drawn []int // widths of the lines that stand there now
}

// newScreen makes a screen on a terminal.
func newScreen(f *os.File) *screen {
	return &screen{out: f, size: func() (int, int) { return terminalSize(f) }}
}

// terminalSize is how many characters and lines a terminal has room for.
func terminalSize(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 { // some pseudo-terminals have no size
		return 80, 24
	}
	return width, height
}

// painted is a line and its colour.
type painted struct {
	text string
	sgr  string // parameter of SGR, such as "31"; "" for none
	wrap bool   // whether it goes on in the next row where it is too long; else it is cut
}

// draw replaces the lines that are drawn by others, below the lines above, which
// stay for good. Lines that the terminal has no room for are left out, from the
// second on: the last ones stay.
func (s *screen) draw(above, lines []painted) error {
	width, height := s.size()
	var b strings.Builder
	if rows := s.rows(width); rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", rows) // up
	}
	b.WriteString("\r\x1b[J") // clear what is below
	for _, row := range layOut(above, width, true) {
		b.WriteString(row.paint() + "\n")
	}
	s.drawn = s.drawn[:0]
	rows := layOut(lines, width, false)
	if most := max(height-1, 1); len(rows) > most {
		rows = rows[len(rows)-most:]
	}
	for _, row := range rows {
		b.WriteString(row.paint() + "\n")
		s.drawn = append(s.drawn, text.StringWidthWithoutEscSequences(row.text))
	}
	_, err := io.WriteString(s.out, b.String())
	return err
}

// rows is how many rows the lines take now: a terminal that has become narrower
// has broken those that do not fit any more.
func (s *screen) rows(width int) (n int) {
	for _, w := range s.drawn {
		n += max(1, (w+width-1)/width)
	}
	return n
}

// layOut breaks and cuts lines so that each takes one row. The last cell of a row
// stays empty, since terminals differ in what they do after it. Lines that stay for
// good are never cut.
func layOut(lines []painted, width int, whole bool) (rows []painted) {
	room := max(width-1, 1)
	for _, l := range lines {
		switch {
		case text.StringWidthWithoutEscSequences(l.text) <= room:
			rows = append(rows, l)
		case l.wrap || whole:
			for _, part := range breakLine(l.text, room) {
				rows = append(rows, painted{text: part, sgr: l.sgr})
			}
		default:
			rows = append(rows, painted{text: cut(l.text, room), sgr: l.sgr})
		}
	}
	return rows
}

func (p painted) paint() string {
	if p.sgr == "" {
		return p.text
	}
	return "\x1b[" + p.sgr + "m" + p.text + "\x1b[0m"
}

// cut shortens a line to a width, and shows that something is missing.
func cut(line string, width int) string {
	if text.StringWidthWithoutEscSequences(line) <= width {
		return line
	}
	var b strings.Builder
	used := 1 // of the mark
	for _, r := range line {
		if used += text.RuneWidth(r); used > width {
			break
		}
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// breakLine breaks a line between words where it can.
func breakLine(line string, width int) (rows []string) {
	row, used := "", 0
	flush := func() { rows, row, used = append(rows, row), "", 0 }
	for _, word := range strings.Fields(line) {
		w := text.StringWidthWithoutEscSequences(word)
		if used > 0 && used+1+w <= width {
			row, used = row+" "+word, used+1+w
			continue
		}
		if used > 0 {
			flush()
		}
		for _, r := range word {
			one := text.RuneWidth(r)
			if used > 0 && used+one > width {
				flush()
			}
			row, used = row+string(r), used+one
		}
	}
	if used > 0 || len(rows) == 0 {
		flush()
	}
	return rows
}
