package commctl

import (
	"strings"
	"unicode"
)

// legible makes text safe to show on a terminal: what cannot be printed, escape
// sequences above all, becomes U+FFFD. Line ends and tabs stay.
func legible(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
