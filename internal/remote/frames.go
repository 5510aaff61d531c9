package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxFrame is above what the host sends in one, see script/follow.sh.
const maxFrame = 256 << 10

// maxExitCode is the largest that a shell tells (POSIX, "2.8.2 Exit Status for
// Commands"). The database has no room for just any number.
const maxExitCode = 255

// frames reads what script/follow.sh answers.
type frames struct {
	*call
	outcome Outcome
	buf     []byte
}

// askEvery is how often a host's shell that waits for its own runner looks what there is
// so far. Most commands end before the first time, and cost their hosts no look.
const askEvery = time.Second

// ask writes lines to the script until the session has ended.
func (f *frames) ask() {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-f.call.ended:
			return
		case <-ticker.C:
		}
		if _, err := f.stdin.Write([]byte("\n")); err != nil {
			return
		}
	}
}

var errMalformed = errors.New("the answer makes no sense")

// follow hands output to the sink until the run has ended, or until the sink
// wants to go on from elsewhere: then next is that offset, else -1.
func (f *frames) follow(sink Sink) (o Outcome, next int64, err error) {
	for {
		kind, rest, err := f.header()
		if err != nil {
			return Outcome{}, -1, err
		}
		switch kind {
		case "R":
			err = f.claimed(rest)
		case "A":
			if sink != nil {
				sink.Alive()
			}
		case "C":
			f.outcome.Told = true
		case "O", "T":
			var offset int64
			offset, err = f.body(rest)
			if err != nil {
				break
			}
			if kind == "T" {
				f.outcome.Tail, f.outcome.TailOffset = bytes.Clone(f.buf), offset
				break
			}
			next, err := sink.Output(offset, f.buf)
			if err != nil {
				return Outcome{}, -1, err
			}
			if next != offset+int64(len(f.buf)) {
				return Outcome{}, max(0, next), nil
			}
		case "N":
			return Outcome{Status: Status{State: Absent, BootIDNow: rest}}, -1, nil
		case "P":
			f.outcome.State = Running
			return f.outcome, -1, nil
		case "E":
			if err = f.ended(rest); err == nil {
				return f.outcome, -1, nil
			}
		case "X":
			kind, message, _ := strings.Cut(rest, " ")
			err = f.conn.fail(HostUnusable, errors.New(message))
			if kind == "conflict" {
				err = f.conn.fail(KeyConflict, errors.New(message))
			}
		default:
			err = errMalformed
		}
		if errors.Is(err, errMalformed) {
			err = f.conn.fail(HostUnusable, fmt.Errorf("frame %q: %w", kind+" "+rest, err))
		}
		if err != nil {
			return Outcome{}, -1, err
		}
	}
}

// header reads a frame's line.
func (f *frames) header() (kind, rest string, err error) {
	line, err := f.stdout.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		// The script always says how it ends, so it was cut off.
		if _, err := f.wait(); err != nil {
			return "", "", err
		}
		return "", "", f.conn.fail(Lost, fmt.Errorf("the host's script ended without an answer: %s", firstLine(f.stderr.content())))
	case err != nil:
		return "", "", f.error(err)
	}
	kind, rest, _ = strings.Cut(strings.TrimSpace(string(line)), " ")
	return kind, rest, nil
}

// body reads the bytes of a frame into buf.
func (f *frames) body(rest string) (offset int64, err error) {
	at, length, _ := strings.Cut(rest, " ")
	offset, err = strconv.ParseInt(at, 10, 64)
	n, err2 := strconv.Atoi(length)
	if err != nil || err2 != nil || offset < 0 || n <= 0 || n > maxFrame || offset > math.MaxInt64-maxFrame {
		return 0, errMalformed
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(f.stdout, f.buf); err != nil {
		return 0, f.error(fmt.Errorf("the connection ended within output: %w", err))
	}
	return offset, nil
}

func (f *frames) claimed(rest string) error {
	w := strings.Fields(rest)
	if len(w) != 4 {
		return errMalformed
	}
	started, err := strconv.ParseInt(w[3], 10, 64)
	if err != nil {
		return errMalformed
	}
	s := &f.outcome.Status
	s.ArgvDigest, s.BootID, s.BootIDNow, s.Started = w[0], w[1], w[2], time.Unix(started, 0)
	return nil
}

func (f *frames) ended(rest string) error {
	w := strings.Fields(rest)
	s := &f.outcome.Status
	number := func(i int) (n int64) {
		if i >= len(w) {
			return -1
		}
		n, err := strconv.ParseInt(w[i], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	switch {
	case len(w) > 2 && w[0] == "exit" && number(1) >= 0 && number(1) <= maxExitCode && number(2) >= 0:
		s.State, s.ExitCode, s.OutputSize = Exited, int(number(1)), number(2)
	case len(w) > 2 && w[0] == "lost" && number(1) >= 0:
		s.State, s.OutputSize, s.Reason = Indeterminate, number(1), strings.Join(w[2:], " ")
	case len(w) > 0 && w[0] == "boot":
		s.State = BootIDChanged
	case len(w) > 0 && w[0] == "cancelled":
		s.State = Cancelled
	default:
		return errMalformed
	}
	return nil
}
