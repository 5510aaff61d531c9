package activities

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// What travels through workflow history is bounded, and names the worst of every host.
func TestADiagnosisIsBrief(t *testing.T) {
	t.Parallel()
	var addresses []string
	found := map[string][]fleet.Finding{"quiet": nil}
	for i := range 500 {
		address := fmt.Sprintf("192.0.2.%d", i)
		addresses = append(addresses, address)
		for n := range 20 {
			found[address] = append(found[address], fleet.Finding{Cause: "budget", Object: fmt.Sprintf("budget shop/web-%d", n), Detail: strings.Repeat("x", 150), Blocks: n == 0})
		}
	}
	hosts := brief(append(addresses, "quiet"), found)
	text, err := json.Marshal(hosts)
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), maxDiagnosis)
	require.Greater(t, len(text), maxDiagnosis*9/10, "what there is room for is said")
	require.NotContains(t, hosts, "quiet")
	for _, address := range addresses {
		h := hosts[address]
		require.NotEmpty(t, h.Findings, address)
		require.True(t, h.Findings[0].Blocks, "the worst is named")
		require.Equal(t, 20, len(h.Findings)+h.More)
	}
	for _, address := range addresses {
		for n := range found[address] {
			found[address][n].Detail = strings.Repeat("x", 1000)
		}
	}
	text, err = json.Marshal(brief(addresses, found))
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), maxDiagnosis)
}
