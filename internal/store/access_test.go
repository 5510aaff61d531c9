package store

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// token puts an API token on record whose secret is its id.
func (f *fixture) token(t *testing.T, id, owner string) fleet.Token {
	t.Helper()
	stored, err := f.CreateToken(t.Context(), fleet.Token{ID: id, Name: "ci", Owner: owner, Role: fleet.RoleOperator, Expires: time.Now().Add(time.Hour)}, digest(id))
	require.NoError(t, err)
	return stored
}

func digest(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

func TestTokens(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	stored, err := f.CreateToken(ctx, fleet.Token{
		ID: "first", Name: "ci", Owner: "ann", Role: fleet.RoleViewer, Operations: []string{"getHost"}, Expires: expires}, digest("s"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), stored.Created, time.Minute)
	require.Equal(t, fleet.Token{ID: "first", Name: "ci", Owner: "ann", Role: fleet.RoleViewer, Operations: []string{"getHost"}, Created: stored.Created, Expires: expires}, stored)
	f.token(t, "second", "bob")
	f.token(t, "third", "ann")

	ids := func(owner string) (out []string) {
		tokens, err := f.Tokens(ctx, owner)
		require.NoError(t, err)
		for _, token := range tokens {
			out = append(out, token.ID)
		}
		return out
	}
	require.Equal(t, []string{"third", "second", "first"}, ids(""))
	require.Equal(t, []string{"third", "first"}, ids("ann"))
	none, err := f.Tokens(ctx, "nobody")
	require.NoError(t, err)
	require.Equal(t, []fleet.Token{}, none)

	again, err := f.Token(ctx, "first")
	require.NoError(t, err)
	require.Equal(t, stored, again)
	_, err = f.Token(ctx, "nope")
	requireKind(t, fleet.NotFound, err)
	requireKind(t, fleet.NotFound, f.RevokeToken(ctx, "nope"))

	require.NoError(t, f.RevokeToken(ctx, "first"))
	revoked, err := f.Token(ctx, "first")
	require.NoError(t, err)
	require.False(t, revoked.Revoked.IsZero())
	require.NoError(t, f.RevokeToken(ctx, "first"))
	again, err = f.Token(ctx, "first")
	require.NoError(t, err)
	require.Equal(t, revoked, again, "the first time counts")

	f.exec(t, "INSERT INTO tenant (name) VALUES ('other')")
	_, err = f.db.For("other").Token(ctx, "second")
	requireKind(t, fleet.NotFound, err)
	_, err = f.db.For("other").VerifyToken(ctx, "second", digest("second"))
	requireKind(t, fleet.NotFound, err)
}

func TestVerifyToken(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	stored := f.token(t, "a", "ann")
	require.True(t, stored.LastUsed.IsZero())
	_, err := f.VerifyToken(ctx, "a", digest("wrong"))
	requireKind(t, fleet.NotFound, err)
	unused, err := f.Token(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, stored, unused, "a wrong secret is no use")

	got, err := f.VerifyToken(ctx, "a", digest("a"))
	require.NoError(t, err)
	require.Equal(t, got.LastUsed.Truncate(time.Minute), got.LastUsed)
	require.WithinDuration(t, time.Now(), got.LastUsed, 2*time.Minute)
	stored.LastUsed = got.LastUsed
	require.Equal(t, stored, got)

	_, err = f.VerifyToken(ctx, "nope", digest("a"))
	requireKind(t, fleet.NotFound, err)
	for name, change := range map[string]string{"expired": "expires = now()", "revoked": "revoked = now()"} {
		f.token(t, name, "ann")
		f.exec(t, "UPDATE api_token SET "+change+" WHERE id = $1", name)
		_, err = f.VerifyToken(ctx, name, digest(name))
		requireKind(t, fleet.NotFound, err)
	}
}

// TestTheUseOfATokenIsNotedOnceAMinute: else a busy script would write its row with
// each request. Two minutes may begin while the test runs.
func TestTheUseOfATokenIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.token(t, "a", "ann")
	f.exec(t, `CREATE TABLE noted (at timestamptz);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES (now()); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER UPDATE ON api_token FOR EACH ROW EXECUTE FUNCTION note()`)
	for _, err := range together(20, func(int) error {
		_, err := f.VerifyToken(t.Context(), "a", digest("a"))
		return err
	}) {
		require.NoError(t, err)
	}
	require.Equal(t, "true", f.scan(t, "SELECT (count(*) > 0 AND count(*) = count(DISTINCT date_trunc('minute', at)))::text FROM noted"))

	f.exec(t, "UPDATE api_token SET last_used = last_used - interval '2 minutes'")
	got, err := f.VerifyToken(t.Context(), "a", digest("a"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), got.LastUsed, 2*time.Minute)
}

func TestAudit(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	e := fleet.AuditEntry{Principal: "ann\x00\xff", Method: "httpbasicauth", Role: fleet.RoleAdmin, Address: "192.0.2.7",
		Operation: "putHost", Path: "/api/v0/host/a", RequestID: "r", Token: "k3v9q2m4x7c1b8n0"}
	id, err := f.BeginAudit(ctx, e)
	require.NoError(t, err, "also for names that no column holds")
	begun, next, err := f.Audit(ctx, AuditFilter{})
	require.NoError(t, err)
	require.Empty(t, next)
	e.Principal, e.At = "ann\uFFFD\uFFFD", begun[0].At
	require.Equal(t, []fleet.AuditEntry{e}, begun)
	require.WithinDuration(t, time.Now(), e.At, time.Minute)

	require.NoError(t, f.EndAudit(ctx, id, 201, "192.0.2.1"))
	requireKind(t, fleet.NotFound, f.EndAudit(ctx, id, 500, ""))
	requireKind(t, fleet.NotFound, f.EndAudit(ctx, id+1, 500, ""))
	ended, _, err := f.Audit(ctx, AuditFilter{Operation: "putHost"})
	require.NoError(t, err)
	e.Status, e.Subject = 201, "192.0.2.1"
	require.Equal(t, []fleet.AuditEntry{e}, ended)

	for i := range 6 {
		_, err := f.BeginAudit(ctx, fleet.AuditEntry{Principal: fmt.Sprint("u", i%2), Operation: fmt.Sprint("o", i%3), Path: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	paths := func(filter AuditFilter) (out []string) {
		filter.Limit = 2
		for {
			entries, next, err := f.Audit(ctx, filter)
			require.NoError(t, err)
			require.LessOrEqual(t, len(entries), 2)
			for _, e := range entries {
				out = append(out, e.Path)
			}
			if filter.Cursor = next; next == "" {
				return out
			}
		}
	}
	require.Equal(t, []string{"5", "4", "3", "2", "1", "0", "/api/v0/host/a"}, paths(AuditFilter{}))
	require.Equal(t, []string{"5", "3", "1"}, paths(AuditFilter{Principal: "u1"}))
	require.Equal(t, []string{"4", "1"}, paths(AuditFilter{Operation: "o1"}))
	require.Equal(t, []string{"1"}, paths(AuditFilter{Principal: "u1", Operation: "o1"}))
	entries, _, err := f.db.For("other").Audit(ctx, AuditFilter{})
	require.NoError(t, err)
	require.Equal(t, []fleet.AuditEntry{}, entries)
	for _, cursor := range []string{"x", "-1", "9223372036854775808"} {
		_, _, err = f.Audit(ctx, AuditFilter{Cursor: cursor})
		requireKind(t, fleet.Invalid, err)
	}
}
