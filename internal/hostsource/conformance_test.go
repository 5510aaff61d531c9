package hostsource

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// kind makes a source of a type that says a text, and knows how the type writes hosts
// down.
type kind struct {
	name  string
	says  func(t *testing.T, text string) Source
	hangs func(t *testing.T, timeout time.Duration) Source
	write func(hosts ...map[string]any) string
	// ignores: what cannot be a fact is no error there.
	ignores bool
}

func list(hosts ...map[string]any) string {
	text, _ := json.Marshal(hosts)
	return string(text)
}

func inventoryOf(hosts ...map[string]any) string {
	vars := map[string]any{}
	for i, h := range hosts {
		of := map[string]any{}
		for name, value := range h {
			if name == "address" {
				name = "ansible_host"
			}
			of[name] = value
		}
		vars[fmt.Sprintf("name-%d", i)] = of
	}
	text, _ := json.Marshal(map[string]any{"_meta": map[string]any{"hostvars": vars}, "all": map[string]any{}})
	return string(text)
}

func build1(t testing.TB, options map[string]any) Source {
	t.Helper()
	if _, set := options["timeout"]; !set {
		options["timeout"] = timeoutBounds[1].String() // on a busy machine 32 MiB take long
	}
	all, err := Build([]Spec{{Name: "cmdb", Options: options}})
	require.NoError(t, err)
	return all[0].Ask
}

// script writes a program.
func script(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inventory")
	// A process that is born while the file is open holds it open, too, for a moment, and
	// nobody can run it then.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755))
	return path
}

func serve(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

var kindsToTest = []kind{
	{
		name: "http-json",
		says: func(t *testing.T, text string) Source {
			return build1(t, map[string]any{"type": "http-json", "url": serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })})
		},
		hangs: func(t *testing.T, timeout time.Duration) Source {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("["))
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			return build1(t, map[string]any{"type": "http-json", "url": url, "timeout": timeout.String()})
		},
		write: list,
	},
	{
		name: "ansible program",
		says: func(t *testing.T, text string) Source {
			path := script(t, `[ "$*" = --list ] && cat "$(dirname "$0")/said"`)
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "said"), []byte(text), 0o600))
			return build1(t, map[string]any{"type": "ansible", "path": path})
		},
		hangs: func(t *testing.T, timeout time.Duration) Source {
			return build1(t, map[string]any{"type": "ansible", "path": script(t, "echo '{'; sleep 3600 & sleep 3600"), "timeout": timeout.String()})
		},
		write: inventoryOf, ignores: true,
	},
	{
		name: "ansible file",
		says: func(t *testing.T, text string) Source {
			return build1(t, map[string]any{"type": "ansible", "path": file(t, "hosts.json", text)})
		},
		write: inventoryOf, ignores: true,
	},
}

func ptr[T any](v T) *T { return &v }

// TestConformance is what every type of source keeps to.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, k := range kindsToTest {
		fetch := func(t *testing.T, text string) (map[string]fleet.SourceFacts, error) {
			return k.says(t, text).Fetch(t.Context())
		}
		says := func(t *testing.T, hosts ...map[string]any) (map[string]fleet.SourceFacts, error) {
			return fetch(t, k.write(hosts...))
		}
		refuses := func(t *testing.T, err error, why string) {
			t.Helper()
			var e *Error
			require.ErrorAs(t, err, &e)
			require.ErrorContains(t, err, why)
			require.False(t, e.Passes, "nobody would mend it by trying again")
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			t.Run("all facts, and members that we do not know", func(t *testing.T) {
				t.Parallel()
				found, err := says(t,
					map[string]any{"address": "WEB.example.", "os": "fedora", "os_version": "43", "cpus": 4, "memory": 7820, "space": int64(1) << 45,
						"labels": map[string]string{"env": "prod"}, "owner": map[string]any{"team": "x"}, "Price": 3.5},
					map[string]any{"address": "2001:DB8::1"},
				)
				require.NoError(t, err)
				require.Equal(t, map[string]fleet.SourceFacts{
					"web.example": {OS: ptr("fedora"), OSVersion: ptr("43"), CPUs: ptr(4), Memory: ptr(7820), Space: ptr(int64(1) << 45), Labels: map[string]string{"env": "prod"}},
					"2001:db8::1": {},
				}, found)
			})
			t.Run("no hosts", func(t *testing.T) {
				t.Parallel()
				found, err := says(t)
				if k.name != "http-json" {
					found, err = fetch(t, `{"_meta": {"hostvars": {}}}`)
				} else {
					found, err = fetch(t, `[]`)
				}
				require.NoError(t, err)
				require.Empty(t, found)
			})
			t.Run("duplicates", func(t *testing.T) {
				t.Parallel()
				found, err := says(t, map[string]any{"address": "a", "cpus": 4}, map[string]any{"address": "A", "cpus": 4})
				require.NoError(t, err)
				require.Len(t, found, 1)
				found, err = says(t, map[string]any{"address": "a", "cpus": 4}, map[string]any{"address": "A", "cpus": 8})
				if k.ignores { // names of one machine
					require.NoError(t, err)
					require.Equal(t, map[string]fleet.SourceFacts{"a": {}}, found)
					return
				}
				refuses(t, err, "host a is in it twice, with other facts")
			})
			t.Run("what no host can have", func(t *testing.T) {
				t.Parallel()
				for member, bad := range map[string][]any{
					"os":         {"Not An OS!", 4},
					"os_version": {"1\n2", []string{"1"}},
					"cpus":       {-1, "many", 1.5, 1 << 40},
					"memory":     {-1, "16GB"},
					"space":      {-1, map[string]any{}},
					"labels":     {"env", map[string]any{"a b": "c"}, map[string]any{"a": "c d"}},
				} {
					for _, value := range bad {
						found, err := says(t, map[string]any{"address": "a", member: value})
						if k.ignores {
							require.NoError(t, err, "%s %v", member, value)
							require.Equal(t, map[string]fleet.SourceFacts{"a": {}}, found, "%s %v", member, value)
							continue
						}
						refuses(t, err, "entry 1: "+member)
					}
				}
			})
			t.Run("bad answers", func(t *testing.T) {
				t.Parallel()
				for _, text := range []string{"", "null", "not json", "[", "{", `"text"`, "7", "null x", k.write(map[string]any{"address": "a"}) + "x", `{"all": 7}`, `{"all": {"hosts": 7}}`, `{"all": {"hosts": {"a": 7}}}`, `{"_meta": 7}`, `{"_meta": {"hostvars": ["a"]}}`, `{"_meta": {"hostvars": {}}} }`, "<html>secret</html>"} {
					_, err := fetch(t, text)
					refuses(t, err, "it is no inventory"[:2])
					require.NotContains(t, err.Error(), "secret")
				}
			})
			t.Run("5 MB", func(t *testing.T) {
				t.Parallel()
				var hosts []map[string]any
				for i := range 20000 {
					hosts = append(hosts, map[string]any{"address": fmt.Sprintf("host-%d.example", i), "cpus": 4, "note": strings.Repeat("x", 240)})
				}
				text := k.write(hosts...)
				require.Greater(t, len(text), 5<<20)
				found, err := fetch(t, text)
				require.NoError(t, err)
				require.Len(t, found, 20000)
			})
			t.Run("too much", func(t *testing.T) {
				t.Parallel()
				_, err := fetch(t, "["+strings.Repeat(" ", MaxAnswer)+"]")
				refuses(t, err, "it said more than 32 MiB")
			})
			if k.hangs == nil {
				return
			}
			t.Run("hangs", func(t *testing.T) {
				t.Parallel()
				_, err := k.hangs(t, 300*time.Millisecond).Fetch(t.Context())
				var e *Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, "no whole answer within 300ms", e.Reason)
				require.True(t, e.Passes)
			})
			t.Run("nobody waits any more", func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				_, err := k.hangs(t, time.Minute).Fetch(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		})
	}
}
