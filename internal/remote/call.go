package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// call is one script in one SSH session.
type call struct {
	conn    *Conn
	ctx     context.Context
	session *ssh.Session
	stdin   io.WriteCloser
	stdout  *bufio.Reader // begins after the ready mark
	stderr  *limited      // to be read after the end only
	pipe    *io.PipeReader
	ended   chan struct{}
	err     error // of the session; valid after ended
}

// login is the constant command given to sshd. It means the same in every login
// shell (sh, csh, fish); all else goes through stdin.
func (c *Conn) login() string {
	if c.sudo {
		return "exec sudo -n sh -s"
	}
	return "exec sh -s"
}

// call starts a wrapped script and waits until the host's shell reads it.
func (c *Conn) call(ctx context.Context, script string) (*call, error) {
	select {
	case c.sessions <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.closed:
		return nil, c.fail(Lost, errors.New("the connection is closed"))
	}
	k := &call{conn: c, ctx: ctx, stderr: &limited{max: maxOutput}, ended: make(chan struct{})}
	pipe, w := io.Pipe()
	k.pipe, k.stdout = pipe, bufio.NewReaderSize(pipe, 64<<10)
	started := make(chan error, 1)
	spawned := c.spawn(func() {
		defer func() { <-c.sessions }()
		defer close(k.ended)
		k.err = k.run(script, w, started)
		_ = w.CloseWithError(io.EOF)
	})
	if !spawned {
		<-c.sessions
		return nil, c.fail(Lost, errors.New("the connection is closed"))
	}
	// A request that sshd does not answer breaks the whole connection: its
	// requests are answered in order, so nothing after it would come through.
	watchdog := time.AfterFunc(c.opts.RequestTimeout, func() { _ = c.client.Close() })
	defer watchdog.Stop()
	select {
	case err := <-started:
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, c.fail(HostUnusable, fmt.Errorf("sshd gives no session on this connection (MaxSessions?): %w", err))
		}
		if err != nil {
			return nil, c.fail(Lost, fmt.Errorf("start a session: %w", err))
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := k.awaitReady(); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// run owns the session from its beginning to its end.
func (k *call) run(script string, stdout io.Writer, started chan<- error) error {
	s, err := k.open()
	if err != nil {
		started <- err
		return err
	}
	defer s.Close()
	s.Stdout, s.Stderr = stdout, k.stderr
	k.session = s
	if k.stdin, err = s.StdinPipe(); err == nil {
		err = s.Start(k.conn.login())
	}
	started <- err
	if err != nil {
		return err
	}
	stop := context.AfterFunc(k.ctx, func() {
		_ = k.pipe.CloseWithError(context.Cause(k.ctx))
		_ = s.Close()
	})
	defer stop()
	// That the host takes no more of it shows in how the session ends.
	_, _ = io.WriteString(k.stdin, script)
	return s.Wait()
}

// newSession is the client's, but it ends with the connection. The library's
// waits for ever when the connection breaks at one moment in it: its channel is
// then registered after all channels have been told.
func (k *call) newSession() (*ssh.Session, error) {
	type opened struct {
		s   *ssh.Session
		err error
	}
	got := make(chan opened, 1)
	go func() {
		s, err := k.conn.client.NewSession()
		got <- opened{s, err}
	}()
	select {
	case o := <-got:
		return o.s, o.err
	case <-k.conn.closed:
	}
	select {
	case o := <-got:
		return o.s, o.err
	case <-time.After(time.Second):
		return nil, net.ErrClosed
	}
}

// open asks for a session until there is one: sshd counts a session until it has
// cleared up behind it, which is later than we do.
func (k *call) open() (*ssh.Session, error) {
	for patience := k.conn.opts.RequestTimeout / 2; ; patience -= 50 * time.Millisecond {
		s, err := k.newSession()
		var refused *ssh.OpenChannelError
		if err == nil || !errors.As(err, &refused) || patience <= 0 {
			return s, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-k.ctx.Done():
			return nil, context.Cause(k.ctx)
		}
	}
}

// mark is the command that prints one.
func mark(m string) string { return "printf " + Quote(strings.ReplaceAll(m, "\n", `\n`)) }

// wrap makes a script that a cut connection cannot shorten: the shell runs
// nothing before it has read the closing brace. The script's own stdin is empty.
func wrap(script string, args []string) string {
	return strings.Join([]string{
		"{", mark(ready), "export LC_ALL=C", "set -- " + Quote(args...),
		"(", script, ")", "set -- $?", mark(finished), mark(finished) + " >&2", "exit $1",
		"} </dev/null", "",
	}, "\n")
}

// wrapFrames is wrap for a script whose answer has an end of its own. What we send
// behind it is its descriptor 9.
func wrapFrames(script string, args []string) string {
	return strings.Join([]string{
		"{", mark(ready), "export LC_ALL=C", "set -- " + Quote(args...), script + "exit", "} 9<&0 </dev/null", "",
	}, "\n")
}

// awaitReady skips what the login shell prints before our script begins.
func (k *call) awaitReady() error {
	var skipped []byte
	for !bytes.HasSuffix(skipped, []byte(ready)) {
		b, err := k.stdout.ReadByte()
		if errors.Is(err, io.EOF) {
			return k.refused()
		}
		if err != nil {
			return k.error(err)
		}
		if len(skipped) > maxOutput {
			return k.conn.fail(HostUnusable, errors.New("the login shell prints without end before it runs a command"))
		}
		skipped = append(skipped, b)
	}
	return nil
}

// refused explains a session that ended before our script began.
func (k *call) refused() error {
	code, err := k.wait()
	if err != nil {
		return err
	}
	reason := firstLine(k.stderr.content())
	if k.conn.sudo {
		return k.conn.fail(SudoRefused, fmt.Errorf("user %s cannot become root with sudo -n (exit code %d): %s; allow it in sudoers without a password", k.conn.target.user(), code, reason))
	}
	return k.conn.fail(HostUnusable, fmt.Errorf("the login shell did not run sh (exit code %d): %s", code, reason))
}

// wait gives the exit code once the output has been read to its end.
func (k *call) wait() (int, error) {
	select {
	case <-k.ended:
	case <-k.ctx.Done():
		return 0, context.Cause(k.ctx)
	}
	var exit *ssh.ExitError
	switch {
	case k.err == nil:
		return 0, nil
	case errors.As(k.err, &exit) && exit.Signal() == "":
		return exit.ExitStatus(), nil
	case errors.As(k.err, &exit):
		return 0, k.conn.fail(Lost, fmt.Errorf("the session was killed by signal %s", exit.Signal()))
	default:
		return 0, k.conn.fail(Lost, fmt.Errorf("the connection ended before the answer: %w", k.err))
	}
}

// error explains why reading the output failed.
func (k *call) error(err error) error {
	if cause := context.Cause(k.ctx); cause != nil {
		return cause
	}
	return k.conn.fail(Lost, err)
}

// close leaves the session to its owner, which ends when the host confirms, or
// when the connection does.
func (k *call) close() {
	_ = k.pipe.CloseWithError(io.ErrClosedPipe)
	select {
	case <-k.ended:
	default:
		_ = k.session.Close()
	}
}
