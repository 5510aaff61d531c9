//go:build race

package authn

const (
	timedTries = 30
	slowdown   = 12
)
