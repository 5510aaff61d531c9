package authn

import (
	"crypto/sha256"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, prefix := range []string{APITokenPrefix, JoinTokenPrefix} {
		for range 100 {
			id, text, digest := NewToken(prefix)
			require.Regexp(t, regexp.MustCompile(`^`+prefix+`_[a-z0-9]{16}_[A-Za-z0-9_-]{43}$`), string(text.Reveal()))
			require.False(t, seen[id])
			seen[id] = true
			gotPrefix, gotID, gotDigest, ok := ParseToken(string(text.Reveal()))
			require.True(t, ok)
			require.Equal(t, prefix, gotPrefix)
			require.Equal(t, id, gotID)
			require.Equal(t, digest, gotDigest)
			require.Equal(t, sha256.Sum256(text.Reveal()[len(prefix)+18:]), digest, "the digest is of the secret part")
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	t.Parallel()
	_, text, _ := NewToken(APITokenPrefix)
	good := string(text.Reveal())
	for name, bad := range map[string]string{
		"empty": "", "prefix": "cmst", "no secret": good[:21], "short": good[:len(good)-1], "long": good + "A",
		"other prefix": "cmsx" + good[4:], "capitals": "CMST" + good[4:], "id in capitals": "cmst_" + strings.ToUpper(good[5:21]) + good[21:],
		"space": good[:30] + " " + good[31:], "line": good[:30] + "\n" + good[31:], "line in the id": good[:10] + "\n" + good[11:],
		"other alphabet": good[:30] + "+" + good[31:], "space before": " " + good,
	} {
		prefix, id, digest, ok := ParseToken(bad)
		require.False(t, ok, name)
		require.Zero(t, prefix+id, name)
		require.Zero(t, digest, name)
	}
}

// Join tokens, and the forms in which tokens may come.
func TestTokenPrincipals(t *testing.T) {
	t.Parallel()
	_, tokens := openStore(t)
	a := NewAPIToken(tokens)
	expires := time.Now().Add(time.Hour)
	id, text, digest := NewToken(APITokenPrefix)
	_, err := tokens.CreateToken(t.Context(), fleet.Token{ID: id, Owner: "alice", Role: fleet.RoleViewer, Expires: expires}, digest)
	require.NoError(t, err)
	joinID, joinText, joinDigest := NewToken(JoinTokenPrefix)
	_, err = tokens.CreateJoinToken(t.Context(), fleet.JoinToken{ID: joinID, RemoteUser: "root", PublicKey: "ssh-ed25519 AAAA", Expires: expires}, joinDigest, secret.NewText([]byte("key")))
	require.NoError(t, err)

	alice := Principal{Name: "alice", Role: fleet.RoleViewer, TokenID: id}
	join := Principal{Name: "jointoken:" + joinID, Role: fleet.RoleJoin, TokenID: joinID}
	api, joining := string(text.Reveal()), string(joinText.Reveal())
	for name, test := range map[string]struct {
		shown show
		want  Principal // none when refused
	}{
		"bearer":                            {withBearer(api), alice},
		"password of any user":              {withBasic("whoever:" + api), alice},
		"join token":                        {withBearer(joining), join},
		"join token as a password":          {withBasic("whoever:" + joining), Principal{}},
		"join token as an API token":        {withBearer(APITokenPrefix + joining[4:]), Principal{}},
		"secret of another token":           {withBearer(api[:22] + joining[22:]), Principal{}},
		"in X-Auth-Token":                   {withAuthToken(api), Principal{}},
		"user of Basic instead of password": {withBasic(api + ":x"), Principal{}},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := a.Authenticate(t.Context(), test.shown(t))
			if test.want.Name == "" {
				require.ErrorIs(t, err, ErrDenied)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want.Name, who.Name)
			require.Equal(t, test.want.Role, who.Role)
			require.Equal(t, test.want.TokenID, who.TokenID)
			require.Empty(t, who.Operations)
		})
	}
	require.NoError(t, tokens.RevokeJoinToken(t.Context(), joinID))
	_, err = a.Authenticate(t.Context(), withBearer(joining)(t))
	require.ErrorIs(t, err, ErrDenied)
}

func FuzzParseToken(f *testing.F) {
	for _, prefix := range []string{APITokenPrefix, JoinTokenPrefix, "x"} {
		f.Add(prefix + "_abcdefghijklmnop_" + strings.Repeat("A", 43))
	}
	for _, seed := range []string{"", "_", "__", "cmst__", "cmst_abcdefghijklmnop_" + strings.Repeat("_", 43), "cmst_abcdefghijklmno1_" + strings.Repeat("A", 43)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		prefix, id, digest, ok := ParseToken(text)
		if !ok {
			if prefix != "" || id != "" || digest != [32]byte{} {
				t.Fatal("refused, but gave something")
			}
			return
		}
		if hidden := strings.TrimPrefix(text, prefix+"_"+id+"_"); len(hidden) != 43 || digest != sha256.Sum256([]byte(hidden)) || !looksLikeToken(text) {
			t.Fatalf("%q was taken apart wrong", text)
		}
	})
}

func FuzzParseBearer(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "bearer a", "BEARER a.b.c", "Bearer a b", "Bearer a=", "Bearer =", "Bearer a=b", "Bearer a\n", "Basic a", "Bearer \xff", "Bearer a\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, ok := ParseBearer(header)
		if !ok {
			if token != "" {
				t.Fatalf("refused, but gave %q", token)
			}
			return
		}
		if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) || len(token) > maxBearer {
			t.Fatalf("took %q, which cannot be sent on", token)
		}
		if again, ok := ParseBearer("Bearer " + token); !ok || again != token {
			t.Fatalf("%q does not survive a round trip", token)
		}
	})
}
