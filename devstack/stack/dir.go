package stack

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/bcrypt"

	"commissaire/devstack/loopback"
	"commissaire/internal/authn"
	"commissaire/internal/secret"
)

const user = "demo"

// makeDir makes the state folder. Others may pass it, since Postgres runs as
// another account when we are root; what is secret in it is closed by itself.
func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("state folder: %w", err)
	}
	return dir, nil
}

// lock keeps two stacks off one folder. The kernel drops it when we die. It is taken back by
// name and not by closing the file, which a child that is being forked may hold for a moment.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid, _ := os.ReadFile(f.Name())
		err = fmt.Errorf("process %s runs on %s already; stop it, or choose another folder with --state-dir", strings.TrimSpace(string(pid)), dir)
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), second(f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close()) }, nil
}

func second[T any](_ T, err error) error { return err }

// secrets makes the sealing key and the user on first use, and gives the paths
// of key and users file.
func (s *Stack) secrets(dir string) (key, users string, err error) {
	key, users = filepath.Join(dir, "seal.key"), filepath.Join(dir, "users.json")
	if err := secret.CreateKeyFile(key); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", err
	}
	s.User, s.Netrc = user, filepath.Join(dir, "netrc")
	s.Password, err = readPassword(s.Netrc)
	if err != nil {
		return "", "", err
	}
	if s.Password == "" {
		s.Password = rand.Text()
		line := fmt.Sprintf("machine %s login %s password %s\n", loopback.IP, s.User, s.Password)
		if err := writeFile(s.Netrc, []byte(line)); err != nil {
			return "", "", err
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(s.Password), bcrypt.DefaultCost)
	if err != nil {
		return "", "", err
	}
	b, err := json.Marshal(map[string]authn.User{s.User: {Hash: string(hash)}})
	if err != nil {
		return "", "", err
	}
	return key, users, writeFile(users, b)
}

// writeCommctl writes the configuration file for commctl, anew at each start: the
// port may be another one.
func (s *Stack) writeCommctl(dir string) error {
	s.Commctl = filepath.Join(dir, "commctl.json")
	b, err := json.Marshal(map[string]string{"endpoint": s.URL, "username": s.User, "password": s.Password})
	if err != nil {
		return err
	}
	return writeFile(s.Commctl, append(b, '\n'))
}

// readPassword gives the password of an earlier start, "" when there is none.
func readPassword(netrc string) (string, error) {
	b, err := os.ReadFile(netrc)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(b))
	if len(fields) != 6 {
		return "", fmt.Errorf("%s is not as it was written; remove it to get a new password", netrc)
	}
	return fields[5], nil
}

// writeFile writes a file whole or not at all, for its owner only.
func writeFile(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
