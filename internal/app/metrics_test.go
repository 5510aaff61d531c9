package app

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

// TestListenersNameTheirSettings: who cannot listen is told which setting says where.
func TestListenersNameTheirSettings(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	c := config.Defaults()
	c.MetricsListen = taken.Addr().String()
	err = serveWorkerPages(t.Context(), c, slog.New(slog.DiscardHandler), func(context.Context) error { return nil })
	require.ErrorContains(t, err, "see metrics-listen)")
	require.NotContains(t, err.Error(), "listen-port")
}
