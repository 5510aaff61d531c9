package httptls

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// maxFile bounds each file, in bytes. A CRL grows with every certificate that is
// revoked.
const maxFile = 32 << 20

// contents is what the files hold.
type contents struct{ cert, key, clientVerify string }

func (f Files) read() (c contents, err error) {
	if c.cert, err = readFile(f.Cert); err != nil {
		return contents{}, fmt.Errorf("TLS certificate: %w", err)
	}
	if c.key, err = readFile(f.Key); err != nil {
		return contents{}, fmt.Errorf("TLS private key: %w", err)
	}
	if f.ClientVerify == "" {
		return c, nil
	}
	if c.clientVerify, err = readFile(f.ClientVerify); err != nil {
		return contents{}, fmt.Errorf("CAs of client certificates: %w", err)
	}
	return c, nil
}

func readFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return string(text), err
}

// certificate makes the server's certificate and key. One that is not valid now
// is used and told: clients refuse it, and the clock may be what is wrong.
func certificate(files Files, text contents, now time.Time, logger *slog.Logger) (tls.Certificate, error) {
	if !holds(text.cert, "CERTIFICATE") {
		return tls.Certificate{}, fmt.Errorf("TLS certificate: %s holds no certificate in PEM form", files.Cert)
	}
	if err := checkKey(text.key); err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS private key: %s %w", files.Key, err)
	}
	cert, err := tls.X509KeyPair([]byte(text.cert), []byte(text.key))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s with the key of %s: %w", files.Cert, files.Key, err)
	}
	if leaf := cert.Leaf; now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		logger.Warn("the TLS certificate is not valid now, so clients will refuse it",
			"file", files.Cert, "not_before", leaf.NotBefore, "not_after", leaf.NotAfter)
	}
	return cert, nil
}

func checkKey(text string) error {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return errors.New("has a passphrase; take it off, nobody could type it in")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil
		}
	}
	return errors.New("holds no private key in PEM form")
}

// holds says whether PEM text has a block of that type.
func holds(text, kind string) bool {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return true
		}
	}
	return false
}
