package activities

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
)

// What a pass has left is named, whatever kept it there.
func TestWhatAPassHasLeft(t *testing.T) {
	t.Parallel()
	for says, pass := range map[string]containermgr.Pass{
		"the node is not empty: container manager kube has too many requests and wants to be asked again in 7s; pod shop/a is still to go; pod shop/b is still to go; and 1 more": {
			RetryAfter: 7 * time.Second, Left: []string{"shop/a", "shop/b", "shop/c"},
		},
		"the node is not empty: pod shop/a stays; pod shop/b has not ended yet": {
			Blocked: []fleet.Finding{{Object: "pod shop/a", Detail: "stays"}}, Waiting: []string{"shop/b"},
		},
		"the node is not known to be empty yet": {},
	} {
		s := &nodeRun{stepRecord: &stepRecord{}, m: fleet.ContainerManager{Name: "kube"}}
		s.stepRecord.tells = time.Now() // nobody is to be told as yet
		s.left(t.Context(), pass, false)
		require.Equal(t, says, s.last)
	}
}
