package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// stateDir gives the absolute path of the state folder. Root's default may be
// where the account that runs Postgres cannot pass, such as below /root; then it
// is one in /var/lib whose name follows from it.
func (f *flags) stateDir() (string, error) {
	if f.userState {
		base := os.Getenv("XDG_STATE_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", err
			}
			base = filepath.Join(home, ".local", "state")
		}
		return filepath.Join(base, "commissaire"), nil
	}
	dir, err := filepath.Abs(f.Dir)
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 || f.explicit || passable(filepath.Dir(dir)) {
		return dir, nil
	}
	return filepath.Join("/var/lib/commissaire-dev", fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12]), nil
}

// passable says whether everybody may pass a folder and those above it.
func passable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}
