package remote

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// before is a worker of the version whose scripts are in testdata/before: an upgrade
// has both versions at the same keys.
type before struct {
	*Conn
	host, runner, start, follow, cancel string
}

func workerBefore(t testing.TB, c *Conn) before {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile("testdata/before/" + name + ".sh")
		require.NoError(t, err)
		return string(text)
	}
	return before{Conn: c, host: read("host"), runner: read("runner"), start: read("start"), follow: read("follow"), cancel: read("cancel")}
}

func (w before) run(ctx context.Context, sink Sink, script string, key Key, args ...string) (Outcome, error) {
	call, err := w.call(ctx, wrap(w.host+"c_open \"$1\"\n"+w.follow+script, append([]string{key.name()}, args...)))
	if err != nil {
		return Outcome{}, err
	}
	f := &frames{call: call}
	defer f.close()
	o, _, err := f.follow(sink)
	return o, err
}

func (w before) Once(ctx context.Context, cmd Command, from int64, sink Sink) (Outcome, error) {
	job := "c_if_boot=" + Quote(cmd.IfBootID) + "\nset -- " + Quote(cmd.Argv...) + "\n" + w.host + w.runner
	return w.run(ctx, sink, w.start+"c_job_text="+Quote(job)+"\nc_want="+digest(cmd.Argv)+"\nc_start "+rand.Text()+"\nc_follow \"$2\" \"$3\"\n",
		cmd.Key, strconv.FormatInt(from, 10), strconv.FormatInt(cmd.Limits.head(), 10))
}

func (w before) Cancel(ctx context.Context, key Key, grace time.Duration) error {
	_, err := w.run(ctx, nil, w.cancel+"c_cancel \"$2\"\nc_status\n", key, strconv.FormatInt(grace.Milliseconds(), 10))
	return err
}

// worker is one of either version.
type worker interface {
	Once(ctx context.Context, cmd Command, from int64, sink Sink) (Outcome, error)
	Cancel(ctx context.Context, key Key, grace time.Duration) error
}

// Workers of both versions start the same command at the same moment. It runs once,
// whoever wins, and all of them see the same.
func TestVersionsShareKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	workers := []worker{b.conn(t), workerBefore(t, b.conn(t))}
	for i := range 8 {
		counter := fmt.Sprint(b.host.Dir(), "/count", i)
		cmd := sh(fmt.Sprint("shared", i), fmt.Sprintf("echo x >>%s; echo one; sleep 0.%d; echo two; exit 3", counter, i%4))
		var wg sync.WaitGroup
		for j := range 6 {
			wg.Go(func() {
				time.Sleep(time.Duration((i+j)%3) * 5 * time.Millisecond) // now these are first, now those
				var m memory
				o, err := workers[j%2].Once(testContext(t), cmd, 0, &m)
				if err != nil || o.State != Exited || o.ExitCode != 3 || o.OutputSize != 8 || m.String() != "one\ntwo\n" {
					t.Errorf("version %d: %v %+v %q", j%2, err, o, m.String())
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, count(t, counter))
	}
}

// One version starts, or has not yet started, what the other one cancels.
func TestVersionsCancelEachOthersRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	workers := []worker{b.conn(t), workerBefore(t, b.conn(t))}
	for i, mine := range workers {
		others := workers[1-i]
		begun := fmt.Sprint(b.host.Dir(), "/begun", i)
		cmd := sh(fmt.Sprint("cancelled", i), fmt.Sprintf("echo x >>%s; exec sleep 300", begun))
		ended := make(chan error, 1)
		go func() {
			o, err := mine.Once(testContext(t), cmd, 0, &memory{})
			if err == nil && (o.State != Exited || o.ExitCode != 143) {
				err = fmt.Errorf("%+v", o)
			}
			ended <- err
		}()
		eventually(t, "it runs", func() bool { return written(begun) })
		require.NoError(t, others.Cancel(testContext(t), cmd.Key, 10*time.Second))
		require.NoError(t, <-ended)

		early := sh(fmt.Sprint("early", i), fmt.Sprintf("echo x >>%s", begun))
		require.NoError(t, others.Cancel(testContext(t), early.Key, 0))
		o, err := mine.Once(testContext(t), early, 0, &memory{})
		require.NoError(t, err)
		require.Equal(t, Cancelled, o.State)
		require.Equal(t, 1, count(t, begun))
	}
}

// A run of the version before that is over by the time our own runner has lost.
func TestRunnerBeforeWins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cmd := sh("race", "echo never")
	b.shim(t, map[string]string{"ln": fmt.Sprintf(`cd "${2%%/*}"
printf 'digest %%s\nboot %%s\npid 999999\ntick 1\nstart 1732229999\n' %s %s >claim.1
echo hello world >out
printf '%%-80s\n' 'exit 0 12 1732229999' >rc
/bin/ln claim.1 claim`, digest(cmd.Argv), b.host.BootID())})
	o, out := once(t, b.conn(t), cmd)
	require.Equal(t, Exited, o.State)
	require.Equal(t, int64(12), o.OutputSize)
	require.Equal(t, "hello world\n", out)
}
