package remote

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// shells are those that are there of the ones that hosts have as sh.
func shells() [][]string {
	var found [][]string
	for _, s := range [][]string{{"sh"}, {"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			found = append(found, s)
		}
	}
	return found
}

// FuzzQuote takes words through real shells and back.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a b", "'", `\'`, "'\\''", "$(id) `id` $HOME", "\n", "*?[a]~", "a\x01b\x02'", "\x81\x82\x88\xff", "!", "#", "--", "-n"} {
		f.Add(s, "second")
	}
	found := shells()
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsRune(a+b, 0) || len(a)+len(b) > 50_000 {
			t.Skip("not an argument")
		}
		for _, s := range found {
			cmd := exec.Command(s[0], append(s[1:], "-s")...)
			cmd.Stdin = strings.NewReader("set -- " + Quote(a, b) + "\nprintf '%s\\0' \"$#\" \"$@\"\n")
			out, err := cmd.CombinedOutput()
			if want := "2\x00" + a + "\x00" + b + "\x00"; err != nil || !bytes.Equal(out, []byte(want)) {
				t.Errorf("%s: %v\n got %q\nwant %q", s[0], err, out, want)
			}
		}
	})
}

func FuzzKeyName(f *testing.F) {
	f.Add("op", "host", "step", 1)
	f.Add("..", "/etc", "a/../b", -1)
	f.Add("", "", "", 0)
	f.Add(strings.Repeat("x", 500), "ü", "\n", 1)
	f.Fuzz(func(t *testing.T, op, host, step string, attempt int) {
		k := Key{op, host, step, attempt}
		name := k.name()
		if len(name) > 200 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
			t.Errorf("%+v: %q", k, name)
		}
		for _, other := range []Key{{op + ".", host, step, attempt}, {op, host, step, attempt + 1}, {op + host, "", step, attempt}, {op, host + step, "", attempt}} {
			if other != k && other.name() == name {
				t.Errorf("%+v and %+v share a name", k, other)
			}
		}
	})
}
