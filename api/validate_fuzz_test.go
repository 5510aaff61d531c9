package api

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// FuzzCheckQuery: a query is taken when the document knows all of it, and else the
// answer blames a parameter in a few words.
func FuzzCheckQuery(f *testing.F) {
	for _, query := range []string{"", "&", "x", "limit=1", "limit=01", "limit=1e3", "limit=9223372036854775808", "limit=1&limit=2", "cursor=1-2", "cursor=%00", "a;b=1", "%zz", "output=TRUE", "after=1-1", "selector=a%20in%20(b)", "since=2026-11-20T14:03:00Z", "state=\xff"} {
		f.Add(query)
	}
	known := mustLoad(document)
	f.Fuzz(func(t *testing.T, query string) {
		for name, e := range known {
			err := e.checkQuery(query)
			if err == nil {
				values, err := url.ParseQuery(query)
				require.NoError(t, err, name)
				for _, given := range values {
					require.Len(t, given, 1, name)
				}
				continue
			}
			require.Equal(t, fleet.Invalid, fleet.KindOf(err), name)
			require.Less(t, len(err.Error()), 1000, name)
		}
	})
}
