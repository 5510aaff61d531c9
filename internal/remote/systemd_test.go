package remote

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"commissaire/internal/secret"
)

// TestSystemdHost runs against a whole machine with systemd, which it reboots:
//
//	COMMISSAIRE_TEST_HOST=127.0.0.1:22 COMMISSAIRE_TEST_USER=root COMMISSAIRE_TEST_KEY=path go test -run SystemdHost
func TestSystemdHost(t *testing.T) {
	host, portText, err := net.SplitHostPort(os.Getenv("COMMISSAIRE_TEST_HOST"))
	if err != nil {
		t.Skip("COMMISSAIRE_TEST_HOST names no machine with systemd to try and reboot")
	}
	pem, err := os.ReadFile(os.Getenv("COMMISSAIRE_TEST_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Address: host, Port: port, User: os.Getenv("COMMISSAIRE_TEST_USER"), Key: secret.NewText(pem)}
	d := NewDialer(Options{})
	c := dial(t, d, target)
	ctx := testContext(t)
	mine := func(step string, argv ...string) Command {
		return Command{Key: Key{Operation: fmt.Sprint(time.Now().UnixNano()), Host: host, Step: step}, Argv: argv}
	}

	var wild []string
	for i := 1; i < 256; i++ {
		wild = append(wild, string([]byte{byte(i)}), fmt.Sprintf("%%%c$%c${%c}\\%c", i, i, i, i))
	}
	began := time.Now()
	o, out := once(t, c, mine("argv", append([]string{"printf", "%s."}, wild...)...))
	if o.State != Exited || o.ExitCode != 0 || out != strings.Join(wild, ".")+"." {
		t.Errorf("%+v %q", o, out)
	}
	t.Logf("once: %v", time.Since(began))

	unit := mine("unit", "sh", "-c", "id -u; cat /proc/self/cgroup; echo $COMMISSAIRE_RUN; umask")
	if _, out := once(t, c, unit); !strings.HasPrefix(out, "0\n") || !strings.Contains(out, "commissaire-") || !strings.Contains(out, "/var/lib/commissaire/runs/") {
		t.Errorf("not a unit of its own, as root: %q", out)
	} else {
		t.Log(out)
	}

	// Restarting sshd and closing the session leave the run alone.
	long := mine("restart", "sh", "-c", "systemctl restart ssh; sleep 2; echo survived")
	start(t, c, long)
	_ = c.Close()
	eventually(t, "sshd is back", func() bool {
		c, err = d.Dial(ctx, target)
		return err == nil
	})
	if o, out := once(t, c, long); o.State != Exited || out != "survived\n" {
		t.Errorf("%+v %q", o, out)
	}

	endless := mine("cancel", "sh", "-c", "setsid sleep 300 & sleep 300")
	start(t, c, endless)
	if err := c.Cancel(ctx, endless.Key, time.Second); err != nil {
		t.Error(err)
	}
	if o, _ := once(t, c, endless); o.State != Exited || o.ExitCode != 143 {
		t.Errorf("%+v", o)
	}

	id, err := c.BootID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reboot := mine("reboot", "systemctl", "reboot")
	reboot.IfBootID = id
	middle := mine("middle", "sleep", "300")
	start(t, c, middle)
	if _, err := c.Start(ctx, reboot); err != nil && KindOf(err) != Lost {
		t.Fatal(err)
	}
	eventually(t, "the host is back in another boot", func() bool {
		n, err := d.Dial(ctx, target)
		if err != nil {
			return false
		}
		defer n.Close()
		now, err := n.BootID(ctx)
		return err == nil && now != id
	})
	c = dial(t, d, target)
	if o, _ := once(t, c, middle); o.BootID != id || o.BootIDNow == id || o.State == Running {
		t.Errorf("%+v", o)
	} else {
		t.Logf("what ran while the host rebooted: %+v", o)
	}
	if s, err := c.Start(ctx, reboot); err != nil || s.BootIDNow == id {
		t.Errorf("%v %+v", err, s)
	} else {
		t.Logf("the reboot itself: %+v", s)
	}
	if now, err := c.BootID(ctx); err != nil || now == id {
		t.Errorf("%v", err)
	}
}
