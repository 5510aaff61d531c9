package fleet

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says which sort of failure an Error is. The API maps each kind to one
// HTTP status in one place; activities map it to retry or stop.
type Kind string

// The kinds of failure, coarse on purpose.
const (
	// Invalid: the request itself is wrong; repeating it cannot help.
	Invalid Kind = "invalid"
	// Forbidden: who asks may not do this.
	Forbidden Kind = "forbidden"
	// NotFound: the thing named does not exist.
	NotFound Kind = "not_found"
	// Conflict: the request is right but does not fit what is stored.
	Conflict Kind = "conflict"
	// NotReady: the host is not in a state that allows this.
	NotReady Kind = "not_ready"
	// Unavailable: a part we need (Postgres, Temporal) does not answer now.
	Unavailable Kind = "unavailable"
)

// FieldError names one wrong member of a request. Detail never repeats the
// value, which may be a secret.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Error is the one typed error that may reach a user. Anything else that
// reaches the edge becomes a 500 without detail.
type Error struct {
	Kind   Kind
	Detail string       // one sentence: what happened and what to do next
	Fields []FieldError // the members of the request that are to blame
	// Holder is the operation that stands in the way, for a Conflict over a lock.
	Holder *Operation
	Err    error // the cause, for logs only
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s: %s", f.Field, f.Detail)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind; a %w operand becomes its cause only in the
// text, so causes that users must not see go into Err by hand.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// InvalidField makes an Invalid error about one member.
func InvalidField(field, format string, args ...any) *Error {
	d := fmt.Sprintf(format, args...)
	return &Error{Kind: Invalid, Detail: field + " " + d, Fields: []FieldError{{Field: field, Detail: d}}}
}

// KindOf gives the kind of the first Error in err's chain, or "".
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}
