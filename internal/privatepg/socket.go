package privatepg

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is the room in sockaddr_un (unix(7)), less the final zero byte.
const maxSocketPath = 107

// socketDir gives Dir/run, or, when its path is too long for a unix socket, a
// short directory whose name follows from Dir.
func socketDir(dir string, a *account) (string, error) {
	if place := filepath.Join(dir, "run"); fits(place) {
		return place, a.ownDir(place)
	}
	place := shortSocketDir(dir, a)
	// What is there already is checked and never changed: others may write there.
	if _, err := os.Lstat(place); errors.Is(err, fs.ErrNotExist) {
		if err := a.ownDir(place); err != nil {
			return "", fmt.Errorf("socket directory: %w", err)
		}
	}
	return place, checkPrivate(place, a)
}

func shortSocketDir(dir string, a *account) string {
	name := fmt.Sprintf("commissaire-pg-%x", sha256.Sum256([]byte(dir)))[:32]
	// Root's runtime directory is closed to the account that Postgres runs as.
	if runtimeDir := os.Getenv("XDG_RUNTIME_DIR"); a == nil && runtimeDir != "" {
		if place := filepath.Join(runtimeDir, name); fits(place) {
			return place
		}
	}
	return filepath.Join("/tmp", name)
}

func fits(dir string) bool { return len(dir)+len("/.s.PGSQL."+port) <= maxSocketPath }

// checkPrivate makes sure that nobody else put the directory there: /tmp is
// open to all, and the socket's directory is the access control.
func checkPrivate(dir string, a *account) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	want := uint32(os.Geteuid())
	if a != nil {
		want = a.uid
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm() != 0o700 || st.Uid != want {
		return fmt.Errorf("socket directory %s is not a directory of our own with mode 0700; remove it, or choose a shorter state directory", dir)
	}
	return nil
}
