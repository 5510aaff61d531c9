//go:build race

package authn

const (
	timedTries = 15
	slowdown   = 12
)
