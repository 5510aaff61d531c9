package api

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// makeToken makes an API token and gives its text and its id.
func (b *bundle) makeToken(t testing.TB, body string) (text, id string) {
	t.Helper()
	a := b.v0(t, "POST /tokens", body, 201, "")
	return field(t, a, "token").(string), field(t, a, "id").(string)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /tokens", "", 200, "[]")
	a := b.v0(t, "POST /tokens", `{"name":"ci","role":"operator","operations":["upgradeCluster","putNetwork"],"expires_in":"2h"}`, 201, "")
	text, id := field(t, a, "token").(string), field(t, a, "id").(string)
	require.True(t, strings.HasPrefix(text, "cmst_"+id+"_"))
	require.Equal(t, "alice", field(t, a, "owner"))
	expires, err := time.Parse(fleet.TimeFormat, field(t, a, "expires_at").(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(2*time.Hour), expires, time.Minute)

	a = b.v0(t, "GET /tokens/"+id, "", 200, "")
	require.NotContains(t, a.body, text[len("cmst_"+id+"_"):], "the secret is shown once")
	require.Equal(t, "", field(t, a, "last_used_at"))
	b.v0(t, "GET /tokens", "", 200, "["+a.body+"]")

	ci := b.as("Bearer " + text)
	ci.v0(t, "PUT /network/n", "", 201, "")
	ci.v0(t, "GET /network/n", "", 403, "")
	b.as("Basic "+base64.StdEncoding.EncodeToString([]byte("anybody:"+text))).v0(t, "PUT /network/n", "", 201, "")
	require.NotEmpty(t, field(t, b.v0(t, "GET /tokens/"+id, "", 200, ""), "last_used_at"))

	b.v0(t, "DELETE /tokens/"+id, "", 200, "[]")
	b.v0(t, "DELETE /tokens/"+id+"/", "", 200, "[]")
	ci.v0(t, "PUT /network/n", "", 403, "")
	require.NotEmpty(t, field(t, b.v0(t, "GET /tokens/"+id, "", 200, ""), "revoked_at"), "it stays on record")

	b.v0(t, "GET /tokens/k3v9q2m4x7c1b8n0", "", 404, "")
	b.v0(t, "DELETE /tokens/k3v9q2m4x7c1b8n0", "", 404, "")
	require.Equal(t, []string{"token"}, blamed(t, b.v0(t, "GET /tokens/Not-an-id", "", 404, "")))
	require.NotContains(t, b.log.String(), text[len("cmst_"+id+"_"):])
}

func TestTokensCanDoNoMoreThanTheirMaker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	olga := b.as(basicCreds("olga"))
	for body, status := range map[string]int{
		`{"name":"x"}`:                                                  201,
		`{"name":"x","role":"viewer"}`:                                  201,
		`{"name":"x","role":"admin"}`:                                   403,
		`{"name":"x","role":"join"}`:                                    400,
		`{"name":"x","role":""}`:                                        400,
		`{"name":"","role":"viewer"}`:                                   400,
		`{"role":"viewer"}`:                                             400,
		`{"name":"\u001b[2J"}`:                                          400,
		`{"name":"x","expires_in":0}`:                                   400,
		`{"name":"x","expires_in":"0s"}`:                                400,
		`{"name":"x","expires_in":"1s"}`:                                201,
		`{"name":"x","expires_in":"-1h"}`:                               400,
		`{"name":"x","expires_in":"8760h"}`:                             201,
		`{"name":"x","expires_in":"8761h"}`:                             400,
		`{"name":"x","operations":[]}`:                                  201,
		`{"name":"x","operations":["nothing"]}`:                         400,
		`{"name":"x","operations":["healthz"]}`:                         400,
		`{"name":"x","operations":["createToken"]}`:                     400,
		`{"name":"x","operations":["getHost","getHostCreds"]}`:          400,
		`{"name":"x","operations":["putHost","getHost"]}`:               201,
		`{"name":"x","operations":["putHost"],"role":"viewer"}`:         400,
		`{"name":"x","owner":"alice"}`:                                  400,
		`{"name":"x","operations":["` + strings.Repeat("a", 65) + `"]}`: 400,
	} {
		a := olga.v0(t, "POST /tokens", body, status, "")
		switch status {
		case 201:
			require.Equal(t, "olga", field(t, a, "owner"), body)
			require.NotEqual(t, "admin", field(t, a, "role"), body)
		case 400:
			require.NotEmpty(t, blamed(t, a), body)
		}
	}
	require.Equal(t, []string{"operations[1]"}, blamed(t, olga.v0(t, "POST /tokens", `{"name":"x","operations":["getHost","getHostCreds"]}`, 400, "")))
	b.v0(t, "POST /tokens", `{"name":"x","operations":["getHostCreds"]}`, 201, "")

	text, _ := b.makeToken(t, `{"name":"all"}`)
	a := b.as("Bearer "+text).v0(t, "POST /tokens", `{"name":"child"}`, 403, "")
	require.Contains(t, field(t, a, "detail"), "a token makes no tokens")
}

func TestTokensOfOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	vera, olga := b.as(basicCreds("vera")), b.as(basicCreds("olga"))
	text, id := vera.makeToken(t, `{"name":"mine"}`)
	olga.v0(t, "GET /tokens", "", 200, "[]")
	olga.v0(t, "GET /tokens/"+id, "", 404, "")
	olga.v0(t, "DELETE /tokens/"+id, "", 404, "")
	require.Len(t, entries(t, vera.v0(t, "GET /tokens", "", 200, "")), 1)
	require.Len(t, entries(t, b.v0(t, "GET /tokens", "", 200, "")), 1, "an admin sees all")
	b.as("Bearer "+text).v0(t, "GET /hosts", "", 200, "[]")
	require.Len(t, entries(t, b.as("Bearer "+text).v0(t, "GET /tokens", "", 200, "")), 1)
	b.v0(t, "DELETE /tokens/"+id, "", 200, "[]")
	b.as("Bearer "+text).v0(t, "GET /hosts", "", 403, "")
}

// TestTokensInPaths: whoever writes the whole token into a path does not give it to all
// who read the logs.
func TestTokensInPaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text, id := b.makeToken(t, `{"name":"x"}`)
	_, made := b.makeJoinToken(t, "")
	join := field(t, made, "token").(string)
	b.v0(t, "DELETE /tokens/"+text, "", 404, "")
	b.as(basicCreds("vera")).v0(t, "DELETE /jointokens/"+join, "", 403, "")
	b.as("Bearer "+join).v0(t, "DELETE /tokens/"+text, "", 403, "")
	kept := b.log.String() + strings.Join(b.auditLog(t), "\n")
	require.Contains(t, kept, "/api/v0/tokens/cmst_"+id+"_[redacted]")
	require.NotContains(t, kept, text[len("cmst_"+id+"_"):])
	require.NotContains(t, kept, join[len("cmsj_"+id+"_"):])
}

// TestWhatATokenRevokes: one that leaks stops no others.
func TestWhatATokenRevokes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	weak, weakID := b.makeToken(t, `{"name":"weak","role":"operator"}`)
	_, other := b.makeToken(t, `{"name":"other","role":"viewer"}`)
	strong, _ := b.makeToken(t, `{"name":"strong"}`)
	a := b.as("Bearer "+weak).v0(t, "DELETE /tokens/"+other, "", 403, "")
	require.Contains(t, field(t, a, "detail"), "revokes itself only")
	require.Empty(t, field(t, b.v0(t, "GET /tokens/"+other, "", 200, ""), "revoked_at"))
	b.as("Bearer "+weak).v0(t, "DELETE /tokens/"+weakID, "", 200, "[]")
	b.as("Bearer "+strong).v0(t, "DELETE /tokens/"+other, "", 200, "[]")
}

func TestTokensExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text, _ := b.makeToken(t, `{"name":"short","expires_in":1}`)
	short := b.as("Bearer " + text)
	require.Eventually(t, func() bool { return short.do(t, "GET", "/api/v0/hosts", "").status == 403 }, time.Minute, 100*time.Millisecond)
}
