package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNetworks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /networks", "", 200, `["default"]`)
	b.v0(t, "GET /network/default", "", 200, `{"name":"default","type":"flannel_etcd","options":{}}`)
	b.v0(t, "GET /network/n", "", 404, "")
	b.v0(t, "DELETE /network/n", "", 404, "")
	b.v0(t, "PUT /network/n", "", 201, `{"name":"n","type":"flannel_etcd","options":{}}`)
	b.v0(t, "PUT /network/n", `{"type":"flannel_etcd","name":"n"}`, 201, "")
	b.v0(t, "PUT /network/n", `{"type":"flannel_server"}`, 409, "")
	b.v0(t, "PUT /network/n", `{"options":{"a":1}}`, 409, "")
	options := `{"address":"192.0.2.1:8080","mtu":1400,"nested":{"list":[1,2.5,true,null,"x"]}}`
	b.v0(t, "PUT /network/o", `{"type":"flannel_server","options":`+options+`}`, 201, "")
	b.v0(t, "PUT /network/o", `{"options":`+options+`,"type":"flannel_server"}`, 201, "")
	b.v0(t, "GET /network/o", "", 200, `{"name":"o","type":"flannel_server","options":`+options+`}`)
	b.v0(t, "PUT /cluster/c", `{"network":"o"}`, 201, "")
	b.v0(t, "DELETE /network/o", "", 200, `[]`)
	b.v0(t, "GET /network/o", "", 404, "")
	b.v0(t, "DELETE /network/default", "", 200, `[]`)
	b.v0(t, "PUT /cluster/d", "", 201, `{"name":"d","status":"","network":"default","container_manager":""}`)
	b.v0(t, "GET /networks", "", 200, `["n"]`)
	for body, blame := range map[string]string{
		`{"type":"flanneld_service"}`:     "type",
		`{"type":""}`:                     "type",
		`{"type":null}`:                   "type",
		`{"type":1}`:                      "type",
		`{"options":[]}`:                  "options",
		`{"options":"x"}`:                 "options",
		`{"options":null}`:                "options",
		`{"options":{"a":1,"a":2}}`:       "options.a",
		`{"options":{"a":1e400}}`:         "options.a",
		`{"options":{"a":["\u0000"]}}`:    "options.a[0]",
		`{"name":"other"}`:                "name",
		`{"colour":"red"}`:                "colour",
		`{"type":"flannel_etcd","a":{}}x`: "body",
	} {
		a := b.v0(t, "PUT /network/p", body, 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), body)
	}
	b.v0(t, "GET /network/p", "", 404, "")
}
