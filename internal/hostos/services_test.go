package hostos_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
)

// The answers are those of systemd 252.
func TestParseServiceState(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]hostos.Service{
		"LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n":                 {Exists: true, Active: true, Enabled: true, State: "active (running)"},
		"LoadState=loaded\nActiveState=active\nSubState=exited\nUnitFileState=static\n":                   {Exists: true, Active: true, Enabled: true, State: "active (exited)"},
		"LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled\n":                 {Exists: true, State: "inactive (dead)"},
		"LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled-runtime\n":          {Exists: true, Failed: true, State: "failed (failed)"},
		"LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\n":        {Exists: true, Enabled: true, State: "activating (auto-restart)"},
		"LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n":                      {State: "not-found"},
		"LoadState=masked\nActiveState=inactive\nSubState=dead\nUnitFileState=masked\n":                   {State: "masked"},
		"LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=transient\nSomethingNew=x": {Exists: true, Active: true, State: "active (running)"},
	} {
		got, err := hostos.ParseServiceState(0, out)
		require.NoError(t, err)
		require.Equal(t, want, got, out)
	}
	for _, out := range []string{"", "podman\n", "ActiveState=active\n", "LoadState=loaded\n", "LoadState=loaded\nActiveState=\x1b[31m\n"} {
		_, err := hostos.ParseServiceState(0, out)
		require.Error(t, err, out)
	}
	_, err := hostos.ParseServiceState(1, "LoadState=loaded\nActiveState=active\n")
	require.ErrorContains(t, err, "exit code 1")
}

func FuzzParseServiceState(f *testing.F) {
	f.Add(0, "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n")
	f.Add(0, "LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n")
	f.Add(1, "Failed to connect to bus: No such file or directory\n")
	f.Fuzz(func(t *testing.T, exit int, out string) {
		s, err := hostos.ParseServiceState(exit, out)
		if err != nil && s != (hostos.Service{}) || s.Active && s.Failed {
			t.Fatalf("%+v %v", s, err)
		}
		if len(s.State) > 200 || strings.ContainsFunc(s.State, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q", s.State)
		}
	})
}
