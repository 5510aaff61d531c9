package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// Changing the key without a pause: AddKey and restart every process, so that
// all can open with the new key; UseKey and restart again, so that all seal
// with it; reseal the rows; DropKey of the old one. docs/operations.md has the
// commands.

// maxKeyFile bounds what is read; a key is about 300 bytes.
const maxKeyFile = 1 << 20

// CreateKeyFile makes a key file with one new AES256-GCM key, readable by its
// owner only. It never overwrites: losing the key loses every secret it sealed.
func CreateKeyFile(path string) error {
	keys, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("create key file %s: %w", path, err)
	}
	raw, err := encode(keys)
	if err != nil {
		return fmt.Errorf("create key file %s: %w", path, err)
	}
	if err := writeNew(path, raw); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create key file %s: it exists and is left as it is; move it away only if nothing is sealed with it: %w", path, err)
		}
		return fmt.Errorf("create key file: %w", err)
	}
	return nil
}

// OpenKeyFile reads a key file. One that others than its owner may read is
// refused, since its keys may be known already.
func OpenKeyFile(path string) (*Sealer, error) {
	keys, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	s, err := newSealer(keys)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return s, nil
}

// AddKey adds a new key that opens but does not seal yet, and gives its id.
func AddKey(path string) (id uint32, err error) {
	err = changeKeys(path, func(m *keyset.Manager) error {
		id, err = m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
	return id, err
}

// UseKey makes the key with this id the one that seals.
func UseKey(path string, id uint32) error {
	return changeKeys(path, func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

// DropKey removes a key. What it sealed can never be opened again, so reseal
// first. The key in use cannot be dropped.
func DropKey(path string, id uint32) error {
	return changeKeys(path, func(m *keyset.Manager) error { return m.Delete(id) })
}

// changeKeys replaces the key file as a whole, so that a crash leaves the old
// or the new one.
func changeKeys(path string, change func(*keyset.Manager) error) error {
	keys, err := readKeys(path)
	if err != nil {
		return err
	}
	m := keyset.NewManagerFromHandle(keys)
	if err := change(m); err != nil {
		return fmt.Errorf("change key file %s: %w", path, err)
	}
	if keys, err = m.Handle(); err != nil {
		return fmt.Errorf("change key file %s: %w", path, err)
	}
	raw, err := encode(keys)
	if err != nil {
		return fmt.Errorf("change key file %s: %w", path, err)
	}
	// O_EXCL on the one next name also keeps two changes from running at once.
	next := path + ".new"
	if err := writeNew(next, raw); err != nil {
		return fmt.Errorf("change key file %s: another change runs or was cut off; if none runs, remove %s: %w", path, next, err)
	}
	if err := sameOwner(path, next); err != nil {
		return errors.Join(fmt.Errorf("change key file %s: %w", path, err), os.Remove(next))
	}
	if err := os.Rename(next, path); err != nil {
		return errors.Join(fmt.Errorf("change key file: %w", err), os.Remove(next))
	}
	return syncDir(filepath.Dir(path))
}

func readKeys(path string) (*keyset.Handle, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("key file %s does not exist; create one, or give the path of the one that sealed this database: %w", path, err)
		}
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("key file %s may be read or written by others (mode %04o); run: chmod 600 %s", path, mode, path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	keys, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(raw)))
	if err != nil {
		// The parser's own words may quote the file, so they stay here.
		return nil, fmt.Errorf("key file %s is damaged or no key file; restore it from your backup", path)
	}
	return keys, nil
}

func encode(keys *keyset.Handle) ([]byte, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(keys, keyset.NewJSONWriter(&b)); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// writeNew writes a new file that is on disk when it returns. A file that it
// could not finish is removed, so that half a key never looks like one.
func writeNew(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sameOwner gives a file the owner of another, so that an administrator who
// changes the keys as root leaves them readable for the service.
func sameOwner(of, path string) error {
	info, err := os.Stat(of)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("owner of %s is unknown", of)
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}
