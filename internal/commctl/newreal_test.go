package commctl

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// New verbs against the real API: what a user sees.
func TestNewVerbsOnTheRealAPI(t *testing.T) {
	t.Parallel()
	server := newRealAPI(t)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).Run())
	run := func(a *testApp, code int, command string) string {
		t.Helper()
		require.Equal(t, code, a.Run(t.Context(), strings.Fields(command)), "%s: %s%s", command, a.out, a.errs)
		return a.out.String()
	}
	alice := func(code int, command string) string {
		t.Helper()
		return run(appFor(t, server.URL), code, command)
	}
	require.Equal(t, "alice\n", alice(0, "whoami -o name"))
	alice(0, "cluster create web")
	alice(0, "host create -c web 192.0.2.10 "+key)

	require.Equal(t, "LABEL   VALUE\nenv     prod\nrack    a1\n", alice(0, "host labels set 192.0.2.10 env=prod rack=a1"))
	require.Equal(t, "192.0.2.10\n", alice(0, "host list -o name -l env=prod,rack!=b"))
	require.Empty(t, alice(0, "host list -o name -l env=test"))
	alice(exitUsage, "host list -o name -l env=(")
	require.Equal(t, "rack\n", alice(0, "host labels unset 192.0.2.10 env -o name"))
	alice(exitNotFound, "host labels get 192.0.2.99")
	require.Equal(t, "192.0.2.10\n", alice(0, "host bootstrap status 192.0.2.10 -o name"))
	bootstrap := strings.TrimSpace(alice(0, "operations list --kind bootstrap --host 192.0.2.10 -o name"))
	require.Contains(t, alice(0, "operations get "+bootstrap), "Host:          192.0.2.10\nState:         pending\n")

	require.Equal(t, "MEMBER            VALUE\nmax_unavailable   2\nreboot            always\n", alice(0, "cluster policy set web --max-unavailable 2 --reboot always"))
	require.Equal(t, "max_failures\nmax_unavailable\nreboot\n", alice(0, "cluster policy set web --max-failures 10% -o name"))
	require.Equal(t, "max_failures\n", alice(0, "cluster policy set web --replace --max-failures 1 -o name"))
	require.Contains(t, alice(0, "cluster restart start --dry-run web"), "Would begin restart of web: 1 hosts, at most 1 at once; 1 may fail\n")
	alice(0, "cluster policy delete web")
	require.Equal(t, "MEMBER   VALUE\n", alice(0, "cluster policy get web"))
	alice(exitNotFound, "cluster policy get none")

	id := strings.TrimSpace(alice(0, "cluster restart start --canary-selector rack=a1 --window 00:00-00:00 -o name web"))
	require.Equal(t, id+"\n", alice(0, "operations list --cluster web --kind restart -o name"))
	require.Equal(t, id+"\n", alice(0, "cluster restart start -o name web"), "it runs already")
	alice(exitConflict, "cluster upgrade start -o name web")
	require.Contains(t, alice(0, "operations pause "+id), "pending, paused")
	alice(0, "wait --for=paused "+id)
	alice(exitTimeout, "wait --timeout 200ms "+id)
	alice(exitUsage, "operations policy set --order name "+id)
	require.Equal(t, "192.0.2.10\n", alice(0, "operations hosts -o name "+id))
	require.Equal(t, "[]\n", alice(0, "operations steps -o json "+id))
	require.Empty(t, alice(0, "logs "+id))
	alice(0, "operations resume "+id)
	alice(exitConflict, "operations approve "+id)
	require.Equal(t, id+"\n", alice(0, "operations cancel --wait -o name "+id))
	alice(exitFailed, "wait "+id)
	watch := appFor(t, server.URL)
	told := run(watch, exitFailed, "operations watch "+id)
	for _, line := range []string{" restart of web: pending\n", " restart of web: paused by alice\n", " restart of web: resumed by alice\n", " restart of web: cancelled by alice\n", " 192.0.2.10: skipped", "restart of web: cancelled, 0/1 done, 1 skipped\n"} {
		require.Contains(t, told, line)
	}
	require.Contains(t, watch.errs.String(), "commctl operations retry "+id)
	require.Empty(t, alice(0, "logs -f "+id))
	alice(exitNotFound, "operations get 019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d")
	cancelled := appFor(t, server.URL)
	require.Equal(t, id+"\n", run(cancelled, 0, "operations get -o name web"), "the latest")
	require.Equal(t, "Operation "+id+": restart of web, cancelled\n", cancelled.errs.String())
	next := strings.TrimSpace(alice(0, "cluster upgrade start -o name web"))
	require.Equal(t, next+"\n", alice(0, "operations pause -o name web"))
	require.Equal(t, next+"\n", alice(0, "operations get -o name "+next[:32]), "which has digits of its own by then")
	require.Equal(t, id+"\n", alice(0, "operations get -o name "+strings.ToUpper(id[:32])))
	alice(0, "operations cancel "+next[:35])
	alice(exitConflict, "operations cancel web")
	alice(exitNotFound, "operations get none")
	alice(exitNotFound, "operations get 019af0c4")

	alice(0, "host trust --yes --key "+key+".pub 192.0.2.10")
	require.Contains(t, alice(0, "host get -o yaml 192.0.2.10"), "host_key_fingerprint: SHA256:")

	token := strings.TrimSpace(alice(0, "tokens create --role viewer --expires 1h laptop"))
	require.Regexp(t, `^cmst_`, token)
	laptop := func() *testApp {
		a := newTestApp(t)
		a.configure(t, map[string]any{"endpoint": server.URL, "token": token})
		return a
	}
	require.Regexp(t, `alice +viewer +apitoken`, run(laptop(), 0, "whoami"))
	refused := laptop()
	run(refused, exitForbidden, "operations cancel "+id)
	require.Contains(t, refused.errs.String(), "role operator")
	run(laptop(), exitForbidden, "audit")
	tokenID := regexp.MustCompile(`^cmst_([a-z0-9]{16})_`).FindStringSubmatch(token)[1]
	require.Equal(t, tokenID+"\n", alice(0, "tokens list -o name"))
	alice(0, "tokens revoke "+tokenID)
	run(laptop(), exitForbidden, "whoami")
	require.NotContains(t, alice(0, "tokens get -o json "+tokenID), strings.SplitN(token, "_", 3)[2])

	require.Regexp(t, `^cmsj_`, alice(0, "join-tokens create -c web"))
	join := strings.TrimSpace(alice(0, "join-tokens list -o name"))
	alice(0, "join-tokens revoke "+join)
	require.Regexp(t, join+` +revoked +web`, alice(0, "join-tokens list"))
	alice(exitConflict, "join-tokens create -c none")

	require.Regexp(t, `alice +admin +\S+ +createJoinToken +/api/v0/jointokens +409`, alice(0, "audit -n 1"))
	require.Len(t, strings.Split(alice(0, "audit --who alice --operation revokeToken -o name"), "\n"), 2)
}
