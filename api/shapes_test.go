package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/hostos"
	"commissaire/internal/store"
)

var (
	anyID     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyTime   = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}`)
	anyCursor = regexp.MustCompile(`(?m)^id: [0-9]+-[0-9]+$`)
)

// shape compares an answer with a file, but for what no two runs have in common.
func shape(t *testing.T, name, body string) {
	t.Helper()
	if strings.HasSuffix(name, ".json") {
		var pretty bytes.Buffer
		require.NoError(t, json.Indent(&pretty, []byte(body), "", "  "))
		body = strings.TrimSpace(pretty.String()) + "\n"
	}
	names := map[string]string{}
	body = anyID.ReplaceAllStringFunc(body, func(id string) string {
		if names[id] == "" {
			names[id] = fmt.Sprintf("ID-%d", len(names)+1)
		}
		return names[id]
	})
	body = anyTime.ReplaceAllString(body, "TIME")
	golden(t, "shapes/"+name, []byte(anyCursor.ReplaceAllString(body, "id: CURSOR")))
}

// TestShapesOfARollout goes through one and looks at everything that is shown of it.
func TestShapesOfARollout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.cluster(t, "web", "192.0.2.10")
	b.addHost(t, "192.0.2.11", "web")
	b.v0(t, "PUT /host/192.0.2.10/labels", `{"env":"prod"}`, 201, "")
	policy := `{"policy":{"canary":{"hosts":1,"then":"approve"},"max_unavailable":"50%","min_ready":30}}`
	shape(t, "plan.json", b.v0(t, "PUT /cluster/web/restart?dry_run=true", policy, 200, "").body)
	b.endBootstrap(t, "192.0.2.11", fleet.HostRunSucceeded) // until then it uses up max_unavailable

	b.v0(t, "PUT /cluster/web/restart", policy, 201, "")
	op := b.lastStarted()
	b.claim(t, op.ID, 1)
	s, err := b.store.BeginStep(ctx, op.ID, "192.0.2.10", "check", 1)
	require.NoError(t, err)
	b.print(t, s, 0, "<ok> & \x1b[1mdone\n")
	code := 0
	_, err = b.store.EndStep(ctx, store.StepEnd{StepID: s.ID, State: fleet.StepSucceeded, ExitCode: &code, OutputSize: 16})
	require.NoError(t, err)
	b.v0(t, "POST /operations/"+op.ID+"/pause", "", 200, "")
	shape(t, "operation-paused.json", b.v0(t, "GET /operations/"+op.ID, "", 200, "").body)
	shape(t, "hosts.json", b.v0(t, "GET /operations/"+op.ID+"/hosts?limit=1", "", 200, "").body)
	shape(t, "steps.json", b.v0(t, "GET /operations/"+op.ID+"/steps", "", 200, "").body)
	b.v0(t, "POST /operations/"+op.ID+"/resume", "", 200, "")
	b.endHostRun(t, store.HostRunEnd{OperationID: op.ID, Address: "192.0.2.10", State: fleet.HostRunFailed, Reason: "did not come back", Event: fleet.HostBroke, Down: true})
	require.NoError(t, b.store.EndOperation(ctx, op.ID, fleet.OperationFailed, "a canary failed"))
	shape(t, "operation-failed.json", b.v0(t, "GET /operations/"+op.ID, "", 200, "").body)

	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/api/v0/operations/"+op.ID+"/events", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", b.creds)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	shape(t, "events.txt", string(text))
	shape(t, "retry.json", b.v0(t, "POST /operations/"+op.ID+"/retry", "", 201, "").body)
	shape(t, "host.json", b.v0(t, "GET /host/192.0.2.10", "", 200, "").body)
}

// TestPlanHasTheCommandsOfTheSteps, as the policy has them run.
func TestPlanHasTheCommandsOfTheSteps(t *testing.T) {
	t.Parallel()
	steps := func(kind fleet.OperationKind, p fleet.Policy, h fleet.Host) (names []string) {
		plan := planHost(fleet.Operation{Kind: kind, Version: "44", Policy: p}, store.PreviewHost{Host: h})
		require.Empty(t, plan.Blocks)
		for _, s := range plan.Steps {
			names = append(names, strings.TrimSpace(fmt.Sprintf("%s %d %s", s.Name, len(s.Commands), s.Condition)))
		}
		return names
	}
	reboot := func(r fleet.RebootPolicy) fleet.Policy { return fleet.Policy{Reboot: &r} }
	fedora, atomic := fleet.Host{OS: "fedora", PackageManager: "dnf"}, fleet.Host{OS: "fedora", OSTree: true}
	const wait = "wait 0 after a reboot, until the host answers with another boot id"
	needed := "reboot 1 if the host says that it is needed"
	require.Equal(t, []string{"check 1", "upgrade 1", "verify-packages 1", "reboot-needed 1", needed, wait, "verify 1"}, steps(fleet.KindUpgrade, fleet.Policy{}, fedora))
	require.Equal(t, []string{"check 1", "upgrade 1", "verify-packages 1", "reboot-needed 1", "reboot 1", wait, "verify 1"}, steps(fleet.KindUpgrade, reboot(fleet.RebootAlways), fedora))
	require.Equal(t, []string{"check 0", "upgrade 1", "verify-packages 1", "reboot-needed 1", "verify 1"}, steps(fleet.KindUpgrade, reboot(fleet.RebootNever), fedora))
	require.Equal(t, []string{"check 1", "stage 2", "reboot-needed 1", needed, wait, "verify 1"}, steps(fleet.KindDeploy, fleet.Policy{}, atomic))
	restart := []string{"check 1", "reboot 1", wait, "verify 1"}
	require.Equal(t, restart, steps(fleet.KindRestart, reboot(fleet.RebootNever), fedora), "what a restart is for")
	require.Equal(t, restart, steps(fleet.KindRestart, fleet.Policy{}, fleet.Host{OS: "plan9"}), "the same everywhere")
	require.Contains(t, planHost(fleet.Operation{Kind: fleet.KindUpgrade}, store.PreviewHost{Host: fleet.Host{OS: "plan9"}}).Blocks, "plan9")

	family, err := hostos.FamilyOf("fedora", false, false, "dnf")
	require.NoError(t, err)
	plan := planHost(fleet.Operation{Kind: fleet.KindUpgrade}, store.PreviewHost{Host: fedora})
	require.Equal(t, [][]string{family.Upgrade()}, plan.Steps[1].Commands)
}
