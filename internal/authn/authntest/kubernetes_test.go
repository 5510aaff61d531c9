package authntest_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"

	"commissaire/internal/authn"
	"commissaire/internal/authn/authntest"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
)

// kube is an API server with two accounts: robot may list service accounts and
// namespaces, guest may not.
type kube struct {
	options              map[string]any
	robot, guest, ended  string // tokens
	robotName, guestName string
}

func realKube(t *testing.T) kube {
	c := kubetest.Shared(t)
	ctx, cancel := context.WithTimeout(t.Context(), kubetest.TestTimeout) // its start may take as long
	defer cancel()
	list := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts", "namespaces"}, Verbs: []string{"list"}}
	tokenOf := func(name string, rules ...rbacv1.PolicyRule) (string, *kubetest.Account) {
		a, err := c.AddAccount(ctx, name, rules...)
		require.NoError(t, err)
		token, err := a.Token(ctx)
		require.NoError(t, err)
		return token, a
	}
	k := kube{options: map[string]any{"url": c.URL(), "ca_file": c.CAFile(), "timeout": "30s"}}
	k.robot, _ = tokenOf("robot", list)
	k.guest, _ = tokenOf("guest")
	var old *kubetest.Account
	k.ended, old = tokenOf("old", list)
	require.NoError(t, old.Expire(ctx, k.ended))
	k.robotName, k.guestName = "system:serviceaccount:kube-system:robot", "system:serviceaccount:kube-system:guest"
	return k
}

func ourKube(t *testing.T) kube {
	s := authntest.NewKubernetes(t)
	k := kube{options: map[string]any{"url": s.URL}, robot: "robots-token", guest: "guests-token", ended: "old-token", robotName: "robot", guestName: "guest"}
	s.AddToken(k.robot, k.robotName, true, time.Now().Add(time.Hour))
	s.AddToken(k.guest, k.guestName, false, time.Now().Add(time.Hour))
	s.AddToken(k.ended, "old", true, time.Now())
	return k
}

// A real Kubernetes and ours answer alike, so that what is tested against ours holds.
func TestKubernetesSpeaksTheProtocol(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) kube{"real": realKube, "ours": ourKube} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := start(t)
			login := func(plugin, token string, more map[string]any) (authn.Principal, error) {
				options := map[string]any{}
				for _, from := range []map[string]any{k.options, more} {
					for name, value := range from {
						options[name] = value
					}
				}
				chain, err := authn.Build(t.Context(), []authn.Spec{{Name: plugin, Options: options}}, nil, slog.New(slog.DiscardHandler))
				require.NoError(t, err)
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("Authorization", "Bearer "+token)
				return chain.Authenticate(t.Context(), r)
			}
			const kubernetes, openShift = "kubernetesbearertokenauth", "openshiftbearertokenauth"
			namespaces := map[string]any{"url": k.options["url"].(string) + "/api/v1/namespaces"}
			for name, test := range map[string]struct {
				plugin, token string
				more          map[string]any
				who           string // "" when refused
			}{
				"may list service accounts":     {kubernetes, k.robot, nil, k.robotName},
				"may list namespaces":           {kubernetes, k.robot, map[string]any{"resource": "/namespaces"}, k.robotName},
				"may not":                       {kubernetes, k.guest, nil, ""},
				"may look at the API":           {kubernetes, k.guest, map[string]any{"resource": "/apis"}, k.guestName},
				"ended":                         {kubernetes, k.ended, nil, ""},
				"no token of it":                {kubernetes, "garbage", nil, ""},
				"ended, at an open gate":        {kubernetes, k.ended, map[string]any{"resource": "/apis"}, ""},
				"no token of it, at such one":   {kubernetes, "garbage", map[string]any{"resource": "/apis"}, ""},
				"may get the endpoint":          {openShift, k.robot, namespaces, k.robotName},
				"may not get the endpoint":      {openShift, k.guest, namespaces, ""},
				"no token, and may not get one": {openShift, "garbage", namespaces, ""},
			} {
				who, err := login(test.plugin, test.token, test.more)
				if test.who == "" {
					require.ErrorIs(t, err, authn.ErrDenied, name)
					continue
				}
				require.NoError(t, err, name)
				require.Equal(t, authn.Principal{Name: test.who, Method: test.plugin, Role: fleet.RoleViewer}, who, name)
			}
			_, err := login(kubernetes, k.robot, map[string]any{"resource": "/nonsense"})
			require.Error(t, err, "a gate that is not there: refused, or found broken, depending on who may look")
		})
	}
}
