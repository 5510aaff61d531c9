package simhost

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTimeout is how long a client may take to log in, as sshd's
// LoginGraceTime.
const loginTimeout = 2 * time.Minute

// maxScript is above every script of the product, in bytes.
const maxScript = 1 << 20

// serve is one connection, from the handshake to its end.
func (h *Host) serve(c net.Conn) {
	if err := c.SetDeadline(time.Now().Add(loginTimeout)); err != nil {
		return
	}
	conn, channels, requests, err := ssh.NewServerConn(c, h.config)
	if err != nil {
		return
	}
	defer conn.Close()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return
	}
	h.fleet.wg.Go(func() { ssh.DiscardRequests(requests) }) // keepalives are answered
	for channel := range channels {
		if channel.ChannelType() != "session" {
			_ = channel.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		session, requests, err := channel.Accept()
		if err != nil {
			return
		}
		h.fleet.wg.Go(func() { h.session(session, requests) })
	}
}

// session runs one command: the first that is asked for.
func (h *Host) session(session ssh.Channel, requests <-chan *ssh.Request) {
	defer session.Close()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var exec struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &exec); err != nil || r.Reply(true, nil) != nil {
			return
		}
		h.fleet.wg.Go(func() { ssh.DiscardRequests(requests) })
		h.exec(session, exec.Command)
		return
	}
}

// exec reads the script and answers it. A connection that breaks meanwhile ends
// it at the next read or write.
func (h *Host) exec(session ssh.Channel, command string) {
	stdin, err := readScript(session)
	if err != nil {
		return
	}
	a := h.answer(command, stdin)
	if _, err := session.Write(a.stdout); err != nil {
		return
	}
	if _, err := session.Stderr().Write(a.stderr); err != nil {
		return
	}
	_ = session.CloseWrite()
	_, _ = session.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(a.code)}))
}

// readScript reads a script to its end, behind which the client may stay connected, or
// as far as it came.
func readScript(r io.Reader) (string, error) {
	var script []byte
	for buf := make([]byte, 32<<10); len(script) < maxScript; {
		n, err := r.Read(buf)
		script = append(script, buf[:n]...)
		if errors.Is(err, io.EOF) || err == nil && whole(string(script)) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return string(script), nil
}

// answer is what a command leaves behind.
type answer struct {
	stdout, stderr []byte
	code           int
}

// answer does what the command and the script on its stdin ask for.
func (h *Host) answer(command, stdin string) answer {
	if command != "exec sh -s" && command != "exec sudo -n sh -s" {
		return h.unrecognised("login command", command)
	}
	if !whole(stdin) {
		// Cut off by a connection that broke: a shell runs nothing of it.
		return answer{stderr: []byte("sh: syntax error: unexpected end of file\n"), code: 2}
	}
	args, script, frames, err := unwrap(stdin)
	if err != nil {
		return h.unrecognised("script", stdin)
	}
	r, err := recognise(script, args)
	if err != nil {
		return marked(h.unrecognised("script", err.Error()), frames)
	}
	return marked(h.perform(r), frames)
}

// marked puts the marks of internal/remote around an answer. Frames have an end of
// their own.
func marked(a answer, frames bool) answer {
	a.stdout = append([]byte(ready), a.stdout...)
	if !frames {
		a.stdout = append(a.stdout, finished...)
		a.stderr = append(a.stderr, finished...)
	}
	return a
}

// unrecognised is the answer to what only a real host would understand.
func (h *Host) unrecognised(what, text string) answer {
	const most = 300
	said := fmt.Sprintf("simulated host: unknown %s: %.*q", what, most, text)
	h.fleet.noteUnknown(said)
	return answer{stderr: []byte(said + "\n"), code: 127}
}
