//go:build !race

package authn

const (
	timedTries = 200 // of each caller
	slowdown   = 1   // of bcrypt by the race detector
)
