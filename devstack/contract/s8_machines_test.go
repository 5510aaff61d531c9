package contract

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/internal/remote/remotetest"
)

func TestCommctlSSH(t *testing.T) {
	t.Parallel()
	s := ownSite(t, harness.Options{Machines: []remotetest.HostConfig{{Name: "h1"}}})
	h := s.Fleet.Hosts()[0]
	s.addHosts(t, "web", h)
	c := s.cli(t)
	trust := []string{"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	ssh := func(args ...string) said { return c.run(append([]string{"host", "ssh"}, args...)...) }
	keyFile := regexp.MustCompile(`ssh -i (\S+) -l ` + regexp.QuoteMeta(h.User()) + ` `)

	fact(t, "8-36", func(t *testing.T) {
		a := ssh(append(append([]string{h.Address()}, trust...), "echo", "on $FLEET_HOST")...).exits(0)
		require.Equal(t, "on "+h.Dir()+"\n", a.out)
		ssh(append(append([]string{h.Address()}, trust...), "exit 7")...).exits(7)
		// Options of ssh before the host, as -p and -v; the port of the record counts otherwise.
		a = ssh(append(append([]string{"-v", "-p", strconv.Itoa(h.Port()), h.Address()}, trust...), "true")...).exits(0)
		require.Contains(t, a.err, "-v")
		require.NotContains(t, ssh(append(append([]string{"-p", "1", h.Address()}, trust...), "true")...).exits(255).out, "FLEET")
		ssh("none.example").fails(2, "error:")
	})
	fact(t, "8-40", func(t *testing.T) {
		c.in = "exit 3\n" // for the remote shell
		a := ssh(append([]string{h.Address()}, trust...)...).exits(0)
		c.in = ""
		require.Regexp(t, keyFile, a.out)
		require.Contains(t, a.out, "Removed temporary ssh key\nNone\n")
		require.NoFileExists(t, keyFile.FindStringSubmatch(a.out)[1])

		// While ssh runs, nobody else can read it; then the directory is gone as well.
		tmp := t.TempDir()
		c.env = append(c.env, "TMPDIR="+tmp)
		look := []string{"-o", "PermitLocalCommand=yes", "-o", "LocalCommand=stat -c 'mode %%a' " + tmp + "/*/ " + tmp + "/*/key >&2"}
		a = ssh(append(append(append([]string{h.Address()}, trust...), look...), "true")...).exits(0)
		require.Contains(t, a.err, "mode 700\nmode 600\n")
		require.NoFileExists(t, keyFile.FindStringSubmatch(a.err)[1])
		left, err := os.ReadDir(tmp)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// part is one of user-data.
type part struct{ kind, file, text string }

// partsOf takes user-data apart as RFC 2045 and 2046 say.
func partsOf(t *testing.T, text string) (parts []part) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, "1.0", m.Header.Get("Mime-Version"))
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/mixed", kind)
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		require.NoError(t, err)
		kind, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		require.NoError(t, err)
		require.Equal(t, "utf-8", params["charset"])
		require.Equal(t, "base64", p.Header.Get("Content-Transfer-Encoding"))
		body, err := io.ReadAll(p)
		require.NoError(t, err)
		require.NotEmpty(t, p.FileName())
		parts = append(parts, part{kind, p.FileName(), string(decoded(t, strings.Join(strings.Fields(string(body)), "")))})
	}
}

// hostPart is what the part handler is given.
func hostPart(t *testing.T, text string) (members M) {
	t.Helper()
	for _, p := range partsOf(t, text) {
		if p.kind == "text/x-commissaire-host" {
			require.NoError(t, json.Unmarshal([]byte(p.text), &members))
		}
	}
	return members
}

func TestUserData(t *testing.T) {
	t.Parallel()
	s := quiet(t)
	c := s.cli(t)
	s.put(t, "cluster/u", "").status(http.StatusCreated)
	endpoint := "https://commissaire.example:8000"

	fact(t, "8-42 8-44 9-12", func(t *testing.T) {
		for _, form := range [][]string{nil, {"--shared-credentials"}} {
			text := c.run(append([]string{"user-data", "-e", endpoint}, form...)...).exits(0).out
			parts := partsOf(t, text)
			require.Len(t, parts, 3)
			require.Equal(t, part{"text/part-handler", "part-handler.py", parts[0].text}, parts[0])
			require.Equal(t, part{"text/cloud-config", "cloud-init.txt", parts[1].text}, parts[1])
			require.Equal(t, "text/x-commissaire-host", parts[2].kind)
			require.True(t, strings.HasPrefix(parts[1].text, "#cloud-config\n"))
			require.Contains(t, parts[1].text, "Finished booting")
			require.Less(t, len(text), 16*1024) // the smallest limit of a large provider
		}
		file := filepath.Join(c.home, "out")
		config := c.write("cloud.cfg", "#cloud-config\nhostname: mine\n")
		c.run("user-data", "-e", endpoint, "-C", config, "-o", file).prints("")
		require.Equal(t, "#cloud-config\nhostname: mine\n", partsOf(t, readFile(t, file))[1].text)
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		c.run("user-data").fails(2, "error:", "endpoint")
	})
	fact(t, "8-43", func(t *testing.T) {
		old := hostPart(t, c.run("user-data", "-e", endpoint, "--shared-credentials", "-c", "u", "-u", "cloud").exits(0).out)
		require.Equal(t, M{"endpoint": endpoint, "username": "cloud", "cluster": "u", "remote_user": "root",
			"ssh_key_path": "/root/.ssh/id_rsa", "authorized_keys_path": "/root/.ssh/authorized_keys"}, old)
		asked := c.answered([][3]any{{"Password: ", "secret", true}}, "user-data", "-e", endpoint, "--shared-credentials", "-u", "cloud", "-p",
			"-r", "ops", "-s", "/k", "-a", "/a", "-o", filepath.Join(c.home, "asked"))
		asked.exits(0)
		require.Equal(t, M{"endpoint": endpoint, "username": "cloud", "password": "secret", "remote_user": "ops", "ssh_key_path": "/k", "authorized_keys_path": "/a"},
			hostPart(t, readFile(t, filepath.Join(c.home, "asked"))))

		now := hostPart(t, c.run("user-data", "-e", endpoint, "-c", "u").exits(0).out)
		require.Regexp(t, `^cmsj_[a-z0-9]{16}_[A-Za-z0-9_-]{43}$`, now["join_token"])
		require.Regexp(t, `^ssh-ed25519 `, now["public_key"])
		delete(now, "join_token")
		delete(now, "public_key")
		require.Equal(t, M{"endpoint": endpoint, "cluster": "u", "remote_user": "root", "authorized_keys_path": "/root/.ssh/authorized_keys"}, now)
		c.run("user-data", "-e", endpoint, "-c", "u-none").exits(4) // no token is made for it
	})
}

//go:embed cloudinit.py
var cloudinit string

// boot does with user-data what cloud-init does, in a mount namespace whose /etc,
// /root and /home are its own, and runs a script there afterwards. Root only.
func boot(t *testing.T, userData, after string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a mount namespace and new users")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("needs mount namespaces: %s", out)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "user-data"), []byte(userData), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cloudinit.py"), []byte(cloudinit), 0o600))
	const sandbox = `dir=$1 python=$2 after=$3
mkdir "$dir/own"
mount -t tmpfs tmpfs "$dir/own"
for d in etc root home; do
	mkdir "$dir/own/$d" "$dir/own/$d-work"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$dir/own/$d,workdir=$dir/own/$d-work" "/$d"
done
rm -rf /root/.ssh /etc/ssh/ssh_host_*
mkdir -p /etc/sudoers.d
"$python" "$dir/cloudinit.py" "$dir/user-data"
eval "$after"`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation=private", "sh", "-euc", sandbox, "sandbox", dir, python(t), after)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, errs.String())
	return string(out)
}

// What the part handler does. That a real cloud-init runs it is for package
// cloudinit beside this one.
func TestPartHandler(t *testing.T) {
	t.Parallel()
	s, err := newSite(t.Context(), t.Name(), 0) // no worker: there is nothing to connect to
	require.NoError(t, err)
	t.Cleanup(s.Close)
	c := s.cli(t)
	s.put(t, "cluster/u", "").status(http.StatusCreated)
	const show = `stat -c '%a %U %n' "$HOME"/.ssh/authorized_keys; cat "$HOME"/.ssh/authorized_keys; cat /etc/ssh/ssh_host_ed25519_key.pub`

	fact(t, "8-45", func(t *testing.T) {
		good := c.run("user-data", "-e", s.API).exits(0).out
		for _, payload := range []string{"[]", "{", `{"join_token": "x"}`} {
			var parts []string
			for _, p := range partsOf(t, good) {
				if p.kind == "text/x-commissaire-host" {
					p.text = payload
				}
				parts = append(parts, "--b\nContent-Type: "+p.kind+"\nContent-Disposition: attachment; filename=\""+p.file+"\"\n\n"+p.text+"\n")
			}
			out := boot(t, "Content-Type: multipart/mixed; boundary=b\nMIME-Version: 1.0\n\n"+strings.Join(parts, "")+"--b--\n", "ls -A /root/.ssh 2>/dev/null || :")
			require.Contains(t, out, "Commissaire ")
			require.NotContains(t, out, "authorized_keys")
		}
		s.get(t, "hosts").is(http.StatusOK, "[]")
	})
	fact(t, "8-47 8-48", func(t *testing.T) {
		text := c.run("user-data", "-e", s.API, "-c", "u").exits(0).out
		out := boot(t, text, show+"; ls -A /root/.ssh")
		require.Contains(t, out, "Commissaire response: 201 Created\n")
		require.NotContains(t, out, "id_rsa")
		h := s.get(t, "host/127.0.0.1").object()
		require.Equal(t, "u", h["cluster"])
		require.Contains(t, out, hostPart(t, text)["public_key"])
		keyLine := regexp.MustCompile(`(?m)^ssh-ed25519 \S+ root@.*$`).FindString(out)
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(keyLine))
		require.NoError(t, err, out)
		require.Equal(t, ssh.FingerprintSHA256(public), h["host_key_fingerprint"])

		// The token has served: nobody else gets in by it, and it reads nothing.
		token := hostPart(t, text)["join_token"].(string)
		s.get(t, "hosts", bearer(token)).problem(http.StatusForbidden)
		other := jsonOf(t, M{"address": "192.0.2.48", "host_key": keyLine})
		require.Equal(t, 4, s.put(t, "host", other, bearer(token)).code/100)
		s.get(t, "host/192.0.2.48").problem(http.StatusNotFound)
		s.delete(t, "host/127.0.0.1").status(http.StatusOK)

		old := c.write("old", c.run("user-data", "-e", s.API, "--shared-credentials", "-u", harness.User).exits(0).out)
		text = c.answered([][3]any{{"Password: ", harness.Password, true}}, "user-data", "-e", s.API, "--shared-credentials", "-u", harness.User, "-p", "-o", old).exits(0).out
		require.NotContains(t, text, harness.Password)
		out = boot(t, readFile(t, old), "cat /root/.ssh/authorized_keys; ssh-keygen -y -f /root/.ssh/id_rsa; echo private:; cat /root/.ssh/id_rsa")
		require.Contains(t, out, "Commissaire response: 201 Created\n")
		authorized := regexp.MustCompile(`(?m)^ssh-rsa \S+`).FindAllString(out, -1)
		require.Len(t, authorized, 2)
		require.Equal(t, authorized[0], authorized[1])
		_, private, _ := strings.Cut(out, "private:\n")
		require.Equal(t, private, string(decoded(t, s.get(t, "host/127.0.0.1/creds").object()["ssh_priv_key"].(string))))
		s.delete(t, "host/127.0.0.1").status(http.StatusOK)
	})
	fact(t, "8-46", func(t *testing.T) {
		out := boot(t, c.run("user-data", "-e", s.API).exits(0).out, show)
		require.Contains(t, out, "600 root /root/.ssh/authorized_keys\n")
		s.delete(t, "host/127.0.0.1").status(http.StatusOK)

		text := c.run("user-data", "-e", s.API, "-r", "cloud-ops").exits(0).out
		out = boot(t, text, "HOME=~cloud-ops; "+show+"; id -un cloud-ops; cat /etc/sudoers.d/*")
		require.Contains(t, out, "600 cloud-ops /home/cloud-ops/.ssh/authorized_keys\n")
		require.Contains(t, out, "cloud-ops ALL=(ALL) NOPASSWD: ALL\n")
		require.Contains(t, out, hostPart(t, text)["public_key"])
		require.Equal(t, "cloud-ops", s.get(t, "host/127.0.0.1/creds").object()["remote_user"])
	})
}
