package httptls

import (
	"crypto/tls"
	"log/slog"
	"sync"
	"time"
)

// reloadEvery is how often files are looked at, at most.
const reloadEvery = time.Second

// Files say where the PEM files are.
type Files struct {
	Cert         string // the certificate, then the chain to its CA
	Key          string // its private key; may be the same file
	ClientVerify string // CAs of client certificates and their CRLs, "" to ask for none
}

// cipherSuites are those of TLS 1.2 with forward secrecy and authenticated
// encryption; TLS 1.3 has no others (RFC 9325, 4.2).
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Config gives the settings of a TLS server over files. What is wrong with them
// now is an error; what is wrong later is logged, and the last good files stay in
// use.
func Config(files Files, logger *slog.Logger) (*tls.Config, error) {
	text, err := files.read()
	if err != nil {
		return nil, err
	}
	r := &reloader{files: files, logger: logger}
	if err := r.use(text, time.Now()); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(time.Now()), nil },
	}, nil
}

// reloader holds the settings of the last good files.
type reloader struct {
	files  Files
	logger *slog.Logger

	mu      sync.Mutex
	config  *tls.Config
	text    contents
	looked  time.Time
	problem string // what was logged last, "" when all is well
}

// current gives the settings for a connection that begins now. The files are
// small, so they are read and compared: no clock of a file system is trusted.
func (r *reloader) current(now time.Time) *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.looked) < reloadEvery {
		return r.config
	}
	r.looked = now
	text, err := r.files.read()
	if err == nil && text == r.text && r.problem == "" {
		return r.config
	}
	if err == nil {
		err = r.use(text, now)
	}
	if err == nil {
		r.logger.Info("the TLS files were read again; they count for new connections")
		r.problem = ""
	} else if r.problem != err.Error() {
		r.problem = err.Error()
		r.logger.Error("the TLS files have changed and cannot be used; the last good ones stay in use until they are mended", "error", err)
	}
	return r.config
}

// use makes the settings from what the files hold.
func (r *reloader) use(text contents, now time.Time) error {
	cert, err := certificate(r.files, text, now, r.logger)
	if err != nil {
		return err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: cipherSuites,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if r.files.ClientVerify != "" {
		a, err := parseAuthorities(r.files.ClientVerify, text.clientVerify, now, r.logger)
		if err != nil {
			return err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = a.pool
		c.VerifyConnection = a.checkRevoked
		// A resumed session would keep what an older list said of its certificate.
		c.SessionTicketsDisabled = true
	}
	r.config, r.text = c, text
	return nil
}
