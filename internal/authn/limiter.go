package authn

import (
	"fmt"
	"time"
)

// Throttled says that a caller was refused too often and has to wait. It is an
// ErrDenied too.
type Throttled struct {
	RetryAfter time.Duration // more than zero
}

func (t *Throttled) Error() string {
	return fmt.Sprintf("too many refused requests, try again in %s", t.RetryAfter.Round(time.Second))
}

// Unwrap gives ErrDenied.
func (t *Throttled) Unwrap() error { return ErrDenied }
