package store

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// through is the address of the bastion of a host, "" for none.
func (f *fixture) through(t testing.TB, address string) string {
	t.Helper()
	b, err := f.Bastion(t.Context(), address)
	require.NoError(t, err)
	if b == nil {
		return ""
	}
	return b.Address
}

// refused says that an error blames the member bastion.
func refused(t testing.TB, err error, has string) {
	t.Helper()
	require.Equal(t, fleet.Invalid, fleet.KindOf(err), "%v", err)
	var e *fleet.Error
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Fields, 1)
	require.Equal(t, "bastion", e.Fields[0].Field)
	require.Contains(t, e.Fields[0].Detail, has)
}

func TestBastionOfHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	_, _, err := f.PutHost(ctx, HostPut{Address: "b", Port: 2222, HostKey: watchedKey, Creds: creds("of b")})
	require.NoError(t, err)
	_, _, err = f.PutHost(ctx, HostPut{Address: "h", Bastion: "b", Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, "b", f.get(t, "h").Bastion)
	b, err := f.Bastion(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, []any{"b", 2222, watchedKey, "root", "of b"}, []any{b.Address, b.Port, b.HostKey, b.Creds.RemoteUser, string(b.Creds.PrivateKey.Reveal())})
	require.Empty(t, f.through(t, "b"))
	_, err = f.Bastion(ctx, "nowhere")
	require.Equal(t, fleet.NotFound, fleet.KindOf(err))

	// One that exists, is another host, and has none itself; and no bastion gets one.
	refused(t, f.PutHostBastion(ctx, "h", "nowhere"), "does not exist")
	refused(t, f.PutHostBastion(ctx, "h", "h"), "is the host itself")
	_, _, err = f.PutHost(ctx, HostPut{Address: "new", Bastion: "new", Creds: creds("key")})
	refused(t, err, "is the host itself")
	_, _, err = f.PutHost(ctx, HostPut{Address: "new", Bastion: "nowhere", Creds: creds("key")})
	refused(t, err, "does not exist")
	_, err = f.Host(ctx, "new")
	require.Equal(t, fleet.NotFound, fleet.KindOf(err), "all or nothing")
	_, _, err = f.PutHost(ctx, HostPut{Address: "c", Creds: creds("key")})
	require.NoError(t, err)
	refused(t, f.PutHostBastion(ctx, "c", "h"), "through a bastion itself")
	refused(t, f.PutHostBastion(ctx, "b", "c"), "is itself the bastion of 1 host (h),")
	require.Equal(t, fleet.NotFound, fleet.KindOf(f.PutHostBastion(ctx, "nowhere", "b")))
	require.Equal(t, fleet.NotFound, fleet.KindOf(f.PutHostBastion(ctx, "nowhere", "")))

	// A PUT of a known host takes over another one, but leaves it without.
	_, _, err = f.PutHost(ctx, HostPut{Address: "h", Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, "b", f.get(t, "h").Bastion)
	h, _, err := f.PutHost(ctx, HostPut{Address: "h", Bastion: "c", Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, "c", h.Bastion)
	require.Equal(t, "c", f.through(t, "h"))

	// A bastion of others stays.
	_, err = f.DeleteHost(ctx, "c", "tester")
	require.Equal(t, fleet.Conflict, fleet.KindOf(err))
	require.ErrorContains(t, err, "is the bastion of 1 host (h);")
	require.NoError(t, f.PutHostBastion(ctx, "h", ""))
	require.Empty(t, f.through(t, "h"))
	_, err = f.DeleteHost(ctx, "c", "tester")
	require.NoError(t, err)
}

func TestBastionOfCluster(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "web")
	for _, address := range []string{"b", "c", "d"} {
		f.host(t, address, "")
	}
	f.host(t, "m", "web")
	f.host(t, "own", "web")
	require.NoError(t, f.PutHostBastion(ctx, "own", "c"))

	_, err := f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("nowhere")})
	refused(t, err, "does not exist")
	_, err = f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("own")})
	refused(t, err, "through a bastion itself")
	_, err = f.PutCluster(ctx, ClusterPut{Name: "new", Bastion: ptr("nowhere")})
	refused(t, err, "does not exist")
	_, err = f.Cluster(ctx, "new")
	require.Equal(t, fleet.NotFound, fleet.KindOf(err), "all or nothing")
	c, err := f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("b")})
	require.NoError(t, err)
	require.Equal(t, "b", c.Bastion)
	c, err = f.PutCluster(ctx, ClusterPut{Name: "web", Network: ptr("default")})
	require.NoError(t, err)
	require.Equal(t, "b", c.Bastion)
	v, err := f.Cluster(ctx, "web")
	require.NoError(t, err)
	require.Equal(t, "b", v.Bastion)

	require.Equal(t, "b", f.through(t, "m"))
	require.Equal(t, "c", f.through(t, "own"), "its own counts")
	require.Empty(t, f.get(t, "m").Bastion)
	refused(t, f.PutHostBastion(ctx, "b", "d"), "is itself the bastion of 1 cluster (web),")
	_, err = f.DeleteHost(ctx, "b", "tester")
	require.ErrorContains(t, err, "is the bastion of 1 cluster (web);")

	// What is a bastion is reached straight, also as a member.
	require.NoError(t, f.AddMember(ctx, "web", "b"))
	require.NoError(t, f.AddMember(ctx, "web", "c"))
	require.NoError(t, f.AddMember(ctx, "web", "d"))
	require.Empty(t, f.through(t, "b"))
	require.Empty(t, f.through(t, "c"))
	require.Equal(t, "b", f.through(t, "d"))
	// One that is behind the cluster's does not become one, but in the place of that.
	refused(t, f.PutHostBastion(ctx, "own", "d"), "through a bastion itself, b of its cluster web")
	_, err = f.PutCluster(ctx, ClusterPut{Name: "other", Bastion: ptr("m")})
	refused(t, err, "through a bastion itself, b of its cluster web")
	_, err = f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("m")})
	require.NoError(t, err)
	require.Empty(t, f.through(t, "m"))
	require.Equal(t, "m", f.through(t, "d"))
	_, err = f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("b")})
	require.NoError(t, err)
	hosts, err := f.Inventory(ctx)
	require.NoError(t, err)
	through := map[string]string{}
	for _, h := range hosts {
		through[h.Address] = h.Through
	}
	require.Equal(t, map[string]string{"b": "", "c": "", "d": "b", "m": "b", "own": "c"}, through)

	_, err = f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("")})
	require.NoError(t, err)
	require.Empty(t, f.through(t, "m"))
	_, err = f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("b")})
	require.NoError(t, err)
	err = f.DeleteCluster(ctx, "web")
	require.NoError(t, err)
	require.Empty(t, f.through(t, "m"))
	_, err = f.DeleteHost(ctx, "b", "tester")
	require.NoError(t, err)
}

// TestBastionRaces: however they come together, nobody ends up behind two, or behind one
// that is gone.
func TestBastionRaces(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	for range 10 {
		for _, address := range []string{"a", "b", "c"} {
			f.host(t, address, "")
		}
		var all sync.WaitGroup
		for _, f := range []func() error{
			func() error { return f.PutHostBastion(ctx, "a", "b") },
			func() error { return f.PutHostBastion(ctx, "b", "c") },
			func() error { return f.PutHostBastion(ctx, "c", "a") },
			func() error { _, err := f.PutCluster(ctx, ClusterPut{Name: "web", Bastion: ptr("a")}); return err },
			func() error { _, err := f.DeleteHost(ctx, "b", "tester"); return err },
		} {
			all.Go(func() {
				switch err := f(); fleet.KindOf(err) {
				case fleet.Invalid, fleet.Conflict, fleet.NotFound, "":
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, "0", f.scan(t, `SELECT count(*)::text FROM host h JOIN host b ON b.address = h.bastion WHERE b.bastion IS NOT NULL`))
		require.Equal(t, "0", f.scan(t, `SELECT count(*)::text FROM cluster c JOIN host b ON b.address = c.bastion WHERE b.bastion IS NOT NULL`))
		f.exec(t, `DELETE FROM cluster`)
		f.exec(t, `UPDATE host SET bastion = NULL`)
		f.exec(t, `DELETE FROM host`)
	}
}

func TestCommandsKnowTheBastion(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "web")
	for _, address := range []string{"b", "h"} {
		f.watchable(t, address, "web")
	}
	_, err := f.PutCluster(t.Context(), ClusterPut{Name: "web", Bastion: ptr("b")})
	require.NoError(t, err)
	take := func() map[string]CommandHost {
		op := f.order(t, "web", NewCommand{})
		page, err := f.TakeUpCommand(t.Context(), op.ID, 0, 10, "")
		require.NoError(t, err)
		hosts := map[string]CommandHost{}
		for _, h := range page.Hosts {
			hosts[h.Address] = h
		}
		require.Len(t, hosts, 2)
		return hosts
	}
	hosts := take()
	require.Nil(t, hosts["b"].Bastion)
	require.NotNil(t, hosts["h"].Bastion)
	require.Equal(t, "b", hosts["h"].Bastion.Address)
	require.Empty(t, hosts["h"].Failed)
	f.exec(t, `UPDATE host_creds SET sealed = 'x' WHERE address = 'b'`)
	require.Contains(t, take()["h"].Failed, "its bastion b")
}

func TestChecksKnowTheBastion(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "web")
	for _, address := range []string{"b", "h"} {
		f.watchable(t, address, "web")
	}
	_, err := f.PutCluster(t.Context(), ClusterPut{Name: "web", Bastion: ptr("b")})
	require.NoError(t, err)
	require.Nil(t, f.toCheck(t, "b").Bastion)
	b := f.toCheck(t, "h").Bastion
	require.NotNil(t, b)
	require.Equal(t, "b", b.Address)
	require.NotEmpty(t, b.HostKey)

	// A bastion with credentials that nobody can open is no fault of the hosts behind.
	f.exec(t, `UPDATE host_creds SET sealed = 'x' WHERE address = 'b'`)
	hosts, sealed, err := f.HostsToCheck(t.Context(), "web", "", "", 0)
	require.NoError(t, err)
	require.Empty(t, hosts)
	require.Equal(t, 2, sealed)
	_, err = f.Bastion(t.Context(), "h")
	require.ErrorContains(t, err, "cannot be opened")
}
