package simhost

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
	"commissaire/internal/remote"
	"commissaire/internal/remote/remotetest"
	"commissaire/internal/secret"
)

// downtime is long enough to be seen.
const downtime = 2 * time.Second

func open(t *testing.T, hosts int) *Fleet {
	t.Helper()
	f, err := Open(Options{Hosts: hosts, Seed: 1, Shutdown: 50 * time.Millisecond, Downtime: downtime})
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

func target(f *Fleet, h *Host) remote.Target {
	return remote.Target{Address: h.Address(), Port: Port, HostKey: h.HostKey(), Key: secret.NewText([]byte(f.ClientKey()))}
}

func dial(t *testing.T, to remote.Target) *remote.Conn {
	t.Helper()
	c, err := remote.NewDialer(remote.Options{}).Dial(t.Context(), to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// redial waits until the host can be reached again.
func redial(t *testing.T, to remote.Target) (c *remote.Conn) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		c, err = remote.NewDialer(remote.Options{}).Dial(t.Context(), to)
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sink keeps output.
type sink struct{ text string }

func (s *sink) Output(offset int64, data []byte) (int64, error) {
	s.text += fmt.Sprintf("[%d]%s", offset, data)
	return offset + int64(len(data)), nil
}

func (*sink) Alive() {}

// TestAgreesWithARealHost makes the same calls to a simulated host and to a real
// sshd. What the client makes of the answers must be the same.
func TestAgreesWithARealHost(t *testing.T) {
	t.Parallel()
	sshd := remotetest.New(t, 1)
	h := sshd.Hosts()[0]
	h.SetReboot(remotetest.Reboot{Downtime: downtime})
	to := remote.Target{
		Address: h.Address(), Port: h.Port(), User: h.User(), HostKey: h.HostKey(), Key: secret.NewText([]byte(sshd.ClientKey())),
	}
	names := factNames(t, to)
	want := transcript(t, to)
	require.Equal(t, 1, h.Reboots())

	f := open(t, 1)
	require.ElementsMatch(t, names, factNames(t, target(f, f.Hosts()[0])))
	got := transcript(t, target(f, f.Hosts()[0]))
	require.Equal(t, want, got)
	require.Empty(t, f.Unknown())
	require.NoError(t, f.Err())
	downs := f.Hosts()[0].Downs()
	require.Len(t, downs, 1)
	require.True(t, downs[0].Start.Before(downs[0].Up))
}

// transcript makes every call that the product makes and writes down what came,
// without what differs between any two hosts.
func transcript(t *testing.T, to remote.Target) (lines []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := dial(t, to)
	first, err := c.BootID(ctx)
	require.NoError(t, err)
	_, err = uuid.Parse(first)
	require.NoError(t, err)

	note := func(what string, v any, err error) {
		text := fmt.Sprintf("%+v", v)
		if s, ok := v.(remote.Status); ok {
			text = describe(s, first)
		}
		if err != nil {
			text = "error " + string(remote.KindOf(err))
		}
		lines = append(lines, what+": "+text)
	}
	once := func(what string, cmd remote.Command, from int64) {
		var s sink
		o, err := c.Once(ctx, cmd, from, &s)
		note(what, o.Status, err)
		lines = append(lines, fmt.Sprintf("%s printed %s, tail [%d]%s", what, s.text, o.TailOffset, o.Tail))
	}
	status := func(what string, key remote.Key) {
		s, err := c.Status(ctx, key)
		note(what, s, err)
	}

	facts, err := c.Script(ctx, hostos.FactsScript)
	require.NoError(t, err)
	parsed, err := hostos.ParseFacts(string(facts.Stdout))
	require.NoError(t, err)
	require.Equal(t, first, parsed.BootID)
	note("facts", [2]string{parsed.OS, parsed.OSVersion}, nil)

	said, err := c.Script(ctx, hostos.PulseScript)
	require.NoError(t, err)
	pulse, err := hostos.ParsePulse(string(said.Stdout))
	require.Equal(t, first, pulse.BootID)
	note("pulse", pulse.Moving, err)

	state, err := c.Read(ctx, hostos.SystemState())
	note("system", []any{hostos.ParseSystemState(string(state.Stdout)), state.ExitCode, string(state.Stderr)}, err)
	can, err := c.Read(ctx, hostos.CanReboot())
	note("can reboot", can.ExitCode, err)
	read, err := c.Read(ctx, []string{"echo", "it's", `a "read"`})
	note("read", read, err)

	key := func(step string) remote.Key {
		return remote.Key{Operation: "op", Host: "h", Step: step, Attempt: 1}
	}
	hello := remote.Command{Key: key("hello"), Argv: []string{"echo", "hello", "'world' $HOME"}}
	status("nobody's", hello.Key)
	once("first time", hello, 0)
	once("second time", hello, 0)
	once("from within", hello, 4)
	once("from the end", hello, 20)
	short := hello
	short.Limits.Head = 5
	once("with a limit", short, 0)
	once("beyond the limit", short, 7)
	status("ended", hello.Key)
	other := hello
	other.Argv = []string{"echo", "another"}
	once("same key, another command", other, 0)
	note("forget", nil, c.Forget(ctx, hello.Key))
	once("forgotten", hello, 0)
	note("forget nobody's", nil, c.Forget(ctx, key("nobody")))

	note("cancel nobody's", nil, c.Cancel(ctx, key("cancelled"), time.Second))
	status("cancelled", key("cancelled"))
	once("start a cancelled one", remote.Command{Key: key("cancelled"), Argv: []string{"echo", "no"}}, 0)
	note("cancel an ended one", nil, c.Cancel(ctx, hello.Key, time.Second))
	status("still ended", hello.Key)
	once("in another boot", remote.Command{Key: key("guarded"), Argv: []string{"echo", "no"}, IfBootID: "another"}, 0)

	_, err = c.Start(ctx, remote.Command{Key: key("started"), Argv: []string{"echo", "started"}})
	require.NoError(t, err)
	var ended remote.Status
	require.Eventually(t, func() bool {
		ended, err = c.Status(ctx, key("started"))
		return err == nil && ended.State == remote.Exited
	}, time.Minute, 10*time.Millisecond)
	note("started", ended, err)

	reboot := remote.Command{Key: key("reboot"), Argv: hostos.Reboot(), IfBootID: first}
	if _, err := c.Start(ctx, reboot); err != nil {
		require.Equal(t, remote.Lost, remote.KindOf(err)) // it went down while it answered
	}
	require.Eventually(t, func() bool {
		d, err := remote.NewDialer(remote.Options{}).Dial(ctx, to)
		if err != nil {
			return remote.KindOf(err) == remote.Unreachable
		}
		defer d.Close()
		now, err := d.BootID(ctx)
		return err == nil && now != first // this test stood still while it was down
	}, time.Minute, 5*time.Millisecond)
	_, err = c.BootID(ctx)
	note("on the connection from before", nil, err)
	c = redial(t, to)
	now, err := c.BootID(ctx)
	note("another boot", now != first, err)
	status("before the reboot", hello.Key)
	_, err = c.Start(ctx, reboot)
	require.NoError(t, err, "claimed before the reboot, and not run again")
	reboot.Key = key("again")
	once("the guard of a reboot", reboot, 0)

	stranger := to
	stranger.Key = secret.NewText([]byte(strangersKey(t)))
	_, err = remote.NewDialer(remote.Options{}).Dial(ctx, stranger)
	note("another client key", nil, err)
	changed := to
	changed.HostKey = open(t, 1).Hosts()[0].HostKey()
	_, err = remote.NewDialer(remote.Options{}).Dial(ctx, changed)
	var mismatch *remote.HostKeyMismatch
	note("another host key", errors.As(err, &mismatch), nil)
	return lines
}

// describe leaves out of a status what differs between any two hosts.
func describe(s remote.Status, first string) string {
	boot := func(id string) string {
		switch id {
		case "", first:
			return strings.Replace(id, first, "first", 1)
		default:
			return "later"
		}
	}
	return fmt.Sprintf("%s exit %d, %d bytes, %q, claimed %t in boot %s, now %s, argv %s",
		s.State, s.ExitCode, s.OutputSize, s.Reason, s.Started.After(time.Now().Add(-time.Hour)), boot(s.BootID), boot(s.BootIDNow), s.ArgvDigest)
}

// factNames are the names of the facts that a host prints.
func factNames(t *testing.T, to remote.Target) []string {
	facts, err := dial(t, to).Script(t.Context(), hostos.FactsScript)
	require.NoError(t, err)
	return regexp.MustCompile(`(?m)^[a-z_]+=`).FindAllString(string(facts.Stdout), -1)
}

func strangersKey(t *testing.T) string { return open(t, 0).ClientKey() }

func TestUnknownScriptsAreNamed(t *testing.T) {
	t.Parallel()
	f := open(t, 1)
	c := dial(t, target(f, f.Hosts()[0]))
	r, err := c.Script(t.Context(), "echo something new", "with", "arguments")
	require.NoError(t, err)
	require.Equal(t, 127, r.ExitCode)
	require.Contains(t, string(r.Stderr), "something new")
	require.Len(t, f.Unknown(), 1)
	require.Contains(t, f.Unknown()[0], "something new")
}

// TestHalfAScriptRunsNothing: what a broken connection cuts off is no drift.
func TestHalfAScriptRunsNothing(t *testing.T) {
	t.Parallel()
	f := open(t, 1)
	h := f.Hosts()[0]
	for _, stdin := range []string{"", scriptHead, scriptHead + "\n(\nc_reboot" + scriptTail[:len(scriptTail)-2]} {
		a := h.answer("exec sh -s", stdin)
		require.Equal(t, 2, a.code)
		require.Empty(t, a.stdout)
	}
	require.Empty(t, f.Unknown())
}

func TestOtherUsersGoThroughSudo(t *testing.T) {
	t.Parallel()
	f := open(t, 1)
	to := target(f, f.Hosts()[0])
	to.User = "admin"
	id, err := dial(t, to).BootID(t.Context())
	require.NoError(t, err)
	require.Equal(t, f.Hosts()[0].BootID(), id)
}

// TestEveryHostRebootsOnItsOwn: all go down and come back, each with its own key.
func TestEveryHostRebootsOnItsOwn(t *testing.T) {
	t.Parallel()
	const count = 300
	f := open(t, count)
	before := map[string]string{}
	keys := map[string]bool{}
	for _, h := range f.Hosts() {
		before[h.Address()] = h.BootID()
		keys[h.HostKey()] = true
		h.mu.Lock()
		h.reboot()
		h.reboot() // it goes down already
		h.mu.Unlock()
	}
	require.Len(t, before, count)
	require.Len(t, keys, count)
	require.Eventually(t, func() bool { return f.Down() == 0 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, f.Err())
	for _, h := range f.Hosts() {
		require.Len(t, h.Downs(), 1)
		require.NotEqual(t, before[h.Address()], h.BootID())
	}
	id, err := dial(t, target(f, f.Hosts()[count-1])).BootID(t.Context())
	require.NoError(t, err)
	require.Equal(t, f.Hosts()[count-1].BootID(), id)
}
