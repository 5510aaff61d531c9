package commctl

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/secret"
)

const (
	joinText  = "cmsj_k3v9q2m4x7c1b8n0_secretsecretsecretsecretsecretsecretsecretsecr"
	publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti commissaire"
	joinReply = `{"token":"` + joinText + `","id":"k3v9q2m4x7c1b8n0","public_key":"` + publicKey + `","cluster":"web","remote_user":"root","created_at":"2026-11-20T14:03:00.123456","expires_at":"2026-11-20T15:03:00.123456"}`
)

// mimePart is a part as Python's email package, which cloud-init uses, reads it.
type mimePart struct {
	Type, Charset, File, Disposition, Encoding, Text string
}

func parseMIME(t *testing.T, text []byte) []mimePart {
	t.Helper()
	python := exec.Command("python3", "-c", `
import email, json, sys
m = email.message_from_bytes(sys.stdin.buffer.read())
assert m.get_content_type() == "multipart/mixed" and m["MIME-Version"] == "1.0" and not m.defects, m.defects
print(json.dumps([{"Type": p.get_content_type(), "Charset": p.get_content_charset(), "File": p.get_filename(), "Disposition": p.get_content_disposition(),
  "Encoding": p["Content-Transfer-Encoding"], "Text": p.get_payload(decode=True).decode()} for p in m.get_payload()]))`)
	python.Stdin = strings.NewReader(string(text))
	python.Stderr = os.Stderr
	out, err := python.Output()
	require.NoError(t, err)
	var parts []mimePart
	require.NoError(t, json.Unmarshal(out, &parts))
	return parts
}

func TestUserDataWithAJoinToken(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"POST /api/v0/jointokens": {201, joinReply}})
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), strings.Fields("user-data -e https://commissaire.example:8000/ -c web --expires 2h")), a.errs.String())
	require.JSONEq(t, `{"cluster":"web","remote_user":"root","expires_in":"2h"}`, normalDuration(server.requests()[0].body))
	require.Less(t, a.out.Len(), 16384, "the smallest limit among providers")
	parts := parseMIME(t, a.out.Bytes())
	require.Equal(t, []mimePart{
		{"text/part-handler", "utf-8", "part-handler.py", "attachment", "base64", partHandler},
		{"text/cloud-config", "utf-8", "cloud-init.txt", "attachment", "base64", "#cloud-config\nfinal_message: Finished booting\n"},
		{"text/x-commissaire-host", "utf-8", "commissaire-host.json", "attachment", "base64", parts[2].Text},
	}, parts)
	require.JSONEq(t, `{"endpoint":"https://commissaire.example:8000","join_token":"`+joinText+`","public_key":"`+publicKey+`","cluster":"web","remote_user":"root","authorized_keys_path":"/root/.ssh/authorized_keys"}`, parts[2].Text)
	for _, line := range strings.Split(a.out.String(), "\n") {
		require.LessOrEqual(t, len(line), 120)
	}
}

// normalDuration takes the zeros off "2h0m0s".
func normalDuration(text string) string { return strings.Replace(text, "2h0m0s", "2h", 1) }

func TestUserDataFlags(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"POST /api/v0/jointokens": {201, joinReply}})
	dir := t.TempDir()
	cloud, ca, out := filepath.Join(dir, "cloud"), filepath.Join(dir, "ca"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(cloud, []byte("#cloud-config\nusers: [{name: jürgen}]\n"), 0o600))
	tlsServer := httptest.NewTLSServer(nil)
	t.Cleanup(tlsServer.Close)
	caText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tlsServer.Certificate().Raw})
	require.NoError(t, os.WriteFile(ca, caText, 0o600))
	require.NoError(t, os.WriteFile(out, []byte("old"), 0o644))
	a := appFor(t, server.URL)
	require.Zero(t, a.Run(t.Context(), strings.Fields("user-data -e http://a -e http://b/ -r cloud --ca-file "+ca+" -C "+cloud+" -o "+out)), a.errs.String())
	require.Empty(t, a.out.String())
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	parts := parseMIME(t, text)
	require.Contains(t, parts[1].Text, "jürgen")
	require.JSONEq(t, `{"endpoint":["http://a","http://b"],"join_token":"`+joinText+`","public_key":"`+publicKey+`","remote_user":"cloud","ca":`+strconv.Quote(string(caText))+`}`, parts[2].Text, "authorized_keys is that of the user")

	a = newTestApp(t) // no configuration: the old form asks no server
	a.Ask = func(_ string, hidden bool) (string, error) {
		require.True(t, hidden)
		return "pw", nil
	}
	require.Zero(t, a.Run(t.Context(), strings.Fields("user-data --shared-credentials -e http://a -u alice -p -c web")), a.errs.String())
	require.JSONEq(t, `{"endpoint":"http://a","username":"alice","password":"pw","cluster":"web","remote_user":"root","ssh_key_path":"/root/.ssh/id_rsa","authorized_keys_path":"/root/.ssh/authorized_keys"}`, parseMIME(t, a.out.Bytes())[2].Text)

	a = newTestApp(t)
	require.Zero(t, a.Run(t.Context(), strings.Fields("user-data --shared-credentials -e http://a")))
	require.JSONEq(t, `{"endpoint":"http://a","remote_user":"root","ssh_key_path":"/root/.ssh/id_rsa","authorized_keys_path":"/root/.ssh/authorized_keys"}`, parseMIME(t, a.out.Bytes())[2].Text, "what is not set is not there")

	for args, want := range map[string]string{
		"-e http://a -u alice":                          "--username needs --shared-credentials",
		"-e http://a -p":                                "--password needs --shared-credentials",
		"-e http://a -s /k":                             "--ssh-key-path needs --shared-credentials",
		"-e http://a --shared-credentials --expires 1h": "--expires",
		"-e a:8000":                                     "not a URL",
		"-e http://a -r Root":                           "--remote-user must be",
		"-e http://a -C /no/such":                       "--cloud-init",
		"-e http://a --ca-file " + cloud:                "holds no certificate in PEM form",
		"-e http://a -o /no/such":                       "--outfile",
	} {
		a := appFor(t, server.URL)
		require.Equal(t, exitUsage, a.Run(t.Context(), append([]string{"user-data"}, strings.Fields(args)...)), args)
		require.Contains(t, a.errs.String(), want)
	}
	require.Len(t, server.requests(), 1, "no token is made for nothing")
	a = appFor(t, newStub(t, map[string]reply{"POST /api/v0/jointokens": {403, `{"title":"Forbidden","status":403,"detail":"needs role operator"}`}}).URL)
	require.Equal(t, exitForbidden, a.Run(t.Context(), strings.Fields("user-data -e http://a")))
	require.Equal(t, "commctl: error: needs role operator\n", a.errs.String())
}

func TestPartHandlerIsOldPython(t *testing.T) {
	t.Parallel()
	python := exec.Command("python3", "-c", "import ast, sys; ast.parse(sys.stdin.read(), feature_version=(3, 6))")
	python.Stdin = strings.NewReader(partHandler)
	out, err := python.CombinedOutput()
	require.NoError(t, err, string(out))
}

// machine is a folder that the part handler takes for a machine.
type machine struct {
	dir, handler string
	user         string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{dir: t.TempDir()}
	m.handler = filepath.Join(m.dir, "part-handler-000.py")
	require.NoError(t, os.Mkdir(filepath.Join(m.dir, "sudoers"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "ecdsa.pub"), []byte("ecdsa-sha2-nistp256 AAAAecdsa root@machine\n"), 0o644))
	text := partHandler
	for from, to := range map[string]string{
		`"/var/lib/cloud/instance/scripts"`: `"` + m.dir + `/scripts"`,
		`"/etc/ssh/ssh_host_%s_key.pub"`:    `"` + m.dir + `/%s.pub"`,
		`"/etc/sudoers.d"`:                  `"` + m.dir + `/sudoers"`,
		`PATIENCE = 300`:                    `PATIENCE = 4`,
	} {
		require.Contains(t, text, from)
		text = strings.Replace(text, from, to, 1)
	}
	require.NoError(t, os.WriteFile(m.handler, []byte(text), 0o600))
	u, err := user.Current()
	require.NoError(t, err)
	m.user = u.Username
	return m
}

// handle gives a payload to the handler, as cloud-init does.
func (m machine) handle(t *testing.T, payload string) string {
	t.Helper()
	python := exec.Command("python3", "-c", `
import importlib.util, sys
spec = importlib.util.spec_from_file_location("handler", sys.argv[1])
m = importlib.util.module_from_spec(spec)
spec.loader.exec_module(m)
assert m.handler_version == 2 and m.list_types() == ["text/x-commissaire-host"]
payload = sys.stdin.buffer.read()
for kind in ("__begin__", "text/x-commissaire-host", "__end__"):
    m.handle_part(None, kind, "commissaire-host.json", payload, "once-per-instance")
`, m.handler)
	python.Stdin = strings.NewReader(payload)
	python.Env = append(os.Environ(), "LC_ALL=C", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0") // as during a boot, with Python 3.6
	out, err := python.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func (m machine) payload(t *testing.T, members map[string]any) string {
	t.Helper()
	members["remote_user"] = m.user
	members["authorized_keys_path"] = filepath.Join(m.dir, "home", ".ssh", "authorized_keys")
	text, err := json.Marshal(members)
	require.NoError(t, err)
	return string(text)
}

func (m machine) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, name))
	require.NoError(t, err)
	return string(text)
}

// At the end of the boot, and again while no server takes the machine.
func TestPartHandlerJoins(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	patient := strings.Replace(m.read(t, filepath.Base(m.handler)), "PATIENCE = 4", "PATIENCE = 300", 1) // a busy machine needs more
	require.NoError(t, os.WriteFile(m.handler, []byte(patient), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(m.dir, "scripts"), 0o755))
	var answers []int
	server := &stubServer{}
	server.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.handler(map[string]reply{"PUT /api/v0/host": {answers[len(server.requests())], `{}`}}).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	answers = []int{503, 429, 201}
	said := m.handle(t, m.payload(t, map[string]any{"endpoint": []string{deadEndpoint, server.URL + "/"}, "join_token": joinText, "public_key": publicKey, "cluster": "web"}))
	require.Equal(t, "Commissaire registration follows at the end of the boot\n", said)
	require.Empty(t, server.lines(), "host keys and sshd are not there yet")

	script := filepath.Join(m.dir, "scripts", "commissaire-join")
	info, err := os.Stat(script)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "it holds the token")
	out, err := exec.Command(script).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "Commissaire does not answer at "+deadEndpoint)
	require.Contains(t, string(out), "Commissaire response: 503 Service Unavailable\n")
	require.True(t, strings.HasSuffix(string(out), "Commissaire response: 201 Created\n"), string(out))
	require.NotContains(t, string(out), joinText)
	require.NoFileExists(t, script)
	require.Len(t, server.requests(), 3)
	for _, r := range server.requests() {
		require.Equal(t, "PUT /api/v0/host", r.line)
		require.JSONEq(t, `{"remote_user":"`+m.user+`","cluster":"web","host_key":"ecdsa-sha2-nistp256 AAAAecdsa"}`, r.body)
		require.Equal(t, "Bearer "+joinText, r.header.Get("Authorization"))
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
	}
	require.Equal(t, publicKey+"\n", m.read(t, "home/.ssh/authorized_keys"))
	info, err = os.Stat(filepath.Join(m.dir, "home/.ssh/authorized_keys"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestPartHandlerKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server := newStub(t, map[string]reply{"PUT /api/v0/host": {201, `{}`}})
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "ed25519.pub"), []byte("ssh-ed25519 AAAAed\n"), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, "home", ".ssh"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "home/.ssh/authorized_keys"), []byte("ssh-rsa mine jos\xe9"), 0o600)) // in Latin-1
	payload := m.payload(t, map[string]any{"endpoint": server.URL, "join_token": joinText, "public_key": publicKey})
	for range 2 {
		require.Equal(t, "Commissaire response: 201 Created\n", m.handle(t, payload))
		require.Equal(t, "ssh-rsa mine jos\xe9\n"+publicKey+"\n", m.read(t, "home/.ssh/authorized_keys"))
	}
	require.JSONEq(t, `{"remote_user":"`+m.user+`","host_key":"ssh-ed25519 AAAAed"}`, server.requests()[0].body)
}

func TestPartHandlerWithSharedCredentials(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server := newStub(t, map[string]reply{"PUT /api/v0/host": {201, `{}`}})
	key := filepath.Join(m.dir, "keys", "id_rsa")
	payload := m.payload(t, map[string]any{"endpoint": server.URL, "username": "alice", "password": "pä", "ssh_key_path": key, "cluster": "web"})
	for range 2 {
		require.Equal(t, "Commissaire response: 201 Created\n", m.handle(t, payload))
	}
	private, err := os.ReadFile(key)
	require.NoError(t, err)
	require.NoError(t, secret.CheckPrivateKey(private), "the server takes it")
	public, err := os.ReadFile(key + ".pub")
	require.NoError(t, err)
	require.Equal(t, strings.Fields(string(public))[:2], strings.Fields(m.read(t, "home/.ssh/authorized_keys"))[:2])
	for _, r := range server.requests() {
		require.JSONEq(t, `{"remote_user":"`+m.user+`","cluster":"web","ssh_priv_key":"`+base64.StdEncoding.EncodeToString(private)+`"}`, r.body)
		require.Equal(t, "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:pä")), r.header.Get("Authorization"))
	}
	m.handle(t, m.payload(t, map[string]any{"endpoint": server.URL, "username": "alice", "ssh_key_path": key}))
	require.Empty(t, server.requests()[2].header.Get("Authorization"), "only with both")
}

func TestPartHandlerGivesUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ payload, want string }{
		"not JSON":    {`{`, `^Commissaire registration failed: the host part is not JSON\n$`},
		"no object":   {`[]`, `^Commissaire registration failed: the host part must be a JSON object`},
		"no endpoint": {`{"remote_user":"root"}`, `with an endpoint\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Regexp(t, c.want, newMachine(t).handle(t, c.payload))
		})
	}
	members := map[string]any{"join_token": joinText, "public_key": publicKey}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		server := newStub(t, map[string]reply{"PUT /api/v0/host": {403, `{"title":"Forbidden","status":403,"detail":"the join token of José is used"}`}})
		said := m.handle(t, m.payload(t, map[string]any{"endpoint": server.URL, "join_token": joinText, "public_key": publicKey}))
		require.Equal(t, "Commissaire response: 403 Forbidden\nCommissaire registration failed: "+server.URL+" refused this machine: the join token of Jos\\xe9 is used\n", said)
		require.Len(t, server.requests(), 1)
	})
	t.Run("redirected", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		thief := newStub(t, nil)
		server := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
		t.Cleanup(server.Close)
		require.Contains(t, m.handle(t, m.payload(t, map[string]any{"endpoint": server.URL, "join_token": joinText, "public_key": publicKey})), "refused this machine")
		require.Empty(t, thief.lines())
	})
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		require.NoError(t, os.Mkdir(filepath.Join(m.dir, "scripts"), 0o755))
		members["endpoint"] = deadEndpoint
		m.handle(t, m.payload(t, members))
		out, err := exec.Command(filepath.Join(m.dir, "scripts", "commissaire-join")).CombinedOutput()
		require.Error(t, err, "the boot is not called good")
		require.Regexp(t, regexp.MustCompile(`no server took this machine within 4 seconds\nCommissaire tries again when root runs \S+/commissaire-join\n$`), string(out))
		require.FileExists(t, filepath.Join(m.dir, "scripts", "commissaire-join"), "to be run again by hand")
	})
}

// A private CA comes with the user-data; no other is believed then.
func TestPartHandlerTLS(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	server := &stubServer{}
	server.Server = httptest.NewTLSServer(server.handler(map[string]reply{"PUT /api/v0/host": {201, `{}`}}))
	t.Cleanup(server.Close)
	members := map[string]any{"endpoint": server.URL, "join_token": joinText, "public_key": publicKey}
	require.Contains(t, m.handle(t, m.payload(t, members)), "certificate verify failed")
	require.Empty(t, server.lines())
	members["ca"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	require.Equal(t, "Commissaire response: 201 Created\n", m.handle(t, m.payload(t, members)))
}
