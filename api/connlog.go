package api

import (
	"bytes"
	"log/slog"

	"golang.org/x/time/rate"
)

// connectionLog takes what net/http says of connections. Why a TLS handshake failed,
// for instance over a certificate that has expired, is nowhere else and is what an
// operator looks for, so it is shown, but not as often as strangers like. The rest is
// noise of scanners.
type connectionLog struct {
	logger *slog.Logger
	shown  *rate.Limiter
}

func (c *connectionLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("TLS handshake error")) && c.shown.Allow() {
		c.logger.Info("connection refused", "error", text)
	} else {
		c.logger.Debug("connection", "error", text)
	}
	return len(line), nil
}
