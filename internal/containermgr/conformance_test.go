package containermgr_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/containermgr"
	"commissaire/internal/containermgr/containermgrtest"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// TestConformance runs the suite for both types and each way to log in.
func TestConformance(t *testing.T) {
	t.Parallel()
	c := kubetest.Shared(t)
	token := byToken(t, c, accountOf(t, c))
	cert, key, err := c.ClientCertificate("conformance", "system:masters")
	require.NoError(t, err)
	kubeconfig, err := os.ReadFile(c.Kubeconfig())
	require.NoError(t, err)
	for name, options := range map[string]map[string]any{
		"token":       token,
		"certificate": {"server_url": c.URL(), "certificate_path": cert, "certificate_key_path": key, "certificate_ca_path": c.CAFile()},
		"kubeconfig":  {"kubeconfig": string(kubeconfig)},
		"insecure":    {"server_url": c.URL() + "/api/v1/", "token": token["token"], "insecure_skip_tls_verify": true},
	} {
		for _, kind := range []fleet.ContainerManagerType{fleet.ContainerManagerKubernetes, fleet.ContainerManagerOpenShift} {
			t.Run(string(kind)+" by "+name, func(t *testing.T) {
				t.Parallel()
				k, err := containermgr.New(fleet.ContainerManager{Name: "test", Type: kind, Options: options})
				require.NoError(t, err)
				require.Len(t, k.Warnings(), map[bool]int{true: 1}[name == "insecure"])
				containermgrtest.Run(t, containermgrtest.Kit{Manager: k, Node: nodeName, Start: c.AddNode})
			})
		}
	}
}
