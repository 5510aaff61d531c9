package activities

import (
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
)

// A budget and a mark are believed when they say the same twice.
func TestLasts(t *testing.T) {
	t.Parallel()
	budget := fleet.Finding{Cause: containermgr.BudgetExhausted, Object: "budget shop/cart", Blocks: true}
	other := fleet.Finding{Cause: containermgr.BudgetExhausted, Object: "budget shop/pay", Blocks: true}
	pod := fleet.Finding{Cause: containermgr.Unmanaged, Object: "pod shop/cart", Blocks: true}
	require.False(t, lasts(budget, nil))
	require.False(t, lasts(budget, []fleet.Finding{other, pod}))
	require.True(t, lasts(budget, []fleet.Finding{other, budget}))
	require.True(t, lasts(pod, nil))
	mark := fleet.Finding{Cause: containermgr.CordonHeld, Object: "node web", Blocks: true}
	require.False(t, lasts(mark, []fleet.Finding{pod}))
	require.True(t, lasts(mark, []fleet.Finding{mark}))
}
