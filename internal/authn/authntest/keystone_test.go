package authntest

import (
	"net/http"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/stretchr/testify/require"
)

// OpenStack's client for Go has to get along with our Keystone, so that what is
// tested against it holds for a real one.
func TestKeystoneSpeaksTheProtocol(t *testing.T) {
	t.Parallel()
	k := NewKeystone(t)
	k.SetPassword("Default", "alice", "pw")
	client := &gophercloud.ServiceClient{ProviderClient: &gophercloud.ProviderClient{}, Endpoint: k.URL + "/v3/"}
	create := func(o tokens.AuthOptions) tokens.CreateResult { return tokens.Create(t.Context(), client, &o) }

	created := create(tokens.AuthOptions{Username: "alice", Password: "pw", DomainName: "Default"})
	token, err := created.ExtractToken()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), token.ExpiresAt, time.Minute)
	user, err := created.ExtractUser()
	require.NoError(t, err)
	require.Equal(t, "alice", user.Name)
	require.Equal(t, tokens.Domain{ID: "default", Name: "Default"}, user.Domain)

	again, err := create(tokens.AuthOptions{TokenID: token.ID}).ExtractToken()
	require.NoError(t, err)
	require.NotEqual(t, token.ID, again.ID)
	require.Equal(t, token.ExpiresAt, again.ExpiresAt)

	for name, o := range map[string]tokens.AuthOptions{
		"wrong password": {Username: "alice", Password: "x", DomainName: "Default"},
		"unknown user":   {Username: "bob", Password: "pw", DomainName: "Default"},
		"other domain":   {Username: "alice", Password: "pw", DomainName: "Other"},
		"unknown token":  {TokenID: "x"},
	} {
		_, err := create(o).ExtractToken()
		require.True(t, gophercloud.ResponseCodeIs(err, http.StatusUnauthorized), "%s: %v", name, err)
	}
	k.Revoke(token.ID)
	_, err = create(tokens.AuthOptions{TokenID: token.ID}).ExtractToken()
	require.True(t, gophercloud.ResponseCodeIs(err, http.StatusUnauthorized), "%v", err)
}
