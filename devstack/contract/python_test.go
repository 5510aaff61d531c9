package contract

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/devstack/harness"
)

//go:embed client2017.py
var client2017 string

// python is one that has requests, which scripts/setup installs.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if path, err := exec.Command(name, "-c", "import requests, sys; print(sys.executable)").Output(); err == nil {
			return strings.TrimSpace(string(path))
		}
	}
	t.Fatal("python3 with requests is missing; run scripts/setup")
	return ""
}

// Scripts of 2017 use requests for Python. What these bytes are on the wire is
// its business, so the real one sends them.
func TestPython(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	interpreter := python(t)
	// run calls one function of the script, and gives status and body of each answer.
	run := func(t *testing.T, url, function string) (answers []answer) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), interpreter, "-c", client2017, url+"/api/v0", harness.User, harness.Password, function).Output()
		var exit *exec.ExitError
		if err != nil {
			require.ErrorAs(t, err, &exit)
			require.NoError(t, err, "%s", exit.Stderr)
		}
		var got []struct {
			Status int
			Body   string
			Type   string
		}
		require.NoError(t, json.Unmarshal(out, &got), "%s", out)
		for _, g := range got {
			answers = append(answers, answer{t, function, g.Status, http.Header{"Content-Type": {g.Type}}, g.Body})
		}
		return answers
	}
	fact(t, "0-5", func(t *testing.T) {
		answers := run(t, s.API, "no_content_type")
		answers[0].is(http.StatusCreated, `{"name": "py-bytes", "type": "flannel_server", "options": {}}`)
		answers[1].is(http.StatusCreated, `{"name": "py-text", "type": "flannel_server", "options": {}}`)
		answers = run(t, s.API, "without_body")
		answers[0].is(http.StatusCreated, `{"name": "py-empty", "status": "", "network": "default", "container_manager": ""}`)
		answers[1].is(http.StatusCreated, `{"name": "py-empty", "type": "flannel_etcd", "options": {}}`)
		answers[2].is(http.StatusOK, "[]")
	})
	fact(t, "4-11", func(t *testing.T) {
		for _, a := range run(t, s.serve(t, serving{}).url, "anonymous") {
			a.problem(http.StatusForbidden)
			require.Empty(t, a.header.Get("WWW-Authenticate"))
		}
	})
	fact(t, "1-7", func(t *testing.T) {
		answers := run(t, s.API, "chunked")
		answers[0].is(http.StatusCreated, `{"name": "py-chunked", "type": "flannel_server", "options": {}}`)
		answers[1].problem(http.StatusBadRequest)
	})
}
