package api

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /hosts", "", 200, `[]`)
	for _, request := range []string{
		"GET /host/192.0.2.1", "DELETE /host/192.0.2.1", "GET /host/192.0.2.1/creds", "GET /host/192.0.2.1/status",
		"GET /host/192.0.2.1/bootstrap", "PUT /host/192.0.2.1/bootstrap", "GET /host/192.0.2.1/hostkey",
	} {
		b.v0(t, request, "", 404, "")
	}
	key := key64(t)
	a := b.v0(t, "PUT /host/192.0.2.1", `{"ssh_priv_key":"`+key+`"}`, 201,
		`{"address":"192.0.2.1","status":"investigating","os":"","cpus":0,"memory":0,"space":0,"last_check":"","source":""}`)
	require.Equal(t,
		`{"address":"192.0.2.1","status":"investigating","os":"","cpus":0,"memory":0,"space":0,"last_check":"","source":""}`+"\n",
		a.body, "members come in the order of v0")
	require.Equal(t, 1, b.dispatcher.starts())
	op := b.dispatcher.started[0]
	require.Equal(t, fleet.KindBootstrap, op.Kind)
	require.Equal(t, "192.0.2.1", op.Host)
	require.Equal(t, "alice", op.RequestedBy)
	require.Equal(t, a.header.Get(RequestIDHeader), op.RequestID)

	b.v0(t, "GET /host/192.0.2.1/creds", "", 200, `{"address":"192.0.2.1","ssh_priv_key":"`+key+`","remote_user":"root"}`)
	b.v0(t, "GET /host/192.0.2.1/status", "", 200,
		`{"type":"host_only","host":{"last_check":"","status":"investigating"},"container_manager":{}}`)

	b.endBootstrap(t, "192.0.2.1", fleet.HostRunSucceeded)
	a = b.v0(t, "GET /host/192.0.2.1", "", 200, "")
	require.Equal(t, "disassociated", field(t, a, "status"))
	require.Equal(t, "fedora", field(t, a, "os"))
	require.Equal(t, "43", field(t, a, "os_version"))
	require.NotEmpty(t, field(t, a, "last_check"))
	b.v0(t, "PUT /host/192.0.2.1", a.body, 409, "") // its record without the key: another key
	b.v0(t, "GET /hosts", "", 200, "["+a.body+"]")
	b.v0(t, "DELETE /host/192.0.2.1", "", 200, `[]`)
	b.v0(t, "DELETE /host/192.0.2.1", "", 404, "")
	b.v0(t, "GET /host/192.0.2.1/creds", "", 404, "")
	require.Empty(t, b.dispatcher.cancelled, "its bootstrap had ended")
	require.NotContains(t, b.log.String(), key)
}

func TestOneHostUnderEqualAddresses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	key := key64(t)
	for one, others := range map[string][]string{
		"web-1.example.com": {"Web-1.Example.COM", "web-1.example.com."},
		"192.0.2.7":         {"::ffff:192.0.2.7", "::FFFF:c000:207"},
	} {
		a := b.v0(t, "PUT /host/"+others[0], `{"ssh_priv_key":"`+key+`"}`, 201, "")
		require.Equal(t, one, field(t, a, "address"))
		b.endBootstrap(t, one, fleet.HostRunSucceeded)
		for _, other := range others {
			b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key+`","address":"`+other+`"}`, 201, "")
			b.v0(t, "PUT /host/"+one, `{"ssh_priv_key":"`+key+`","address":"`+other+`"}`, 201, "")
			b.v0(t, "PUT /cluster/c/hosts/"+other, "", 200, "")
			b.v0(t, "GET /cluster/c/hosts/"+other, "", 200, `["`+one+`"]`)
			require.Equal(t, one, field(t, b.v0(t, "GET /host/"+other, "", 200, ""), "address"))
		}
	}
	require.Equal(t, 2, b.dispatcher.starts())
	b.v0(t, "PUT /cluster/c/hosts", `{"old":["WEB-1.example.com.","::ffff:192.0.2.7"],"new":["192.0.2.7","Web-1.example.com","::ffff:192.0.2.7"]}`, 200, "")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `["192.0.2.7","web-1.example.com"]`)
}

func TestPutHostAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.v0(t, "PUT /cluster/d", "", 201, "")
	key := key64(t)
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`","cluster":"nowhere"}`, 409, "")
	b.v0(t, "GET /host/h", "", 404, "")
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`","cluster":"c"}`, 201, "")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `["h"]`)
	for body, status := range map[string]int{
		`{"ssh_priv_key":"` + key + `"}`:                     201,
		`{"ssh_priv_key":"` + key + `","cluster":"c"}`:       201,
		`{"ssh_priv_key":"` + key + `","remote_user":"bob"}`: 201,
		`{"ssh_priv_key":"` + key + `","cluster":"d"}`:       409,
		`{"ssh_priv_key":"` + key + `","cluster":"nowhere"}`: 409,
		`{"ssh_priv_key":"` + key64(t) + `"}`:                409,
		`{}`:                                                 409,
	} {
		b.v0(t, "PUT /host/h", body, status, "")
	}
	a := b.v0(t, "GET /host/h/creds", "", 200, "")
	require.Equal(t, "root", field(t, a, "remote_user"), "the stored record is unchanged")
	require.Equal(t, 1, b.dispatcher.starts(), "no new bootstrap")

	b.v0(t, "DELETE /host/h", "", 200, "")
	require.Len(t, b.dispatcher.cancelled, 1, "its bootstrap had not ended")
	b.v0(t, "GET /cluster/c/hosts", "", 200, `[]`)
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key64(t)+`"}`, 201, "")
	require.Equal(t, 2, b.dispatcher.starts(), "created afresh")
}

func TestPutHostPort(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := key64(t)
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`"}`, 201, "")
	a := b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`","port":2222}`, 201, "")
	require.EqualValues(t, 2222, field(t, a, "port"))
	a = b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key+`","address":"h"}`, 201, "")
	require.EqualValues(t, 2222, field(t, a, "port"), "no port is no change")
	for _, port := range []string{"0", "-1", "65536", "99999999999999999999"} {
		a = b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`","port":`+port+`}`, 400, "")
		require.Equal(t, []string{"port"}, blamed(t, a), port)
	}
	a = b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`","port":22}`, 201, "")
	require.Nil(t, field(t, a, "port"), "22 is not told")
	require.Equal(t, 1, b.dispatcher.starts(), "no new bootstrap")
}

func TestPutHostPinsKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := key64(t)
	right, fingerprint := publicKey(t)
	other, _ := publicKey(t)
	body := func(hostKey string) string {
		text, err := json.Marshal(map[string]string{"address": "h", "ssh_priv_key": key, "host_key": hostKey})
		require.NoError(t, err)
		return string(text)
	}
	for _, request := range []string{"PUT /host/h", "PUT /host"} {
		for _, bad := range []string{"", "ssh-ed25519 AAAA", string(keyPEM(t, ""))} {
			a := b.v0(t, request, body(bad), 400, "")
			require.Equal(t, []string{"host_key"}, blamed(t, a), bad)
		}
		b.v0(t, "GET /host/h", "", 404, "")
		a := b.v0(t, request, body(right), 201, "")
		require.Equal(t, fingerprint, field(t, a, "host_key_fingerprint"))
		a = b.v0(t, "GET /host/h/hostkey", "", 200, "")
		require.Equal(t, right, field(t, a, "key"))
		b.v0(t, request, body(right), 201, "")
		a = b.v0(t, request, body(other), 409, "")
		require.Equal(t, []string{"host_key"}, blamed(t, a))
		require.Contains(t, field(t, a, "detail"), "PUT /api/v0/host/h/hostkey")
		b.v0(t, "DELETE /host/h", "", 200, "")
	}
}

func TestPutHostIgnoresFacts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key64(t)+`","address":"h","host":"h","name":"h","status":"active","os":"x",
		"cpus":9,"memory":9,"space":9,"last_check":"never","source":"","port":2222,"remote_user":"fedora"}`, 201, "")
	require.JSONEq(t, `{"address":"h","status":"investigating","os":"","cpus":0,"memory":0,"space":0,"last_check":"","source":"","port":2222}`, a.body)
	a = b.v0(t, "GET /host/h/creds", "", 200, "")
	require.Equal(t, "fedora", field(t, a, "remote_user"))
}

func TestRegisterHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`","remote_user":"cloud"}`, 201, "")
	require.Equal(t, "127.0.0.1", field(t, a, "address"), "the TCP peer")
	a = b.v0(t, "PUT /host/", `{"ssh_priv_key":"`+key64(t)+`","address":"192.0.2.7"}`, 201, "")
	require.Equal(t, "192.0.2.7", field(t, a, "address"))
	a = b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`","host":"2001:DB8::0:1","name":"2001:db8::1"}`, 201, "")
	require.Equal(t, "2001:db8::1", field(t, a, "address"))
	a = b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`","address":"a","name":"b"}`, 400, "")
	require.Equal(t, []string{"name"}, blamed(t, a))
	a = b.v0(t, "PUT /host", `{"ssh_priv_key":"`+key64(t)+`","address":"a;b"}`, 400, "")
	require.Equal(t, []string{"address"}, blamed(t, a))
	b.v0(t, "GET /host", "", 404, "")
}

func TestIPv6Address(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.v0(t, "PUT /host/2001:DB8:0::1", `{"ssh_priv_key":"`+key64(t)+`"}`, 201, "")
	require.Equal(t, "2001:db8::1", field(t, a, "address"))
	b.v0(t, "GET /host/2001:db8::1/status", "", 200, "")
	b.v0(t, "GET /host/2001:db8::1%25eth0", "", 404, "")
	b.v0(t, "GET /host/192.0.2.1:22", "", 404, "")
	b.v0(t, "GET /operations?host=2001:DB8::1", "", 200, "")
}

func TestHostCreds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := key64(t)
	b.v0(t, "PUT /host/h/creds", `{"ssh_priv_key":"`+key+`"}`, 404, "")
	b.addHost(t, "h", "")
	b.v0(t, "PUT /host/h/creds", `{"ssh_priv_key":"`+key+`","remote_user":"ops"}`, 201, `{"address":"h","remote_user":"ops"}`)
	b.v0(t, "GET /host/h/creds", "", 200, `{"address":"h","ssh_priv_key":"`+key+`","remote_user":"ops"}`)
	b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`"}`, 201, "")
	for body, blame := range map[string]string{
		``:                        "ssh_priv_key",
		`{"ssh_priv_key":""}`:     "ssh_priv_key",
		`{"ssh_priv_key":null}`:   "ssh_priv_key",
		`{"ssh_priv_key":"LS0t"}`: "ssh_priv_key",
		`{"ssh_priv_key":"` + key + `","remote_user":"a b"}`: "remote_user",
		`{"ssh_priv_key":"` + key + `","cluster":"c"}`:       "cluster",
		`{"ssh_priv_key":"` + key + `","address":"other"}`:   "address",
	} {
		a := b.v0(t, "PUT /host/h/creds", body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
}

func TestHostKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key, fingerprint := publicKey(t)
	body, err := json.Marshal(map[string]string{"key": key})
	require.NoError(t, err)
	b.v0(t, "PUT /host/h/hostkey", string(body), 404, "")
	b.addHost(t, "h", "")
	b.v0(t, "GET /host/h/hostkey", "", 404, "")
	a := b.v0(t, "PUT /host/h/hostkey", string(body), 201, "")
	require.Equal(t, fingerprint, field(t, a, "fingerprint"))
	require.Equal(t, key, field(t, a, "key"))
	b.v0(t, "GET /host/h/hostkey", "", 200, a.body)
	a = b.v0(t, "GET /host/h", "", 200, "")
	require.Equal(t, fingerprint, field(t, a, "host_key_fingerprint"))
	private, err := json.Marshal(map[string]string{"key": string(keyPEM(t, ""))})
	require.NoError(t, err)
	for _, body := range []string{``, `{}`, `{"key":""}`, `{"key":"ssh-ed25519 AAAA"}`, `{"key":1}`, string(private)} {
		a := b.v0(t, "PUT /host/h/hostkey", body, 400, "")
		require.Equal(t, []string{"key"}, blamed(t, a), body)
	}
}

func TestKeysAreStrict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pem := keyPEM(t, "")
	std := base64.StdEncoding.EncodeToString(pem)
	locked := base64.StdEncoding.EncodeToString(keyPEM(t, "secret"))
	before := b.rows(t)
	for name, key := range map[string]string{
		"missing":         ``,
		"not base64":      `%%%`,
		"PEM as it is":    `-----BEGIN OPENSSH PRIVATE KEY-----`,
		"line ends":       std[:20] + `\n` + std[20:],
		"line end behind": std + `\n`,
		"no padding":      base64.RawStdEncoding.EncodeToString(append([]byte("x"), pem...)),
		"trailing bits":   "LS1=",
		"not a key":       base64.StdEncoding.EncodeToString([]byte("hello")),
		"passphrase":      locked,
		"cut":             base64.StdEncoding.EncodeToString(pem[:len(pem)/2]),
	} {
		a := b.v0(t, "PUT /host/h", `{"ssh_priv_key":"`+key+`"}`, 400, "")
		require.Equal(t, []string{"ssh_priv_key"}, blamed(t, a), name)
		if len(key) > 10 {
			require.NotContains(t, a.body, key[:10], "%s: the value is echoed", name)
		}
	}
	require.Equal(t, before, b.rows(t), "nothing is stored")
	require.Zero(t, b.dispatcher.starts())
}

// TestHostsTakeTheirOwnRecord: clients read a host, change a member and send it all
// back.
func TestHostsTakeTheirOwnRecord(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := key64(t)
	put := func(labels string) answer {
		return b.do(t, "PUT", "/api/v0/host/192.0.2.7", `{"ssh_priv_key": "`+key+`", "labels": `+labels+`}`)
	}
	require.Equal(t, 201, put(`{"env": "prod"}`).status)
	got := b.do(t, "GET", "/api/v0/host/192.0.2.7", "")
	var record map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.body), &record))
	require.Equal(t, map[string]any{"env": "prod"}, record["labels"])
	record["ssh_priv_key"] = key
	again, err := json.Marshal(record)
	require.NoError(t, err)
	a := b.do(t, "PUT", "/api/v0/host/192.0.2.7", string(again))
	require.Equal(t, 201, a.status, a.body)
	require.Equal(t, 201, put(`{"env": "test"}`).status)
	require.Equal(t, got.body, b.do(t, "GET", "/api/v0/host/192.0.2.7", "").body, "a known host keeps its labels")
	bad := put(`{"env": "no such thing!"}`)
	require.Equal(t, 400, bad.status)
	require.Contains(t, bad.body, `"labels.env"`)
}
