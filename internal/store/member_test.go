package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestAddMember(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.cluster(t, "other")
	f.managed(t, "managed", "m", fleet.ContainerManagerTrivial)
	f.host(t, "a", "")
	f.host(t, "b", "")
	f.newHost(t, "young", "")
	f.newHost(t, "inside", "c")

	requireKind(t, fleet.NotFound, f.AddMember(ctx, "nope", "a"))
	requireKind(t, fleet.NotFound, f.AddMember(ctx, "c", "nope"))
	requireKind(t, fleet.NotReady, f.AddMember(ctx, "c", "young"))
	require.NoError(t, f.AddMember(ctx, "c", "inside"), "a member is never checked again")

	f.exec(t, "UPDATE host SET state = 'active' WHERE address IN ('a', 'b')")
	require.NoError(t, f.AddMember(ctx, "c", "b"))
	require.NoError(t, f.AddMember(ctx, "c", "b"))
	require.Equal(t, []string{"inside", "b"}, f.members(t, "c"))
	require.Equal(t, fleet.HostDisassociated, f.state(t, "b"), "nobody manages it there")

	err := f.AddMember(ctx, "other", "b")
	requireKind(t, fleet.Conflict, err)
	require.ErrorContains(t, err, `cluster "c"`)

	require.NoError(t, f.AddMember(ctx, "managed", "a"))
	require.Equal(t, fleet.HostActive, f.state(t, "a"), "its container manager decides")

	is, err := f.HasMember(ctx, "c", "b")
	require.NoError(t, err)
	require.True(t, is)
	is, err = f.HasMember(ctx, "c", "nope")
	require.NoError(t, err)
	require.False(t, is)
	_, err = f.HasMember(ctx, "nope", "b")
	requireKind(t, fleet.NotFound, err)
	_, err = f.Members(ctx, "nope")
	requireKind(t, fleet.NotFound, err)
}

func TestRemoveMember(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.cluster(t, "other")
	f.hosts(t, "c", 2)
	f.exec(t, "UPDATE host SET state = 'active' WHERE address = 'h1'")
	requireKind(t, fleet.NotFound, f.RemoveMember(ctx, "nope", "h1"))
	require.NoError(t, f.RemoveMember(ctx, "c", "never-seen"))
	require.NoError(t, f.RemoveMember(ctx, "other", "h1"), "it is in c and stays there")
	require.Equal(t, []string{"h1", "h2"}, f.members(t, "c"))
	for range 2 {
		require.NoError(t, f.RemoveMember(ctx, "c", "h1"))
	}
	require.Equal(t, []string{"h2"}, f.members(t, "c"))
	require.Equal(t, fleet.HostActive, f.state(t, "h1"))
	require.NoError(t, f.AddMember(ctx, "c", "h1"))
	require.Equal(t, []string{"h2", "h1"}, f.members(t, "c"), "it comes back at the end")
}

func TestReplaceMembers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.cluster(t, "other")
	for _, a := range []string{"a", "b", "d"} {
		f.host(t, a, "")
	}
	f.host(t, "elsewhere", "other")
	f.newHost(t, "young", "")

	_, err := f.ReplaceMembers(ctx, "nope", nil, nil)
	requireKind(t, fleet.NotFound, err)

	v, err := f.ReplaceMembers(ctx, "c", nil, []string{"b", "a", "b"})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a"}, v.Members)

	for _, old := range [][]string{nil, {"a"}, {"a", "b", "d"}, {"a", "x"}} {
		_, err := f.ReplaceMembers(ctx, "c", old, []string{"d"})
		requireKind(t, fleet.Conflict, err)
	}
	_, err = f.ReplaceMembers(ctx, "c", []string{"x"}, []string{"nope"})
	requireKind(t, fleet.Conflict, err)

	for address, kind := range map[string]fleet.Kind{"nope": fleet.NotFound, "young": fleet.NotReady, "elsewhere": fleet.Conflict} {
		_, err = f.ReplaceMembers(ctx, "c", []string{"a", "b"}, []string{"d", address})
		requireKind(t, kind, err)
		require.ErrorContains(t, err, address)
	}
	require.Equal(t, []string{"b", "a"}, f.members(t, "c"), "a refusal changes nothing")
	require.Equal(t, []string{"elsewhere"}, f.members(t, "other"))

	f.exec(t, "UPDATE host SET state = 'active' WHERE address IN ('a', 'd')")
	v, err = f.ReplaceMembers(ctx, "c", []string{"a", "b", "a"}, []string{"d", "a"})
	require.NoError(t, err)
	require.Equal(t, []string{"d", "a"}, v.Members)
	require.Equal(t, fleet.HostCounts{Total: 2, Available: 1}, v.Counts)
	require.Equal(t, fleet.HostDisassociated, f.state(t, "d"), "it joined")
	require.Equal(t, fleet.HostActive, f.state(t, "a"), "it stayed")

	f.exec(t, "UPDATE host SET state = 'failed', reason = 'x' WHERE address = 'a'")
	v, err = f.ReplaceMembers(ctx, "c", []string{"a", "d"}, []string{"a"})
	require.NoError(t, err, "a member is never checked again")
	require.Equal(t, []string{"a"}, v.Members)
	v, err = f.ReplaceMembers(ctx, "c", []string{"a"}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{}, v.Members)
}

func TestConcurrentReplaceMembers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	f.hosts(t, "", 10)
	errs := together(10, func(i int) error {
		_, err := f.ReplaceMembers(t.Context(), "c", nil, []string{fmt.Sprintf("h%d", i+1)})
		return err
	})
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		requireKind(t, fleet.Conflict, err)
	}
	require.Equal(t, 1, won)
	require.Len(t, f.members(t, "c"), 1)
}

func TestConcurrentAddMember(t *testing.T) {
	t.Parallel()
	f := setup(t)
	clusters := []string{"a", "b", "c", "d"}
	for _, c := range clusters {
		f.cluster(t, c)
	}
	f.hosts(t, "", 5)
	errs := together(20, func(i int) error {
		return f.AddMember(t.Context(), clusters[i%4], fmt.Sprintf("h%d", i/4+1))
	})
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
			continue
		}
		requireKind(t, fleet.Conflict, err)
	}
	require.Equal(t, 5, joined, "every host in exactly one cluster")
	require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM (SELECT FROM host GROUP BY cluster, join_order HAVING count(*) > 1) x"))
}
