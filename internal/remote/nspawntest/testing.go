package nspawntest

import (
	"context"
	"testing"
	"time"
)

// Start boots n machines for one test and removes them with it. On a machine that
// cannot run them the test is skipped, and says why. The first use ever builds
// the base, about a minute on an idle machine.
func Start(t testing.TB, n int, authorizedKey string) *Machines {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	ms, err := Open(ctx, Options{Count: n, AuthorizedKey: authorizedKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range ms.All() {
				t.Logf("end of the console of %s:\n%s", m.Name(), tail(m.Console()))
			}
		}
		if err := ms.Close(); err != nil {
			t.Error(err)
		}
	})
	return ms
}
