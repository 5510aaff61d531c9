package remote

import (
	"errors"
	"fmt"
)

// Kind says what went wrong with a host, as far as it decides what to do next.
type Kind string

// The kinds of errors.
const (
	// Unreachable: no TCP connection: refused, no route, or no answer in time.
	Unreachable Kind = "unreachable"
	// NoBanner: TCP connects, but sshd does not finish the handshake in time.
	NoBanner Kind = "no-banner"
	// Disconnected: sshd closed the connection before the login was decided, as
	// it does when it has too many of them (MaxStartups, PerSourcePenalties).
	Disconnected Kind = "disconnected"
	// AuthRefused: sshd takes neither this user nor this key.
	AuthRefused Kind = "auth-refused"
	// HostKeyChanged: not the pinned host key. Nothing was sent. The cause is a
	// *HostKeyMismatch.
	HostKeyChanged Kind = "host-key-changed"
	// Lost: the connection broke in the middle of a request, whose outcome is
	// therefore unknown.
	Lost Kind = "lost"
	// SudoRefused: the user may not become root without a password.
	SudoRefused Kind = "sudo-refused"
	// BadKey: the private key or the pinned host key cannot be used at all.
	BadKey Kind = "bad-key"
	// HostUnusable: the host answers but lacks what every run needs: a shell, a
	// writable state directory, space on its disk.
	HostUnusable Kind = "host-unusable"
	// KeyConflict: the key was used on this host for another command.
	KeyConflict Kind = "key-conflict"
)

// Error is what every method of this package fails with, except for the
// context's own errors and those of a Sink, which are passed on as they are.
type Error struct {
	Kind Kind
	Host string // address and port
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("host %s: %s: %v", e.Host, e.Kind, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Permanent says that trying again without a change by somebody cannot help.
func (e *Error) Permanent() bool {
	switch e.Kind {
	case Unreachable, NoBanner, Disconnected, Lost, HostUnusable:
		return false // a full disk may be emptied, a host may come back
	default:
		return true
	}
}

// KindOf is the kind of an error of this package, "" for any other.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// HostKeyMismatch says which key was expected and which one came.
type HostKeyMismatch struct {
	Want string // fingerprint of the pinned key, "SHA256:…"
	Got  string // fingerprint of the presented key
	Key  string // the presented key in authorized_keys form, to accept it
}

func (m *HostKeyMismatch) Error() string {
	return fmt.Sprintf("the host presents key %s, pinned is %s; if the host was reinstalled, accept the new key, otherwise find out who answers in its place", m.Got, m.Want)
}
