package remote

import (
	"testing"
	"time"
)

func TestOnceTrivial(t *testing.T) {
	b := setup(t)
	c := b.conn(t)
	start := time.Now()
	o, out := once(t, c, sh("a", "echo hello; exit 3"))
	t.Logf("%v %+v", time.Since(start), o)
	if o.State != Exited || o.ExitCode != 3 || out != "hello\n" {
		t.Errorf("%+v %q", o, out)
	}
	o, out = once(t, c, sh("a", "echo hello; exit 3"))
	if o.State != Exited || o.ExitCode != 3 || out != "hello\n" {
		t.Errorf("%+v %q", o, out)
	}
}
