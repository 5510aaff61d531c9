package stack

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	apiclient "commissaire/api/client"
	"commissaire/internal/privatepg/pgtest"
)

func TestSecondStartGoesOnWithTheData(t *testing.T) {
	t.Parallel()
	o := options(t)
	var said bytes.Buffer
	o.Progress = &said

	s := start(t, o)
	put, err := client(t, s).PutClusterWithResponse(t.Context(), "blue", apiclient.ClusterPut{})
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, put.StatusCode(), string(put.Body))
	ui, err := http.Get(s.TemporalUI())
	require.NoError(t, err)
	require.NoError(t, ui.Body.Close())
	require.Equal(t, http.StatusOK, ui.StatusCode)
	password := s.Password
	require.NoError(t, s.Stop())

	s = start(t, o)
	require.Equal(t, password, s.Password, "the password stays")
	list, err := client(t, s).ListClustersWithResponse(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"blue"}, *list.JSON200)
	require.NoError(t, s.Stop())
	require.NotContains(t, said.String(), password)
}

func TestNetrcIsForCurl(t *testing.T) {
	t.Parallel()
	s := start(t, options(t))
	defer func() { require.NoError(t, s.Stop()) }()
	for _, name := range []string{s.Netrc, s.Commctl, filepath.Join(filepath.Dir(s.Netrc), "users.json"), filepath.Join(filepath.Dir(s.Netrc), "seal.key")} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), name)
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl on this machine")
	}
	out, err := exec.CommandContext(t.Context(), curl, "-sf", "--noproxy", "*", "--netrc-file", s.Netrc, s.URL+"/api/v0/clusters").Output()
	require.NoError(t, err)
	require.JSONEq(t, "[]", string(out))
	require.Error(t, exec.CommandContext(t.Context(), curl, "-sf", "--noproxy", "*", s.URL+"/api/v0/clusters").Run(), "nobody comes in without it")
}

func TestTwoOnOneFolder(t *testing.T) {
	t.Parallel()
	o := options(t)
	unlock, err := lock(mustDir(t, o.Dir))
	require.NoError(t, err)
	_, err = Start(t.Context(), o)
	require.ErrorContains(t, err, fmt.Sprintf("process %d runs on %s already", os.Getpid(), o.Dir))
	require.NoError(t, unlock())
	again, err := lock(o.Dir)
	require.NoError(t, err)
	require.NoError(t, again())
}

func TestTakenPortsAreAllNamedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	o := options(t)
	taken := l.Addr().(*net.TCPAddr).Port
	o.Port, o.UIPort = taken, taken
	_, err = Start(t.Context(), o)
	require.ErrorContains(t, err, fmt.Sprintf("port for the API: 127.0.0.1:%d is in use", taken))
	require.ErrorContains(t, err, fmt.Sprintf("port for the Temporal web UI: 127.0.0.1:%d is in use", taken))
	require.NoDirExists(t, filepath.Join(o.Dir, "postgres"))
}

func TestStartIsBoundByContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, options(t))
	require.ErrorIs(t, err, context.Canceled)
}

func options(t *testing.T) Options {
	return Options{
		Dir:    filepath.Join(pgtest.TempDir(t), "state"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func start(t *testing.T, o Options) *Stack {
	t.Helper()
	s, err := Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop() }) // when the test failed before it did
	return s
}

func client(t *testing.T, s *Stack) *apiclient.ClientWithResponses {
	t.Helper()
	c, err := s.Client()
	require.NoError(t, err)
	return c
}

func mustDir(t *testing.T, dir string) string {
	t.Helper()
	dir, err := makeDir(dir)
	require.NoError(t, err)
	return dir
}
