package hostsource

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// asked is a program that prints a list, and runs a piece of shell for --host, with the
// name in $2. It writes down the names.
func asked(t testing.TB, list, host string) (path string, names func() []string) {
	t.Helper()
	path = script(t, fmt.Sprintf(`[ "$1" = --list ] && { echo '%s'; exit; }
[ "$#" = 2 ] && [ "$1" = --host ] || exit 9
echo "$2" >>"${0%%/*}/asked"
%s`, list, host))
	return path, func() []string {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "asked"))
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		return strings.Fields(string(text))
	}
}

// TestHostsAreAskedFor: an answer without _meta.hostvars says of no host that it has no
// variables.
func TestHostsAreAskedFor(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]string{
		"oldest form": `{"web": ["a", "b"], "db": {"hosts": ["c", "a"]}}`,
		"groups":      `{"web": {"hosts": ["a", "b"], "vars": {"x": 1}}, "db": {"hosts": ["c"]}, "all": {"children": ["web", "db"]}}`,
		"empty _meta": `{"web": ["a", "b", "c"], "_meta": {}}`,
		"null":        `{"web": {"hosts": {"a": null, "b": null}}, "db": ["c"], "_meta": {"hostvars": null}}`,
	} {
		path, names := asked(t, list, `case "$2" in
a) echo '{"ansible_host": "192.0.2.1", "os": "debian", "labels": {"env": "prod"}}' ;;
b) echo '{"memory": 7820, "ansible_port": 22}' ;;
*) echo '{}' ;;
esac`)
		found, err := build1(t, map[string]any{"type": "ansible", "path": path}).Fetch(t.Context())
		require.NoError(t, err, name)
		require.Equal(t, map[string]fleet.SourceFacts{
			"192.0.2.1": {OS: ptr("debian"), Labels: map[string]string{"env": "prod"}}, "b": {Memory: ptr(7820)}, "c": {},
		}, found, name)
		require.ElementsMatch(t, []string{"a", "b", "c"}, names(), name)
	}
}

// TestHostsAreNotAskedFor: what --list says is enough.
func TestHostsAreNotAskedFor(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]map[string]fleet.SourceFacts{
		`{"web": ["a", "b"], "_meta": {"hostvars": {"a": {"cpus": 4}}}}`: {"a": {CPUs: ptr(4)}, "b": {}},
		`{"web": ["a"], "_meta": {"hostvars": {}}}`:                      {"a": {}},
		`{"web": {"hosts": {"a": {"cpus": 4}, "b": {}}}, "db": ["a"]}`:   {"a": {CPUs: ptr(4)}, "b": {}},
		`{"all": {"children": ["ungrouped"]}}`:                           {},
	} {
		path, names := asked(t, list, "exit 1")
		found, err := build1(t, map[string]any{"type": "ansible", "path": path}).Fetch(t.Context())
		require.NoError(t, err, list)
		require.Equal(t, want, found, list)
		require.Empty(t, names(), list)
	}
}

// TestManyHostsAreAskedForAFewAtATime counts who is at work at once.
func TestManyHostsAreAskedForAFewAtATime(t *testing.T) {
	t.Parallel()
	var hosts []string
	for i := range 100 {
		hosts = append(hosts, fmt.Sprintf("%q", fmt.Sprint("h", i)))
	}
	path, names := asked(t, `{"all": [`+strings.Join(hosts, ",")+`]}`, `cd "${0%/*}"
mkdir "at-$2"; ls -d at-* | wc -l >>most; echo '{"cpus": 4}'; rmdir "at-$2"`)
	found, err := build1(t, map[string]any{"type": "ansible", "path": path, "timeout": "2m"}).Fetch(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 100)
	require.Equal(t, fleet.SourceFacts{CPUs: ptr(4)}, found["h99"])
	require.Len(t, names(), 100)
	most, err := os.ReadFile(filepath.Join(filepath.Dir(path), "most"))
	require.NoError(t, err)
	for _, n := range strings.Fields(string(most)) {
		n, err := strconv.Atoi(n)
		require.NoError(t, err)
		require.LessOrEqual(t, n, hostsAtOnce)
	}
}

// TestAHostWithoutAnAnswer: nothing is said of any host then.
func TestAHostWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	const list = `{"web": ["a", "b", "c", "d", "e", "f"]}`
	for host, want := range map[string]struct {
		reason string
		passes bool
	}{
		"echo hunter2 >&2; exit 3": {`--host "b": it ended with exit status 3; the log of the worker has what it said`, true},
		":":                        {`--host "b": its answer is no object in JSON: not JSON`, false},
		"echo hunter2":             {`--host "b": its answer is no object in JSON: not JSON at byte 1`, false},
		"echo null":                {`--host "b": its answer is no object in JSON, but null`, false},
		"echo '[]'":                {`--host "b": its answer is no object in JSON: must be an object, not array`, false},
		`echo '{"a": 1'`:           {`--host "b": its answer is no object in JSON: not JSON`, false},
		"echo '{}{}'":              {`--host "b": its answer is no object in JSON: more text after its end`, false},
		"echo '" + list + "'":      {`--host "b": its answer is the one to --list; it must be the variables of the host`, false},
	} {
		path, _ := asked(t, list, `[ "$2" != b ] && { echo '{"cpus": 4}'; exit; }
`+host)
		e := fails(t, map[string]any{"type": "ansible", "path": path})
		require.Equal(t, want.reason, e.Reason, host)
		require.Equal(t, want.passes, e.Passes, host)
		require.Equal(t, strings.Contains(host, ">&2"), e.Said == "hunter2\n", host)
	}

	// All answers together have one bound, so the one that is too long is not always the one
	// that is told of.
	path, _ := asked(t, list, `[ "$2" != b ] && { echo '{"cpus": 4}'; exit; }
yes`)
	require.Regexp(t, `^--host "[a-f]": it said more than 32 MiB$`, fails(t, map[string]any{"type": "ansible", "path": path}).Reason)
	path, _ = asked(t, list, `printf '{"x": "'; head -c 7000000 /dev/zero | tr '\0' x; printf '"}'`)
	require.Regexp(t, `^--host "[a-f]": it said more than 32 MiB$`, fails(t, map[string]any{"type": "ansible", "path": path}).Reason)

	path, _ = asked(t, `{"web": ["a\u0000b"]}`, "echo '{}'")
	require.Equal(t, `--host "a\x00b": it cannot be run: invalid argument`, fails(t, map[string]any{"type": "ansible", "path": path}).Reason)
}

// TestHostsHaveOneTimeout, that of the source, and nothing is left behind after it, nor
// after the answer that fails.
func TestHostsHaveOneTimeout(t *testing.T) {
	t.Parallel()
	const list = `{"web": ["a", "b", "c", "d", "e", "f", "g"]}`
	// Three answer, and four hang with what they have begun.
	const hangs = `case "$2" in
[a-c]) echo '{}'; exit ;;
esac
sleep 3600 & echo $! >>"${0%/*}/pids"
`
	path, _ := asked(t, list, hangs+"wait")
	options := map[string]any{"type": "ansible", "path": path, "timeout": "10s"}
	begun := time.Now()
	e := fails(t, options)
	require.Less(t, time.Since(begun), 35*time.Second, "four have one timeout together")
	require.Regexp(t, `^--host "[d-g]": no whole answer within 10s; it is asked for each host, since it gives no _meta.hostvars, and had answered for 3 of 7$`, e.Reason)
	require.True(t, e.Passes)
	gone(t, path, 4)

	// The last one fails when the others hang.
	path, _ = asked(t, list, hangs+`[ "$2" = g ] || wait
until [ "$(wc -l <"${0%/*}/pids")" = 4 ]; do sleep 0.01; done
exit 1`)
	e = fails(t, map[string]any{"type": "ansible", "path": path, "timeout": "1m"})
	require.Equal(t, `--host "g": it ended with exit status 1; the log of the worker has what it said`, e.Reason)
	gone(t, path, 4)

	path, names := asked(t, list, hangs+"wait")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := build1(t, map[string]any{"type": "ansible", "path": path, "timeout": "1m"}).Fetch(ctx)
		done <- err
	}()
	require.Eventually(t, func() bool {
		pids, err := os.ReadFile(filepath.Join(filepath.Dir(path), "pids"))
		return err == nil && strings.Count(string(pids), "\n") == 4
	}, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled, "nobody waits any more")
	require.Len(t, names(), 7)
	gone(t, path, 4)
}

// gone waits until the processes have ended that a program has written down, so many at
// least.
func gone(t testing.TB, path string, least int) {
	t.Helper()
	said, err := os.ReadFile(filepath.Join(filepath.Dir(path), "pids"))
	require.NoError(t, err)
	pids := strings.Fields(string(said))
	require.GreaterOrEqual(t, len(pids), least)
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) }, time.Minute, 20*time.Millisecond)
	}
}

// TestFilesInTheFormOfList: a saved answer has the variables in _meta, or nobody knows
// them. In an inventory file a host without variables has none.
func TestFilesInTheFormOfList(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"web": ["a"]}`, `{"web": {"hosts": ["a"]}, "db": {"hosts": {"b": {"cpus": 4}}}}`, `{"web": ["a"], "_meta": {}}`, "web: [a]"} {
		e := fails(t, map[string]any{"type": "ansible", "path": file(t, "hosts", text)})
		require.Equal(t, `host "a" stands in a list, as a program prints it, and there is no _meta.hostvars with its variables`, e.Reason)
		require.False(t, e.Passes)
	}
	for _, text := range []string{`{"web": ["a"], "_meta": {"hostvars": {}}}`, `{"web": {"hosts": {"a": null}}}`, "web: {hosts: {a: }}", `{"web": ["a"], "db": {"hosts": {"a": {}}}}`} {
		found, err := build1(t, map[string]any{"type": "ansible", "path": file(t, "hosts", text)}).Fetch(t.Context())
		require.NoError(t, err, text)
		require.Equal(t, map[string]fleet.SourceFacts{"a": {}}, found, text)
	}
}
