package harness

import (
	"errors"
	"os"
)

// TempDir makes a temporary folder for the state of an installation. Its private
// Postgres runs as another user when we are root, and must get through.
func TempDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}
