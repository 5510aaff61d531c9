package store

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

func TestPutHostNew(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.host(t, "first", "c")
	h, op, err := f.PutHost(ctx, HostPut{Address: "192.0.2.1", Port: 2222, Cluster: "c", Creds: creds("key"), RequestedBy: "ann", RequestID: "r1"})
	require.NoError(t, err)
	require.NotNil(t, op)
	require.Equal(t, fleet.KindBootstrap, op.Kind)
	require.Equal(t, fleet.OperationPending, op.State)
	require.Equal(t, "192.0.2.1", op.Host)
	require.Equal(t, []string{"ann", "r1", ""}, []string{op.RequestedBy, op.RequestID, op.Cluster})

	stored, err := f.Host(ctx, "192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, h, stored)
	require.Equal(t, 2222, h.Port)
	require.Equal(t, "c", h.Cluster)
	require.Equal(t, fleet.HostInvestigating, h.State)
	require.Equal(t, op.ID, h.OperationID)
	require.WithinDuration(t, time.Now(), h.StateSince, time.Minute)
	require.Equal(t, time.UTC, h.Created.Location())
	require.True(t, h.LastCheck.IsZero() && h.Bootstrapped.IsZero())
	require.Nil(t, h.HostKey)
	require.Equal(t, []string{"first", "192.0.2.1"}, f.members(t, "c"))

	c, err := f.HostCreds(ctx, "192.0.2.1")
	require.NoError(t, err)
	require.Equal(t, "root", c.RemoteUser)
	require.Equal(t, "key", string(c.PrivateKey.Reveal()))

	runs, err := f.HostRuns(ctx, op.ID)
	require.NoError(t, err)
	require.Equal(t, []fleet.HostRun{{OperationID: op.ID, Address: "192.0.2.1", State: fleet.HostRunPending}}, runs)

	hosts, err := f.Hosts(ctx)
	require.NoError(t, err)
	require.Len(t, hosts, 2)
	require.Equal(t, h, hosts[0])

	h, _, err = f.PutHost(ctx, HostPut{Address: "plain", Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, 22, h.Port)
	require.Empty(t, h.Cluster)
}

// TestPutHostAgain is the decision table of the contract, §3.4.
func TestPutHostAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	f.cluster(t, "other")
	f.newHost(t, "h", "c")
	before, err := f.Host(ctx, "h")
	require.NoError(t, err)
	for _, c := range []struct {
		name, key, cluster string
		kind               fleet.Kind
	}{
		{"same key, no cluster", "key", "", ""},
		{"same key, its cluster", "key", "c", ""},
		{"same key, other existing cluster", "key", "other", fleet.Conflict},
		{"same key, unknown cluster", "key", "nope", fleet.Conflict},
		{"other key", "other", "", fleet.Conflict},
		{"no key", "", "c", fleet.Conflict},
	} {
		h, op, err := f.PutHost(ctx, HostPut{Address: "h", Cluster: c.cluster, Creds: secret.HostCreds{RemoteUser: "else", PrivateKey: secret.NewText([]byte(c.key))}})
		require.Nil(t, op, c.name)
		if c.kind != "" {
			requireKind(t, c.kind, err)
			if c.key != "key" {
				require.ErrorContains(t, err, "PUT /api/v0/host/h/creds (commctl host creds set)")
			}
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, before, h, c.name)
	}
	after, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, before, after)

	_, _, err = f.PutHost(ctx, HostPut{Address: "new", Cluster: "nope", Creds: creds("key")})
	requireKind(t, fleet.Conflict, err)
	_, err = f.Host(ctx, "new")
	requireKind(t, fleet.NotFound, err)
	require.Equal(t, "1", f.scan(t, "SELECT count(*)::text FROM operation"), "a refusal leaves nothing behind")
}

// TestPutHostPort: a wrong port can be mended, and by nobody without the key.
func TestPutHostPort(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.newHost(t, "h", "")
	before, err := f.Host(ctx, "h")
	require.NoError(t, err)
	_, _, err = f.PutHost(ctx, HostPut{Address: "h", Port: 2222, Creds: creds("other")})
	requireKind(t, fleet.Conflict, err)
	after, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, before, after, "a refusal changes nothing")

	want := before
	want.Port = 2222
	for _, port := range []int{2222, 2222, 0} {
		h, op, err := f.PutHost(ctx, HostPut{Address: "h", Port: port, Creds: creds("key")})
		require.NoError(t, err)
		require.Nil(t, op)
		require.Equal(t, want, h)
		h, err = f.Host(ctx, "h")
		require.NoError(t, err)
		require.Equal(t, want, h, "stored")
	}
	h, _, err := f.PutHost(ctx, HostPut{Address: "h", Port: 22, Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, before, h)
}

// TestPutHostPinsKey: a host key that is known beforehand holds from the first
// contact on.
func TestPutHostPinsKey(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	right, other := publicKey(t), publicKey(t)
	_, _, err := f.PutHost(ctx, HostPut{Address: "h", HostKey: "ssh-ed25519 AAAA", Creds: creds("key")})
	requireKind(t, fleet.Invalid, err)
	require.Contains(t, err.Error(), "host_key")
	_, err = f.Host(ctx, "h")
	requireKind(t, fleet.NotFound, err)

	h, op, err := f.PutHost(ctx, HostPut{Address: "h", HostKey: right + " comment", Creds: creds("key")})
	require.NoError(t, err)
	require.Equal(t, right, h.HostKey.Key)
	require.WithinDuration(t, time.Now(), h.HostKey.Pinned, time.Minute)
	pinned, err := f.PinFirstHostKey(ctx, op.ID, "h", other)
	require.NoError(t, err)
	require.Equal(t, right, pinned, "the bootstrap sees the key that was given")

	for _, key := range []string{right, right + " again", ""} {
		again, op, err := f.PutHost(ctx, HostPut{Address: "h", HostKey: key, Creds: creds("key")})
		require.NoError(t, err)
		require.Nil(t, op)
		require.Equal(t, h, again)
	}
	_, _, err = f.PutHost(ctx, HostPut{Address: "h", HostKey: other, Port: 2222, Creds: creds("key")})
	requireKind(t, fleet.Conflict, err)
	after, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, h, after)

	f.newHost(t, "unseen", "")
	_, _, err = f.PutHost(ctx, HostPut{Address: "unseen", HostKey: right, Creds: creds("key")})
	requireKind(t, fleet.Conflict, err)
}

func TestConcurrentPutHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cluster(t, "c")
	type result struct {
		op  *fleet.Operation
		err error
	}
	results := together(30, func(i int) result {
		key := "key"
		if i%3 == 0 {
			key = "other"
		}
		_, op, err := f.PutHost(t.Context(), HostPut{Address: "h", Cluster: "c", Creds: creds(key)})
		return result{op, err}
	})
	created, refused := 0, 0
	for _, r := range results {
		switch {
		case r.err != nil:
			requireKind(t, fleet.Conflict, r.err)
			refused++
		case r.op != nil:
			created++
		}
	}
	require.Equal(t, 1, created)
	require.Contains(t, []int{10, 20}, refused, "all with the key that came second")
	require.Equal(t, "1 1 1", f.scan(t, `SELECT concat_ws(' ', (SELECT count(*) FROM host), (SELECT count(*) FROM operation), (SELECT count(*) FROM host_creds))`))
}

func TestDeleteHost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	_, err := f.DeleteHost(ctx, "h", "ann")
	requireKind(t, fleet.NotFound, err)

	op := f.newHost(t, "h", "c")
	_, err = f.BeginHostRun(ctx, op.ID, "h")
	require.NoError(t, err)
	step, err := f.BeginStep(ctx, op.ID, "h", "investigate", 1)
	require.NoError(t, err)
	cancelled, err := f.DeleteHost(ctx, "h", "ann")
	require.NoError(t, err)
	require.Len(t, cancelled, 1)
	require.Equal(t, op.ID, cancelled[0].ID)
	require.Equal(t, fleet.OperationCancelled, cancelled[0].State)
	require.Equal(t, "host removed by ann", cancelled[0].Reason)
	require.Empty(t, f.members(t, "c"))
	_, err = f.HostCreds(ctx, "h")
	requireKind(t, fleet.NotFound, err)

	// What the worker still tries comes too late, and brings no host back.
	_, err = f.BeginStep(ctx, op.ID, "h", "prepare", 1)
	requireKind(t, fleet.Conflict, err)
	_, err = f.AppendOutput(ctx, step.ID, 0, []byte("x"))
	requireKind(t, fleet.Conflict, err)
	requireKind(t, fleet.Conflict, f.RecordFacts(ctx, op.ID, "h", fleet.Facts{}))
	stands, err := f.EndStep(ctx, StepEnd{StepID: step.ID, State: fleet.StepSucceeded})
	require.NoError(t, err)
	require.Equal(t, fleet.StepIndeterminate, stands.State, "the caller learns how the record has it")
	require.NoError(t, f.endRun(ctx, op.ID, "h", fleet.HostRunFailed, "x", fleet.HostBroke))
	_, err = f.Host(ctx, "h")
	requireKind(t, fleet.NotFound, err)
	steps, err := f.Steps(ctx, op.ID, "")
	require.NoError(t, err)
	require.Equal(t, fleet.StepIndeterminate, steps[0].State)

	again := f.newHost(t, "h", "")
	require.NotEqual(t, op.ID, again.ID, "created afresh")
	_, err = f.BeginHostRun(ctx, again.ID, "h")
	require.NoError(t, err)

	f.host(t, "idle", "")
	cancelled, err = f.DeleteHost(ctx, "idle", "")
	require.NoError(t, err)
	require.Empty(t, cancelled)
}

func TestConcurrentDeleteAndStart(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for range 5 {
		f.host(t, "h", "")
		errs := together(8, func(i int) error {
			if i == 4 {
				_, err := f.DeleteHost(t.Context(), "h", "ann")
				return err
			}
			_, _, err := f.StartOperation(t.Context(), NewOperation{Kind: fleet.KindBootstrap, Host: "h"})
			return err
		})
		for i, err := range errs {
			if i == 4 {
				require.NoError(t, err)
			} else if err != nil {
				requireKind(t, fleet.NotFound, err)
			}
		}
		require.Equal(t, "0", f.scan(t, "SELECT count(*)::text FROM operation WHERE finished IS NULL"))
	}
}

func TestHostCreds(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.newHost(t, "a", "")
	f.newHost(t, "b", "")
	require.Equal(t, "0", f.scan(t, `SELECT count(*)::text FROM host_creds WHERE position('key'::bytea IN sealed) > 0`))

	requireKind(t, fleet.NotFound, f.PutHostCreds(ctx, "nope", creds("x")))
	require.NoError(t, f.PutHostCreds(ctx, "a", secret.HostCreds{RemoteUser: "core", PrivateKey: secret.NewText([]byte("new"))}))
	c, err := f.HostCreds(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "core", c.RemoteUser)
	require.Equal(t, "new", string(c.PrivateKey.Reveal()))

	f.exec(t, "UPDATE host_creds SET sealed = (SELECT sealed FROM host_creds WHERE address = 'a') WHERE address = 'b'")
	_, err = f.HostCreds(ctx, "b")
	require.ErrorContains(t, err, "moved from another row")
	require.Empty(t, fleet.KindOf(err), "not for users")
}

func TestReseal(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	dir := t.TempDir() + "/seal.key"
	require.NoError(t, secret.CreateKeyFile(dir))
	old, err := secret.OpenKeyFile(dir)
	require.NoError(t, err)
	f.db.sealer = old
	for _, a := range []string{"a", "b", "c"} {
		f.newHost(t, a, "")
	}
	manager := fleet.ContainerManager{Name: "m", Type: fleet.ContainerManagerKubernetes, Options: map[string]any{"token": "x"}}
	_, err = f.PutContainerManager(ctx, manager)
	require.NoError(t, err)
	for _, token := range []string{"open", "used", "revoked"} {
		f.joinToken(t, token, "")
	}
	_, _, err = f.JoinHost(ctx, HostJoin{TokenID: "used", Address: "joined", HostKey: publicKey(t)})
	require.NoError(t, err)
	require.NoError(t, f.RevokeJoinToken(ctx, "revoked"))
	id, err := secret.AddKey(dir)
	require.NoError(t, err)
	require.NoError(t, secret.UseKey(dir, id))
	f.db.sealer, err = secret.OpenKeyFile(dir)
	require.NoError(t, err)
	f.newHost(t, "d", "")
	inUse, err := f.db.KeysInUse(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []uint32{old.PrimaryKeyID(), id}, inUse)

	n, err := f.db.Reseal(ctx)
	require.NoError(t, err)
	require.Equal(t, 6, n, "four hosts, a container manager, a join token")
	n, err = f.db.Reseal(ctx)
	require.NoError(t, err)
	require.Zero(t, n)
	inUse, err = f.db.KeysInUse(ctx)
	require.NoError(t, err)
	require.Equal(t, []uint32{id}, inUse)
	require.NoError(t, secret.DropKey(dir, old.PrimaryKeyID()))
	f.db.sealer, err = secret.OpenKeyFile(dir)
	require.NoError(t, err)
	c, err := f.HostCreds(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "key", string(c.PrivateKey.Reveal()))
	_, err = f.PutContainerManager(ctx, manager)
	require.NoError(t, err, "it is read to be compared")
	_, _, err = f.JoinHost(ctx, HostJoin{TokenID: "open", Address: "late", HostKey: publicKey(t)})
	require.NoError(t, err)
	c, err = f.HostCreds(ctx, "late")
	require.NoError(t, err)
	require.Equal(t, "private open", string(c.PrivateKey.Reveal()))
}

func publicKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestHostKeys(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	op := f.newHost(t, "h", "")
	keys := []string{publicKey(t), publicKey(t), publicKey(t), publicKey(t)}

	pinned := together(4, func(i int) string {
		k, err := f.PinFirstHostKey(ctx, op.ID, "h", keys[i])
		if err != nil {
			return err.Error()
		}
		return k
	})
	for _, k := range pinned {
		require.Equal(t, pinned[0], k, "all see the first")
	}
	require.Contains(t, keys, pinned[0])

	accepted, err := f.AcceptHostKey(ctx, "h", keys[1]+" a comment\n")
	require.NoError(t, err)
	require.Equal(t, keys[1], accepted.Key)
	require.True(t, strings.HasPrefix(accepted.Fingerprint, "SHA256:"))
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Equal(t, &accepted, h.HostKey)
	k, err := f.PinFirstHostKey(ctx, op.ID, "h", keys[2])
	require.NoError(t, err)
	require.Equal(t, keys[1], k)

	_, err = f.AcceptHostKey(ctx, "h", "junk")
	requireKind(t, fleet.Invalid, err)
	_, err = f.AcceptHostKey(ctx, "nope", keys[0])
	requireKind(t, fleet.NotFound, err)
	_, err = f.PinFirstHostKey(ctx, op.ID, "nope", keys[0])
	requireKind(t, fleet.NotFound, err)
}

// TestNoKeyOfAMachineThatIsGone: a worker that was thought dead reaches the old
// machine after its host was removed and added again.
func TestNoKeyOfAMachineThatIsGone(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	f.cluster(t, "c")
	old := f.newHost(t, "h", "c")
	restart := f.start(t, fleet.KindRestart, "c", "")
	_, err := f.DeleteHost(ctx, "h", "ann")
	require.NoError(t, err)
	f.newHost(t, "h", "c")

	_, err = f.PinFirstHostKey(ctx, old.ID, "h", publicKey(t))
	requireKind(t, fleet.Conflict, err)
	_, err = f.PinFirstHostKey(ctx, restart.ID, "h", publicKey(t))
	requireKind(t, fleet.NotFound, err)
	_, err = f.PinFirstHostKey(ctx, "junk", "h", publicKey(t))
	requireKind(t, fleet.NotFound, err)
	h, err := f.Host(ctx, "h")
	require.NoError(t, err)
	require.Nil(t, h.HostKey)
}
