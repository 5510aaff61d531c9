package contract

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"commissaire/devstack/harness"
)

// Where commctl finds the server and what it shows there.
func TestCommctlConnection(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	config := M{"endpoint": s.API, "username": harness.User, "password": harness.Password}
	basicHeader := "Basic " + base64.StdEncoding.EncodeToString([]byte("a:a"))

	fact(t, "8-1 8-3", func(t *testing.T) {
		s.cli(t).run("network", "get", "default").prints("name: default\noptions: {}\ntype: flannel_etcd\n")
		c := newCLI(t, nil)
		c.env = append(c.env, "COMMCTL_CONFIG="+c.write("elsewhere.json", jsonOf(t, config)))
		c.run("network", "list").exits(0)
		wrong := newCLI(t, M{"endpoint": s.serve(t, serving{}).url, "username": harness.User, "password": "wrong"})
		wrong.run("network", "list").exits(2)
	})
	fact(t, "8-2", func(t *testing.T) {
		one, many := M{"endpoint": s.API}, M{"endpoint": []string{s.API, "http://127.0.0.1:1"}}
		for _, c := range []M{one, many} {
			c["username"], c["password"] = harness.User, harness.Password
			newCLI(t, c).run("network", "list").exits(0)
		}
	})
	fact(t, "8-4", func(t *testing.T) {
		password := [3]any{"Password: ", harness.Password, true}
		a := newCLI(t, nil).answered([][3]any{{"Endpoint: ", s.API, false}, {"Username: ", harness.User, false}, password}, "network", "get", "default").exits(0)
		require.Contains(t, a.out, "type: flannel_etcd")
		require.NotContains(t, a.out, harness.Password)
		a = newCLI(t, M{"endpoint": s.API, "username": harness.User}).answered([][3]any{password}, "network", "get", "default").exits(0)
		require.NotContains(t, a.out, harness.Password)
	})
	fact(t, "8-5", func(t *testing.T) {
		c := newCLI(t, nil)
		c.write(".commissaire.json", "{")
		c.run("cluster", "list").fails(2, "usage:", ".commissaire.json")
	})
	kube := func(t *testing.T, c *cli, user M) {
		t.Helper()
		path := c.write("kubeconfig", jsonOf(t, M{
			"apiVersion": "v1", "kind": "Config", "current-context": "work",
			"contexts": []M{{"name": "other", "context": M{"user": "nobody"}}, {"name": "work", "context": M{"cluster": "c", "user": "me"}}},
			"users":    []M{{"name": "nobody", "user": M{"token": "other"}}, {"name": "me", "user": user}},
		}))
		var had M
		require.NoError(t, json.Unmarshal([]byte(readFile(t, c.home+"/.commissaire.json")), &had))
		had["kubeconfig"] = path
		c.write(".commissaire.json", jsonOf(t, had))
	}
	fact(t, "8-6", func(t *testing.T) {
		server := newStub(t, http.StatusOK, `["x"]`)
		c := server.cli(t)
		kube(t, c, M{"token": "kube-token"})
		c.run("cluster", "list").prints("- x\n")
		require.Equal(t, "Bearer kube-token", server.last(t).authorization)
	})
	fact(t, "8-7", func(t *testing.T) {
		server := newStub(t, http.StatusOK, `["x"]`)
		c := server.cli(t)
		kube(t, c, M{"username": "olga", "password": "key:stone"})
		c.run("cluster", "list").exits(0)
		require.Equal(t, "Basic "+base64.StdEncoding.EncodeToString([]byte("olga:key:stone")), server.last(t).authorization)
	})
	fact(t, "8-8", func(t *testing.T) {
		server, ours := &stub{}, newAuthority(t)
		server.Server = httptest.NewUnstartedServer(server.handler(http.StatusOK, `["x"]`))
		cert, key := ours.issue(t, "server")
		pair, err := tls.X509KeyPair(cert, key)
		require.NoError(t, err)
		pool := x509.NewCertPool()
		pool.AddCert(ours.cert)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		server.StartTLS()
		t.Cleanup(server.Close)
		c := newCLI(t, M{"endpoint": server.URL, "cafile": put(t, "ca.pem", ours.pem())})
		cert, key = ours.issue(t, "kube-admin")
		kube(t, c, M{"client-certificate-data": base64.StdEncoding.EncodeToString(cert), "client-key-data": base64.StdEncoding.EncodeToString(key)})
		c.run("cluster", "list").prints("- x\n")
		require.Equal(t, "kube-admin", server.last(t).commonName)
	})
	fact(t, "8-9", func(t *testing.T) {
		c := s.cli(t)
		for _, text := range []string{
			`{"current-context": "none", "contexts": [], "users": []}`,
			`{"current-context": "c", "contexts": [{"name": "c", "context": {"user": "none"}}], "users": []}`,
			`{`,
		} {
			c.write(".commissaire.json", jsonOf(t, M{"endpoint": s.API, "kubeconfig": c.write("k", text)}))
			c.run("cluster", "list").fails(2, "error:", "kubeconfig")
		}
		c.write(".commissaire.json", jsonOf(t, M{"endpoint": s.API, "kubeconfig": "/nowhere/kubeconfig"}))
		c.run("cluster", "list").fails(2, "/nowhere/kubeconfig")
	})
	fact(t, "8-10", func(t *testing.T) {
		server := newStub(t, http.StatusOK, "{}")
		c := server.cli(t)
		for _, want := range []struct {
			seen
			args string
		}{
			{seen{http.MethodGet, "/api/v0/clusters", "application/json", basicHeader, "", ""}, "cluster list"},
			{seen{http.MethodPut, "/api/v0/cluster/x/restart", "application/json", basicHeader, "{}", ""}, "cluster restart start x"},
			{seen{http.MethodDelete, "/api/v0/network/x", "application/json", basicHeader, "{}", ""}, "network delete x"},
			{seen{http.MethodPut, "/api/v0/cluster/x/hosts/192.0.2.1", "application/json", basicHeader, "{}", ""}, "host join 192.0.2.1 x"},
		} {
			c.run(strings.Fields(want.args)...).exits(0)
			require.Equal(t, want.seen, server.last(t))
		}
	})
	fact(t, "8-11", func(t *testing.T) {
		server := newStub(t, http.StatusOK, `["x"]`)
		newCLI(t, M{"endpoint": server.URL + "//", "username": "a", "password": "a"}).run("cluster", "list").exits(0)
		require.Equal(t, "/api/v0/clusters", server.last(t).path)
	})
	fact(t, "8-12 9-13", func(t *testing.T) {
		dead := "http://127.0.0.1:1"
		config := M{"endpoint": []string{dead, s.API + "/"}, "username": harness.User, "password": harness.Password}
		newCLI(t, config).run("network", "get", "default").prints("Could not connect to " + dead + ". Retrying with " + s.API + ".\nname: default\noptions: {}\ntype: flannel_etcd\n")

		failing, good := newStub(t, http.StatusInternalServerError, ""), newStub(t, http.StatusOK, `["x"]`)
		config = M{"endpoint": []string{failing.URL, good.URL}, "username": "a", "password": "a"}
		newCLI(t, config).run("cluster", "list").fails(2, "500")
		require.Empty(t, good.seen)
	})
	fact(t, "8-13", func(t *testing.T) {
		a := newCLI(t, M{"endpoint": []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, "username": "a", "password": "a"}).run("cluster", "list").exits(1)
		require.Equal(t, "Could not connect to http://127.0.0.1:1. Retrying with http://127.0.0.1:2.\n"+
			"No servers could be reached. Tried the following:\n- http://127.0.0.1:1\n- http://127.0.0.1:2\nExiting...\n", a.out)
	})
}

// What commctl makes of answers.
func TestCommctlResults(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	c := s.cli(t)
	fact(t, "8-14 8-22", func(t *testing.T) {
		s.put(t, "cluster/r14", "").status(http.StatusCreated)
		s.addName(t, "r14.example", "r14")
		c.run("cluster", "get", "r14").prints("container_manager: ''\nhosts:\n  available: 0\n  total: 1\n  unavailable: 1\nhostset:\n- r14.example\nname: r14\nnetwork: default\nstatus: failed\n")
		c.run("host", "list", "r14").prints("- r14.example\n")
	})
	fact(t, "8-15", func(t *testing.T) {
		for _, body := range []string{"", "{}", "[]", `""`} {
			newStub(t, http.StatusCreated, body).cli(t).run("cluster", "create", "web").prints("- Created web\n")
		}
	})
	fact(t, "8-16 8-21", func(t *testing.T) {
		for _, body := range []string{"", "{}", "[]"} {
			newStub(t, http.StatusOK, body).cli(t).run("host", "unjoin", "192.0.2.1", "web").prints("Success\n...\n")
		}
		newStub(t, http.StatusOK, "7").cli(t).run("cluster", "get", "web").prints("7\n...\n")
	})
	fact(t, "8-17", func(t *testing.T) {
		newStub(t, http.StatusNoContent, "").cli(t).run("cluster", "restart", "status", "web").prints("No instance\n...\n")
	})
	fact(t, "8-18", func(t *testing.T) {
		c.run("cluster", "get", "r18-none").prints("No object found.\n...\n")
		c.run("cluster", "delete", "r18-none").prints("- No object found.\n")
	})
	fact(t, "8-19", func(t *testing.T) {
		newCLI(t, M{"endpoint": s.serve(t, serving{}).url, "username": harness.User, "password": "x"}).run("cluster", "list").
			fails(2, "usage:", "error: The provided credentials were incorrect.")
	})
	fact(t, "8-20", func(t *testing.T) {
		c.run("cluster", "deploy", "start", "r20", "").fails(2, "usage:", "error: Unable to PUT the object at /api/v0/cluster/r20/deploy: 400")
		s.addName(t, "192.0.2.20", "")
		s.put(t, "cluster/r20", "").status(http.StatusCreated)
		c.run("host", "join", "192.0.2.20", "r20").fails(2, "error: Unable to PUT the object at /api/v0/cluster/r20/hosts/192.0.2.20: 405")
		newStub(t, http.StatusInternalServerError, "Internal Server Error").cli(t).run("cluster", "list").fails(2, "error: Unable to GET the object at /api/v0/clusters: 500")
	})
	fact(t, "8-23 9-18", func(t *testing.T) {
		for _, line := range []string{"cluster", "host", "network", "nonsense", "cluster nonsense", "cluster get", "cluster create -t swarm x", "cluster list extra", "host get --nonsense x"} {
			c.run(strings.Fields(line)...).fails(2, "error:")
		}
		for _, line := range []string{"--help", "cluster --help", "host create -h", "help"} {
			require.Contains(t, strings.ToLower(c.run(strings.Fields(line)...).exits(0).out), "usage:")
		}
	})
}

// The nouns and verbs.
func TestCommctlVerbs(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	c := s.cli(t)
	run := func(line string) said { return c.run(strings.Fields(line)...) }
	key := c.write("key", string(decoded(t, newKey(t))))

	fact(t, "8-24", func(t *testing.T) {
		run("cluster create b24").prints("container_manager: ''\nname: b24\nnetwork: default\nstatus: ''\n")
		s.put(t, "network/b24", "").status(http.StatusCreated)
		run("cluster create -t host_only -n b24 -c cm b24-x").prints("container_manager: cm\nname: b24-x\nnetwork: b24\nstatus: ''\n")
		run("cluster create --type kubernetes --network b24 --container-manager cm b24-y").exits(0)
		server := newStub(t, http.StatusCreated, "{}")
		server.cli(t).run("cluster", "create", "web").exits(0)
		require.JSONEq(t, `{"type": "kubernetes", "network": "default", "container_manager": ""}`, server.last(t).body)
	})
	fact(t, "8-25", func(t *testing.T) {
		run("cluster create b25").exits(0)
		run("cluster delete b25 b25-none").prints("- Success\n- No object found.\n")
		s.get(t, "cluster/b25").problem(http.StatusNotFound)
	})
	fact(t, "8-26", func(t *testing.T) {
		run("cluster create b26").exits(0)
		require.Contains(t, run("cluster get b26").exits(0).out, "hostset: []\nname: b26\n")
		require.Contains(t, run("cluster list").exits(0).out, "- b26\n")
	})
	fact(t, "8-27", func(t *testing.T) {
		run("cluster create b27").exits(0)
		run("cluster deploy status b27").prints("No object found.\n...\n")
		require.Contains(t, run("cluster deploy start b27 7.2.6").exits(0).out, "deployed: []\nfinished_at: ''\nin_process: []\nname: b27\n")
		require.Contains(t, run("cluster deploy status b27").exits(0).out, "version: 7.2.6\n")
	})
	fact(t, "8-28", func(t *testing.T) {
		for _, kind := range []string{"restart", "upgrade"} {
			run("cluster create b28-" + kind).exits(0)
			run("cluster " + kind + " status b28-" + kind).prints("No object found.\n...\n")
			require.Contains(t, run("cluster "+kind+" start b28-"+kind).exits(0).out, "status: in_process\n")
			require.Contains(t, run("cluster "+kind+" status b28-"+kind).exits(0).out, "name: b28-"+kind+"\n")
		}
	})
	fact(t, "8-29", func(t *testing.T) {
		server := newStub(t, http.StatusCreated, "{}")
		line := []string{"container_manager", "create", "-o", "a=1", "-o", `{"b": 2, "c": "x"}`, "--options", "c=y=z", "kube"}
		server.cli(t).run(line...).prints("- Created kube\n")
		require.Equal(t, "/api/v0/containermanager/kube", server.last(t).path)
		require.JSONEq(t, `{"type": "openshift", "options": {"a": "1", "b": 2, "c": "y=z"}}`, server.last(t).body)
		run("container_manager create -t trivial b29").prints("name: b29\noptions: {}\ntype: trivial\n")
		run("container_manager create -o nonsense b29-x").fails(2, "error:")
	})
	fact(t, "8-30", func(t *testing.T) {
		run("container_manager create -t trivial b30").exits(0)
		run("container_manager get b30").prints("name: b30\noptions: {}\ntype: trivial\n")
		require.Contains(t, run("container_manager list").exits(0).out, "- b30\n")
		run("container_manager delete b30 b30-none").prints("- Success\n- No object found.\n")
	})
	fact(t, "8-31 9-3", func(t *testing.T) {
		run("cluster create b31").exits(0)
		require.Contains(t, run("host create -c b31 192.0.2.131 "+key).exits(0).out, "address: 192.0.2.131\n")
		s.get(t, "cluster/b31/hosts").is(http.StatusOK, `["192.0.2.131"]`)
		piped := s.cli(t)
		piped.in = readFile(t, key)
		piped.run("host", "create", "192.0.2.132", "-").exits(0)
		for _, address := range []string{"192.0.2.131", "192.0.2.132"} {
			require.Equal(t, readFile(t, key), string(decoded(t, s.get(t, "host/"+address+"/creds").object()["ssh_priv_key"].(string))))
		}
		server := newStub(t, http.StatusCreated, "{}")
		server.cli(t).run("host", "create", "192.0.2.1", key).exits(0)
		require.JSONEq(t, jsonOf(t, M{"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(readFile(t, key)))}), server.last(t).body)
		run("host create 192.0.2.1 /nowhere/key").fails(2, "error:")
	})
	fact(t, "8-32", func(t *testing.T) {
		s.addName(t, "192.0.2.142", "")
		run("host delete 192.0.2.142 192.0.2.143").prints("- Success\n- No object found.\n")
	})
	fact(t, "8-33", func(t *testing.T) {
		s.addName(t, "192.0.2.153", "")
		require.Contains(t, run("host get 192.0.2.153").exits(0).out, "address: 192.0.2.153\n")
		run("host status 192.0.2.153").prints("container_manager: {}\nhost:\n  last_check: ''\n  status: investigating\ntype: host_only\n")
	})
	fact(t, "8-34", func(t *testing.T) {
		run("cluster create b34").exits(0)
		s.addName(t, "192.0.2.154", "")
		s.setState(t, "192.0.2.154", "active")
		run("host join 192.0.2.154 b34").prints("- 192.0.2.154\n")
		run("host unjoin 192.0.2.154 b34").prints("Success\n...\n")
		s.get(t, "cluster/b34/hosts").is(http.StatusOK, "[]")
	})
	fact(t, "8-35", func(t *testing.T) {
		run("cluster create b35").exits(0)
		s.addName(t, "192.0.2.155", "b35")
		run("host list b35").prints("- 192.0.2.155\n")
		require.Contains(t, run("host list").exits(0).out, "- address: 192.0.2.155\n")
	})
	fact(t, "8-37", func(t *testing.T) {
		run("network create b37").prints("name: b37\noptions: {}\ntype: flannel_etcd\n")
		c.run("network", "create", "b37-x", "-t", "flannel_server", "-o", `{"address": "192.0.2.1"}`).prints("name: b37-x\noptions:\n  address: 192.0.2.1\ntype: flannel_server\n")
		run("network create -t flannel b37-y").fails(2, "error:")
	})
	fact(t, "8-38", func(t *testing.T) {
		run("network create b38").exits(0)
		run("network get b38").prints("name: b38\noptions: {}\ntype: flannel_etcd\n")
		require.Contains(t, run("network list").exits(0).out, "- b38\n")
		require.Contains(t, run("network list ignored").exits(0).out, "- b38\n")
		run("network delete b38 b38-none").prints("- Success\n- No object found.\n")
	})
	fact(t, "8-39", func(t *testing.T) {
		server := newStub(t, http.StatusOK, `{"x": 1}`)
		server.cli(t).run("host", "get", "localhost").exits(0)
		require.Equal(t, "/api/v0/host/127.0.0.1", server.last(t).path)
		before := len(server.seen)
		server.cli(t).run("host", "get", "no-such-host.invalid").fails(2, "no-such-host.invalid")
		require.Len(t, server.seen, before)
	})
	fact(t, "8-41", func(t *testing.T) {
		password := func(line said) string {
			line.exits(0)
			require.Regexp(t, `^\$2a\$\d\d\$[./A-Za-z0-9]{53}\n$`, line.out)
			return strings.TrimSpace(line.out)
		}
		matches := func(hash, password string, rounds int) {
			require.NoError(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)))
			cost, err := bcrypt.Cost([]byte(hash))
			require.NoError(t, err)
			require.Equal(t, rounds, cost)
		}
		matches(password(run("passhash -p secret")), "secret", 12)
		matches(password(run("passhash --password secret -r 4")), "secret", 4)
		matches(password(run("passhash -r 4 -f "+c.write("password", "secret\n"))), "secret\n", 4)
		piped := s.cli(t)
		piped.in = "secret"
		matches(password(piped.run("passhash", "-r", "4", "-f", "-")), "secret", 4)
		asked := newCLI(t, nil).answered([][3]any{{"Password: ", "secret", true}}, "passhash", "-r", "4").exits(0)
		require.NotContains(t, asked.out, "secret")
		matches(strings.TrimSpace(asked.out[strings.Index(asked.out, "$"):]), "secret", 4)
	})
}

func decoded(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	return b
}
