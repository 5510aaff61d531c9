package commctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

var errNoTerminal = errors.New("there is no terminal to ask at")

// askTerminal asks at the controlling terminal, as getpass(3) does, so that
// standard input stays free for a key. Error: errNoTerminal, or context.Canceled
// when a signal ends it.
func askTerminal(question string, hidden bool) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	defer func() { _ = tty.Close() }()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", errNoTerminal
	}
	if _, err := fmt.Fprint(tty, question); err != nil {
		return "", err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	type typed struct {
		text string
		err  error
	}
	answer := make(chan typed, 1)
	go func() { // after a signal it stays in its read until the process ends, which is next
		if hidden {
			text, err := term.ReadPassword(fd)
			answer <- typed{string(text), err}
			return
		}
		line, err := bufio.NewReader(tty).ReadString('\n')
		answer <- typed{strings.TrimRight(line, "\r\n"), err}
	}()
	select {
	case a := <-answer:
		if hidden {
			_, _ = fmt.Fprintln(tty)
		}
		return a.text, a.err
	case <-interrupted.Done():
		_, _ = fmt.Fprintln(tty)
		_ = term.Restore(fd, before) // shows again what is typed
		return "", context.Canceled
	}
}
