package commctl

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

// FuzzSettings: a configuration file gives endpoints, or an error; neither that nor
// a warning steers a terminal.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		"", "{}", "[]", "null", `{"endpoint": "http://h:8000/"}`, `{"endpoint": ["http://a", "https://b/x"], "token": "cmst_x"}`,
		`{"endpoint": 7}`, `{"endpoint": []}`, `{"endpoint": "ftp://h"}`, `{"endpoint": "http://u:p@h"}`, `{"endpoint": "http://[::1"}`,
		`{"password": 7}`, `{"password": null}`, `{"Username": "a", "\u001b[2J": 1}`, `{"kubeconfig": "~/k"}`, `{"cafile": "~"}`,
	} {
		f.Add(text)
	}
	file := filepath.Join(f.TempDir(), "commissaire.json")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		var told bytes.Buffer
		a := New(nil, io.Discard, &told, func(string) string { return "" })
		a.configFile = file
		s, err := a.readSettings()
		require.Equal(t, legible(told.String()), told.String())
		if err != nil {
			require.Equal(t, legible(err.Error()), err.Error())
			return
		}
		all, err := s.Endpoint.parse()
		for _, u := range all {
			require.NoError(t, err)
			require.NotEmpty(t, u.Host)
			require.Contains(t, []string{"http", "https"}, u.Scheme)
			require.Nil(t, u.User)
		}
	})
}

// FuzzAnswers: a server may answer anything with 200. It becomes a value, or an
// error for the terminal, and what the old verbs make of it can be written.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		"", "{}", "[]", "null", "<html>", `"text"`, "7", "1e999", `{"address": 7}`, `[{"address": "web1", "labels": {"a": "b"}}]`,
		`{"items": [{"id": "01a", "created": "yesterday"}], "next": "x"}`, `{"id": "\u001b[2J"}`, `{} {}`, "\xff", `{"a": [[{}]]}`, `[[[`,
	} {
		f.Add(http.StatusOK, []byte(body))
	}
	f.Add(http.StatusCreated, []byte(`{"a": 1}`))
	f.Add(http.StatusNoContent, []byte(""))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		request := httptest.NewRequest(http.MethodGet, "http://h:8000/api/v0/hosts", nil)
		answer := func(context.Context) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: request}, nil
		}
		told := func(err error) {
			if err != nil {
				require.NotEmpty(t, err.Error())
				require.Less(t, len(err.Error()), 1000+4*len(body))
			}
		}
		_, err := fetch[client.Host](t.Context(), answer)
		told(err)
		_, err = fetch[[]client.Host](t.Context(), answer)
		told(err)
		_, err = fetch[client.OperationPage](t.Context(), answer)
		told(err)
		told(order(t.Context(), answer))
		value, err := outcome(http.MethodGet, "/api/v0/host/web1", status, body)
		told(err)
		if err == nil {
			var written bytes.Buffer
			writeYAML(&written, value)
			require.Equal(t, legible(written.String()), written.String())
		}
	})
}
