package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// joinToken puts a join token on record whose secret is its id.
func (f *fixture) joinToken(t *testing.T, id, cluster string) fleet.JoinToken {
	t.Helper()
	stored, err := f.CreateJoinToken(t.Context(), fleet.JoinToken{
		ID: id, Cluster: cluster, RemoteUser: "core", PublicKey: "ssh-ed25519 AAAA", CreatedBy: "ann", Expires: time.Now().Add(time.Hour),
	}, digest(id), secret.NewText([]byte("private "+id)))
	require.NoError(t, err)
	return stored
}

func TestJoinTokens(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "web")
	a := f.joinToken(t, "a", "web")
	require.Equal(t, fleet.JoinToken{ID: "a", Cluster: "web", RemoteUser: "core", PublicKey: "ssh-ed25519 AAAA", CreatedBy: "ann", Created: a.Created, Expires: a.Expires}, a)
	b := f.joinToken(t, "b", "")
	list, err := f.JoinTokens(ctx)
	require.NoError(t, err)
	require.Equal(t, []fleet.JoinToken{b, a}, list)

	_, err = f.CreateJoinToken(ctx, fleet.JoinToken{ID: "c", Cluster: "nope", RemoteUser: "root", Expires: time.Now()}, digest("c"), secret.Text{})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "cluster: does not exist")

	got, err := f.VerifyJoinToken(ctx, "a", digest("a"))
	require.NoError(t, err)
	require.Equal(t, a, got)
	got, err = f.JoinToken(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, a, got)
	for id, secret := range map[string]string{"a": "b", "nope": "nope"} {
		_, err = f.VerifyJoinToken(ctx, id, digest(secret))
		requireKind(t, fleet.NotFound, err)
	}
	f.exec(t, "UPDATE join_token SET expires = now() WHERE id = 'b'")
	_, err = f.VerifyJoinToken(ctx, "b", digest("b"))
	requireKind(t, fleet.NotFound, err)

	for range 2 {
		require.NoError(t, f.RevokeJoinToken(ctx, "a"))
	}
	_, err = f.VerifyJoinToken(ctx, "a", digest("a"))
	requireKind(t, fleet.NotFound, err)
	require.Equal(t, "1", f.scan(t, "SELECT count(sealed)::text FROM join_token"), "its key is forgotten")
	f.joinToken(t, "d", "")
	require.Equal(t, "d", f.scan(t, "SELECT string_agg(id, ',') FROM join_token WHERE sealed IS NOT NULL"), "that of b, which has expired, goes when the next token is made")
	requireKind(t, fleet.NotFound, f.RevokeJoinToken(ctx, "nope"))
	_, err = f.JoinToken(ctx, "nope")
	requireKind(t, fleet.NotFound, err)
}

func TestJoinHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "web")
	f.joinToken(t, "a", "web")
	key := publicKey(t)
	join := HostJoin{TokenID: "a", Address: "h", Port: 2222, HostKey: key + " root@h", RequestedBy: "jointoken:a", RequestID: "r"}
	h, op, err := f.JoinHost(ctx, join)
	require.NoError(t, err)
	require.Equal(t, "web", h.Cluster)
	require.Equal(t, 2222, h.Port)
	require.Equal(t, fleet.HostInvestigating, h.State)
	require.Equal(t, key, h.HostKey.Key)
	require.Equal(t, fleet.KindBootstrap, op.Kind)
	require.Equal(t, "jointoken:a", op.RequestedBy)
	require.Equal(t, "r", op.RequestID)
	c, err := f.HostCreds(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, "core", c.RemoteUser)
	require.Equal(t, "private a", string(c.PrivateKey.Reveal()))
	used, err := f.VerifyJoinToken(ctx, "a", digest("a"))
	require.NoError(t, err, "its host may come again")
	require.Equal(t, "h", used.UsedBy)
	require.Equal(t, h.Created, used.Used)
	require.Equal(t, "0", f.scan(t, "SELECT count(sealed)::text FROM join_token"), "the key is the host's now")

	again, op, err := f.JoinHost(ctx, join)
	require.NoError(t, err)
	require.Nil(t, op)
	require.Equal(t, h, again)

	stranger := join
	stranger.HostKey = publicKey(t)
	elsewhere := join
	elsewhere.Address = "h2"
	for _, j := range []HostJoin{stranger, elsewhere} {
		_, _, err = f.JoinHost(ctx, j)
		requireKind(t, fleet.Forbidden, err)
		require.ErrorContains(t, err, "another host")
	}
	_, err = f.Host(ctx, "h2")
	requireKind(t, fleet.NotFound, err)

	_, err = f.DeleteHost(ctx, "h", "ann")
	require.NoError(t, err)
	_, _, err = f.JoinHost(ctx, join)
	requireKind(t, fleet.Forbidden, err)
	f.newHost(t, "h", "")
	_, _, err = f.JoinHost(ctx, join)
	requireKind(t, fleet.Forbidden, err)
}

func TestJoinHostRefusals(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "web")
	f.cluster(t, "other")
	key := publicKey(t)
	for name, change := range map[string]string{"expired": "expires = now()", "revoked": "revoked = now(), sealed = NULL, key_id = NULL"} {
		f.joinToken(t, name, "")
		f.exec(t, "UPDATE join_token SET "+change+" WHERE id = $1", name)
		_, _, err := f.JoinHost(ctx, HostJoin{TokenID: name, Address: "h", HostKey: key})
		requireKind(t, fleet.Forbidden, err)
		require.ErrorContains(t, err, name)
	}
	_, _, err := f.JoinHost(ctx, HostJoin{TokenID: "nope", Address: "h", HostKey: key})
	requireKind(t, fleet.Forbidden, err)

	f.joinToken(t, "a", "web")
	for _, wrong := range []string{"", "junk"} {
		_, _, err = f.JoinHost(ctx, HostJoin{TokenID: "a", Address: "h", HostKey: wrong})
		requireKind(t, fleet.Invalid, err)
		require.ErrorContains(t, err, "host_key")
	}
	for field, j := range map[string]HostJoin{"cluster": {Cluster: "other"}, "remote_user": {RemoteUser: "root"}} {
		j.TokenID, j.Address, j.HostKey = "a", "h", key
		_, _, err = f.JoinHost(ctx, j)
		requireKind(t, fleet.Forbidden, err)
		require.ErrorContains(t, err, field+": ")
	}

	f.newHost(t, "taken", "")
	_, _, err = f.JoinHost(ctx, HostJoin{TokenID: "a", Address: "taken", HostKey: key})
	requireKind(t, fleet.Conflict, err)
	require.NoError(t, f.DeleteCluster(ctx, "web"))
	_, _, err = f.JoinHost(ctx, HostJoin{TokenID: "a", Address: "h", HostKey: key})
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, "cluster: does not exist")

	f.cluster(t, "web")
	_, op, err := f.JoinHost(ctx, HostJoin{TokenID: "a", Address: "h", HostKey: key, Cluster: "web", RemoteUser: "core"})
	require.NoError(t, err, "no refusal used it up")
	require.NotNil(t, op)
}

// TestOneHostForOneToken: many machines boot with the same user-data at once, and the
// one that wins sends its request twice.
func TestOneHostForOneToken(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "web")
	f.joinToken(t, "a", "web")
	var keys []string
	for range 5 {
		keys = append(keys, publicKey(t))
	}
	type result struct {
		address string
		began   bool
		err     error
	}
	results := together(20, func(i int) result {
		h, op, err := f.JoinHost(t.Context(), HostJoin{TokenID: "a", Address: fmt.Sprint("h", i%5), HostKey: keys[i%5]})
		return result{address: h.Address, began: op != nil, err: err}
	})
	hosts, began := map[string]int{}, 0
	for _, r := range results {
		if r.err != nil {
			requireKind(t, fleet.Forbidden, r.err)
			continue
		}
		hosts[r.address]++
		if r.began {
			began++
		}
	}
	require.Len(t, hosts, 1)
	require.Equal(t, 1, began)
	require.Equal(t, []int{4}, []int{hosts[f.members(t, "web")[0]]}, "every request of the host that won")
	require.Equal(t, "1", f.scan(t, "SELECT count(*)::text FROM host"))
	require.Equal(t, "1", f.scan(t, "SELECT count(*)::text FROM operation"))
}
