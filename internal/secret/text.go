package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Text shows of itself, whatever it is printed with.
const Redacted = "[redacted]"

// Text is a secret that cannot print itself: every fmt verb, slog, JSON, YAML
// and XML give Redacted, gob refuses it, and nothing can be decoded into it by
// accident. Reveal is the only way to the bytes, so a search for it finds every
// place that handles one. The zero Text is empty.
type Text struct {
	// A func and not a []byte: printers that go through unexported fields by
	// reflection (fmt on an outer unexported field, testify's diffs) can show
	// the bytes of a slice or behind a pointer, but never call a func.
	reveal func() []byte
}

// HostCreds are what logs in to a host.
type HostCreds struct {
	RemoteUser string
	PrivateKey Text // PEM, as the client sent it (after base64)
}

// NewText wraps a copy of b.
func NewText(b []byte) Text {
	if len(b) == 0 {
		return Text{}
	}
	kept := append([]byte(nil), b...)
	return Text{reveal: func() []byte { return kept }}
}

// Reveal gives a copy of the secret, nil when it is empty. Keep it out of
// errors, logs and command lines.
func (t Text) Reveal() []byte {
	if t.reveal == nil {
		return nil
	}
	return append([]byte(nil), t.reveal()...)
}

// Empty says whether there is nothing in it.
func (t Text) Empty() bool { return t.reveal == nil }

// Equal compares two secrets in a time that depends on their lengths only.
func (t Text) Equal(other Text) bool {
	return subtle.ConstantTimeCompare(t.Reveal(), other.Reveal()) == 1
}

// String gives Redacted.
func (t Text) String() string { return Redacted }

// GoString gives Redacted.
func (t Text) GoString() string { return Redacted }

// Format writes Redacted for every verb and flag.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalText gives Redacted; JSON, YAML and XML encoders use it.
func (t Text) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON gives Redacted as a JSON string.
func (t Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// LogValue gives Redacted to slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(Redacted) }
