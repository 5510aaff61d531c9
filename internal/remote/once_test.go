package remote

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOnceRunsOnceAndAttaches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("a", `echo x >>"$FLEET_HOST/count"; printf 'out '; echo err >&2; exit 3`)
	for range 3 {
		o, out := once(t, c, cmd)
		if o.State != Exited || o.ExitCode != 3 || out != "out err\n" || o.OutputSize != 8 {
			t.Fatalf("%+v %q", o, out)
		}
		if o.BootID != b.host.BootID() || o.BootIDNow != o.BootID || time.Since(o.Started).Abs() > 10*time.Minute {
			t.Errorf("%+v", o)
		}
	}
	if n := count(t, b.host.Dir()+"/count"); n != 1 {
		t.Errorf("ran %d times", n)
	}
	files, err := filepath.Glob(b.host.StateDir() + "/runs/" + cmd.Key.name() + "/*")
	if err != nil || len(files) != 4 { // claim and its first name, out, rc
		t.Errorf("left behind: %v", files)
	}
}

// Every kind of thing that may stand in an argument arrives as it was.
func TestArgvArrivesExactly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	all := make([]byte, 0, 255)
	for i := 1; i < 256; i++ {
		all = append(all, byte(i))
	}
	argv := []string{
		"printf", `[%s]`, "", " ", "a b", "$HOME", "`id`", "$(id)", `\`, `\\n`, `'`, `'\''`, `"`, "\n", "a\nb\n", "*", "~", "!", "&", ";", "|",
		"-n", "--", "%s%n", "{a,b}", "<x", "\x01", "ünï", "\x81\x88\xff", string(all), strings.Repeat("x", 100_000),
	}
	want := "[" + strings.Join(argv[2:], "][") + "]"
	for i := range 2 {
		o, out := once(t, c, Command{Key: key(fmt.Sprint("argv", i)), Argv: argv})
		if o.ExitCode != 0 || out != want {
			t.Fatalf("argv changed on its way: %q", out)
		}
	}
	r, err := c.Read(testContext(t), argv[:len(argv)-1])
	if err != nil || string(r.Stdout) != strings.TrimSuffix(want, "["+argv[len(argv)-1]+"]") {
		t.Errorf("%v %q", err, r.Stdout)
	}
}

// The command gets the login's environment, umask and nothing of ours.
func TestCommandEnvironment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	ctx := testContext(t)
	script := `env | grep -v -e '^_=' -e '^SSH_' -e '^SHLVL=' -e '^OLDPWD=' -e '^PWD=' | sort; umask; ls /proc/self/fd | tr '\n' ' '; echo`
	r, err := c.Script(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	o, got := once(t, c, sh("env", `cd /tmp && `+script+`; cat; readlink /proc/$$/cwd`))
	dir := b.host.StateDir() + "/runs/" + key("env").name()
	want := strings.Replace(string(r.Stdout), "FLEET_HOST=", "COMMISSAIRE_RUN="+dir+"\nFLEET_HOST=", 1)
	lines := func(s string) []string { l := strings.Split(s, "\n"); slices.Sort(l); return slices.Compact(l) }
	missing := slices.DeleteFunc(lines(got), func(l string) bool { return slices.Contains(lines(want), l) })
	if o.ExitCode != 0 || len(missing) != 1 || missing[0] != "/tmp" || len(lines(got)) != len(lines(want))+1 {
		t.Errorf("%d %q\n%s\nwant\n%s", o.ExitCode, missing, got, want)
	}
	if _, cwd := once(t, c, Command{Key: key("cwd"), Argv: []string{"pwd"}}); cwd != "/\n" {
		t.Errorf("runs in %q", cwd)
	}
}

func TestBinaryOutputAndOffsets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	if err := os.WriteFile(b.host.Dir()+"/blob", data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := sh("blob", `cat "$FLEET_HOST/blob"`)
	if _, out := once(t, c, cmd); sha256.Sum256([]byte(out)) != sha256.Sum256(data) {
		t.Fatalf("other bytes, %d of %d", len(out), len(data))
	}
	for _, from := range []int{1, 131071, 131072, len(data) - 1, len(data)} {
		m := memory{bytes: slices.Clone(data[:from])}
		if _, err := c.Once(testContext(t), cmd, int64(from), &m); err != nil || !bytes.Equal(m.bytes, data) {
			t.Errorf("from %d: %v, %d bytes", from, err, len(m.bytes))
		}
	}
}

// jumper is a sink behind which another worker has stored more than this one
// has brought.
type jumper struct {
	memory
	to   int64
	seen []int64
}

func (j *jumper) Output(offset int64, data []byte) (int64, error) {
	j.seen = append(j.seen, offset)
	return max(j.to, offset+int64(len(data))), nil
}

func TestSinkMayGoOnElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("jump", "head -c 1000000 /dev/zero")
	once(t, c, cmd)
	j := jumper{to: 900_000}
	if _, err := c.Once(testContext(t), cmd, 0, &j); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(j.seen, []int64{0, 900_000}) {
		t.Errorf("offsets %v", j.seen)
	}
}

func TestHeadLimitKeepsTail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	cmd := sh("big", "yes 0123456789abcde | head -c 104857600; echo the end")
	cmd.Limits.Head = 1 << 20
	var m memory
	o, err := c.Once(testContext(t), cmd, 0, &m)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(100<<20 + 8)
	if m.len() != 1<<20 || o.OutputSize != size || len(o.Tail) != 65536 || o.TailOffset != size-65536 || !bytes.HasSuffix(o.Tail, []byte("cde\nthe end\n")) {
		t.Errorf("head %d, size %d, tail %d at %d", m.len(), o.OutputSize, len(o.Tail), o.TailOffset)
	}
	cmd = sh("small tail", "head -c 1500 /dev/zero | tr '\\0' x")
	cmd.Limits.Head = 1000
	if o, out := once(t, c, cmd); len(out) != 1000 || o.TailOffset != 1000 || len(o.Tail) != 500 {
		t.Errorf("head %d, tail %d at %d", len(out), len(o.Tail), o.TailOffset)
	}
}

func TestFollowWhileRunning(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	m := memory{}
	fifo := b.host.Dir() + "/go"
	m.onOut = func() { // the command goes on only once its first output has come through
		if string(m.bytes) == "one\n" {
			_ = os.WriteFile(fifo, nil, 0o644)
		}
	}
	alive := b.host.Dir() + "/alive"
	m.onAlive = func() { _ = os.WriteFile(alive, nil, 0o644) } // and ends only once it was said to live
	o, err := c.Once(testContext(t), sh("follow", `echo one; while [ ! -e "$FLEET_HOST/go" ] || [ ! -e "$FLEET_HOST/alive" ]; do sleep 0.05; done; echo two`), 0, &m)
	if err != nil || o.State != Exited || m.String() != "one\ntwo\n" {
		t.Fatalf("%v %+v %q", err, o, m.String())
	}
}

// The promise: whatever happens to those who start and follow, every command
// runs once, and its output is complete and in order.
func TestOnceUnderCuts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.proxy(t)
	const commands = 104
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	stop := make(chan struct{})
	var ended atomic.Int64
	var chaos sync.WaitGroup
	chaos.Go(func() {
		r := rand.New(rand.NewPCG(seed, 1))
		// On a busy machine a login may take longer than the pause: it grows until
		// something ends in it.
		slow, before := 1, int64(0)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(slow*(100+r.IntN(400))) * time.Millisecond):
			}
			if now := ended.Load(); now > before {
				slow, before = max(1, slow/2), now
			} else {
				slow = min(2*slow, 64)
			}
			p.Cut()
			if i%5 == 3 {
				if err := b.host.RestartSSHD(testContext(t)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var work sync.WaitGroup
	next := make(chan int)
	attempts := make([]int, commands)
	for range 8 {
		work.Go(func() {
			var starts sync.WaitGroup
			defer starts.Wait()
			pool := NewPool(b.dialer, time.Minute)
			defer pool.Close()
			for i := range next {
				cmd := sh(fmt.Sprint("cut", i), fmt.Sprintf(`echo %d >>"$FLEET_HOST/counter"; i=0; while [ $i -lt 40 ]; do echo "%d line $i"; i=$((i+1)); done; sleep 0.0%d; echo done`, i, i, i%10))
				var want strings.Builder
				for l := range 40 {
					fmt.Fprintf(&want, "%d line %d\n", i, l)
				}
				want.WriteString("done\n")
				// A zombie attempt, started first and never waited for.
				starts.Go(func() {
					if c, release, err := pool.Get(testContext(t), b.via(p)); err == nil {
						defer release()
						_, _ = c.Start(testContext(t), cmd)
					}
				})
				var m memory
				deadline := time.Now().Add(5 * time.Minute)
				for {
					attempts[i]++
					o, err := func() (Outcome, error) {
						c, release, err := pool.Get(testContext(t), b.via(p))
						if err != nil {
							return Outcome{}, err
						}
						defer release()
						return c.Once(testContext(t), cmd, m.len(), &m)
					}()
					if err == nil {
						ended.Add(1)
						if o.State != Exited || o.ExitCode != 0 || m.String() != want.String() {
							t.Errorf("command %d: %+v, output %q", i, o, m.String())
						}
						break
					}
					if kind := KindOf(err); kind != Lost && kind != Disconnected && kind != Unreachable || time.Now().After(deadline) {
						t.Errorf("command %d: %v", i, err)
						break
					}
				}
			}
		})
	}
	for i := range commands {
		next <- i
	}
	close(next)
	work.Wait()
	close(stop)
	chaos.Wait()
	total := 0
	for _, n := range attempts {
		total += n
	}
	t.Logf("%d commands, %d attempts", commands, total)
	b2, err := os.ReadFile(b.host.Dir() + "/counter")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, l := range strings.Fields(string(b2)) {
		seen[l]++
	}
	for i := range commands {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("command %d ran %d times", i, n)
		}
	}
}

// Many who start the same thing at the same moment.
func TestConcurrentStarters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cmd := sh("race", `echo x >>"$FLEET_HOST/count"; sleep 0.2; echo out`)
	conns := []*Conn{b.conn(t), b.conn(t), b.conn(t)}
	var wg sync.WaitGroup
	for i := range 18 {
		wg.Go(func() {
			var m memory
			o, err := conns[i%3].Once(testContext(t), cmd, 0, &m)
			if err != nil || o.State != Exited || m.String() != "out\n" {
				t.Errorf("%v %+v %q", err, o, m.String())
			}
		})
	}
	wg.Wait()
	if n := count(t, b.host.Dir()+"/count"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}
