package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func newKeyFile(t *testing.T) (string, *Sealer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, CreateKeyFile(path))
	s, err := OpenKeyFile(path)
	require.NoError(t, err)
	return path, s
}

func reopen(t *testing.T, path string) *Sealer {
	t.Helper()
	s, err := OpenKeyFile(path)
	require.NoError(t, err)
	return s
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	path, s := newKeyFile(t)
	row := Row("default", "host_creds", "192.0.2.1")
	sealed, err := s.Seal(NewText([]byte(leak)), row)
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "hunter")

	opened, err := reopen(t, path).Open(sealed, row)
	require.NoError(t, err)
	require.Equal(t, leak, string(opened.Reveal()))

	again, err := s.Seal(NewText([]byte(leak)), row)
	require.NoError(t, err)
	require.NotEqual(t, sealed, again, "equal secrets do not show as equal")

	id, err := KeyID(sealed)
	require.NoError(t, err)
	require.Equal(t, s.PrimaryKeyID(), id)
	_, err = KeyID([]byte("plain"))
	require.Error(t, err)
}

func TestOpenRefusesEveryChange(t *testing.T) {
	t.Parallel()
	_, s := newKeyFile(t)
	row := Row("default", "host_creds", "192.0.2.1")
	sealed, err := s.Seal(NewText([]byte(leak)), row)
	require.NoError(t, err)
	for i := range sealed {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			_, err := s.Open(changed, row)
			require.Error(t, err, "byte %d bit %d", i, bit)
			requireNoLeak(t, err.Error())
		}
	}
	for n := range sealed {
		_, err := s.Open(sealed[:n], row)
		require.Error(t, err, "cut to %d bytes", n)
	}
	_, err = s.Open(append(bytes.Clone(sealed), 0), row)
	require.Error(t, err)
}

func TestOpenRefusesOtherRow(t *testing.T) {
	t.Parallel()
	_, s := newKeyFile(t)
	sealed, err := s.Seal(NewText([]byte(leak)), Row("default", "host_creds", "192.0.2.1"))
	require.NoError(t, err)
	for _, row := range []string{
		"", Row("default", "host_creds", "192.0.2.2"), Row("other", "host_creds", "192.0.2.1"), Row("default", "token", "192.0.2.1"),
	} {
		_, err := s.Open(sealed, row)
		require.Error(t, err, row)
	}
	require.NotEqual(t, Row("a/b", "c", "d"), Row("a", "b/c", "d"))
	require.NotEqual(t, Row(`a"/"b`, "c", "d"), Row("a", `b"/"c`, "d"))
}

func TestOpenRefusesForeignKey(t *testing.T) {
	t.Parallel()
	_, a := newKeyFile(t)
	_, b := newKeyFile(t)
	row := Row("default", "host_creds", "h")
	sealed, err := a.Seal(NewText([]byte(leak)), row)
	require.NoError(t, err)
	_, err = b.Open(sealed, row)
	require.ErrorContains(t, err, "key is missing")
}

func TestRotation(t *testing.T) {
	t.Parallel()
	path, old := newKeyFile(t)
	row := Row("default", "host_creds", "h")
	sealed, err := old.Seal(NewText([]byte(leak)), row)
	require.NoError(t, err)

	id, err := AddKey(path)
	require.NoError(t, err)
	added := reopen(t, path)
	require.Equal(t, old.PrimaryKeyID(), added.PrimaryKeyID(), "a new key does not seal before all know it")
	same, changed, err := added.Reseal(sealed, row)
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, sealed, same)

	require.NoError(t, UseKey(path, id))
	current := reopen(t, path)
	require.Equal(t, id, current.PrimaryKeyID())
	moved, changed, err := current.Reseal(sealed, row)
	require.NoError(t, err)
	require.True(t, changed)
	movedID, err := KeyID(moved)
	require.NoError(t, err)
	require.Equal(t, id, movedID)
	_, _, err = current.Reseal(sealed, "another row")
	require.Error(t, err)

	_, err = added.Open(moved, row)
	require.NoError(t, err, "a process that knows the new key opens what others seal with it")

	require.Error(t, DropKey(path, id), "the key in use stays")
	require.NoError(t, DropKey(path, old.PrimaryKeyID()))
	last := reopen(t, path)
	_, err = last.Open(sealed, row)
	require.Error(t, err)
	opened, err := last.Open(moved, row)
	require.NoError(t, err)
	require.Equal(t, leak, string(opened.Reveal()))

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoFileExists(t, path+".new")
}

func TestChangeKeysRefusesASecondChange(t *testing.T) {
	t.Parallel()
	path, s := newKeyFile(t)
	require.NoError(t, os.WriteFile(path+".new", nil, 0o600))
	_, err := AddKey(path)
	require.ErrorContains(t, err, "remove "+path+".new")
	require.Equal(t, s.PrimaryKeyID(), reopen(t, path).PrimaryKeyID())
}

func TestKeyFilePermissions(t *testing.T) {
	t.Parallel()
	path, _ := newKeyFile(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o666, 0o620, 0o611} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := OpenKeyFile(path)
		require.ErrorContains(t, err, "chmod 600 "+path, "mode %o", mode)
	}
	require.NoError(t, os.Chmod(path, 0o400))
	_, err = OpenKeyFile(path)
	require.NoError(t, err)
}

func TestKeyFileNeverOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seal.key")
	var wg sync.WaitGroup
	created := make(chan error, 20)
	for range 20 {
		wg.Go(func() { created <- CreateKeyFile(path) })
	}
	wg.Wait()
	close(created)
	ok := 0
	for err := range created {
		if err == nil {
			ok++
			continue
		}
		require.ErrorContains(t, err, "left as it is")
	}
	require.Equal(t, 1, ok)
	reopen(t, path)

	link := filepath.Join(t.TempDir(), "link.key")
	require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), link))
	require.Error(t, CreateKeyFile(link), "a dangling link is not followed")
}

func TestOpenKeyFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := OpenKeyFile(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "does not exist")

	_, err = OpenKeyFile(dir)
	require.ErrorContains(t, err, "no regular file")

	for name, content := range map[string]string{"empty": "", "junk": "not json " + leak, "object": `{"primaryKeyId": 1}`, "other": `{"primaryKeyId":"` + leak + `"}`} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := OpenKeyFile(path)
		require.ErrorContains(t, err, path)
		requireNoLeak(t, err.Error())
	}
}
