package commctl

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/stretchr/testify/require"
)

// terminal is as much of a terminal as the screen needs: it breaks long lines, and
// breaks them anew when it is resized, as those of today do.
type terminal struct {
	lines  []string // logical ones; the cursor is at the beginning of the last
	width  int
	height int
}

func (v *terminal) rowsOf(line string) int {
	return max(1, (text.StringWidthWithoutEscSequences(line)+v.width-1)/v.width)
}

// Write takes what screen writes: text and line ends, up, and clear below.
func (v *terminal) Write(p []byte) (int, error) {
	s := string(p)
	for s != "" {
		switch {
		case strings.HasPrefix(s, "\x1b["):
			end := strings.IndexAny(s, "AJm")
			n, _ := strconv.Atoi(s[2:end])
			switch s[end] {
			case 'A':
				for n > 0 { // whole lines only, or the screen has counted wrong
					last := v.lines[len(v.lines)-2]
					n -= v.rowsOf(last)
					v.lines = append(v.lines[:len(v.lines)-2], "")
				}
				if n < 0 {
					return 0, fmt.Errorf("the cursor is in the middle of a line")
				}
			case 'J':
			case 'm':
				v.lines[len(v.lines)-1] += s[:end+1]
			}
			s = s[end+1:]
		case s[0] == '\n':
			v.lines, s = append(v.lines, ""), s[1:]
		case s[0] == '\r':
			s = s[1:]
		default:
			n := strings.IndexAny(s, "\x1b\n\r")
			if n < 0 {
				n = len(s)
			}
			v.lines[len(v.lines)-1] += s[:n]
			s = s[n:]
		}
	}
	return len(p), nil
}

func newTerminal(width, height int) (*terminal, *screen) {
	v := &terminal{lines: []string{""}, width: width, height: height}
	return v, &screen{out: v, size: func() (int, int) { return v.width, v.height }}
}

// What stands on the terminal is what was drawn last, below what is to stay, at any
// width, also when the width changes between.
func TestScreen(t *testing.T) {
	t.Parallel()
	for width := 1; width <= 120; width++ {
		v, s := newTerminal(width, 24)
		long := "upgrade of web: running, 3/10 done, 1 failed, waiting: die Wartung beginnt später 保守作業 und so weiter"
		for i, next := range []int{width, max(1, width/2), width + 7, max(1, width-1), 1, 80} {
			v.width = next
			hosts := []painted{{text: fmt.Sprintf("  192.0.2.1%d  12s  upgrade", i), sgr: "33"}, {text: "  192.0.2.11  保守作業保守作業", sgr: "33"}}
			var above []painted
			if i == 1 {
				above = []painted{{text: "192.0.2.9: failed"}}
			}
			require.NoError(t, s.draw(above, append(hosts, painted{text: long, wrap: true})), "width %d, then %d", width, next)
			for _, row := range v.lines[len(v.lines)-1-len(s.drawn):] {
				require.LessOrEqual(t, v.rowsOf(row), max(1, text.StringWidthWithoutEscSequences(row)), "%q", row)
				if next > 2 { // a wide character needs two cells
					require.Equal(t, 1, v.rowsOf(row), "%q at width %d", row, next)
				}
			}
		}
		shown := strings.Join(v.lines, "\n")
		require.Equal(t, 1, strings.Count(strings.ReplaceAll(shown, "\n", ""), "192.0.2.9:"), shown)
		require.Contains(t, shown, "\x1b[33m  192.0.2.15  12s  upgrade\x1b[0m\n\x1b[33m  192.0.2.11  保守作業保守作業\x1b[0m\nupgrade of web: running, 3/10 done, 1 failed,")
		require.NotContains(t, shown, "192.0.2.14 ", "drawn over")
	}
}

// A terminal that is too low keeps the last lines.
func TestScreenTooLow(t *testing.T) {
	t.Parallel()
	v, s := newTerminal(80, 3)
	var lines []painted
	for i := range 10 {
		lines = append(lines, painted{text: fmt.Sprint("line ", i)})
	}
	for range 3 {
		require.NoError(t, s.draw(nil, lines))
		require.Equal(t, []string{"line 8", "line 9", ""}, v.lines)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 1, "…"}, {"保守作業", 5, "保守…"}, {"保守作業", 4, "保…"}, {"保守", 2, "…"},
	} {
		require.Equal(t, c.want, cut(c.line, c.width))
	}
	require.Equal(t, []string{"a bc", "defg", "h"}, breakLine("a bc defgh", 4))
	require.Equal(t, []string{""}, breakLine("", 4))
}
