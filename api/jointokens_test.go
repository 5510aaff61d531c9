package api

import (
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
)

// makeJoinToken makes a join token and gives the API as its bearer sees it.
func (b *bundle) makeJoinToken(t testing.TB, body string) (host *bundle, made answer) {
	t.Helper()
	made = b.v0(t, "POST /jointokens", body, 201, "")
	return b.as("Bearer " + field(t, made, "token").(string)), made
}

func TestJoining(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /jointokens", "", 200, "[]")
	b.v0(t, "PUT /cluster/web", "", 201, "")
	olga := b.as(basicCreds("olga"))
	host, made := olga.makeJoinToken(t, `{"cluster":"web","remote_user":"core","expires_in":"2h"}`)
	id := field(t, made, "id").(string)
	require.NotContains(t, made.body, "PRIVATE")
	line, print := publicKey(t)

	body := `{"remote_user":"core","cluster":"web","host_key":"` + line + `"}`
	stored := host.v0(t, "PUT /host", body, 201, "")
	require.Equal(t, "127.0.0.1", field(t, stored, "address"))
	require.Equal(t, "web", field(t, stored, "cluster"))
	require.Equal(t, print, field(t, stored, "host_key_fingerprint"))
	require.Equal(t, 1, b.dispatcher.starts(), "its bootstrap begins")
	require.Equal(t, "jointoken:"+id, b.lastStarted().RequestedBy)

	creds := b.v0(t, "GET /host/127.0.0.1/creds", "", 200, "")
	require.Equal(t, "core", field(t, creds, "remote_user"))
	private, err := base64.StdEncoding.DecodeString(field(t, creds, "ssh_priv_key").(string))
	require.NoError(t, err)
	signer, err := ssh.ParsePrivateKey(private)
	require.NoError(t, err)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(field(t, made, "public_key").(string)))
	require.NoError(t, err)
	require.Equal(t, 1, subtle.ConstantTimeCompare(public.Marshal(), signer.PublicKey().Marshal()), "the server has the half that the host has not")

	// The same host again, as after a lost answer; then others.
	host.v0(t, "PUT /host/", body, 201, stored.body)
	require.Equal(t, 1, b.dispatcher.starts())
	host.v0(t, "PUT /host", strings.Replace(body, "{", `{"address":"192.0.2.9",`, 1), 403, "")
	other, _ := publicKey(t)
	host.v0(t, "PUT /host", `{"host_key":"`+other+`"}`, 403, "")

	a := olga.v0(t, "GET /jointokens", "", 200, "")
	require.Contains(t, a.body, `"used_by":"127.0.0.1"`)
	require.NotContains(t, a.body, field(t, made, "token").(string)[len("cmsj_"+id+"_"):])
	require.NotContains(t, b.log.String(), field(t, made, "token"))
}

func TestWhatAJoinTokenDoesNot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/web", "", 201, "")
	b.v0(t, "PUT /cluster/db", "", 201, "")
	host, made := b.makeJoinToken(t, `{"cluster":"web"}`)
	line, _ := publicKey(t)
	before := b.rows(t)
	for request, test := range map[string]struct {
		body   string
		status int
		blame  []string
	}{
		"a key of its own":      {`{"host_key":"` + line + `","ssh_priv_key":"` + key64(t) + `"}`, 400, []string{"ssh_priv_key"}},
		"no host key":           {`{}`, 400, []string{"host_key"}},
		"a broken host key":     {`{"host_key":"ssh-ed25519 x"}`, 400, []string{"host_key"}},
		"another cluster":       {`{"host_key":"` + line + `","cluster":"db"}`, 403, []string{"cluster"}},
		"another user":          {`{"host_key":"` + line + `","remote_user":"core"}`, 403, []string{"remote_user"}},
		"two addresses":         {`{"host_key":"` + line + `","address":"192.0.2.1","host":"192.0.2.2"}`, 400, []string{"host"}},
		"an address that is no": {`{"host_key":"` + line + `","address":"a b"}`, 400, []string{"address"}},
	} {
		a := host.v0(t, "PUT /host", test.body, test.status, "")
		require.Equal(t, test.blame, blamed(t, a), request)
	}
	for _, request := range []string{"PUT /host/192.0.2.1", "GET /hosts", "GET /whoami", "POST /tokens", "GET /cluster/web", "PUT /cluster/web/restart"} {
		host.v0(t, request, "", 403, "")
	}
	require.Equal(t, before, b.rows(t), "nothing is stored")

	b.dispatcher.setDown(&fleet.Error{Kind: fleet.Unavailable, Detail: "down"})
	host.v0(t, "PUT /host", `{"host_key":"`+line+`"}`, 503, "")
	b.dispatcher.setDown(nil)
	b.v0(t, "DELETE /jointokens/"+field(t, made, "id").(string), "", 200, "[]")
	host.v0(t, "PUT /host", `{"host_key":"`+line+`"}`, 403, "")
	b.v0(t, "DELETE /jointokens/k3v9q2m4x7c1b8n0", "", 404, "")
	require.Equal(t, before, b.rows(t), "nothing is stored")

	for body, status := range map[string]int{
		`{"cluster":"nowhere"}`: 409, `{"remote_user":"-x"}`: 400, `{"expires_in":"0s"}`: 400, `{"expires_in":"721h"}`: 400, `{"expires_in":"720h"}`: 201,
		`{"cluster":"a b"}`: 400, `{"ssh_priv_key":"x"}`: 400, ``: 201,
	} {
		a := b.v0(t, "POST /jointokens", body, status, "")
		require.Equal(t, status != 201, len(blamed(t, a)) > 0, body)
	}
}

// TestJoiningBehindAProxy: the host is who the proxy says, not the proxy.
func TestJoiningBehindAProxy(t *testing.T) {
	t.Parallel()
	b := setup(t, loopbackIsAProxy)
	line, _ := publicKey(t)
	for caller, want := range map[string]string{"192.0.2.50": "192.0.2.50", "198.51.100.9, 2001:DB8::5": "2001:db8::5"} {
		host, _ := b.makeJoinToken(t, "")
		r := host.request(t, "PUT", "/api/v0/host", `{"host_key":"`+line+`"}`)
		r.Header.Set("X-Forwarded-For", caller)
		a := host.send(t, r)
		require.Equal(t, 201, a.status, a.body)
		require.Equal(t, want, field(t, a, "address"))
	}
}
