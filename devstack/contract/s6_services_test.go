package contract

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

func TestServices(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "6.1-1", func(t *testing.T) {
		for _, path := range []string{"cluster/x1", "host/x1.example", "host/x1.example/creds", "network/x1", "containermanager/x1"} {
			s.get(t, path).problem(http.StatusNotFound)
		}
		s.put(t, "host/x1.example", jsonOf(t, M{"ssh_priv_key": newKey(t), "remote_user": "no such\nuser"})).problem(http.StatusBadRequest, "remote_user")
		s.get(t, "host/x1.example").problem(http.StatusNotFound)
	})
	fact(t, "6.1-3 9-14", func(t *testing.T) {
		key := s.addName(t, "x3.example", "")
		s.put(t, "containermanager/x3", `{"type": "trivial", "options": {"token": "sealed-word"}}`).status(http.StatusCreated)
		private, err := base64.StdEncoding.DecodeString(key)
		require.NoError(t, err)
		var all string // every row of every table, as text
		rows, err := s.DB.Query(t.Context(), `SELECT query_to_xml(format('SELECT * FROM %I.%I', table_schema, table_name), true, false, '')::text
			FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'`)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var table string
			require.NoError(t, rows.Scan(&table))
			all += table
		}
		require.NoError(t, rows.Err())
		require.Contains(t, all, "x3.example")
		for _, secret := range []string{key, string(private), base64.StdEncoding.EncodeToString([]byte(key)), "sealed-word", base64.StdEncoding.EncodeToString([]byte("sealed-word"))} {
			require.NotContains(t, all, secret)
		}
	})
	fact(t, "6.1-4", func(t *testing.T) {
		s.put(t, "cluster/x4", "").status(http.StatusCreated)
		s.put(t, "cluster/x4/restart", "").status(http.StatusCreated)
		id := s.operation(t, "cluster=x4")["id"].(string)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+"/api/v0/operations/"+id+"/events", nil)
		require.NoError(t, err)
		r.SetBasicAuth(harness.User, harness.Password)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	})
	fact(t, "6.2-1", func(t *testing.T) {
		s.put(t, "containermanager/x21", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/x21", `{"container_manager": "x21"}`).status(http.StatusCreated)
		s.addName(t, "x21.example", "")
		s.setState(t, "x21.example", "disassociated")
		fresh := s.serve(t, serving{}) // knows only what is on record
		fresh.ask(t, http.MethodPut, "cluster/x21/hosts/x21.example", "").status(http.StatusOK)
		require.Equal(t, map[string]any{"node": "x21.example", "status": "ok"}, fresh.get(t, "host/x21.example/status").object()["container_manager"])
	})
	fact(t, "6.2-3", func(t *testing.T) {
		s.put(t, "containermanager/x23", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/x23", `{"container_manager": "x23"}`).status(http.StatusCreated)
		s.addName(t, "x23.example", "")
		s.setState(t, "x23.example", "active")
		for range 2 {
			for range 2 {
				s.put(t, "cluster/x23/hosts/x23.example", "").status(http.StatusOK)
				require.NotEmpty(t, s.get(t, "host/x23.example/status").object()["container_manager"])
			}
			for range 2 {
				s.delete(t, "cluster/x23/hosts/x23.example").is(http.StatusOK, "[]")
				require.Empty(t, s.get(t, "host/x23.example/status").object()["container_manager"])
			}
		}
	})
	fact(t, "6.4-7", func(t *testing.T) {
		s.put(t, "cluster/x47", "").status(http.StatusCreated)
		s.put(t, "cluster/x47/restart", "").status(http.StatusCreated)
		first := s.operation(t, "cluster=x47")["id"].(string)
		s.ask(t, http.MethodPost, "operations/"+first+"/cancel", "").status(http.StatusOK)
		require.Equal(t, "failed", s.get(t, "cluster/x47/restart").object()["status"]) // none of its hosts had begun
		s.put(t, "cluster/x47/restart", "").status(http.StatusCreated)
		require.Equal(t, "in_process", s.get(t, "cluster/x47/restart").object()["status"])
		require.NotEqual(t, first, s.operation(t, "cluster=x47")["id"])
		s.get(t, "operations/"+first).status(http.StatusOK)
	})
	fact(t, "6.1-5 9-7", func(t *testing.T) {
		var ready struct{ Checks []struct{ Name string } }
		s.get(t, "/readyz", anonymous).into(&ready)
		require.Equal(t, "postgres", ready.Checks[0].Name)
	})
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{{Name: "good"}, {Name: "bad"}, {Name: "node"}, {Name: "late"}}})
	good, bad, node, late := s.Fleet.Hosts()[0], s.Fleet.Hosts()[1], s.Fleet.Hosts()[2], s.Fleet.Hosts()[3]
	settled := func(t *testing.T, h *remotetest.Host) map[string]any {
		t.Helper()
		var record map[string]any
		s.until(t, h.Address()+" to settle", func() bool {
			record = s.get(t, "host/"+h.Address()).object()
			return record["status"] != "investigating" && record["status"] != "bootstrapping"
		})
		return record
	}
	add := func(t *testing.T, h *remotetest.Host, change M) {
		t.Helper()
		body := s.HostBody(h)
		delete(body, "cluster")
		for name, value := range change {
			body[name] = value
		}
		s.put(t, "host/"+h.Address(), jsonOf(t, body)).status(http.StatusCreated)
	}

	// The last command of the bootstrap waits, so that one can look in between.
	began, goOn := filepath.Join(good.Dir(), "began"), filepath.Join(good.Dir(), "go-on")
	require.NoError(t, good.OnCommand("uname", `touch `+began+`; until [ -e `+goOn+` ]; do sleep 0.1; done`))
	add(t, good, nil)
	fact(t, "6.3-4", func(t *testing.T) {
		var h map[string]any
		s.until(t, "the host to be bootstrapping", func() bool {
			h = s.get(t, "host/"+good.Address()).object()
			return h["status"] == "bootstrapping"
		})
		require.Equal(t, "debian", h["os"])
		require.Positive(t, h["memory"])
		require.Regexp(t, timeFormat, h["last_check"])
	})
	fact(t, "6.3-2", func(t *testing.T) {
		s.until(t, "the command on the host", func() bool {
			_, err := os.Stat(began)
			return err == nil
		})
		// The key is in no file of the server or the worker, their logs among them.
		line := bytes.Split([]byte(s.Fleet.ClientKey()), []byte("\n"))[1]
		for _, dir := range []string{s.Dir, os.TempDir()} {
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			require.NoError(t, err)
			for _, f := range files {
				if info, err := os.Stat(f); err != nil || !info.Mode().IsRegular() || info.Size() > 16<<20 {
					continue
				}
				text, err := os.ReadFile(f)
				if err != nil {
					continue // of somebody else
				}
				require.False(t, bytes.Contains(text, line), f)
			}
		}
	})
	require.NoError(t, os.WriteFile(goOn, nil, 0o600))
	fact(t, "6.3-3 6.3-6 9-1 9-2", func(t *testing.T) {
		add(t, bad, M{"ssh_priv_key": newKey(t)})
		h := settled(t, good)
		require.Equal(t, "disassociated", h["status"])
		require.Equal(t, "debian", h["os"])
		for _, name := range []string{"cpus", "memory", "space"} {
			require.Positive(t, h[name], name)
		}
		require.Equal(t, hostMemory(t), h["memory"])
		require.Greater(t, h["space"], h["memory"]) // bytes against MiB
		require.Regexp(t, timeFormat, h["last_check"])
		s.until(t, "the bootstrap to be on record as finished", func() bool {
			return s.get(t, "host/"+good.Address()+"/bootstrap").object()["status"] == "finished"
		})

		h = settled(t, bad)
		require.Equal(t, "failed", h["status"])
		require.NotEmpty(t, h["reason"])
		require.Equal(t, "disassociated", settled(t, good)["status"])
	})
	fact(t, "6.3-7 9-10", func(t *testing.T) {
		s.put(t, "containermanager/m", `{"type": "trivial"}`).status(http.StatusCreated)
		s.put(t, "cluster/m", `{"container_manager": "m"}`).status(http.StatusCreated)
		add(t, node, M{"cluster": "m"})
		require.Equal(t, "active", settled(t, node)["status"])
		require.Equal(t, map[string]any{"node": node.Address(), "status": "ok"}, s.get(t, "host/"+node.Address()+"/status").object()["container_manager"])
		// A manager that is not there does not spoil the bootstrap.
		s.put(t, "cluster/k", `{"container_manager": "k"}`).status(http.StatusCreated)
		add(t, late, M{"cluster": "k"})
		h := settled(t, late)
		require.Equal(t, "disassociated", h["status"])
		require.Contains(t, h["reason"], `container manager "k" of the cluster does not exist`)
	})
	fact(t, "6.3-8", func(t *testing.T) {
		key := s.HostBody(bad)["ssh_priv_key"]
		s.put(t, "host/"+bad.Address()+"/creds", jsonOf(t, M{"ssh_priv_key": key, "remote_user": bad.User()})).status(http.StatusCreated)
		s.put(t, "host/"+bad.Address()+"/bootstrap", "").status(http.StatusCreated)
		s.until(t, "the second bootstrap", func() bool { return s.get(t, "host/"+bad.Address()).object()["status"] == "disassociated" })
	})
}

// hostMemory is the memory of this machine in MiB, which is that of every host on it.
func hostMemory(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	var kib int
	_, err = fmt.Sscanf(string(text), "MemTotal: %d kB", &kib)
	require.NoError(t, err)
	return float64(kib / 1024)
}

func TestExecution(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{
		{Name: "one"}, {Name: "two"}, {Name: "three"},
		{Name: "fedora", OS: remotetest.OS{ID: "fedora", VersionID: "43"}},
		{Name: "centos", OS: remotetest.OS{ID: "centos", VersionID: "7"}},
	}})
	hosts := s.Fleet.Hosts()[:3]
	fedora, centos := s.Fleet.Hosts()[3], s.Fleet.Hosts()[4]
	addresses := []any{}
	// Joined one by one, so that the order of hostset is known.
	for _, h := range hosts {
		s.addHosts(t, "serial", h)
		addresses = append(addresses, h.Address())
	}
	fact(t, "6.4-2 6.4-3 9-6 9-19", func(t *testing.T) {
		// Each host waits until it was seen at work.
		seen := func(h *remotetest.Host) string { return filepath.Join(h.Dir(), "seen") }
		for _, h := range hosts {
			require.NoError(t, h.OnCommand("systemctl", `[ "$1" != reboot ] || until [ -e `+seen(h)+` ]; do sleep 0.1; done`))
		}
		s.put(t, "cluster/serial/restart", "").status(http.StatusCreated)
		done, atWork := 0, map[any]bool{}
		s.until(t, "the restart", func() bool {
			r := s.get(t, "cluster/serial/restart").object()
			restarted, inProcess := r["restarted"].([]any), r["in_process"].([]any)
			require.LessOrEqual(t, len(inProcess), 1)
			require.GreaterOrEqual(t, len(restarted), done)
			done = len(restarted)
			require.Equal(t, addresses[:done], restarted)
			if len(inProcess) == 1 {
				require.Equal(t, addresses[done], inProcess[0])
				atWork[inProcess[0]] = true
				require.NoError(t, os.WriteFile(seen(hosts[done]), nil, 0o600))
			}
			return r["status"] != "in_process"
		})
		require.Equal(t, "finished", s.get(t, "cluster/serial/restart").object()["status"])
		require.Equal(t, len(hosts), done)
		require.Len(t, atWork, len(hosts))
	})
	fact(t, "7-1", func(t *testing.T) {
		for _, h := range hosts {
			require.Equal(t, 1, h.Count("systemctl", "reboot"))
			require.Equal(t, 1, h.Reboots())
		}
	})
	fact(t, "6.4-4 6.4-6 0-14", func(t *testing.T) {
		require.NoError(t, hosts[1].OnCommand("apt-get", `case " $* " in *" upgrade "*) echo broken >&2; exit 100 ;; esac`))
		require.NoError(t, hosts[1].Publish("bash", "2.0"))
		s.put(t, "cluster/serial/upgrade", "").status(http.StatusCreated)
		r := s.ended(t, "serial", "upgrade")
		require.Equal(t, "failed", r["status"])
		require.Equal(t, addresses[:1], r["upgraded"])
		require.Equal(t, addresses[1:2], r["in_process"])
		require.Regexp(t, timeFormat, r["finished_at"])
		require.Zero(t, hosts[2].Count("apt-get", ""))
		require.NotEmpty(t, s.operation(t, "cluster=serial&kind=upgrade")["reason"])
		require.NoError(t, hosts[1].OnCommand("apt-get", ""))
	})
	fact(t, "6.4-5", func(t *testing.T) {
		s.put(t, "cluster/empty", "").status(http.StatusCreated)
		s.put(t, "cluster/empty/restart", "").status(http.StatusCreated)
		r := s.ended(t, "empty", "restart")
		require.Equal(t, "finished", r["status"])
		require.Regexp(t, timeFormat, r["finished_at"])
	})
	fact(t, "7-2", func(t *testing.T) {
		s.addHosts(t, "packages", fedora)
		s.addHosts(t, "old", centos)
		for h, manager := range map[*remotetest.Host]string{fedora: "dnf", centos: "yum"} {
			require.NoError(t, h.Publish("bash", "2.0"))
			cluster := s.get(t, "host/"+h.Address()).object()["cluster"].(string)
			s.put(t, "cluster/"+cluster+"/upgrade", "").status(http.StatusCreated)
			require.Equal(t, "finished", s.ended(t, cluster, "upgrade")["status"])
			entries, err := h.Ledger()
			require.NoError(t, err)
			updates := 0
			for _, e := range entries {
				if strings.HasSuffix(e.Args, "update -y") {
					require.Equal(t, manager, e.What)
					updates++
				}
			}
			require.Equal(t, 1, updates, entries)
			require.Equal(t, "2.0", h.Package("bash"))
		}
	})
	fact(t, "7-4 9-9", func(t *testing.T) {
		p := s.put(t, "cluster/packages/deploy", `{"version": "7.2.6"}`).problem(http.StatusConflict)
		require.Contains(t, p.Detail, fedora.Address())
		require.Zero(t, fedora.Count("rpm-ostree", ""))
	})
	fact(t, "7-5", func(t *testing.T) {
		require.NoError(t, fedora.Kill()) // the connection of the bootstrap goes too
		s.put(t, "cluster/packages/upgrade", "").status(http.StatusCreated)
		s.until(t, "the host to be waited for", func() bool {
			return strings.Contains(s.get(t, "cluster/packages/upgrade").body, fedora.Address())
		})
		require.NoError(t, fedora.Start(t.Context()))
		require.Equal(t, "finished", s.ended(t, "packages", "upgrade")["status"])
	})
}
