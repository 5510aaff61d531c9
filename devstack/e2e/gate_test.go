package e2e

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/stretchr/testify/require"

	"commissaire/internal/remote/remotetest"
)

// gate holds a command of a host until it is opened. What a test does meanwhile has
// happened before the command ends, however slow the machine is.
type gate struct {
	s       *site
	h       *remotetest.Host
	command string
}

// gate makes a command wait whose first argument is this one.
func (s *site) gate(h *remotetest.Host, command, argument string) gate {
	s.t.Helper()
	g := gate{s, h, command}
	for _, file := range []string{g.began(), g.opened()} {
		require.NoError(s.t, os.RemoveAll(file))
	}
	require.NoError(s.t, h.OnCommand(command, fmt.Sprintf(
		`[ "${1-}" != %s ] || { : >"%s"; until [ -e "%s" ]; do sleep 0.05; done; }`, argument, g.began(), g.opened())))
	return g
}

func (g gate) began() string  { return filepath.Join(g.h.Dir(), g.command+".began") }
func (g gate) opened() string { return filepath.Join(g.h.Dir(), g.command+".opened") }

// reached waits until the command has come to the gate.
func (g gate) reached() {
	g.s.t.Helper()
	g.s.until(limit, g.command+" to begin on "+g.h.Name(), func() bool {
		_, err := os.Stat(g.began())
		return err == nil
	})
}

// open lets the command go on, and those that come later.
func (g gate) open() {
	g.s.t.Helper()
	require.NoError(g.s.t, os.WriteFile(g.opened(), nil, 0o644))
}
