package api

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pictures of control characters, Unicode block "Control Pictures".
const (
	pictureOfNUL = '\u2400' // the others up to 0x1f follow
	pictureOfDEL = '\u2421'
)

// legible gives what a command printed as text that neither a terminal nor a
// browser takes for orders. Line ends and tabs stay; other control characters,
// with which escape codes begin, become pictures of themselves, and everything
// else that cannot be seen becomes U+FFFD, as do bytes that are no UTF-8.
func legible(printed []byte) string {
	var b strings.Builder
	b.Grow(len(printed))
	for len(printed) > 0 {
		r, n := utf8.DecodeRune(printed)
		printed = printed[n:]
		switch {
		case r == '\n' || r == '\t':
		case r < ' ':
			r += pictureOfNUL
		case r == 0x7f:
			r = pictureOfDEL
		case !unicode.IsGraphic(r):
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}
