package privatepg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopMode says how a server ends.
type StopMode syscall.Signal

// The ways to end a server (postgres(1), server shutdown).
const (
	// Fast rolls back what runs and shuts down cleanly.
	Fast = StopMode(syscall.SIGINT)
	// Immediate drops everything, as a crash of Postgres would; the next start
	// recovers from the log.
	Immediate = StopMode(syscall.SIGQUIT)
)

const (
	stopTimeout = 30 * time.Second
	killTimeout = 10 * time.Second
)

// Stop ends the server, adopted or not, and returns when it is gone. One that
// does not end within 30 s is killed, which is an error.
func (s *Server) Stop(mode StopMode) error {
	if err := s.signal(syscall.Signal(mode)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if s.waitGone(ctx) == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("postgres (pid %d) did not stop within %s and was killed", s.pid, stopTimeout), s.Kill())
}

// Kill ends the server with SIGKILL, as a crash of the machine would from its
// point of view, and returns when it is gone.
func (s *Server) Kill() error {
	if err := s.signal(syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := s.waitGone(ctx); err != nil {
		return fmt.Errorf("postgres (pid %d) did not end after SIGKILL: %w", s.pid, err)
	}
	return nil
}

// signal does nothing when the server is gone already.
func (s *Server) signal(sig syscall.Signal) error {
	if s.gone() {
		return nil
	}
	if err := syscall.Kill(s.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal postgres (pid %d): %w", s.pid, err)
	}
	return nil
}

func (s *Server) gone() bool {
	if s.adopted {
		return !servesData(s.pid, s.data)
	}
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

func (s *Server) waitGone(ctx context.Context) error {
	for !s.gone() {
		if err := sleep(ctx, pollInterval); err != nil {
			return err
		}
	}
	return nil
}

// adopt gives the server that runs on the directory, nil when none does. One
// that is just going down (its parent died) is waited for.
func (c *cluster) adopt(ctx context.Context) (*Server, error) {
	for {
		s := c.running()
		if s == nil {
			return nil, nil
		}
		err := s.ping(ctx)
		if err == nil {
			return s, nil
		}
		if sleep(ctx, pollInterval) != nil {
			return nil, fmt.Errorf("a server runs there already (pid %d) and does not answer: %w", s.pid, err)
		}
	}
}

// running reads postmaster.pid: line 1 is the process id, line 5 the socket
// directory (utils/pidfile.h of PostgreSQL).
func (c *cluster) running() *Server {
	raw, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return nil
	}
	lines := strings.Split(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 || len(lines) < 5 {
		return nil
	}
	if !servesData(pid, c.data()) {
		return nil
	}
	return &Server{socketDir: lines[4], data: c.data(), pid: pid, adopted: true}
}

// servesData says whether pid is a Postgres on this data directory, which it
// never leaves. The number alone proves nothing: a file left by a crash may
// name what is another process by now, or one that only waits to be reaped.
func servesData(pid int, data string) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	want, err := os.Stat(data)
	return err == nil && os.SameFile(cwd, want)
}

// lock keeps two starts on one directory apart, also of two processes.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || sleep(ctx, pollInterval) != nil {
			return nil, errors.Join(fmt.Errorf("another start holds %s: %w", path, err), f.Close())
		}
	}
}
