package api

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// TestExamplesOfRequestsAreAccepted sends the example of every body in the document
// to a server in which what it speaks of is there.
func TestExamplesOfRequestsAreAccepted(t *testing.T) {
	t.Parallel()
	for path, item := range loadDocument(t).Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil {
				continue
			}
			body := op.RequestBody.Value.Content["application/json"]
			example := cmp.Or(body.Example, body.Schema.Value.Example)
			if len(body.Schema.Value.Properties) == 0 && example == nil {
				continue // NoMembers, IgnoredBody
			}
			t.Run(op.OperationID, func(t *testing.T) {
				t.Parallel()
				require.NotNil(t, example, "it has no example")
				b := setup(t)
				path := strings.NewReplacer("{name}", "web", "{address}", "192.0.2.10", "{id}", b.ready(t, op.OperationID)).Replace(path)
				a := b.do(t, method, path, exampleBody(t, example))
				require.Contains(t, []int{http.StatusOK, http.StatusCreated}, a.status, a.body)
			})
		}
	}
}

// exampleBody is the example of a body, but for the private key: the document has
// none that logs in anywhere.
func exampleBody(t *testing.T, example any) string {
	t.Helper()
	body, ok := example.(map[string]any)
	require.True(t, ok)
	if body["ssh_priv_key"] != nil {
		body = maps.Clone(body)
		body["ssh_priv_key"] = key64(t)
	}
	text, err := json.Marshal(body)
	require.NoError(t, err)
	return string(text)
}

// ready makes what the example of an operation needs, and gives the id of the rollout
// in it, if there is one.
func (b *bundle) ready(t *testing.T, operation string) string {
	t.Helper()
	b.v0(t, "PUT /cluster/web", "", 201, "")
	switch operation {
	case "putHost", "registerHost", "putNetwork":
		return ""
	}
	b.readyHost(t, "192.0.2.10", "")
	if operation == "replaceMembers" {
		return ""
	}
	b.v0(t, "PUT /cluster/web/hosts/192.0.2.10", "", 200, "")
	switch operation {
	case "deployCluster":
		b.exec(t, "UPDATE host SET ostree = true")
	case "cancelOperation", "putOperationPolicy", "retryOperation":
		b.v0(t, "PUT /cluster/web/restart", "", 201, "")
		id := b.lastStarted().ID
		if operation == "retryOperation" {
			require.NoError(t, b.store.EndOperation(t.Context(), id, fleet.OperationFailed, "a host failed"))
		}
		return id
	}
	return ""
}
