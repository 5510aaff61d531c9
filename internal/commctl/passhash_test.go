package commctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

func TestPasshash(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from file\n"), 0o600))
	for args, password := range map[string]string{
		"-r 4 -p flag":          "flag",
		"--rounds=4 -f " + file: "from file\n",
		"-r 4 -f -":             "from stdin\n",
		"-r 4":                  "typed",
	} {
		a := newTestApp(t)
		a.In = strings.NewReader("from stdin\n")
		a.Ask = func(_ string, hidden bool) (string, error) {
			require.True(t, hidden)
			return "typed", nil
		}
		require.Zero(t, a.Run(t.Context(), append([]string{"passhash"}, strings.Fields(args)...)), a.errs.String())
		require.Regexp(t, `^\$2a\$04\$[./A-Za-z0-9]{53}\n$`, a.out.String())
		require.NoError(t, bcrypt.CompareHashAndPassword([]byte(strings.TrimSpace(a.out.String())), []byte(password)), args)
		require.Equal(t, strings.HasSuffix(password, "\n"), strings.Contains(a.errs.String(), "ends in a line end"), args)
	}
	for args, want := range map[string]string{
		"-p":                            "needs an argument",
		"-r 32 -p x":                    "4 to 31",
		"-p x -f " + file:               "none of the others can be",
		"-f /no/such":                   "no such file",
		"-p " + strings.Repeat("x", 73): "72 bytes",
		"":                              "no terminal",
	} {
		a := newTestApp(t)
		require.Equal(t, exitUsage, a.Run(t.Context(), append([]string{"passhash"}, strings.Fields(args)...)))
		require.Contains(t, a.errs.String(), want)
	}
	a := newTestApp(t)
	require.Equal(t, exitUsage, a.Run(t.Context(), []string{"passhash", "-p", ""}))
	a = newTestApp(t)
	require.Zero(t, a.Run(t.Context(), []string{"passhash", "-p", "x"}))
	require.True(t, strings.HasPrefix(a.out.String(), "$2a$12$"), "12 rounds unless something else is said")
}
