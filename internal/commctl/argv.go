package commctl

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"commissaire/api/client"
)

// How much of a command is shown, in characters.
const (
	argvInLine  = 200
	argvInTable = 60
)

// plainWord is what no shell reads as anything else.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// argvOf shows what a command runs as one would type it in a shell, the beginning of it
// when it is longer than most. It is "" for other operations.
func argvOf(op client.Operation, most int) string {
	words := make([]string, len(op.Argv))
	for i, word := range op.Argv {
		if !plainWord.MatchString(word) {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		words[i] = word
	}
	return cut(legible(strings.Join(words, " ")), most)
}

// checkArgv refuses what JSON cannot carry: another argument would come to the hosts.
func checkArgv(argv []string) error {
	for i, word := range argv {
		if !utf8.ValidString(word) {
			return exitf(exitUsage, "argument %d of the command, %s, is not UTF-8, so the server cannot be given it as it is", i, quoted(word))
		}
	}
	return nil
}
