package api

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/api/client"
)

// TestGeneratedClient: the client speaks to the server that came out of the
// same document, in success and in failure.
func TestGeneratedClient(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	c, err := client.NewClientWithResponses(b.url, client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", b.creds)
		return nil
	}))
	require.NoError(t, err)
	network := "default"
	put, err := c.PutClusterWithResponse(ctx, "web", client.ClusterPut{Network: &network})
	require.NoError(t, err)
	require.Equal(t, "web", put.JSON201.Name)
	names, err := c.ListClustersWithResponse(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"web"}, *names.JSON200)
	host, err := c.PutHostWithResponse(ctx, "2001:db8::1", client.HostPut{SshPrivKey: key64(t), Cluster: "web", Port: 2222})
	require.NoError(t, err)
	require.Equal(t, client.HostStateInvestigating, host.JSON201.Status)
	address := "2001:DB8::1"
	page, err := c.ListOperationsWithResponse(ctx, &client.ListOperationsParams{Host: &address})
	require.NoError(t, err)
	require.Len(t, page.JSON200.Operations, 1)
	missing, err := c.GetHostWithResponse(ctx, "nobody")
	require.NoError(t, err)
	require.Nil(t, missing.JSON200)
	require.Equal(t, http.StatusNotFound, missing.ApplicationproblemJSONDefault.Status)
	require.NotEmpty(t, missing.ApplicationproblemJSONDefault.RequestId)
}
