package contract

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

// credentials are the tester's, as a line of a raw request.
var credentials = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(harness.User+":"+harness.Password)) + "\r\n"

// raw sends bytes and reads until the server closes.
func (s *site) raw(t *testing.T, text string) (response *http.Response, body string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.API, "http://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(limit)))
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	all, err := io.ReadAll(c)
	require.NoError(t, err)
	response, err = http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil)
	require.NoError(t, err, "%s", all)
	defer response.Body.Close()
	text2, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(text2)
}

var timeFormat = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$`)

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	fact(t, "1-1", func(t *testing.T) {
		response, body := s.raw(t, "GET /api/v0/clusters HTTP/1.0\r\n"+credentials+"\r\n")
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.EqualValues(t, len(body), response.ContentLength)
		settings := runOK(t, program, "server", "--help")
		require.Contains(t, settings, "0.0.0.0")
		require.Contains(t, settings, "8000")
	})
	fact(t, "1-2", func(t *testing.T) {
		s.put(t, "cluster/f12s/", "").status(http.StatusCreated)
		s.put(t, "network/f12s/", "").status(http.StatusCreated)
		s.put(t, "containermanager/f12s/", `{"type": "trivial"}`).status(http.StatusCreated)
		key := newKey(t)
		s.put(t, "host/", jsonOf(t, M{"address": "f12s.example", "ssh_priv_key": key, "cluster": "f12s"})).status(http.StatusCreated)
		for _, path := range []string{
			"clusters", "cluster/f12s", "cluster/f12s/hosts", "cluster/f12s/hosts/f12s.example", "networks", "network/f12s",
			"containermanagers", "containermanager/f12s", "hosts", "host/f12s.example", "host/f12s.example/status", "host/f12s.example/creds",
		} {
			s.get(t, path+"/").status(http.StatusOK)
			s.get(t, path).status(http.StatusOK)
		}
		for _, kind := range []string{"upgrade/", "restart/"} {
			s.get(t, "cluster/f12s/"+kind).problem(http.StatusNotFound)
		}
		s.put(t, "cluster/f12s/restart/", "").status(http.StatusCreated)
		s.get(t, "cluster/f12s/restart/").status(http.StatusOK)
		s.put(t, "cluster/f12s/deploy/", "").problem(http.StatusBadRequest, "version")
		s.delete(t, "host/f12s.example/").is(http.StatusOK, "[]")
	})
	fact(t, "1-3", func(t *testing.T) {
		s.put(t, "cluster/Az09-_", "").status(http.StatusCreated)
		for _, name := range []string{"a.b", "a%20b", "a:b", "%C3%A4", "a+b", "a%2Fb"} {
			s.put(t, "cluster/"+name, "").problem(http.StatusNotFound)
			s.get(t, "cluster/"+name).problem(http.StatusNotFound)
			s.put(t, "network/"+name, "").problem(http.StatusNotFound)
		}
		body := jsonOf(t, M{"ssh_priv_key": newKey(t)})
		for _, address := range []string{"192.0.2.130", "f13.example", "2001:db8::13"} {
			s.put(t, "host/"+address, body).status(http.StatusCreated)
			s.get(t, "host/"+address).status(http.StatusOK)
		}
		for _, address := range []string{"a%20b", "a@b", "a_%2Fb", "%C3%A4"} {
			s.put(t, "host/"+address, body).problem(http.StatusNotFound)
			s.get(t, "host/"+address+"/status").problem(http.StatusNotFound)
		}
	})
	fact(t, "1-4", func(t *testing.T) {
		for _, path := range []string{"nowhere", "cluster", "hosts/192.0.2.1", "cluster/x/hosts/y/z", ""} {
			s.get(t, path).problem(http.StatusNotFound)
		}
		for _, c := range [][2]string{{"POST", "clusters"}, {"DELETE", "clusters"}, {"PUT", "hosts"}, {"GET", "host"}, {"DELETE", "host/x/status"}, {"PATCH", "host/x"}, {"TRACE", "clusters"}} {
			a := s.ask(t, c[0], c[1], "")
			a.problem(http.StatusNotFound)
			require.Empty(t, a.header.Get("Allow"))
		}
		for _, method := range []string{http.MethodHead, http.MethodOptions} {
			a := s.ask(t, method, "clusters", "").status(http.StatusNotFound)
			require.Empty(t, a.header.Get("Allow"))
			s.ask(t, method, "clusters", "", anonymous).status(http.StatusForbidden)
		}
	})
	fact(t, "1-5", func(t *testing.T) {
		s.put(t, "cluster/f15h", "").status(http.StatusCreated)
		for _, path := range []string{"clusters", "cluster/f15h", "networks", "hosts"} {
			a := s.get(t, path).status(http.StatusOK)
			require.Equal(t, "application/json", a.header.Get("Content-Type"))
			var v any
			a.into(&v)
		}
	})
	fact(t, "1-6", func(t *testing.T) {
		s.put(t, "network/f16", `{"name": "renamed"}`).problem(http.StatusBadRequest, "name")
		s.get(t, "network/renamed").problem(http.StatusNotFound)
		s.get(t, "network/f16").problem(http.StatusNotFound)
		s.put(t, "cluster/f16", `{"name": "renamed"}`).problem(http.StatusBadRequest, "name")
		s.put(t, "containermanager/f16", `{"name": "renamed", "type": "trivial"}`).problem(http.StatusBadRequest, "name")
		s.put(t, "host/192.0.2.16", jsonOf(t, M{"ssh_priv_key": newKey(t), "address": "192.0.2.17"})).problem(http.StatusBadRequest, "address")
	})
	fact(t, "1-7", func(t *testing.T) {
		body := `{"type": "flannel_server"}`
		response, text := s.raw(t, "PUT /api/v0/network/f17 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"+credentials+
			fmt.Sprintf("\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body))
		require.Equal(t, http.StatusCreated, response.StatusCode)
		require.JSONEq(t, `{"name": "f17", "type": "flannel_server", "options": {}}`, text)
		// Bytes behind what Content-Length says are no part of the body.
		for name, length := range map[string]string{"f17-none": "", "f17-two": "Content-Length: 2\r\n"} {
			response, text = s.raw(t, "PUT /api/v0/network/"+name+" HTTP/1.0\r\n"+length+credentials+"\r\n{}"+body)
			require.Equal(t, http.StatusCreated, response.StatusCode)
			require.JSONEq(t, `{"name": "`+name+`", "type": "flannel_etcd", "options": {}}`, text)
		}
	})
	fact(t, "1-8", func(t *testing.T) {
		s.put(t, "network/f18", "").status(http.StatusCreated)
		s.get(t, "network/f18?name=default").problem(http.StatusBadRequest, "name")
		s.get(t, "network/f18?_method=DELETE").problem(http.StatusBadRequest, "_method")
		s.delete(t, "network/f18?name=default").problem(http.StatusBadRequest, "name")
		s.get(t, "network/f18").status(http.StatusOK)
	})
	fact(t, "1-9", func(t *testing.T) {
		for _, body := range []string{"{", "nonsense", `"text"`, "[1]", "[]", "7", "null", "true", `{"network": "default"} {}`} {
			s.put(t, "cluster/f19", body).problem(http.StatusBadRequest, "body")
		}
		s.get(t, "cluster/f19").problem(http.StatusNotFound)
		s.put(t, "cluster/f19", " \r\n").status(http.StatusCreated)
	})
	fact(t, "1-10", func(t *testing.T) {
		key := newKey(t)
		for field, value := range map[string]any{"cpus": 1.5, "memory": true, "remote_user": nil, "cluster": 7, "os": false} {
			s.put(t, "host/f110.example", jsonOf(t, M{"ssh_priv_key": key, field: value})).problem(http.StatusBadRequest, field)
		}
		s.get(t, "host/f110.example").problem(http.StatusNotFound)
		for _, options := range []any{"x", 1, nil, []string{}} {
			s.put(t, "network/f110", jsonOf(t, M{"options": options})).problem(http.StatusBadRequest, "options")
		}
	})
	fact(t, "1-13", func(t *testing.T) {
		a := s.get(t, "clusters").status(http.StatusOK)
		require.NotEmpty(t, a.header.Get("Date"))
		require.NotEmpty(t, a.header.Get("X-Request-Id"))
		for _, name := range []string{"Set-Cookie", "X-Powered-By", "Server", "Location"} {
			require.Empty(t, a.header.Get(name))
		}
	})
	fact(t, "1-14", func(t *testing.T) {
		s.put(t, "cluster/f114", "").status(http.StatusCreated)
		record := s.put(t, "cluster/f114/restart", "").status(http.StatusCreated).object()
		require.Regexp(t, timeFormat, record["started_at"])
		require.Empty(t, record["finished_at"])
		began, err := time.Parse("2006-01-02T15:04:05.000000", record["started_at"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().UTC(), began, time.Minute)
		s.addName(t, "f114.example", "")
		require.Equal(t, "", s.get(t, "host/f114.example").object()["last_check"])
	})
}

// What a client sees while a part behind the API is away.
func TestFaultsInside(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	away := s.serve(t, serving{env: []string{"COMMISSAIRE_TEMPORAL_ADDRESS=127.0.0.1:1"}})
	fact(t, "1-11 1-12", func(t *testing.T) {
		s.put(t, "cluster/f111", "").status(http.StatusCreated)
		a := away.ask(t, http.MethodPut, "cluster/f111/restart", "")
		a.problem(http.StatusServiceUnavailable)
		require.NotEmpty(t, a.header.Get("Retry-After"))
		for _, word := range []string{"jsonrpc", "127.0.0.1:1", "grpc"} {
			require.NotContains(t, strings.ToLower(a.body), word)
		}
		away.ask(t, http.MethodGet, "cluster/f111", "").status(http.StatusOK)
	})
}
