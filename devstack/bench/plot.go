package bench

import (
	"fmt"
	"html"
	"strings"
	"time"
)

// plot draws the figures as SVG: for each contender the wall time as a bar, and below it
// the processor time of both sides.
func (f FanOut) plot(m Machine) string {
	const (
		width, left, right    = 860, 330, 70
		top, row, bar, thin   = 64, 34, 14, 6
		ink, faint, paper     = "#1f2328", "#656d76", "#ffffff"
		ourColour, theirs     = "#0969da", "#8c959f"
		clientColour, hostOne = "#bf8700", "#d4c5a0"
	)
	figures := f.plotted()
	most := time.Duration(1)
	for _, one := range figures {
		most = max(most, one.Wall, one.Client+one.Host)
	}
	x := func(d time.Duration) float64 { return d.Seconds() / most.Seconds() * (width - left - right) }
	height := top + row*len(figures) + 44
	var b strings.Builder
	text := func(x, y float64, size int, colour, anchor, what string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s">%s</text>`+"\n", x, y, size, colour, anchor, html.EscapeString(what))
	}
	rect := func(x, y, w float64, h int, colour string) {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y, w, h, colour)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" role="img">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>One command on %d hosts</title>\n", f.Hosts)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="%s"/>`+"\n", width, height, paper)
	text(16, 26, 17, ink, "start", fmt.Sprintf("One command on %d real sshd hosts, logins included", f.Hosts))
	text(16, 46, 12, faint, "start", fmt.Sprintf("medians of %d rounds, %d cores for both sides, %s, commit %s", f.Rounds, m.Cores, m.Date, m.Commit))
	for i, one := range figures {
		y := float64(top + row*i)
		colour := theirs
		if one.Ours {
			colour = ourColour
		}
		text(left-10, y+12, 13, ink, "end", strings.ReplaceAll(one.Title, "`", ""))
		rect(left, y, x(one.Wall), bar, colour)
		rect(left, y+bar+2, x(one.Client), thin, clientColour)
		rect(left+x(one.Client), y+bar+2, x(one.Host), thin, hostOne)
		text(left+max(x(one.Wall), 0)+6, y+12, 12, ink, "start", fmt.Sprintf("%.2f s", one.Wall.Seconds()))
	}
	y := float64(top + row*len(figures) + 14)
	for i, l := range []struct{ colour, what string }{{ourColour, "wall time, Commissaire"}, {theirs, "wall time"}, {clientColour, "processor time, client's side"}, {hostOne, "processor time, hosts"}} {
		at := float64(16 + i*200)
		rect(at, y, 12, 12, l.colour)
		text(at+18, y+11, 12, faint, "start", l.what)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// plotted are the figures that log in, the fastest first.
func (f FanOut) plotted() (all []Figure) {
	for _, one := range f.byWall(false) {
		if one.Failure == "" {
			all = append(all, one)
		}
	}
	return all
}
