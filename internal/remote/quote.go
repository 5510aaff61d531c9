package remote

import "strings"

// Quote gives words as one line of shell that splits into exactly these words,
// in any POSIX shell and whatever they contain, except for NUL, which no argument
// can hold. It is the only way from data to shell text in this package.
func Quote(words ...string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte('\'')
		b.WriteString(strings.ReplaceAll(w, `'`, `'\''`))
		b.WriteByte('\'')
	}
	return b.String()
}
