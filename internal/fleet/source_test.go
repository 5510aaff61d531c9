package fleet

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func ptr[T any](v T) *T { return &v }

func TestFactsOfASource(t *testing.T) {
	t.Parallel()
	h := Host{OS: "debian", CPUs: 4, Memory: 100, Labels: map[string]string{"env": "dev", "mine": "1", "old": "x", "same": "s"}}
	before := SourceFacts{CPUs: ptr(4), Labels: map[string]string{"env": "dev", "old": "x"}}
	now := SourceFacts{CPUs: ptr(8), Space: ptr(int64(7)), Labels: map[string]string{"env": "prod", "same": "s", "empty": ""}}
	after := now.Over(h, before)
	require.Equal(t, Host{OS: "debian", CPUs: 8, Memory: 100, Space: 7,
		Labels: map[string]string{"env": "prod", "mine": "1", "same": "s", "empty": ""}}, after)
	require.Equal(t, "- cpus: 4\n+ cpus: 8\n+ space: 7\n+ labels.empty: \n- labels.env: dev\n+ labels.env: prod\n- labels.old: x\n", FactsDiff(h, after))
	require.Equal(t, "dev", h.Labels["env"], "the host itself is as it was")
	require.Empty(t, FactsDiff(after, now.Over(after, now)), "the same again changes nothing")
	require.Empty(t, FactsDiff(h, SourceFacts{}.Over(h, SourceFacts{})))
	require.Equal(t, "- os: debian\n- cpus: 4\n", FactsDiff(Host{OS: "debian", CPUs: 4}, Host{}))
}

func TestBadFactsOfASource(t *testing.T) {
	t.Parallel()
	require.NoError(t, SourceFacts{}.Check())
	require.NoError(t, SourceFacts{OS: ptr("opensuse-leap"), OSVersion: ptr("15.6"), CPUs: ptr(0), Memory: ptr(1), Space: ptr(int64(1))}.Check())
	for field, f := range map[string]SourceFacts{
		"os":         {OS: ptr("Red Hat")},
		"os_version": {OSVersion: ptr("15\n")},
		"cpus":       {CPUs: ptr(-1)},
		"memory":     {Memory: ptr(1 << 31)},
		"space":      {Space: ptr(int64(-1))},
		"labels.env": {Labels: map[string]string{"env": "a b"}},
	} {
		err := f.Check()
		require.ErrorContains(t, err, field)
		require.Equal(t, Invalid, KindOf(err))
	}
	for _, name := range []string{"", "CMDB", "a b", "-a", "a/", strings.Repeat("a", MaxSourceName+1)} {
		_, err := ParseSource(name)
		require.Error(t, err, name)
	}
	_, err := ParseSource("cmdb_2-x")
	require.NoError(t, err)
}
