package commctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/remote/remotetest"
)

// The key that a real sshd shows is pinned when a person says yes, and then only.
func TestHostTrust(t *testing.T) {
	t.Parallel()
	host := remotetest.New(t, 1).Hosts()[0]
	shown, err := parseHostKey(host.HostKey())
	require.NoError(t, err)
	shownText := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown)))
	dir := t.TempDir()
	keys := map[string]string{}
	for _, kind := range []string{"ed25519", "rsa"} {
		file := filepath.Join(dir, kind)
		require.NoError(t, exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", file).Run())
		text, err := os.ReadFile(file + ".pub")
		require.NoError(t, err)
		keys[kind] = strings.TrimSpace(string(text))
	}
	path := "/api/v0/host/" + host.Address()
	record := `{"address":"` + host.Address() + `","port":` + strconv.Itoa(host.Port()) + `}`
	t.Run("answers", func(t *testing.T) { // which ends when all of them have
		for name, c := range map[string]struct {
			pinned string // "" for none
			args   string
			answer string
			code   int
			put    string
			errs   string
		}{
			"yes":              {keys["ed25519"], "", "y\n", 0, shownText, "Pinned:    SHA256:"},
			"another type":     {keys["rsa"], "", "Yes", 0, shownText, "(ssh-rsa)\nPresented: " + ssh.FingerprintSHA256(shown) + " (ssh-ed25519)\n"},
			"none was pinned":  {"", "", "y", 0, shownText, "Pinned:    none\n"},
			"no":               {keys["ed25519"], "", "", exitUsage, "", "nothing was changed"},
			"not asked":        {keys["ed25519"], "--yes", "", 0, shownText, "Presented: "},
			"nothing new":      {shownText, "", "", 0, "", "is pinned already"},
			"from a file":      {keys["ed25519"], "--yes --key " + filepath.Join(dir, "rsa.pub"), "", 0, keys["rsa"], "Presented: "},
			"from ssh-keyscan": {keys["ed25519"], "--yes --key -", "", 0, keys["rsa"], "Presented: "},
			"no key":           {keys["ed25519"], "--yes --key " + filepath.Join(dir, "rsa"), "", exitUsage, "", "--key: this is no public key"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				replies := map[string]reply{"GET " + path: {200, record}, "PUT " + path + "/hostkey": {201, `{"address":"x","key":"k","fingerprint":"SHA256:new"}`}}
				if c.pinned != "" {
					replies["GET "+path+"/hostkey"] = reply{200, `{"key":"` + c.pinned + `","fingerprint":"SHA256:old"}`}
				}
				server := newStub(t, replies)
				a := appFor(t, server.URL)
				a.In = strings.NewReader("192.0.2.1 " + keys["rsa"] + "\n")
				a.Ask = func(question string, hidden bool) (string, error) {
					require.NotContains(t, c.args, "--yes")
					require.Equal(t, "Accept the presented key? [y/N] ", question)
					require.False(t, hidden)
					return c.answer, nil
				}
				code := a.Run(t.Context(), strings.Fields("host trust -o name "+c.args+" "+host.Address()))
				require.Equal(t, c.code, code, a.errs.String())
				require.Contains(t, a.errs.String(), c.errs)
				last := server.requests()[len(server.requests())-1]
				if c.put == "" {
					require.True(t, strings.HasPrefix(last.line, "GET "), last.line)
					return
				}
				require.Equal(t, "PUT "+path+"/hostkey", last.line)
				require.JSONEq(t, `{"key":"`+c.put+`"}`, last.body)
				require.Equal(t, "SHA256:new\n", a.out.String())
			})
		}
	})
	entries, err := host.Ledger()
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, "boot", e.What, "nobody logged in")
	}
}

func TestHostTrustOfADeadHost(t *testing.T) {
	t.Parallel()
	server := newStub(t, map[string]reply{"GET /api/v0/host/127.0.0.1": {200, `{"address":"127.0.0.1","port":1}`}})
	a := appFor(t, server.URL)
	require.Equal(t, exitUnreachable, a.Run(t.Context(), strings.Fields("host trust 127.0.0.1")))
	require.Contains(t, a.errs.String(), "the host shows no key: ")
	require.Contains(t, a.errs.String(), "--key takes one from a file")
}
