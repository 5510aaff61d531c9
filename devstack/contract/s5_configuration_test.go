package contract

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConfiguration(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	users := func(t *testing.T) M {
		return M{"name": "httpbasicauth", "users": M{"a": M{"hash": hashOf(t, "$2a$", "a")}}}
	}
	usersFile := func(t *testing.T) string {
		return put(t, "users.json", []byte(jsonOf(t, M{"a": M{"hash": hashOf(t, "$2a$", "a")}})))
	}
	works := func(t *testing.T, d *server) {
		t.Helper()
		d.get(t, "clusters", login("a", "a")).status(http.StatusOK)
		d.get(t, "clusters", anonymous).problem(http.StatusForbidden)
	}

	fact(t, "5-1 5-10 5-11", func(t *testing.T) {
		for _, names := range [][3]string{{"listen-interface", "listen-port", "authentication-plugins"}, {"listen_interface", "listen_port", "authentication_plugins"}} {
			port := freePort(t)
			d := s.serve(t, serving{port: port, file: jsonOf(t, M{names[0]: "127.0.0.1", names[1]: port, names[2]: []M{users(t)}})})
			works(t, d)
		}
		port := freePort(t)
		works(t, s.serve(t, serving{port: port, args: []string{"-i", "127.0.0.1", "-p", strconv.Itoa(port)}, file: plugins(t, users(t))}))
		port = freePort(t)
		works(t, s.serve(t, serving{port: port, args: []string{"--listen-interface=127.0.0.1", "--listen-port=" + strconv.Itoa(port)}, file: plugins(t, users(t))}))
		defaults := runOK(t, program, "config", "view", "--no-config-file")
		require.Regexp(t, `(?m)^listen-interface\s+0\.0\.0\.0\s+default`, defaults)
		require.Regexp(t, `(?m)^listen-port\s+8000\s+default`, defaults)
	})
	fact(t, "5-2", func(t *testing.T) {
		works(t, s.serve(t, serving{args: []string{"-c", "-"}, stdin: plugins(t, users(t))}))
	})
	fact(t, "5-3 5-9", func(t *testing.T) {
		require.Contains(t, s.refuses(t, serving{args: []string{"-c", "/nowhere/commissaire.conf"}}), "/nowhere/commissaire.conf")
		works(t, s.serve(t, serving{args: []string{"--config-file", put(t, "c.conf", []byte(plugins(t, users(t))))}}))
		s.serve(t, serving{}).get(t, "clusters").status(http.StatusOK) // without one, and without /etc/commissaire
	})
	fact(t, "5-4", func(t *testing.T) {
		for _, text := range []string{"[]", "7", `"text"`, "{", "null"} {
			require.Contains(t, s.refuses(t, serving{file: text}), "configuration")
		}
	})
	fact(t, "5-5", func(t *testing.T) {
		d := s.serve(t, serving{env: []string{"ETCD_MACHINES=http://127.0.0.1:1"}, file: plugins(t, users(t))})
		works(t, d)
		d.said(t, "ETCD_MACHINES")
	})
	fact(t, "5-6 5-8", func(t *testing.T) {
		// Requests are below the level that is asked for otherwise.
		level, request := []string{"COMMISSAIRE_LOG_LEVEL=error"}, `"status":403`
		silent := s.serve(t, serving{env: level, file: plugins(t, users(t))})
		works(t, silent)
		for _, o := range []serving{
			{env: level, file: jsonOf(t, M{"debug": true, "authentication-plugins": []M{users(t)}})},
			{env: level, file: plugins(t, users(t)), args: []string{"--debug"}},
		} {
			d := s.serve(t, o)
			works(t, d)
			d.said(t, request)
		}
		require.NotContains(t, readFile(t, silent.log), request)
	})
	fact(t, "5-7 5-15 5-16 5-24", func(t *testing.T) {
		d := s.serve(t, serving{file: jsonOf(t, M{
			"logging": M{"version": 1}, "bus-uri": "redis://127.0.0.1:1/", "bus_exchange": "commissaire", "exchange_name": "x",
			"storage_handlers": []M{{"type": "commissaire.storage.etcd"}}, "custodia_socket_path": "/var/run/custodia.sock",
			"authentication-plugins": []M{users(t)},
		})})
		works(t, d)
		d.said(t, "logging", "bus-uri", "bus_exchange", "exchange_name", "storage_handlers", "custodia_socket_path")
		d = s.serve(t, serving{args: []string{"--bus-uri", "redis://127.0.0.1:1/", "--bus-exchange", "commissaire"}, file: plugins(t, users(t))})
		works(t, d)
		d.said(t, "bus-uri", "bus-exchange")
	})
	fact(t, "5-12", func(t *testing.T) {
		ours := newAuthority(t)
		cert, key := ours.issue(t, "server")
		d := s.serve(t, serving{scheme: "https", client: ours.client(t, ours, "x"), file: plugins(t, users(t)), args: []string{
			"--tls-pemfile", put(t, "server.pem", cert, key), "--tls-clientverifyfile", put(t, "ca.pem", ours.pem()),
		}})
		works(t, d)
		_, err := ours.client(t, nil, "").Get(d.url)
		require.Error(t, err)
		require.Contains(t, s.refuses(t, serving{args: []string{"--tls-pemfile", "/nowhere/server.pem"}, file: plugins(t, users(t))}), "/nowhere/server.pem")
	})
	fact(t, "5-13 5-18 5-19", func(t *testing.T) {
		works(t, s.serve(t, serving{args: []string{"--authentication-plugin", "httpbasicauth:filepath=" + usersFile(t)}}))
		long := "commissaire_http.authentication.httpbasicauth:filepath=" + usersFile(t)
		url, token := keystone(t)
		d := s.serve(t, serving{args: []string{"--authentication-plugin", long, "--authentication-plugin", "keystonetokenauth:url=" + url}})
		works(t, d)
		d.get(t, "clusters", anonymous, header("X-Auth-Token", token)).status(http.StatusOK)

		file := plugins(t, M{"name": "httpbasicauth", "users": M{"f": M{"hash": hashOf(t, "$2a$", "f")}}})
		d = s.serve(t, serving{file: file, args: []string{"--authentication-plugin", "keystonepasswordauth:url=" + url + ",domain=Default"}})
		d.get(t, "clusters", login("olga", "key stone")).status(http.StatusOK)
		d.get(t, "clusters", login("f", "f")).problem(http.StatusForbidden)
	})
	fact(t, "5-14", func(t *testing.T) {
		d := s.serve(t, serving{file: plugins(t, users(t)), args: []string{"--self-auth", "/api/v0/clusters", "--self-auth", "/api/v0/networks"}})
		d.get(t, "clusters", anonymous).status(http.StatusOK)
		d.get(t, "networks", anonymous).status(http.StatusOK)
		d.get(t, "hosts", anonymous).problem(http.StatusForbidden)
	})
	fact(t, "5-17", func(t *testing.T) {
		port := freePort(t)
		d := s.serve(t, serving{port: port, args: []string{"-p", strconv.Itoa(port)}, env: []string{"COMMISSAIRE_LISTEN_PORT=2"},
			file: jsonOf(t, M{"listen-port": 1, "authentication-plugins": []M{users(t)}})})
		works(t, d)
		port = freePort(t)
		works(t, s.serve(t, serving{port: port, env: []string{"COMMISSAIRE_LISTEN_PORT=" + strconv.Itoa(port)},
			file: jsonOf(t, M{"listen-port": 1, "authentication-plugins": []M{users(t)}})}))
	})
	fact(t, "5-20", func(t *testing.T) {
		d := s.serve(t, serving{args: []string{"--no-config-file"}})
		d.get(t, "clusters").problem(http.StatusForbidden)
		d.said(t, "no authentication plug-in is configured")
	})
	fact(t, "5-21", func(t *testing.T) {
		for _, bad := range []any{M{"name": "httpbasicauth"}, "httpbasicauth", []any{"httpbasicauth"}, []M{{"filepath": "x"}}} {
			require.Contains(t, s.refuses(t, serving{file: jsonOf(t, M{"authentication-plugins": bad})}), "authentication-plugins")
		}
	})
	fact(t, "5-22", func(t *testing.T) {
		help := runOK(t, program, "--help")
		require.Contains(t, help, "worker")
		require.Contains(t, help, "server")
		file := put(t, "worker.conf", []byte(`{"bus_uri": "redis://127.0.0.1:1/", "exchange_name": "commissaire", "debug": false}`))
		require.Contains(t, runOK(t, program, "config", "view", "-c", file), "listen-port")
	})
	fact(t, "5-23", func(t *testing.T) {
		ours := newAuthority(t)
		cert, key := ours.issue(t, "server")
		d := s.serve(t, serving{scheme: "https", client: ours.client(t, nil, ""),
			file: jsonOf(t, M{"authentication-plugin": users(t), "register-store-handler": []M{{"name": "x"}}}),
			args: []string{"--tls-certfile", put(t, "cert.pem", cert), "--tls-keyfile", put(t, "key.pem", key)}})
		works(t, d)
		d.said(t, "register-store-handler")
	})
	fact(t, "5-25", func(t *testing.T) {
		for flag, near := range map[string]string{"--authentication-plugin-kwargs": "--authentication-plugin", "--register-store-handler": "unknown flag"} {
			require.Contains(t, s.refuses(t, serving{args: []string{flag, "filepath=users.json"}}), near)
		}
	})
}
