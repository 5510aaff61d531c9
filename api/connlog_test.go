package api

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWhyTLSFailedIsInTheLog: an operator whose client cannot connect looks there, at
// the usual level.
func TestWhyTLSFailedIsInTheLog(t *testing.T) {
	t.Parallel()
	out := &syncBuffer{}
	server := NewHTTPServer("", http.NotFoundHandler(), slog.New(slog.NewTextHandler(out, nil)))
	_, err := server.ErrorLog.Writer().Write([]byte("http: TLS handshake error from 192.0.2.1:5: tls: certificate has expired\n"))
	require.NoError(t, err)
	require.Contains(t, out.String(), "certificate has expired")
	server.ErrorLog.Print("http: superfluous noise")
	require.NotContains(t, out.String(), "noise")
	for range 1000 {
		server.ErrorLog.Print("http: TLS handshake error from 192.0.2.1:5: EOF")
	}
	require.Less(t, bytes.Count([]byte(out.String()), []byte("\n")), 100, "strangers cannot fill the log")
}

// TestRefusedConnectionsOfARealServer: net/http says it in the words that connectionLog
// looks for.
func TestRefusedConnectionsOfARealServer(t *testing.T) {
	t.Parallel()
	out := &syncBuffer{}
	server := NewHTTPServer("", http.NotFoundHandler(), slog.New(slog.NewTextHandler(out, nil)))
	server.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	// The server has no certificate, so there is none to verify: only its refusal counts.
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	require.Error(t, err)
	require.Nil(t, conn)
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "connection refused") }, time.Minute, time.Millisecond)
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}
