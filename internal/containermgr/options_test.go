package containermgr_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
)

const secretWord = "s3cr3t-w0rd"

func TestBadOptions(t *testing.T) {
	t.Parallel()
	const url = "https://10.2.0.1:6443"
	for name, c := range map[string]struct {
		options map[string]any
		blamed  string // option
	}{
		"nothing":            {map[string]any{}, "server_url"},
		"unknown":            {map[string]any{"server_url": url, "apiserver": "x"}, "apiserver"},
		"no string":          {map[string]any{"server_url": 1}, "server_url"},
		"no flag":            {map[string]any{"server_url": url, "insecure_skip_tls_verify": "yes"}, "insecure_skip_tls_verify"},
		"no scheme":          {map[string]any{"server_url": "10.2.0.1:6443"}, "server_url"},
		"other scheme":       {map[string]any{"server_url": "file:///etc/passwd"}, "server_url"},
		"no host":            {map[string]any{"server_url": "https://:6443"}, "server_url"},
		"password in it":     {map[string]any{"server_url": "https://u:" + secretWord + "@10.2.0.1"}, "server_url"},
		"token in the clear": {map[string]any{"server_url": "http://10.2.0.1", "token": secretWord}, "server_url"},
		"token with a line":  {map[string]any{"server_url": url, "token": secretWord + "\nX-Other: y"}, "token"},
		"no key":             {map[string]any{"server_url": url, "certificate_path": "/a"}, "certificate_key_path"},
		"no certificate":     {map[string]any{"server_url": url, "certificate_key_path": "/a"}, "certificate_path"},
		"no such file":       {map[string]any{"server_url": url, "certificate_ca_path": "/nonexistent/ca"}, "certificate_ca_path"},
		"no PEM":             {map[string]any{"server_url": url, "certificate_path": "/etc/hostname", "certificate_key_path": "/etc/hostname"}, "certificate_path"},
		"CA and insecure":    {map[string]any{"server_url": url, "certificate_ca_path": "/a", "insecure_skip_tls_verify": true}, "insecure_skip_tls_verify"},
		"two addresses":      {map[string]any{"server_url": url, "kubeconfig": kubeconfig("", "")}, "server_url"},
		"no kubeconfig":      {map[string]any{"kubeconfig": "{" + secretWord}, "kubeconfig"},
		"empty kubeconfig":   {map[string]any{"kubeconfig": "{}"}, "kubeconfig"},
		"runs a program":     {map[string]any{"kubeconfig": kubeconfig("", `exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/x], interactiveMode: Never}`)}, "kubeconfig"},
		"auth provider":      {map[string]any{"kubeconfig": kubeconfig("", `auth-provider: {name: gcp}`)}, "kubeconfig"},
		"password":           {map[string]any{"kubeconfig": kubeconfig("", `{username: u, password: `+secretWord+`}`)}, "kubeconfig"},
		"somebody else":      {map[string]any{"kubeconfig": kubeconfig("", `as: root`)}, "kubeconfig"},
		"token file":         {map[string]any{"kubeconfig": kubeconfig("", `tokenFile: /etc/passwd`)}, "kubeconfig"},
		"CA file":            {map[string]any{"kubeconfig": kubeconfig(`, certificate-authority: /etc/passwd`, "")}, "kubeconfig"},
		"proxy":              {map[string]any{"kubeconfig": kubeconfig(`, proxy-url: "http://10.0.0.1"`, "")}, "kubeconfig"},
		"quietly insecure":   {map[string]any{"kubeconfig": kubeconfig(`, insecure-skip-tls-verify: true`, "")}, "kubeconfig"},
		"broken certificate": {map[string]any{"kubeconfig": kubeconfig("", `{client-certificate-data: `+"c2VjcmV0"+`, client-key-data: c2VjcmV0}`)}, "kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := containermgr.New(fleet.ContainerManager{Type: fleet.ContainerManagerKubernetes, Options: c.options})
			var e *fleet.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, fleet.Invalid, e.Kind)
			require.Len(t, e.Fields, 1)
			require.Equal(t, "options."+c.blamed, e.Fields[0].Field)
			require.NotContains(t, err.Error(), secretWord)
		})
	}
}

// TestFilesThatAreNone ends at once, whatever is named: a worker reads it for everybody.
func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "large")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	require.NoError(t, os.WriteFile(large, make([]byte, 1<<20+1), 0o600))
	for path, says := range map[string]string{"/dev/zero": "no file", dir: "no file", fifo: "no file", large: "larger than 1 MB"} {
		done := make(chan error, 1)
		go func() {
			_, err := containermgr.New(fleet.ContainerManager{Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
				"server_url": "https://10.2.0.1:6443", "certificate_ca_path": path,
			}})
			done <- err
		}()
		select {
		case err := <-done:
			var e *fleet.Error
			require.ErrorAs(t, err, &e, path)
			require.Equal(t, "options.certificate_ca_path", e.Fields[0].Field)
			require.ErrorContains(t, err, says, path)
		case <-time.After(time.Minute):
			require.Fail(t, "it reads for ever", path)
		}
	}
}

func kubeconfig(cluster, user string) string {
	if user == "" {
		user = "{token: t}"
	} else if !strings.HasPrefix(user, "{") {
		user = "{" + user + "}"
	}
	return `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://10.2.0.1:6443"` + cluster + `}}]
users: [{name: u, user: ` + user + `}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
}

func TestGoodOptions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options map[string]any
		is      string
		warned  bool
	}{
		"path is dropped":  {map[string]any{"server_url": "https://10.2.0.1:8443/api/v1/", "token": " t\n"}, "kubernetes at https://10.2.0.1:8443", false},
		"plain, no log-in": {map[string]any{"server_url": "http://10.2.0.1:8080"}, "kubernetes at http://10.2.0.1:8080", true},
		"insecure":         {map[string]any{"server_url": "https://10.2.0.1", "insecure_skip_tls_verify": true}, "kubernetes at https://10.2.0.1", true},
		"kubeconfig":       {map[string]any{"kubeconfig": kubeconfig("", "")}, "kubernetes at https://10.2.0.1:6443", false},
		"loud kubeconfig":  {map[string]any{"kubeconfig": kubeconfig(`, insecure-skip-tls-verify: true`, ""), "insecure_skip_tls_verify": true}, "kubernetes at https://10.2.0.1:6443", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newManager(t, c.options)
			require.Equal(t, c.is, k.String())
			require.Equal(t, c.warned, len(k.Warnings()) > 0)
		})
	}
}

func TestOtherTypes(t *testing.T) {
	t.Parallel()
	_, err := containermgr.New(fleet.ContainerManager{Type: fleet.ContainerManagerTrivial})
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
}

// FuzzKubeconfig looks for text that makes a client run a program, read a file or
// panic: whatever is taken, New must not fail in another way than by blaming it.
func FuzzKubeconfig(f *testing.F) {
	f.Add(kubeconfig("", ""))
	f.Add(kubeconfig(`, proxy-url: "http://10.0.0.1"`, `exec: {command: x}`))
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		_, err := containermgr.New(fleet.ContainerManager{Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"kubeconfig": text}})
		if err != nil {
			require.Equal(t, fleet.Invalid, fleet.KindOf(err), err)
		}
	})
}

func TestFilesAreNotReadFromAKubeconfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(secretWord), 0o600))
	_, err := containermgr.New(fleet.ContainerManager{Type: fleet.ContainerManagerKubernetes, Options: map[string]any{
		"kubeconfig": kubeconfig("", "{token: t, tokenFile: "+file+"}"),
	}})
	require.Error(t, err)
}
