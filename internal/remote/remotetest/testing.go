package remotetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// New starts n Debian hosts, h1 … hn, for one test and ends them with it.
func New(t testing.TB, n int) *Fleet {
	t.Helper()
	configs := make([]HostConfig, n)
	for i := range configs {
		configs[i] = HostConfig{Name: fmt.Sprintf("h%d", i+1)}
	}
	return NewHosts(t, configs...)
}

// NewHosts starts the given hosts for one test and ends them with it. Without
// sshd on the machine the test is skipped, and says so.
func NewHosts(t testing.TB, hosts ...HostConfig) *Fleet {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	f, err := Open(ctx, t.TempDir(), hosts...)
	if errors.Is(err, ErrNoSSHD) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}
