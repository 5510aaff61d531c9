package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"commissaire/internal/secret"
)

func file(path, content string, mode fs.FileMode) File {
	return File{Path: path, Mode: mode, Owner: "root:root", Content: secret.NewText([]byte(content))}
}

// root is where the files of a host are on this machine.
func (b *bundle) root(path string) string { return filepath.Join(b.host.Dir(), "root", path) }

func TestWriteFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	const path = "/etc/new folder/it's.conf"
	found, err := c.ReadFile(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, FileFound{File: File{Path: path}}, found)

	contents := []string{"", "\n", "a", "a\n", "a\n\n", "no line break at the end\nof it", "C_END\n$HOME `id` \\ \"'\n\tC_END\n", strings.Repeat("0123456789abcde\n", 20_000), "\xff\xfe ä\r\n"}
	for i, content := range contents {
		if i == 3 { // somebody else, after us
			require.NoError(t, os.WriteFile(b.root(path), []byte("another's"), 0o644))
		}
		mode := []fs.FileMode{0o600, 0o644, 0o755}[i%3]
		require.NoError(t, c.WriteFile(t.Context(), file(path, content, mode), true, "docker", "flanneld"))
		got, err := os.ReadFile(b.root(path))
		require.NoError(t, err)
		require.True(t, content == string(got), "content %d", i)
		info, err := os.Stat(b.root(path))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode())
		found, err := c.ReadFile(t.Context(), path)
		require.NoError(t, err)
		require.True(t, found.Exists)
		require.Equal(t, mode, found.Mode)
		require.Equal(t, len(content) > maxOutput, found.Cut)
		require.True(t, found.Holds(secret.NewText([]byte(content))), "content %d", i)
		require.False(t, found.Holds(secret.NewText([]byte(content+"\n"))), "content %d", i)
		if !found.Cut {
			require.Equal(t, content, string(found.Content.Reveal()))
		}
		if os.Getuid() == 0 {
			require.Equal(t, "root:root", found.Owner)
		}
	}
	backup, err := os.ReadFile(b.root(path + ".before-commissaire"))
	require.NoError(t, err)
	require.Equal(t, "another's", string(backup), "the first one that was not ours is kept")
	names, err := filepath.Glob(filepath.Dir(b.root(path)) + "/.*")
	require.NoError(t, err)
	require.Empty(t, names, "nothing temporary is left")
	folder, err := os.Stat(filepath.Dir(b.root(path)))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), folder.Mode().Perm())
}

func TestMarks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	marks, err := c.Marks(t.Context())
	require.NoError(t, err)
	require.Empty(t, marks)
	require.NoError(t, c.RemoveMark(t.Context(), "docker"))
	for range 2 {
		require.NoError(t, c.WriteFile(t.Context(), file("/etc/a", "x", 0o644), false, "docker", ".reload", `dev-disk\x2d1.mount`))
	}
	marks, err = c.Marks(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"docker", ".reload", `dev-disk\x2d1.mount`}, marks)
	require.NoError(t, c.RemoveMark(t.Context(), ".reload"))
	require.NoError(t, c.RemoveMark(t.Context(), ".reload"))
	marks, err = c.Marks(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"docker", `dev-disk\x2d1.mount`}, marks)
	require.NoFileExists(t, b.root("/etc/a.before-commissaire"), "nobody asked for it")
}

func TestWhatIsNoFile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.conn(t)
	require.NoError(t, os.Mkdir(b.root("/etc/folder"), 0o755))
	require.NoError(t, os.Symlink("os-release", b.root("/etc/link")))
	require.NoError(t, os.Symlink("nowhere", b.root("/etc/dangling")))
	for path, want := range map[string]string{"/etc/folder": "no regular file", "/etc/link": "a symbolic link", "/etc/dangling": "a symbolic link"} {
		found, err := c.ReadFile(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, FileFound{File: File{Path: path}, Other: want}, found)
	}

	// What the host refuses is not our connection's trouble.
	var refused *FileError
	err := c.WriteFile(t.Context(), file("/etc/os-release/x", "x", 0o644), true)
	require.ErrorAs(t, err, &refused)
	require.Contains(t, err.Error(), "mkdir")
	require.NoError(t, os.Mkdir(b.root("/etc/target"), 0o755))
	require.NoError(t, os.WriteFile(b.root("/etc/target/x"), nil, 0o644))

	for _, path := range []string{"", "etc/x", "/", "/etc/../x", "/etc/x/", "/etc//x", "/etc/\x00"} {
		_, err := c.ReadFile(t.Context(), path)
		require.Error(t, err, "%q", path)
		require.Error(t, c.WriteFile(t.Context(), file(path, "x", 0o644), true), "%q", path)
	}
	for name, f := range map[string]File{
		"NUL": file("/etc/x", "a\x00b", 0o644), "large": file("/etc/x", strings.Repeat("x", maxFile+1), 0o644), "setuid": file("/etc/x", "", 0o644|fs.ModeSetuid),
	} {
		require.Error(t, c.WriteFile(t.Context(), f, true), name)
	}
	for _, mark := range []string{"", ".", "..", "a/b", "a b", "a\n", "-rf;"} {
		require.Error(t, c.WriteFile(t.Context(), file("/etc/x", "", 0o644), true, mark), "%q", mark)
		require.Error(t, c.RemoveMark(t.Context(), mark), "%q", mark)
	}
	require.NoFileExists(t, b.root("/etc/x"))
}

// killed runs a script of files with a shell that kills itself before its nth command,
// and says whether it came to its end. What is in bin stands for the programs of the host.
func killed(t testing.TB, n int, bin, root, script string, args ...string) (done bool) {
	t.Helper()
	// All that the shell has forked dies with it.
	const trap = `set -T
c_steps=0
trap 'c_steps=$((c_steps + 1)); [ $c_steps -ne %d ] || kill -9 0' DEBUG
`
	text := hostLibrary + fileScript + fmt.Sprintf(trap, n) + "c_files\n" + script + "\n"
	cmd := exec.Command("bash", "-s")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+bin+":"+os.Getenv("PATH"), "COMMISSAIRE_OS_ROOT="+root, "COMMISSAIRE_STATE_DIR="+root+"/state")
	cmd.Stdin = strings.NewReader(wrap(text, args))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return false
	}
	require.NoError(t, err, "%s", out)
	return true
}

// TestKilledWriters: whoever dies between any two commands of it leaves the old file or
// the new one, with the marks before the new one and the backup whole, and the next
// writer brings it to its end.
func TestKilledWriters(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed here")
	}
	top := t.TempDir()
	// A process that dies takes nothing from the disk with it, and to wait for a busy one
	// a thousand times takes minutes.
	bin := t.TempDir()
	none, err := exec.LookPath("true")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(none, filepath.Join(bin, "sync")))
	kills := 0
	rapid.Check(t, func(r *rapid.T) {
		root, err := os.MkdirTemp(top, "")
		require.NoError(r, err)
		path, mark := filepath.Join(root, "etc/sub/a.conf"), filepath.Join(root, "state/restart/docker")
		backup := path + ".before-commissaire"
		before, after := rapid.String().Draw(r, "old"), rapid.String().Draw(r, "new")
		before, after = strings.ReplaceAll(before, "\x00", ""), strings.ReplaceAll(after, "\x00", "")
		exists, ours := rapid.Bool().Draw(r, "exists"), rapid.Bool().Draw(r, "ours")
		keep := rapid.SampledFrom([]string{"backup", "secret"}).Draw(r, "keep")
		switch {
		case exists && ours:
			require.True(r, killed(t, 0, bin, root, "c_content="+Quote(before)+"\n"+`c_write "$@"`, "/etc/sub/a.conf", "640", "root:root", strconv.Itoa(len(before)), ""))
		case exists:
			require.NoError(r, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(r, os.WriteFile(path, []byte(before), 0o640))
		}
		write := func(n int) bool {
			return killed(t, n, bin, root, "c_content="+Quote(after)+"\n"+`c_write "$@"`, "/etc/sub/a.conf", "644", "root:root", strconv.Itoa(len(after)), keep, "docker")
		}
		check := func() (isNew bool) {
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				require.False(r, exists)
				return false
			}
			require.NoError(r, err)
			info, err := os.Stat(path)
			require.NoError(r, err)
			isNew = info.Mode() == 0o644
			if isNew {
				require.Equal(r, after, string(content))
				require.FileExists(r, mark, "nobody would restart the service")
			} else {
				require.Equal(r, fs.FileMode(0o640), info.Mode())
				require.Equal(r, before, string(content))
			}
			kept, err := os.ReadFile(backup)
			if exists && ours {
				require.ErrorIs(r, err, fs.ErrNotExist, "it was no one else's")
			} else if err == nil || isNew && exists {
				require.NoError(r, err)
				require.Equal(r, before, string(kept))
			}
			return isNew
		}
		first := rapid.IntRange(1, 80).Draw(r, "killed before command")
		if !write(first) {
			kills++
		}
		if check() { // what comes next would find nothing to do
			return
		}
		require.True(r, write(0))
		require.True(r, check())
		left, err := filepath.Glob(filepath.Dir(path) + "/.*")
		require.NoError(r, err)
		require.Empty(r, left)
	})
	require.NotZero(t, kills)
}
