package activities_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/activities"
	"commissaire/internal/fleet"
	"commissaire/internal/remote"
	"commissaire/internal/secret"
	"commissaire/internal/store"
	"commissaire/workflows"
)

// commanded is a cluster of bootstrapped hosts and one who runs commands there.
type commanded struct {
	*watched
	commands *activities.Commands
	op       fleet.Operation
}

func newCommanded(t *testing.T, hosts int) *commanded {
	t.Helper()
	c := &commanded{watched: newWatched(t, hosts)}
	c.commands = c.another()
	return c
}

// another is a worker of its own.
func (c *commanded) another() *activities.Commands {
	// A host that hangs is not given up before a test has looked.
	dialer := remote.NewDialer(remote.Options{DialTimeout: 2 * time.Second, HandshakeTimeout: patience})
	return activities.NewCommands(func(string) activities.CommandStore { return c.Store }, dialer)
}

// order puts a command on record, and begins it.
func (c *commanded) order(t *testing.T, command fleet.Command) {
	t.Helper()
	if command.Timeout == 0 {
		command.Timeout = fleet.Duration(time.Minute)
	}
	op, created, err := c.StartOperation(t.Context(), store.NewOperation{Kind: fleet.KindCommand, Cluster: cluster, Command: &store.NewCommand{Command: command}})
	require.NoError(t, err)
	require.True(t, created)
	_, err = c.BeginOperation(t.Context(), op.ID)
	require.NoError(t, err)
	c.op = op
}

func (c *commanded) page() workflows.CommandPage {
	ref := workflows.OperationRef{Tenant: fleet.DefaultTenant, OperationID: c.op.ID}
	return workflows.CommandPage{OperationRef: ref, To: c.op.Hosts, Unreachable: patience}
}

func (c *commanded) run(h how, by *activities.Commands, page workflows.CommandPage) (workflows.CommandCounts, error) {
	return execute(h, workflows.RunCommands, by.Page, page)
}

// ended says how each host ended, with what its step printed, in the order of hosts.
func (c *commanded) ended(t *testing.T) (all []string) {
	t.Helper()
	runs, err := c.HostRuns(t.Context(), c.op.ID)
	require.NoError(t, err)
	for _, r := range runs {
		printed := strings.TrimSuffix(c.output(t, r.Address), "Terminated\n") // as some shells say of a command that is ended
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %q %s", r.State, printed, fleet.OurWords(r.Reason))))
	}
	return all
}

func (c *commanded) step(t *testing.T, address string) fleet.Step {
	t.Helper()
	steps, err := c.Steps(t.Context(), c.op.ID, address)
	require.NoError(t, err)
	if len(steps) == 0 {
		return fleet.Step{}
	}
	require.Len(t, steps, 1)
	return steps[0]
}

func (c *commanded) output(t *testing.T, address string) string {
	t.Helper()
	step := c.step(t, address)
	if step.ID == 0 {
		return ""
	}
	var out strings.Builder
	for {
		chunks, err := c.Output(t.Context(), step.ID, int64(out.Len()), 0)
		require.NoError(t, err)
		if len(chunks) == 0 {
			return out.String()
		}
		for _, chunk := range chunks {
			require.EqualValues(t, out.Len(), chunk.Offset, "chunks touch")
			out.Write(chunk.Data)
		}
	}
}

func touch(t *testing.T, file string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, nil, 0o644))
}

func shell(script string) fleet.Command { return fleet.Command{Argv: []string{"sh", "-c", script}} }

// begun waits until the command has printed something on so many hosts.
func (c *commanded) begun(t *testing.T, hosts int) {
	t.Helper()
	eventually(t, func() bool {
		n := 0
		for _, h := range c.fleet.Hosts() {
			if strings.Contains(c.output(t, h.Address()), "begun") {
				n++
			}
		}
		return n == hosts
	}, "the command prints on %d hosts", hosts)
}

func TestCommandOnAllHosts(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 3)
	last := c.fleet.Hosts()[2].Address()
	c.order(t, shell(`h=${FLEET_HOST##*/}; echo "on $h" >&2; printf x; [ "$h" != h3 ] || exit 3`))
	counts, err := c.run(how{}, c.commands, c.page())
	require.NoError(t, err)
	require.Equal(t, workflows.CommandCounts{Succeeded: 2, Failed: 1}, counts)
	require.Equal(t, []string{`succeeded "on h1\nx"`, `succeeded "on h2\nx"`, `failed "on h3\nx" the command ended with exit code 3`}, c.ended(t))
	step := c.step(t, last)
	require.Equal(t, []any{fleet.StepFailed, 3, int64(7), int64(7)}, []any{step.State, *step.ExitCode, step.OutputSize, step.Stored})
	require.Equal(t, "the command ended with exit code 3; it said: on h3 / x", step.Reason)
	for _, h := range c.fleet.Hosts() {
		now, err := c.Host(t.Context(), h.Address())
		require.NoError(t, err)
		require.Equal(t, fleet.HostDisassociated, now.State, "a command says nothing about the host")
	}

	counts, err = c.run(how{}, c.commands, c.page())
	require.NoError(t, err)
	require.Equal(t, workflows.CommandCounts{}, counts, "nothing is left to do")
	ended, err := execute(how{}, workflows.EndCommand, c.commands.End, workflows.CommandEnd{OperationRef: c.page().OperationRef})
	require.NoError(t, err)
	require.Equal(t, workflows.CommandEnded{State: fleet.OperationFailed, Reason: "1 of 3 hosts failed"}, ended)
}

// TestCommandIsGoneOnWith by another worker, while it runs. It ran once.
func TestCommandIsGoneOnWith(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 2)
	file := t.TempDir() + "/"
	c.order(t, shell(fmt.Sprintf(`echo "$FLEET_HOST" >>%sruns; echo begun; until [ -e %sgo ]; do sleep 0.05; done; echo done`, file, file)))
	ctx, lost := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.run(how{ctx: ctx}, c.commands, c.page())
		first <- err
	}()
	c.begun(t, 2)
	lost()
	require.Error(t, await(t, first))

	second := make(chan error, 1)
	go func() {
		counts, err := c.run(how{attempt: 2}, c.another(), c.page())
		if err == nil && counts.Succeeded != 2 {
			err = fmt.Errorf("%+v", counts)
		}
		second <- err
	}()
	touch(t, file+"go")
	require.NoError(t, await(t, second))
	require.Equal(t, []string{`succeeded "begun\ndone\n"`, `succeeded "begun\ndone\n"`}, c.ended(t))
	ran, err := os.ReadFile(file + "runs")
	require.NoError(t, err)
	require.Len(t, strings.Fields(string(ran)), 2)
}

// TestCommandOverItsTime is ended on the host, and has failed however it ends then.
func TestCommandOverItsTime(t *testing.T) {
	t.Parallel()
	for script, ends := range map[string]string{
		"exec sleep 300": "was ended by signal 15",
		`trap "exit 0" TERM; while :; do sleep 0.1; done`: "ended with exit code 0",
		`trap "exit 3" TERM; while :; do sleep 0.1; done`: "ended with exit code 3",
	} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			c := newCommanded(t, 1)
			command := shell("echo begun; " + script)
			command.Timeout = fleet.Duration(15 * time.Second) // within which it begins
			c.order(t, command)
			counts, err := c.run(how{}, c.commands, c.page())
			require.NoError(t, err)
			require.Equal(t, workflows.CommandCounts{Failed: 1}, counts)
			require.Equal(t, []string{`failed "begun\n" the command took longer than 15s; its command ` + ends}, c.ended(t))
		})
	}
}

// TestCommandToldToEndByAnother who is lost before that is on record: over its time it has
// failed, whatever it answers. One that is being cancelled says that.
func TestCommandToldToEndByAnother(t *testing.T) {
	t.Parallel()
	t.Run("over its time", func(t *testing.T) {
		t.Parallel()
		c := newCommanded(t, 1)
		command := shell(`trap "exit 0" TERM; echo begun; while :; do sleep 0.1; done`)
		command.Timeout = fleet.Duration(12 * time.Second) // within which it begins
		c.order(t, command)
		ctx, lost := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := c.run(how{ctx: ctx}, c.commands, c.page())
			first <- err
		}()
		c.begun(t, 1)
		lost()
		_ = await(t, first)
		time.Sleep(time.Duration(command.Timeout)) // its time is what this is about
		c.tellToEnd(t)
		_, err := c.run(how{attempt: 2}, c.another(), c.page())
		require.NoError(t, err)
		require.Equal(t, []string{`failed "begun\n" the command took longer than 12s; its command ended with exit code 0`}, c.ended(t))
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		c := newCommanded(t, 1)
		c.order(t, shell(`trap "exit 0" TERM; echo begun; while :; do sleep 0.1; done`))
		done := make(chan error, 1)
		go func() {
			_, err := c.run(how{}, c.commands, c.page())
			done <- err
		}()
		c.begun(t, 1)
		_, err := c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
		require.NoError(t, err)
		c.tellToEnd(t)
		require.NoError(t, await(t, done))
		require.Equal(t, []string{`failed "begun\n" cancelled by alice; its command ended with exit code 0`}, c.ended(t))
	})
}

// tellToEnd tells the command on the only host to end, as who ends it does.
func (c *commanded) tellToEnd(t *testing.T) {
	t.Helper()
	h := c.fleet.Hosts()[0]
	target := remote.Target{Address: h.Address(), Port: h.Port(), User: h.User(), Key: secret.NewText([]byte(c.fleet.ClientKey())), HostKey: h.HostKey()}
	conn, err := remote.NewDialer(remote.Options{}).Dial(t.Context(), target)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.Cancel(t.Context(), remote.Key{Operation: c.op.ID, Host: h.Address(), Step: fleet.StepCommand, Attempt: 1}, time.Minute))
}

// TestCommandEndsByItself before a host that gives no answer could be told to end it.
func TestCommandEndsByItself(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"0", "3"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			c := newCommanded(t, 1)
			host, file := c.fleet.Hosts()[0], t.TempDir()+"/runner"
			command := shell("kill -STOP $(cat " + host.Dir() + "/sshd.pid); echo begun; echo $PPID >" + file + "; sleep 6; exit " + code)
			command.Timeout = fleet.Duration(5 * time.Second)
			c.order(t, command)
			done := make(chan error, 1)
			go func() {
				_, err := c.run(how{}, c.commands, c.page())
				done <- err
			}()
			eventually(t, func() bool {
				pid, err := os.ReadFile(file)
				if err != nil || len(pid) == 0 {
					return false
				}
				_, err = os.Stat("/proc/" + strings.TrimSpace(string(pid)))
				return os.IsNotExist(err)
			}, "the command and its runner end")
			require.NoError(t, host.Unhang())
			require.NoError(t, await(t, done))
			want := map[string]string{"0": `succeeded "begun\n"`, "3": `failed "begun\n" the command ended with exit code 3`}[code]
			require.Equal(t, []string{want}, c.ended(t))
		})
	}
}

// TestCommandOnHostsThatAreOfNoUse: each says why, and keeps no other from running it.
func TestCommandOnHostsThatAreOfNoUse(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 5)
	all := c.fleet.Hosts()
	_, err := c.sql.Exec(t.Context(), "UPDATE host SET port = 1 WHERE address = $1", all[0].Address())
	require.NoError(t, err)
	_, err = c.sql.Exec(t.Context(), "UPDATE host SET host_key = $2 WHERE address = $1", all[1].Address(), all[2].HostKey())
	require.NoError(t, err)
	_, err = c.sql.Exec(t.Context(), "UPDATE host_creds SET sealed = 'x' WHERE address = $1", all[2].Address())
	require.NoError(t, err)
	c.order(t, shell("printf x"))
	_, _, err = c.DeleteHost(t.Context(), all[3].Address(), store.Requester{Name: "tester"})
	require.NoError(t, err)
	counts, err := c.run(how{}, c.commands, c.page())
	require.NoError(t, err)
	require.Equal(t, workflows.CommandCounts{Succeeded: 1, Failed: 3}, counts)
	ended := c.ended(t)
	require.Regexp(t, "connection refused; the command had not begun$", ended[0])
	require.Contains(t, ended[1], "host-key-changed")
	require.Equal(t, []string{`failed "" its credentials cannot be opened with the keys of the worker; the command had not begun`, `skipped "" the host was removed`, `succeeded "x"`}, ended[2:])
}

// TestCommandOnHostsThatAreDeleted while it runs on them: who is at it goes on. Who comes
// after that does not know any more how to reach them.
func TestCommandOnHostsThatAreDeleted(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"the worker lives": false, "the worker is lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCommanded(t, 2)
			file := t.TempDir() + "/go"
			c.order(t, shell("echo begun; until [ -e "+file+" ]; do sleep 0.05; done"))
			ctx, lost := context.WithCancel(t.Context())
			defer lost()
			done := make(chan error, 1)
			go func() {
				_, err := c.run(how{ctx: ctx}, c.commands, c.page())
				done <- err
			}()
			c.begun(t, 2)
			_, _, err := c.DeleteHost(t.Context(), c.fleet.Hosts()[0].Address(), store.Requester{Name: "tester"})
			require.NoError(t, err)
			want := `succeeded "begun\n"`
			if again {
				want = `failed "begun\n" the host was removed while the command ran on it; the command may have been started there, and may still run`
				lost()
				require.Error(t, await(t, done))
				go func() {
					_, err := c.run(how{attempt: 2}, c.another(), c.page())
					done <- err
				}()
			}
			touch(t, file)
			require.NoError(t, await(t, done))
			require.Equal(t, []string{want, `succeeded "begun\n"`}, c.ended(t))
		})
	}
}

// TestCommandIsBegunAnewAgainAndAgain: attempts are lost at any moment, and the next one
// begins before the one before has ended. Nothing is lost or doubled.
func TestCommandIsBegunAnewAgainAndAgain(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 3)
	dir := t.TempDir()
	c.order(t, shell("echo x >>"+dir+"/${FLEET_HOST##*/}; echo begun; for i in 1 2 3 4 5 6 7 8 9 10; do seq 1 2000; sleep 0.1; done"))
	block := ""
	for i := range 2000 {
		block += fmt.Sprintln(i + 1)
	}
	whole := fmt.Sprintf("succeeded %q", "begun\n"+strings.Repeat(block, 10))
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for attempt := int32(1); ; attempt++ {
		most := 300*time.Millisecond + time.Duration(attempt)*50*time.Millisecond
		ctx, lost := context.WithTimeout(t.Context(), most)
		defer lost()
		done := make(chan error, 1)
		attempts.Go(func() {
			_, err := c.run(how{ctx: ctx, attempt: attempt}, c.another(), c.page())
			done <- err
		})
		overlap := time.NewTimer(most - 50*time.Millisecond)
		select {
		case err := <-done:
			if err == nil {
				require.Equal(t, []string{whole, whole, whole}, c.ended(t))
				for _, h := range c.fleet.Hosts() {
					ran, err := os.ReadFile(dir + "/" + h.Name())
					require.NoError(t, err)
					require.Equal(t, "x\n", string(ran))
				}
				return
			}
		case <-overlap.C:
		}
		require.Less(t, attempt, int32(100))
	}
}

// TestCommandIsCancelled: what runs goes on to its end, unless it is stopped.
func TestCommandIsCancelled(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 3)
	file := t.TempDir() + "/go"
	c.order(t, shell("echo begun; until [ -e "+file+" ]; do sleep 0.05; done"))
	first, rest := c.page(), c.page()
	first.To, rest.From = 1, 1
	done := make(chan error, 1)
	go func() {
		_, err := c.run(how{}, c.commands, first)
		done <- err
	}()
	c.begun(t, 1)
	_, err := c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	counts, err := c.run(how{}, c.commands, rest)
	require.NoError(t, err)
	require.Equal(t, workflows.CommandCounts{Stopped: true}, counts, "no other page is begun")
	touch(t, file)
	require.NoError(t, await(t, done))
	require.Equal(t, []string{`succeeded "begun\n"`, `skipped "" cancelled by alice`, `skipped "" cancelled by alice`}, c.ended(t))
	ended, err := execute(how{}, workflows.EndCommand, c.commands.End, workflows.CommandEnd{OperationRef: first.OperationRef})
	require.NoError(t, err)
	require.Equal(t, workflows.CommandEnded{State: fleet.OperationCancelled, Reason: "cancelled by alice"}, ended)
}

// TestCommandIsStopped on the hosts, by whoever comes after the worker that began it.
func TestCommandIsStopped(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 2)
	c.order(t, shell("echo begun; exec sleep 300"))
	ctx, cancel := context.WithCancel(t.Context())
	first := c.page()
	first.To = 1
	done := make(chan error, 1)
	go func() {
		_, err := c.run(how{ctx: ctx}, c.commands, first)
		done <- err
	}()
	c.begun(t, 1)
	cancel()
	require.Error(t, await(t, done))
	stop := func() {
		t.Helper()
		_, err := execute(how{}, workflows.StopCommands, c.another().Stop, c.page())
		require.NoError(t, err)
	}
	stop()
	stop()
	require.NoError(t, c.EndOperation(t.Context(), c.op.ID, fleet.OperationCancelled, "cancelled"))
	stop()
	require.Equal(t, []string{`failed "begun\n" cancelled; its command was ended by signal 15`, `skipped "" cancelled`}, c.ended(t))
}

// TestCommandThatPrintsMuch: nothing but the middle is left out, and memory stays small.
func TestCommandThatPrintsMuch(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	c.order(t, shell("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end"))
	_, err := c.run(how{}, c.commands, c.page())
	require.NoError(t, err)
	step := c.step(t, c.fleet.Hosts()[0].Address())
	require.Equal(t, []any{fleet.StepSucceeded, int64(3000009), int64(fleet.OutputHead + fleet.OutputTail)}, []any{step.State, step.OutputSize, step.Stored})
	chunks, err := c.Output(t.Context(), step.ID, step.OutputSize-9, 0)
	require.NoError(t, err)
	require.Equal(t, []fleet.OutputChunk{{Offset: 3000000, Data: []byte("\nthe end\n")}}, chunks)
}

// TestCommandBeginsNowhereOnceCancelled: a worker took the page up and died before it
// reached the host, and then somebody cancelled.
func TestCommandBeginsNowhereOnceCancelled(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	file := t.TempDir() + "/ran"
	c.order(t, shell("touch "+file))
	_, err := c.TakeUpCommand(t.Context(), c.op.ID, 0, 1, "")
	require.NoError(t, err)
	_, err = c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	counts, err := c.run(how{attempt: 2}, c.another(), c.page())
	require.NoError(t, err)
	require.Equal(t, workflows.CommandCounts{Skipped: 1, Stopped: true}, counts)
	require.Equal(t, []string{`skipped "" cancelled by alice; its command had not begun`}, c.ended(t))
	require.NoFileExists(t, file)
}

// looking counts the looks of a worker at the record of a command.
type looking struct {
	activities.CommandStore
	looks atomic.Int64
}

func (l *looking) CommandState(ctx context.Context, id string, from, to int) (map[string]bool, string, error) {
	l.looks.Add(1)
	return l.CommandStore.CommandState(ctx, id, from, to)
}

// TestCommandThatCouldNotBegin before somebody cancelled does not when it could.
func TestCommandThatCouldNotBegin(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	file, runs := t.TempDir()+"/ran", c.fleet.Hosts()[0].StateDir()+"/runs"
	require.NoError(t, os.MkdirAll(c.fleet.Hosts()[0].StateDir(), 0o700))
	touch(t, runs) // where a directory should be
	c.order(t, shell("touch "+file))
	page := c.page()
	record := &looking{CommandStore: c.Store}
	commands := activities.NewCommands(func(string) activities.CommandStore { return record }, remote.NewDialer(remote.Options{}))
	done := make(chan error, 1)
	go func() {
		_, err := c.run(how{}, commands, page)
		done <- err
	}()
	eventually(t, func() bool { return strings.Contains(c.step(t, c.fleet.Hosts()[0].Address()).Reason, "trouble since") }, "it cannot begin")
	_, err := c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	before := record.looks.Load() // what a look has found holds for a moment, in which it may begin
	eventually(t, func() bool { return record.looks.Load() > before }, "the worker looks again")
	require.NoError(t, os.Remove(runs))
	require.NoError(t, await(t, done))
	require.Equal(t, []string{`skipped "" cancelled by alice; its command had not begun`}, c.ended(t))
	require.NoFileExists(t, file)
}

// TestCommandThatWaitsForASlot is not begun when somebody cancels, and waits for none then.
func TestCommandThatWaitsForASlot(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	file := t.TempDir() + "/ran"
	c.order(t, shell("touch "+file))
	c.commands.TakeAllSlots()
	done := make(chan error, 1)
	go func() {
		_, err := c.run(how{}, c.commands, c.page())
		done <- err
	}()
	eventually(t, func() bool { return c.step(t, c.fleet.Hosts()[0].Address()).State == fleet.StepRunning }, "it is taken up")
	_, err := c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
	require.NoError(t, err)
	require.NoError(t, await(t, done))
	require.Equal(t, []string{`skipped "" cancelled by alice; the command had not begun`}, c.ended(t))
	require.NoFileExists(t, file)
}

// TestCommandTakenUpBeforeIsBegun where the attempt before came to no host. One that runs
// is let come to its end when the operation is cancelled.
func TestCommandTakenUpBeforeIsBegun(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	file := t.TempDir() + "/go"
	c.order(t, shell("echo begun; until [ -e "+file+" ]; do sleep 0.05; done"))
	_, err := c.TakeUpCommand(t.Context(), c.op.ID, 0, 1, "")
	require.NoError(t, err)
	for attempt := int32(2); attempt < 4; attempt++ {
		ctx, lost := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := c.run(how{ctx: ctx, attempt: attempt}, c.another(), c.page())
			done <- err
		}()
		c.begun(t, 1)
		if attempt == 2 {
			lost()
			require.Error(t, await(t, done))
			_, err = c.Steer(t.Context(), c.op.ID, store.SteerAction{Action: "cancel", By: "alice"})
			require.NoError(t, err)
			continue
		}
		touch(t, file)
		require.NoError(t, await(t, done))
		lost()
	}
	require.Equal(t, []string{`succeeded "begun\n"`}, c.ended(t))
}

// TestCommandOnHostThatHangs: its sshd lives, but a look at the command there gets no
// answer. Neither the time of the command nor a cancel with force waits for it for ever.
func TestCommandOnHostThatHangs(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]func(t *testing.T, c *commanded, hung string) error{
		"over its time": func(t *testing.T, c *commanded, _ string) error {
			_, err := c.run(how{}, c.commands, c.page())
			return err
		},
		"stopped": func(t *testing.T, c *commanded, hung string) error {
			ctx, lost := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := c.run(how{ctx: ctx}, c.commands, c.page())
				done <- err
			}()
			c.begun(t, 1)
			eventually(t, func() bool { _, err := os.Stat(hung); return err == nil }, "the host hangs")
			lost()
			require.Error(t, await(t, done))
			_, err := execute(how{}, workflows.StopCommands, c.another().Stop, func() workflows.CommandPage {
				page := c.page()
				page.Unreachable = time.Second
				return page
			}())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCommanded(t, 1)
			hung := t.TempDir() + "/hung"
			command := shell(`echo begun; sleep 1; cd "$COMMISSAIRE_RUN" && mkfifo none && mv -f none claim && touch ` + hung + `; exec sleep 300`)
			command.Timeout = fleet.Duration(20 * time.Second) // within which it hangs
			c.order(t, command)
			require.NoError(t, hangs(t, c, hung))
			require.Len(t, c.ended(t), 1)
			require.Regexp(t, `^failed "begun\\n" (cancelled|the command took longer than 20s); the host could not be told to end it: no answer within \d+s; the command may have been started there, and may still run$`, c.ended(t)[0])
		})
	}
}

// TestCommandOnHostThatIsSilent is told while the host is tried, which is not for longer
// than the command may take.
func TestCommandOnHostThatIsSilent(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		timeout time.Duration
		answers bool // in the end
		ends    string
	}{
		"for good":  {20 * time.Second, false, `^failed "" gave up after 20s: host 127\S+: no-banner: .*; the command had not begun$`},
		"for a bit": {time.Minute, true, `^succeeded "done\\n"$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCommanded(t, 1)
			host := c.fleet.Hosts()[0]
			command := shell("echo done")
			command.Timeout = fleet.Duration(tt.timeout)
			c.order(t, command)
			require.NoError(t, host.Hang())
			done := make(chan error, 1)
			go func() {
				dialer := remote.NewDialer(remote.Options{HandshakeTimeout: time.Second})
				_, err := c.run(how{}, activities.NewCommands(func(string) activities.CommandStore { return c.Store }, dialer), c.page())
				done <- err
			}()
			waiting := func() string {
				runs, err := c.HostRuns(t.Context(), c.op.ID)
				require.NoError(t, err)
				return runs[0].Waiting
			}
			eventually(t, func() bool { return waiting() != "" }, "it is told")
			step := c.step(t, host.Address())
			require.Regexp(t, `^trouble since 2\S+, given up after \S+ of it: host 127\S+: no-banner: `, step.Reason)
			require.Equal(t, step.Reason, waiting())
			if tt.answers {
				require.NoError(t, host.Unhang())
			}
			require.NoError(t, await(t, done))
			require.Regexp(t, tt.ends, c.ended(t)[0])
			require.Empty(t, waiting())
			events, err := c.Events(t.Context(), c.op.ID, store.EventFilter{Host: host.Address()})
			require.NoError(t, err)
			told := 0
			for _, e := range events {
				if e.Kind == "step" && strings.HasPrefix(e.Reason, "trouble since") {
					told++
				}
			}
			require.Equal(t, 1, told)
		})
	}
}

// TestCommandsTimeGoesOn when another attempt goes on with it.
func TestCommandsTimeGoesOn(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	// As if it had been started long ago. What follows it reads a whole claim at any moment.
	c.order(t, shell(`cd "$COMMISSAIRE_RUN" && long_ago=$(sed 's/^start .*/start 0000000001/' claim) &&
		printf '%s\n' "$long_ago" 1<>claim && echo begun; exec sleep 300`))
	ctx, lost := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.run(how{ctx: ctx}, c.commands, c.page())
		first <- err
	}()
	c.begun(t, 1)
	lost()
	require.Error(t, await(t, first))
	second := make(chan error, 1)
	go func() {
		_, err := c.run(how{attempt: 2}, c.another(), c.page())
		second <- err
	}()
	require.NoError(t, await(t, second))
	require.Equal(t, []string{`failed "begun\n" the command took longer than 1m0s; its command was ended by signal 15`}, c.ended(t))
	require.Contains(t, c.step(t, c.fleet.Hosts()[0].Address()).Reason, "; it said: begun", "which the attempt before had kept")
}

// TestCommandThatIsOvertaken is begun anew, however often that was so before.
func TestCommandThatIsOvertaken(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	file := t.TempDir() + "/go"
	c.order(t, shell("echo begun; until [ -e "+file+" ]; do sleep 0.05; done; echo done"))
	done := make(chan error, 1)
	go func() {
		_, err := c.run(how{attempt: 10}, c.commands, c.page())
		done <- err
	}()
	c.begun(t, 1)
	step := c.step(t, c.fleet.Hosts()[0].Address())
	require.NoError(t, c.RecordCommands(t.Context(), c.op.ID, []store.CommandWrite{{StepID: step.ID, Start: step.OutputTo, Data: []byte("done\n")}}))
	touch(t, file)
	requireRetried(t, await(t, done))
	_, err := c.run(how{attempt: 11}, c.commands, c.page())
	require.NoError(t, err)
	require.Equal(t, []string{`succeeded "begun\ndone\n"`}, c.ended(t))
}

// TestCommandMeetsSurprises: those are counted from attempt to attempt, and workers that
// were lost are none.
func TestCommandMeetsSurprises(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	c.order(t, shell("echo begun"))
	_, err := c.sql.Exec(t.Context(), "ALTER TABLE step RENAME COLUMN stored_to TO gone")
	require.NoError(t, err)
	var counted []int
	_, err = c.run(how{attempt: 50, beats: func(n int) { counted = append(counted, n) }}, c.commands, c.page())
	requireRetried(t, err)
	require.Equal(t, 1, counted[len(counted)-1])
	_, err = c.run(how{attempt: 50, surprises: 9, beats: func(int) {}}, c.commands, c.page())
	requireRefused(t, "internal", err)
}

// TestCommandOnHostOfNoKey was never begun, also when a worker was lost that took it up.
func TestCommandOnHostOfNoKey(t *testing.T) {
	t.Parallel()
	c := newCommanded(t, 1)
	_, err := c.sql.Exec(t.Context(), "UPDATE host SET host_key = NULL, host_key_print = NULL, host_key_pinned = NULL")
	require.NoError(t, err)
	c.order(t, shell("true"))
	_, err = c.TakeUpCommand(t.Context(), c.op.ID, 0, 1, "")
	require.NoError(t, err)
	_, err = execute(how{}, workflows.StopCommands, c.commands.Stop, c.page())
	require.NoError(t, err)
	require.Equal(t, []string{`failed "" the host's key is not pinned; bootstrap it first; the command had not begun`}, c.ended(t))
}
